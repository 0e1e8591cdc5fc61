"""A few threads of a process that share one piece of work; libraries release the interpreter while they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

Item = TypeVar("Item")


class Team:
    """At most `threads` threads, the caller's among them; none is started before it is needed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @cached_property
    def _helpers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads - 1, thread_name_prefix="kernels")

    def share(self, work: Callable[[Sequence[Item]], None], items: Sequence[Item]) -> None:
        """Call `work` with the items, dealt out so that each thread always has the same ones."""
        shares = [items[start :: self.threads] for start in range(min(self.threads, len(items)))]
        running = [self._helpers.submit(work, share) for share in shares[1:]]
        try:
            if shares:
                work(shares[0])
        finally:
            for helper in running:
                helper.result()

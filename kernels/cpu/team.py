"""A few threads of a process that share one piece of work; libraries release the interpreter while they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, reduce
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from kernels.contract import Complex

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Item = TypeVar("Item")


class Team:
    """At most `threads` threads, the caller's among them; none is started before it is needed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @cached_property
    def _helpers(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor  # a few milliseconds, which one thread need not wait for

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

    def total(self, part: Callable[[Sequence[int]], Complex], count: int) -> Complex:
        """The sum of what `part` makes of the numbers 0 … count − 1, dealt out; always added in the same order."""
        parts: dict[int, Complex] = {}

        def some(numbers: Sequence[int]) -> None:
            parts[numbers[0]] = part(numbers)

        self.share(some, range(count))
        return reduce(np.add, [parts[first] for first in sorted(parts)])

"""Bounded, thread-safe stores of what is expensive to make: any value by its key, plans by their content."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.contract import BudgetError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a cache did so far, and what it holds."""

    hits: int
    misses: int
    kept: int
    bytes: int


class Cache:
    """Keeps the values used last, up to `limit_bytes` in all; whoever makes a value says its size."""

    def __init__(self, limit_bytes: int = 512 << 20) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()  # oldest use first
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable, make: Callable[[], T], *, size: Callable[[T], int]) -> T:
        """The value of `key`, made if it is not there; `size` says how many bytes a value holds.

        Two threads that miss the same key at the same time both make it; one of the equal values is kept.
        """
        with self._lock:
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                kept: T = self._kept[key][0]
                return kept
            self.misses += 1
        value = make()
        self._keep(key, value, size(value))
        return value

    def _keep(self, key: Hashable, value: object, size_bytes: int) -> None:
        with self._lock:
            self.bytes += size_bytes - self._kept.pop(key, (None, 0))[1]
            self._kept[key] = (value, size_bytes)
            while self.bytes > self.limit_bytes:
                _, (_, dropped) = self._kept.popitem(last=False)
                self.bytes -= dropped

    def statistics(self) -> Statistics:
        """Hits and misses so far, values and bytes held now."""
        with self._lock:
            return Statistics(self.hits, self.misses, len(self._kept), self.bytes)

    def __len__(self) -> int:
        return len(self._kept)


class Plans:
    """One device's NUFFT plans: two trajectories of equal content share one, and together they fit a budget.

    `limit_bytes` is what is kept, `largest_bytes` what one plan may need while it is used.
    """

    def __init__(self, limit_bytes: int = 512 << 20, *, largest_bytes: int = 8 << 30) -> None:
        self._cache = Cache(limit_bytes)
        self._largest_bytes = largest_bytes

    def get(self, key: Hashable, make: Callable[[], T], *, size_bytes: int) -> T:
        """The plan of `key` (see `content_key`), made where there is none; it holds `size_bytes`.

        Raises BudgetError where that is more than one plan may need, before anything is made.
        """
        if size_bytes > self._largest_bytes:
            raise BudgetError(
                f"the plan needs {size_bytes / 1e6:.1f} MB, its budget is {self._largest_bytes / 1e6:.1f} MB:"
                " raise the budget or use fewer points or voxels"
            )
        return self._cache.get(key, make, size=lambda _: size_bytes)

    def statistics(self) -> Statistics:
        """Hits and misses so far, plans and bytes held now."""
        return self._cache.statistics()


def content_key(*arrays: NDArray[Any]) -> str:
    """A hash of what the arrays hold, of their shapes and types; not of where they lie."""
    digest = hashlib.blake2b(digest_size=20)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

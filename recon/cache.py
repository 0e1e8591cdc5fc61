"""A bounded, thread-safe store of what is expensive to make and depends only on its key: plans, whitening."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Cache:
    """Keeps the values used last, up to `limit_bytes` in all; whoever makes a value says its size."""

    def __init__(self, limit_bytes: int = 512 << 20) -> None:
        self._limit_bytes = limit_bytes
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
            while self.bytes > self._limit_bytes:
                _, (_, dropped) = self._kept.popitem(last=False)
                self.bytes -= dropped

    def __len__(self) -> int:
        return len(self._kept)

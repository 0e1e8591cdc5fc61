"""Frames that wait, most urgent first, in groups of equal key; every operation costs O(log n)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Order = tuple[float, ...]


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """One item in the queue; `there` turns False when it is taken or dropped."""

    order: Order
    key: Hashable
    item: T
    there: bool = True

    def __lt__(self, other: Waiting[T]) -> bool:
        return self.order < other.order


@dataclass(slots=True)
class _Heap(Generic[T]):
    """A heap whose dropped entries stay until they surface, or outnumber the others."""

    entries: list[Waiting[T]] = field(default_factory=list)
    live: int = 0

    def push(self, entry: Waiting[T]) -> None:
        heapq.heappush(self.entries, entry)
        self.live += 1

    def dropped(self) -> None:
        self.live -= 1
        if len(self.entries) > 2 * self.live + 64:
            self.entries = [entry for entry in self.entries if entry.there]
            heapq.heapify(self.entries)

    def first(self) -> Waiting[T] | None:
        while self.entries and not self.entries[0].there:
            heapq.heappop(self.entries)
        return self.entries[0] if self.entries else None


class WaitingQueue(Generic[T]):
    """Items by urgency (`order`, smallest first) and by key."""

    def __init__(self) -> None:
        self._all: _Heap[T] = _Heap()
        self._groups: dict[Hashable, _Heap[T]] = {}

    def __len__(self) -> int:
        return self._all.live

    def push(self, item: T, *, order: Order, key: Hashable) -> Waiting[T]:
        """Add an item; the entry returned is what `drop` takes."""
        entry = Waiting(order, key, item)
        self._all.push(entry)
        self._groups.setdefault(key, _Heap()).push(entry)
        return entry

    def drop(self, entry: Waiting[T]) -> None:
        """Take an entry out, wherever it stands."""
        if entry.there:
            entry.there = False
            self._all.dropped()
            group = self._groups[entry.key]
            group.dropped()
            if not group.live:
                del self._groups[entry.key]

    def first(self) -> Waiting[T] | None:
        """The most urgent entry."""
        return self._all.first()

    def alike(self, key: Hashable) -> int:
        """How many entries have this key."""
        group = self._groups.get(key)
        return group.live if group else 0

    def take(self, key: Hashable, more: Callable[[T], bool]) -> Iterator[T]:
        """Take items of `key` out, most urgent first, as long as `more` wants the next."""
        while (group := self._groups.get(key)) and (entry := group.first()) and more(entry.item):
            self.drop(entry)
            yield entry.item

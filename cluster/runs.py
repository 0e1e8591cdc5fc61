"""Where in a spool file each readout lies: a table of runs, and extents for any set of readouts."""

from __future__ import annotations

from array import array
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from cluster.events import Extent

Numbers = NDArray[np.int64]


class RunTable:
    """Runs of equal-sized acquisition messages, in the order of the stream; readouts are numbered from 0."""

    def __init__(self) -> None:
        self.readouts = 0
        self._first = array("q")  # number of the first readout of each run
        self._offset = array("q")
        self._stride = array("q")

    def __len__(self) -> int:
        return len(self._first)

    def add(self, offset: int, *, stride: int, count: int) -> None:
        """`count` further messages from byte `offset` on, `stride` bytes each."""
        if not self._continues(offset, stride):
            self._first.append(self.readouts)
            self._offset.append(offset)
            self._stride.append(stride)
        self.readouts += count

    def extents(self, rows: Numbers) -> tuple[Extent, ...]:
        """Extents of the readouts `rows` (ascending); as few as their regularity allows."""
        if not len(rows):
            return ()
        first, last = int(rows[0]), int(rows[-1])
        run = bisect_right(self._first, first) - 1
        if last - first + 1 == len(rows) and (run + 1 == len(self._first) or last < self._first[run + 1]):
            offset = self._offset[run] + (first - self._first[run]) * self._stride[run]
            return (Extent(offset, self._stride[run], len(rows)),)
        return self._scattered(rows)

    def _continues(self, offset: int, stride: int) -> bool:
        if not self._first or self._stride[-1] != stride:
            return False
        return offset == self._offset[-1] + (self.readouts - self._first[-1]) * stride

    def _scattered(self, rows: Numbers) -> tuple[Extent, ...]:
        first, offset, stride = (np.array(column) for column in (self._first, self._offset, self._stride))
        run = np.searchsorted(first, rows, side="right") - 1
        places = offset[run] + (rows - first[run]) * stride[run]
        steps = np.diff(places)
        steps[np.diff(run) != 0] = 0  # never one extent over two runs: something else lies between
        return tuple(_regular(places, steps, sizes=stride[run]))


def _regular(places: Numbers, steps: Numbers, *, sizes: Numbers) -> list[Extent]:
    """Cut `places` greedily into stretches of one step; a step of 0 separates."""
    extents: list[Extent] = []
    changes = [*(np.flatnonzero(steps[1:] != steps[:-1]) + 1).tolist(), len(steps)]
    start, change = 0, 0
    while start < len(places):
        while change < len(changes) - 1 and changes[change] <= start:
            change += 1
        step = int(steps[start]) if start < len(steps) else 0
        count = changes[change] - start + 1 if step else 1
        extents.append(Extent(int(places[start]), step or int(sizes[start]), count))
        start += count
    return extents

"""Extents of readouts: exactly their bytes, as few as their regularity allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.events import Extent
from cluster.runs import RunTable

RUNS = st.lists(st.tuples(st.integers(0, 50), st.sampled_from([10, 30]), st.integers(1, 12)), min_size=1, max_size=8)


def table(runs: list[tuple[int, int, int]]) -> tuple[RunTable, list[tuple[int, int]]]:
    """A table of runs (gap before, size, count), and the (offset, size) of every readout."""
    made, places, offset = RunTable(), [], 0
    for gap, size, count in runs:
        offset += gap
        made.add(offset, stride=size, count=count)
        places += [(offset + size * number, size) for number in range(count)]
        offset += size * count
    return made, places


@given(RUNS, st.data())
def test_extents_name_exactly_the_readouts(runs: list[tuple[int, int, int]], data: st.DataObject) -> None:
    made, places = table(runs)
    rows = sorted(data.draw(st.sets(st.integers(0, len(places) - 1), min_size=1)))
    extents = made.extents(np.array(rows))
    assert [extent.offset + number * extent.stride for extent in extents for number in range(extent.count)] == [
        places[row][0] for row in rows
    ]
    starts = dict(places)
    for extent in extents:  # what lies between the readouts of one extent is of the same size, without a gap
        size = starts[extent.offset]
        assert extent.stride % size == 0
        between = range(extent.offset, extent.offset + extent.stride * (extent.count - 1) + 1, size)
        assert all(starts.get(place) == size for place in between)


@pytest.mark.parametrize(
    ("runs", "rows", "expected"),
    [
        ([(5, 10, 4), (0, 10, 4)], range(8), (Extent(5, 10, 8),)),  # two chunks of one run
        ([(5, 10, 4), (7, 10, 4)], range(8), (Extent(5, 10, 4), Extent(52, 10, 4))),  # a waveform between
        ([(0, 10, 40)], range(3, 40, 4), (Extent(30, 40, 10),)),  # interleaved slices
        ([(0, 10, 40)], [3], (Extent(30, 10, 1),)),
        ([(0, 10, 4), (0, 30, 4)], range(2, 6), (Extent(20, 10, 2), Extent(40, 30, 2))),
        ([(0, 10, 9)], [], ()),
    ],
)
def test_regular_readouts_are_few_extents(
    runs: list[tuple[int, int, int]], rows: range, expected: tuple[Extent, ...]
) -> None:
    assert table(runs)[0].extents(np.array(list(rows), np.int64)) == expected


def test_chunks_of_one_run_do_not_lengthen_the_table() -> None:
    assert len(table([(0, 10, 3)] * 1000)[0]) == 1

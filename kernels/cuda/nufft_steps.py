"""Between the fine grid and the points of a NUFFT on a GPU; `grid` is its other step."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from kernels.cuda._load import Runtime
from kernels.plan import Geometry, Index, Integers

# Coils that one block of threads works on, by the number of axes; and how many times longer a value takes to come from
# shared memory than with 16 coils: a half-warp then reads 1, 2, 4 or 16 cells, which meet in banks as they fall, in 3-D
# as the plan's order has them: counted for 32³ voxels and as many random points.
LANES = {2: {1: 3.1, 4: 2.1, 8: 1.5, 16: 1.0}, 3: {1: 2.7, 4: 1.3}}
WIDTHS = range(2, 10)  # what kernels.plan may choose
HALF_WIDTHS = range(2, 7)  # the same for eps ≥ 1e-3


class Lists:
    """The points of a plan on the device, and the way between them and a fine grid [z, y, coil, x]."""

    def __init__(self, runtime: Runtime, geometry: Geometry, *, half_weights: bool) -> None:
        self._runtime = runtime
        self.points = geometry.points
        self._axes, self._width = len(geometry.shape), geometry.spreading.width
        self._weight = "unsigned short" if half_weights else "float"
        weights = geometry.weights.astype(np.float16).view(np.uint16) if half_weights else geometry.weights
        parts, split, self._slots = number_parts(geometry.parts)
        put = runtime.put
        self.order, self._start, self._weights = put(geometry.order), put(geometry.start), put(weights)
        self._tile_origin, self._blocks = put(geometry.tile_origin), put(geometry.blocks)
        self._csr_point, self._parts, self._split = put(geometry.csr_point), put(parts), put(split)

    def interpolate(self, grid: Any, y: Any, *, planned: bool, factor: Any = None) -> None:
        """Grid → y [coil, sample], or `planned` [point, coil] in plan order; scaled by factor [point] of plan order."""
        depth, height, coils, width = grid.shape
        lanes = choose_lanes(self._axes, coils)
        blocks = (len(self._blocks), -(-coils // lanes))
        lists = (self._start, self._weights, self._blocks, self._tile_origin, None if planned else self.order, factor)
        self._runtime.launch(
            ("nufft.cu", interpolate_name(self._axes, self._width, lanes, self._weight)),
            blocks,
            (interpolate_threads(self._axes),),
            *(grid, y, *lists, self.points, coils, depth, height, width),
            shared_bytes=footprint_bytes(self._axes, self._width, lanes),
        )

    def spread(self, y: Any, grid: Any, *, planned: bool) -> None:
        """y [coil, sample], or `planned` [point, coil] in plan order → grid, all of which is written."""
        depth, height, coils, width = grid.shape
        lanes = choose_lanes(self._axes, coils)
        turns, threads = -(-coils // lanes), spread_threads(self._axes, lanes)
        partial = self._runtime.xp.empty((self._slots, turns, lanes * tile_cells(self._axes)), np.complex64)
        lists = (
            self._start,
            self._weights,
            self._parts,
            self._csr_point,
            self._tile_origin,
            None if planned else self.order,
        )
        self._runtime.launch(
            ("nufft.cu", spread_name(self._axes, self._width, lanes, self._weight)),
            (len(self._parts), turns),
            (threads,),
            *(y, grid, partial, *lists, None, self.points, coils, depth, height, width),
        )
        if len(self._split):
            arguments = (partial, grid, self._split, self._tile_origin, coils, depth, height, width)
            name = ("nufft.cu", add_parts_name(self._axes, lanes))
            self._runtime.launch(name, (len(self._split), turns), (threads,), *arguments)


def choose_lanes(axes: int, coils: int) -> int:
    """Coils that a block works on at once: fewest idle lanes and bank conflicts together."""
    cost = {lanes: -(-coils // lanes) * lanes * factor for lanes, factor in LANES[axes].items()}
    return min(cost, key=cost.__getitem__)


# What follows repeats nufft.cu's own constants; a wrong one fails the tests that run it.


def interpolate_name(axes: int, width: int, lanes: int, weight: str) -> str:
    """The name expression of `interpolate`."""
    return f"interpolate<{axes}, {width}, {lanes}, {weight}>"


def spread_name(axes: int, width: int, lanes: int, weight: str) -> str:
    """The name expression of `spread`."""
    return f"spread<{axes}, {width}, {lanes}, {weight}>"


def add_parts_name(axes: int, lanes: int) -> str:
    """The name expression of `add_parts`."""
    return f"add_parts<{axes}, {lanes}>"


def names(*, widths: range = WIDTHS, half_widths: range = HALF_WIDTHS) -> dict[str, tuple[str, ...]]:
    """Every kernel that a plan may ask for, by file."""
    found = []
    for axes, lanes in ((axes, lanes) for axes, all_lanes in LANES.items() for lanes in all_lanes):
        found.append(add_parts_name(axes, lanes))
        weights = [(w, "float") for w in widths] + [(w, "unsigned short") for w in half_widths]
        for (width, weight), name in product(weights, (interpolate_name, spread_name)):
            found.append(name(axes, width, lanes, weight))
    return {"nufft.cu": tuple(found)}


def interpolate_threads(axes: int) -> int:
    """Threads in a block of `interpolate`."""
    return 256 if axes == 2 else 512


def footprint_bytes(axes: int, width: int, lanes: int) -> int:
    """Dynamic shared memory of `interpolate`."""
    span = (16 if axes == 2 else 8) + width - 1
    return int(8 * span**axes * (lanes + (axes == 2 and lanes > 1)))


def tile_cells(axes: int) -> int:
    """Cells of a tile."""
    return 256 if axes == 2 else 512


def spread_threads(axes: int, lanes: int) -> int:
    """Threads in a block of `spread` and `add_parts`."""
    split = (4 if lanes == 1 else 2) if axes == 2 else 1 + (lanes == 1)
    return lanes * (16 if axes == 2 else 64) * split


def number_parts(parts: Index) -> tuple[Index, Index, int]:
    """A slot for each part of a tile of several: ([part, 4], [split tile, 3] as (tile, first slot, end), slots)."""
    _, first, inverse, counts = np.unique(parts[:, 0], return_index=True, return_inverse=True, return_counts=True)
    several = counts[inverse] > 1
    slots: Integers = np.cumsum(several) - several
    numbered = np.column_stack([parts, np.where(several, slots, -1)]).astype(np.int32)
    heads = first[counts > 1]
    split = np.column_stack([parts[heads, 0], slots[heads], slots[heads] + counts[counts > 1]]).astype(np.int32)
    return numbered, split, int(several.sum())

"""The two steps of a NUFFT on a GPU: between images and fine grids (`Grid`), and between those and points (`Lists`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from kernels.contract import Complex, Real
from kernels.cuda._load import Runtime
from kernels.plan import Geometry, Index, Integers

# Coils that one block of threads works on, by the number of axes; and how many times longer a value takes to come from
# shared memory than with 16 coils: a half-warp then reads 1, 2, 4 or 16 cells, which meet in banks as they fall.
LANES = {2: {1: 3.1, 4: 2.1, 8: 1.5, 16: 1.0}, 3: {1: 3.1, 4: 2.1}}
GRID_BYTES = 8 << 30  # of one fine grid; where this holds fewer coils, they are transformed in more turns
WIDTHS = range(2, 10)  # what kernels.plan may choose
HALF_WIDTHS = range(2, 7)  # the same for eps ≥ 1e-3
ROW_THREADS = 128
Scales = tuple[Real, ...]


class Grid:
    """Images [coil, z, y, x] ↔ fine grids [z, y, coil, x] of their transform; two axes are three with z = 1."""

    def __init__(self, runtime: Runtime, shape: tuple[int, ...], fine: tuple[int, ...], scales: Scales) -> None:
        """`scales` [axis][voxel] multiply the image on either way."""
        self._runtime = runtime
        self.size, self.fine = solid(shape), solid(fine)
        ones = [np.ones(1, np.float32)] * (3 - len(scales))
        self._scales = [runtime.put(scale) for scale in (*ones, *scales)]
        self._most = max(1, min(max(LANES[len(shape)]), GRID_BYTES // (8 * prod(fine))))

    def turns(self, coils: int) -> Iterator[slice]:
        """Coils whose fine grids are held at once."""
        return (slice(first, min(first + self._most, coils)) for first in range(0, coils, self._most))

    def images(self, x: Complex) -> Any:
        """x [*batch, *shape] as contiguous [coil, z, y, x]."""
        return self._runtime.xp.ascontiguousarray(x).reshape(-1, *self.size)

    def there_and_back(self, x: Complex, maps: Complex | None, through: Callable[[Any], None]) -> Complex:
        """What `through` does to fine grids, done to images x [*batch, *shape]; with maps, Σ conj(maps) … maps x."""
        out = self._runtime.xp.empty(x.shape, np.complex64)
        images, coils = self.images(x), None if maps is None else self.images(maps)
        for part in self.turns(len(images if coils is None else coils)):
            grid = self.pad(images[part]) if coils is None else self.pad(images[0], maps=coils[part])
            through(grid)
            if coils is None:
                self.crop(grid, out.reshape(-1, *self.size)[part])
            else:
                self.combine(grid, coils[part], out.reshape(self.size), more=part.start > 0)
        return out  # type: ignore[no-any-return]

    def empty(self, coils: int) -> Any:
        """A fine grid to write on."""
        depth, height, width = self.fine
        return self._runtime.xp.empty((depth, height, coils, width), np.complex64)

    def pad(self, images: Any, *, maps: Any = None) -> Any:
        """The transform of images [coil, z, y, x], or of maps · image, on the fine grid; only what is not 0 is read."""
        coils = len(images if maps is None else maps)
        grid = self.empty(coils)
        rows = (self.fine[0] * self.fine[1] * coils,)
        self._launch("pad", rows, images, maps, grid, *self._scales, coils, *self.size, *self.fine)
        for z in kept(self.size[0], self.fine[0]):
            for plane in grid[z]:
                for y in kept(self.size[1], self.fine[1]):
                    self._along_x(plane[y], inverse=False)
                self._along_first(plane, inverse=False)
        if self.fine[0] > 1:
            self._along_first(grid, inverse=False)
        return grid

    def multiply(self, grid: Any, spectrum: Any) -> None:
        """grid · spectrum [z, y, x] of all coils, in place."""
        rows = (self.fine[0] * self.fine[1] * grid.shape[2],)
        self._launch("multiply", rows, grid, spectrum, grid.shape[2], self.fine[2])

    def crop(self, grid: Any, images: Any) -> None:
        """Images [coil, z, y, x] from a fine grid, which is transformed in place where the images need it."""
        self._invert(grid)
        self._crop(grid, None, images, blocks=grid.shape[2], more=False)

    def combine(self, grid: Any, maps: Any, image: Any, *, more: bool) -> None:
        """Σ conj(maps) · images → image [z, y, x], added to it with `more`; see `crop`."""
        self._invert(grid)
        self._crop(grid, maps, image, blocks=1, more=more)

    def _crop(self, grid: Any, maps: Any, image: Any, *, blocks: int, more: bool) -> None:
        rows = (self.size[0] * self.size[1], blocks)
        sizes = (grid.shape[2], *self.size, *self.fine)
        self._launch("crop", rows, grid, maps, image, *self._scales, *sizes, int(more))

    def _invert(self, grid: Any) -> None:
        if self.fine[0] > 1:
            self._along_first(grid, inverse=True)
        for z in kept(self.size[0], self.fine[0]):
            for plane in grid[z]:
                self._along_first(plane, inverse=True)
                for y in kept(self.size[1], self.fine[1]):
                    self._along_x(plane[y], inverse=True)

    def _along_x(self, lines: Any, *, inverse: bool) -> None:
        flat = lines.reshape(-1, self.fine[2])
        self._runtime.fft(flat, flat, axis=1, inverse=inverse)

    def _along_first(self, lines: Any, *, inverse: bool) -> None:
        flat = lines.reshape(len(lines), -1)
        self._runtime.fft(flat, flat, axis=0, inverse=inverse)

    def _launch(self, name: str, blocks: tuple[int, ...], *args: Any) -> None:
        self._runtime.launch(("nufft_grid.cu", name), blocks, (ROW_THREADS,), *args)


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
    return {"nufft.cu": tuple(found), "nufft_grid.cu": ("pad", "crop", "multiply")}


def interpolate_threads(axes: int) -> int:
    """Threads in a block of `interpolate`."""
    return 256 if axes == 2 else 512


def footprint_bytes(axes: int, width: int, lanes: int) -> int:
    """Dynamic shared memory of `interpolate`."""
    span = (16 if axes == 2 else 8) + width - 1
    return int(8 * span**axes * (lanes + (lanes > 1)))


def tile_cells(axes: int) -> int:
    """Cells of a tile."""
    return 256 if axes == 2 else 512


def spread_threads(axes: int, lanes: int) -> int:
    """Threads in a block of `spread` and `add_parts`."""
    split = {16: 1, 1: 4}.get(lanes, 2) if axes == 2 else 1 + (lanes == 1)
    return lanes * (16 if axes == 2 else 64) * split


def solid(sizes: tuple[int, ...]) -> tuple[int, int, int]:
    """Two or three sizes as (z, y, x)."""
    z, y, x = (1,) * (3 - len(sizes)) + sizes
    return z, y, x


def kept(size: int, fine: int) -> list[slice]:
    """The cells of an axis that hold voxels: from 0 on, and up to the end."""
    after = size // 2
    return [slice(0, size - after), *([slice(fine - after, fine)] if after else [])]


def number_parts(parts: Index) -> tuple[Index, Index, int]:
    """A slot for each part of a tile of several: ([part, 4], [split tile, 3] as (tile, first slot, end), slots)."""
    _, first, inverse, counts = np.unique(parts[:, 0], return_index=True, return_inverse=True, return_counts=True)
    several = counts[inverse] > 1
    slots: Integers = np.cumsum(several) - several
    numbered = np.column_stack([parts, np.where(several, slots, -1)]).astype(np.int32)
    heads = first[counts > 1]
    split = np.column_stack([parts[heads, 0], slots[heads], slots[heads] + counts[counts > 1]]).astype(np.int32)
    return numbered, split, int(several.sum())

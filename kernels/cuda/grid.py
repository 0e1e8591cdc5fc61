"""Between images and the transform on a fine grid, on a GPU, in fused passes of our own or in those of cuFFT.

Two axes are three with z = 1. All axes but the deepest (z, or y in two axes) are transformed on the way in and out, so
that a convolution can multiply in the pass along the deepest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, Literal

import numpy as np

from kernels.contract import Complex, Real
from kernels.cuda._load import Runtime, blocks_of
from kernels.geometry import smooth

MOST_COILS = {2: 16, 3: 4}  # of one grid, by the number of axes: a half-filled one of 256² stays in the cache
GRID_BYTES = 8 << 30  # of one fine grid; where this holds fewer coils, they are transformed in more turns
ROW_THREADS = 128
SHORTEST, LONGEST = 32, 1280  # lines of our own passes: beyond, a block has too few registers for its threads
NAMES = {"nufft_grid.cu": ("pad", "crop", "multiply")}
Scales = tuple[Real, ...]
Way = Literal["pad", "crop", "convolve"]
WAYS: dict[Way, int] = {"pad": 0, "crop": 1, "convolve": 2}  # as in passes.cu


class Grid(ABC):
    """Images [coil, z, y, x] ↔ fine grids [z, y, coil, x] of their transform."""

    def __init__(self, runtime: Runtime, shape: tuple[int, ...], fine: tuple[int, ...], scales: Scales) -> None:
        """`scales` [axis][voxel] multiply the image on either way."""
        self._runtime = runtime
        self.size, self.fine = solid(shape), solid(fine)
        ones = [np.ones(1, np.float32)] * (3 - len(scales))
        self._scales = [runtime.put(scale) for scale in (*ones, *scales)]
        self._most = max(1, min(MOST_COILS[len(shape)], GRID_BYTES // (8 * prod(fine))))

    def turns(self, coils: int) -> Iterator[slice]:
        """Coils whose fine grids are held at once."""
        return (slice(first, min(first + self._most, coils)) for first in range(0, coils, self._most))

    def images(self, x: Complex) -> Any:
        """x [*batch, *shape] as contiguous [coil, z, y, x]."""
        return self._runtime.xp.ascontiguousarray(x).reshape(-1, *self.size)

    def empty(self, coils: int) -> Any:
        """A fine grid to write on."""
        depth, height, width = self.fine
        return self._runtime.xp.empty((depth, height, coils, width), np.complex64)

    def pad(self, images: Any) -> Any:
        """The transform of images [coil, z, y, x] on the fine grid; only what is not 0 is read."""
        grid = self._enter(images, None)
        self._deepest(grid, "pad", None)
        return grid

    def crop(self, grid: Any, images: Any) -> None:
        """Images [coil, z, y, x] from a fine grid, which is transformed in place where the images need it."""
        self._deepest(grid, "crop", None)
        self._leave(grid, None, images, more=False)

    def there_and_back(self, x: Complex, maps: Complex | None, through: Callable[[Any], None]) -> Complex:
        """What `through` does to fine grids, done to images x [*batch, *shape]; with maps, Σ conj(maps) … maps x."""

        def deepest(grid: Any) -> None:
            self._deepest(grid, "pad", None)
            through(grid)
            self._deepest(grid, "crop", None)

        return self._in_turns(x, maps, deepest)

    def convolve(self, x: Complex, maps: Complex | None, spectrum: Real) -> Complex:
        """The same with a product with `spectrum` [z, y, x]."""
        return self._in_turns(x, maps, lambda grid: self._deepest(grid, "convolve", spectrum))

    def _in_turns(self, x: Complex, maps: Complex | None, through: Callable[[Any], None]) -> Complex:
        out: Complex = self._runtime.xp.empty(x.shape, np.complex64)
        images, coils = self.images(x), None if maps is None else self.images(maps)
        for part in self.turns(len(images if coils is None else coils)):
            grid = self._enter(images[part], None) if coils is None else self._enter(images, coils[part])
            through(grid)
            if coils is None:
                self._leave(grid, None, out.reshape(-1, *self.size)[part], more=False)
            else:
                self._leave(grid, coils[part], out.reshape(self.size), more=part.start > 0)
        return out

    @abstractmethod
    def _enter(self, images: Any, maps: Any) -> Any:
        """A grid of images [coil, z, y, x], or of maps · image, transformed along all axes but the deepest."""

    @abstractmethod
    def _deepest(self, grid: Any, way: Way, spectrum: Any) -> None:
        """Transform along the deepest axis, in place."""

    @abstractmethod
    def _leave(self, grid: Any, maps: Any, image: Any, *, more: bool) -> None:
        """Undo `_enter`, with maps Σ conj(maps) · images, which `more` adds to what is there."""


class FusedGrid(Grid):
    """By passes.cu, where every axis is short and smooth enough."""

    def __init__(self, runtime: Runtime, shape: tuple[int, ...], fine: tuple[int, ...], scales: Scales) -> None:
        super().__init__(runtime, shape, fine, scales)
        self._roots = [runtime.put(roots_of(n)) for n in self.fine]

    def _enter(self, images: Any, maps: Any) -> Any:
        grid = self.empty(len(images if maps is None else maps))
        self._rows("rows_in", self._lines(grid), grid.shape[2], images, maps, grid)
        if self.fine[0] > 1:
            self._columns(grid, 1, "pad", None)
        return grid

    def _deepest(self, grid: Any, way: Way, spectrum: Any) -> None:
        self._columns(grid, 0 if self.fine[0] > 1 else 1, way, spectrum)

    def _leave(self, grid: Any, maps: Any, image: Any, *, more: bool) -> None:
        if self.fine[0] > 1:
            self._columns(grid, 1, "crop", None)
        if maps is None:
            self._rows("rows_out", self._lines(grid), grid.shape[2], grid, image)
        else:
            rows = self.size[0] * self.size[1]
            self._rows("rows_sum", rows, grid.shape[2], grid, maps, image, more=(int(more),))

    def _lines(self, grid: Any) -> int:
        return blocks_of(self.size[0] * self.size[1] * grid.shape[2], rows_of(self.fine[2]))

    def _rows(self, name: str, blocks: int, coils: int, *arrays: Any, more: tuple[int, ...] = ()) -> None:
        length = self.fine[2]
        self._runtime.launch(
            ("passes.cu", f"{name}<{length}>"),
            (blocks,),
            (rows_of(length) * threads_of(length),),
            *(*arrays, *self._scales, self._roots[2], coils, *self.size, *self.fine[:2], *more),
            shared_bytes=8 * rows_of(length) * (padded(length) + length * (name == "rows_sum")),
        )

    def _columns(self, grid: Any, axis: int, way: Way, spectrum: Any) -> None:
        length, coils = self.fine[axis], grid.shape[2]
        inner = prod(grid.shape[axis + 1 :])
        size, fine = (self.size[0], self.fine[0]) if axis else (1, 1)  # of the axis outside
        self._runtime.launch(
            ("passes.cu", f"columns<{length}, {WAYS[way]}>"),
            (blocks_of(inner, columns_of(length)), size),
            (columns_of(length) * threads_of(length),),
            *(grid, spectrum, self._roots[axis], self.size[axis], size, fine, inner, coils, self.fine[2]),
            shared_bytes=8 * columns_of(length) * padded(length),
        )


class CufftGrid(Grid):
    """By cuFFT, which writes and reads the padding too, and kernels between its passes."""

    def _enter(self, images: Any, maps: Any) -> Any:
        grid = self.empty(len(images if maps is None else maps))
        coils = grid.shape[2]
        rows = (self.fine[0] * self.fine[1] * coils,)
        self._launch("pad", rows, images, maps, grid, *self._scales, coils, *self.size, *self.fine)
        self._planes(grid, inverse=False)
        return grid

    def _deepest(self, grid: Any, way: Way, spectrum: Any) -> None:
        if way != "crop":
            self._along_deepest(grid, inverse=False)
        if way == "convolve":
            rows = (self.fine[0] * self.fine[1] * grid.shape[2],)
            self._launch("multiply", rows, grid, spectrum, grid.shape[2], self.fine[2])
        if way != "pad":
            self._along_deepest(grid, inverse=True)

    def _leave(self, grid: Any, maps: Any, image: Any, *, more: bool) -> None:
        self._planes(grid, inverse=True)
        rows = (self.size[0] * self.size[1], grid.shape[2] if maps is None else 1)
        sizes = (grid.shape[2], *self.size, *self.fine)
        self._launch("crop", rows, grid, maps, image, *self._scales, *sizes, int(more))

    def _along_deepest(self, grid: Any, *, inverse: bool) -> None:
        self._along_first(grid if self.fine[0] > 1 else grid[0], inverse=inverse)

    def _planes(self, grid: Any, *, inverse: bool) -> None:
        """Where there are voxels: along x, and along y where that is not the deepest axis."""
        for plane in (plane for z in kept(self.size[0], self.fine[0]) for plane in grid[z]):
            if inverse and self.fine[0] > 1:
                self._along_first(plane, inverse=True)
            for y in kept(self.size[1], self.fine[1]):
                flat = plane[y].reshape(-1, self.fine[2])
                self._runtime.fft(flat, flat, axis=1, inverse=inverse)
            if not inverse and self.fine[0] > 1:
                self._along_first(plane, inverse=False)

    def _along_first(self, lines: Any, *, inverse: bool) -> None:
        flat = lines.reshape(len(lines), -1)
        self._runtime.fft(flat, flat, axis=0, inverse=inverse)

    def _launch(self, name: str, blocks: tuple[int, ...], *args: Any) -> None:
        self._runtime.launch(("nufft_grid.cu", name), blocks, (ROW_THREADS,), *args)


def open_grid(runtime: Runtime, shape: tuple[int, ...], fine: tuple[int, ...], scales: Scales) -> Grid:
    """The faster of the two grids that can do it."""
    made = FusedGrid if all(n == 1 or is_fused(n) for n in solid(fine)) else CufftGrid
    return made(runtime, shape, fine, scales)


def is_fused(length: int) -> bool:
    """Whether passes.cu can transform lines of `length`."""
    return SHORTEST <= length <= LONGEST and smooth(length)


def fused_lengths() -> tuple[int, ...]:
    """Every length that a plan may ask passes.cu for: fine grids are even."""
    return tuple(n for n in range(SHORTEST, LONGEST + 1, 2) if is_fused(n))


def names(lengths: tuple[int, ...]) -> dict[str, tuple[str, ...]]:
    """Every kernel of grids whose lines have these `lengths`, by file."""
    rows = [f"{name}<{n}>" for n in lengths for name in ("rows_in", "rows_out", "rows_sum")]
    columns = [f"columns<{n}, {way}>" for n in lengths for way in WAYS.values()]
    return NAMES | {"passes.cu": (*rows, *columns)}


def roots_of(length: int) -> Complex:
    """exp(−2πi k / length)."""
    roots: Complex = np.exp(-2j * np.pi * np.arange(length) / length).astype(np.complex64)
    return roots


# What follows repeats passes.cu's own constants; a wrong one fails the tests that run it.


def threads_of(length: int) -> int:
    """Threads of a line."""
    return 128 if length == 1152 else blocks_of(length, 8)


def columns_of(length: int) -> int:
    """Lines of a block of `columns`."""
    return 8 if length <= 640 else 4


def rows_of(length: int) -> int:
    """Lines of a block along x."""
    return blocks_of(256, threads_of(length))


def padded(length: int) -> int:
    """Values of shared memory that a line takes."""
    return length + length // 8


def solid(sizes: tuple[int, ...]) -> tuple[int, int, int]:
    """Two or three sizes as (z, y, x)."""
    z, y, x = (1,) * (3 - len(sizes)) + sizes
    return z, y, x


def kept(size: int, fine: int) -> list[slice]:
    """The cells of an axis that hold voxels: from 0 on, and up to the end."""
    after = size // 2
    return [slice(0, size - after), *([slice(fine - after, fine)] if after else [])]

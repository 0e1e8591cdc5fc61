"""The fused root-sum-of-squares image: from k-space as it lies in the receive buffer to one magnitude image.

One coil's plane (about 1 MB) stays in the second-level cache from its only copy to the sum of squares. Only magnitudes
leave, so no shift is needed on the way in (it would change the phase alone); the one combined image is put in centred
order at the end. Columns that `crop` removes are never transformed along y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Real
from kernels.cpu.engine import TILE, Engine, Pool, buffer, even_parts
from kernels.cpu.fft import wrapped

WIDTH = 64  # lines transformed together along y or z: with their sums they fit the second-level cache beside the plane
MIX_ROWS = 16  # lines of all coils whitened together: 1 MB for 32 coils of 256
IDLE = 4
Shape3 = tuple[int, int, int]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Grid:
    """k-space [z, y, x] of which `kept` central columns of the image are wanted."""

    z: int
    y: int
    x: int
    kept: int


class Lines:
    """Work buffer for lines [y, x]; `load` fills it with their inverse transform along x."""

    def __init__(self, engine: Engine, y: int, x: int, kept: int) -> None:
        self.work = buffer(y, x)[:, :x]
        parts = even_parts(y, max(1, TILE // x))
        tile = buffer(parts[0].stop, x)[:, :x]
        self._steps = [
            (rows, source.view(np.uint8), engine.plan(source, self.work[rows], axis=1, forward=False))
            for rows in parts
            for source in [tile[: rows.stop - rows.start]]
        ]
        self.columns = [order for _, order in wrapped(x, kept) if order.start < order.stop]

    # Bytes, not complex values: MRD samples stand on 2-byte boundaries, where NumPy copies complex values far slower.
    def load(self, lines: Bytes) -> None:
        """Fill `work` from lines [y, bytes of x]."""
        for rows, tile, execute in self._steps:
            tile[...] = lines[rows]
            execute()

    def pairs(self, packed: Complex) -> list[tuple[Complex, Complex]]:
        """Views of the kept columns of `work` beside their places in packed [y, kept], which is in FFT order."""
        middle = self.columns[0].stop
        places = (slice(0, middle), slice(middle, packed.shape[1]))
        return [(self.work[:, c], packed[:, place]) for c, place in zip(self.columns, places, strict=False)]


class Panel:
    """Lines `source` [length, width] to transform along their first axis, then to square and add up."""

    def __init__(self, engine: Engine, source: Complex, target: Complex) -> None:
        self.source = source
        self.target = target[:, : source.shape[1]]
        self.transform = engine.plan(source, self.target, axis=0, forward=False)
        self._floats = target.view(np.float32)  # with the padding: one contiguous run is three times faster

    def zeros(self) -> Real:
        """An empty sum for `add_squares`."""
        return np.zeros_like(self._floats)

    def add_squares(self, total: Real) -> None:
        """Add re² and im² of the target to `total`; the target is lost."""
        np.multiply(self._floats, self._floats, out=self._floats)
        np.add(total, self._floats, out=total)

    def power(self, total: Real) -> Real:
        """Σ |target|² as [length, width] from the sum `total`."""
        summed: Real = total.reshape(len(total), -1, 2).sum(axis=-1)
        return summed[:, : self.source.shape[1]]


class Plane:
    """Lines [y, x] and the panels that transform their kept columns along y."""

    def __init__(self, engine: Engine, y: int, x: int, kept: int) -> None:
        self.lines = Lines(engine, y, x, kept)
        targets: dict[int, Complex] = {}  # panels of one width share their target, to stay in the cache
        self.panels = []
        for columns in self.lines.columns:
            for part in even_parts(columns.stop - columns.start, WIDTH):
                source = self.lines.work[:, columns.start + part.start : columns.start + part.stop]
                target = targets.setdefault(source.shape[1], buffer(y, source.shape[1]))
                self.panels.append(Panel(engine, source, target))


Load = Callable[[Plane, int, int], None]  # fills the plane's work buffer with one coil's lines at one z


class FusedRss:
    """Root-sum-of-squares images with one FFT library.

    One thread: its steps take 5 to 20 µs each, so that a second one only waits for the interpreter lock (measured).
    """

    def __init__(self, engine: Engine) -> None:
        self._lines: Pool[tuple[int, int, int], Lines] = Pool(lambda key: Lines(engine, *key), idle=IDLE)
        self._planes: Pool[tuple[int, int, int], Plane] = Pool(lambda key: Plane(engine, *key), idle=IDLE)
        self._depths: Pool[tuple[int, int], Panel] = Pool(lambda key: make_depth(engine, *key), idle=IDLE)

    def image(self, kspace: Complex, crop: Shape3, whitening: Complex | None) -> Real:
        """kspace [coil, z, y, x] → [z, y, x] cropped; see `Kernels.ifft_rss`."""
        coils, z, y, x = kspace.shape
        grid = Grid(z, y, x, crop[2])
        load: Load = partial(load_raw, as_bytes(kspace))
        if whitening is not None:
            coils = len(whitening)
            load = partial(load_packed, self._mix(as_bytes(kspace), grid, whitening))
        add = self._add_planes if z == 1 else self._add_volumes
        # Samples near the end of single precision overflow to inf, which the caller sees in the image.
        with np.errstate(over="ignore", invalid="ignore"):
            return centred_root(add(load, grid, coils), crop, 1 / (z * y * x))

    def _add_planes(self, load: Load, grid: Grid, coils: int) -> Real:
        """Σ |image|² of 2-D coils, [1, y, kept] in FFT order."""
        with self._planes.borrow((grid.y, grid.x, grid.kept)) as plane:
            totals = [panel.zeros() for panel in plane.panels]
            for coil in range(coils):
                load(plane, coil, 0)
                for panel, total in zip(plane.panels, totals, strict=True):
                    panel.transform()
                    panel.add_squares(total)
            sums = [panel.power(total) for panel, total in zip(plane.panels, totals, strict=True)]
        return np.concatenate(sums, axis=1)[np.newaxis]

    def _add_volumes(self, load: Load, grid: Grid, coils: int) -> Real:
        """Σ |image|² of 3-D coils, [z, y, kept] in FFT order."""
        volume = np.empty((grid.z, grid.y, grid.kept), np.complex64)
        flat = volume.reshape(grid.z, -1)
        parts = even_parts(flat.shape[1], WIDTH)
        with self._depths.borrow((grid.z, parts[0].stop)) as depth:
            totals = [depth.zeros() for _ in parts]
            for coil in range(coils):
                self._fill(volume, load, coil, grid)
                add_depth(depth, flat, parts, totals)
            sums = [depth.power(total)[:, : part.stop - part.start] for part, total in zip(parts, totals, strict=True)]
        return np.concatenate(sums, axis=1).reshape(volume.shape)

    def _fill(self, volume: Complex, load: Load, coil: int, grid: Grid) -> None:
        """One coil's volume [z, y, kept], transformed along x and y."""
        with self._planes.borrow((grid.y, grid.x, grid.kept)) as plane:
            for z, out in enumerate(volume):
                load(plane, coil, z)
                start = 0
                for panel in plane.panels:
                    panel.transform()
                    stop = start + panel.target.shape[1]
                    out[:, start:stop] = panel.target
                    start = stop

    def _mix(self, raw: Bytes, grid: Grid, whitening: Complex) -> Complex:
        """Whitened coils [coil, z, y, kept], transformed along x: fewer values to whiten than before the crop."""
        mixed = np.empty((len(whitening), grid.z, grid.y, grid.kept), np.complex64)
        flat = mixed.reshape(len(whitening), -1)
        for z, rows in product(range(grid.z), even_parts(grid.y, MIX_ROWS)):
            stack = self._stack(raw[:, z, rows], grid)
            start = (z * grid.y + rows.start) * grid.kept
            np.matmul(whitening, stack, out=flat[:, start : start + stack.shape[1]])
        return mixed

    def _stack(self, lines_of_coils: Bytes, grid: Grid) -> Complex:
        """Some lines [coil, y, x] of all coils, transformed along x: [coil, y·kept]."""
        coils, rows, _ = lines_of_coils.shape
        stack = np.empty((coils, rows, grid.kept), np.complex64)
        with self._lines.borrow((rows, grid.x, grid.kept)) as lines:
            for source, packed in zip(lines_of_coils, stack, strict=True):
                lines.load(source)
                for work, place in lines.pairs(packed):
                    place[...] = work
        return stack.reshape(coils, -1)


def make_depth(engine: Engine, z: int, width: int) -> Panel:
    """A panel for lines along z, with its own source buffer."""
    return Panel(engine, buffer(z, width)[:, :width], buffer(z, width))


def add_depth(depth: Panel, volume: Complex, parts: Sequence[slice], totals: Sequence[Real]) -> None:
    """Transform volume [z, column] along z, part by part, and add the squares to `totals`."""
    for part, total in zip(parts, totals, strict=True):
        depth.source[:, : part.stop - part.start] = volume[:, part]
        depth.transform()
        depth.add_squares(total)


def as_bytes(kspace: Complex) -> Bytes:
    """kspace [coil, z, y, x] as bytes [coil, z, y, 8·x]; copied only where the samples of a line are not adjacent."""
    if kspace.strides[-1] != kspace.itemsize:
        kspace = np.ascontiguousarray(kspace)
    return kspace.view(np.uint8)


def load_raw(raw: Bytes, plane: Plane, coil: int, z: int) -> None:
    """Fill the plane with a coil's own k-space lines."""
    plane.lines.load(raw[coil, z])


def load_packed(mixed: Complex, plane: Plane, coil: int, z: int) -> None:
    """Fill the plane with lines that are already transformed along x."""
    for work, place in plane.lines.pairs(mixed[coil, z]):
        work[...] = place


def centred_root(power: Real, crop: Shape3, scale: float) -> Real:
    """√(scale · power) of [z, y, kept] in FFT order, as the central `crop` in centred order."""
    image = np.empty(crop, np.float32)
    depth, height = power.shape[:2]
    axes = (wrapped(depth, crop[0]), wrapped(height, crop[1]), wrapped(crop[2], crop[2]))
    for pieces in product(*axes):
        centred, order = zip(*pieces, strict=True)
        image[centred] = power[order]
    image *= np.float32(scale)
    return np.sqrt(image, out=image)

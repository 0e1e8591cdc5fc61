"""The normal operator of a NUFFT as a convolution with its point spread function (doi:10.1109/TMI.2005.855535).

A transform of lines, columns convolved a cache-sized tile at a time, and the transform back. The zeros that pad the
image are never transformed along an axis that is still all zero, and half of what comes back is never computed.
Multiplication with coil maps happens where lines are copied anyway.

Memory: 4 bytes a cell of the doubled grid for the operator, 8 a cell of half of it for each thread (2-D: of the grid
doubled along x; 3-D: of the grid doubled along y and x, and of that along x).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from kernels.contract import Complex, Real
from kernels.cpu.engine import ENGINES, PAD, TILE, Engine, Execute, Pool, buffer, even_parts
from kernels.cpu.team import Team
from kernels.geometry import smooth

Shape3 = tuple[int, int, int]
Copy = Callable[[Complex, slice], None]  # between a line buffer [line, x] and the lines `slice` of an image


@dataclass(frozen=True)
class Layout:
    """An image `grid` [z, y, x] inside a periodic one of `lengths`, worked on in tiles of `width` columns."""

    grid: Shape3
    lengths: Shape3

    @property
    def lines(self) -> int:
        """Lines along x in the image."""
        return self.grid[0] * self.grid[1]

    @property
    def width(self) -> int:
        """An odd number of cache lines, lest the rows of a tile fall on few cache sets."""
        longest, columns = max(self.lengths[:2]), self.lengths[2]
        tiles = -(-columns * longest // TILE)
        return PAD * (-(-columns // (tiles * PAD)) | 1)

    @property
    def pitch(self) -> int:
        """Values from one transformed line to the next: whole tiles."""
        return -(-self.lengths[2] // self.width) * self.width


def layout_of(shape: tuple[int, ...]) -> Layout:
    """The layout for images of `shape` ([[z,] y,] x)."""
    grid = (*(1,) * (3 - len(shape)), *shape)
    z, y, x = grid
    return Layout((z, y, x), (period(z), period(y), period(x)))


def period(size: int) -> int:
    """A length without wrapping for a convolution of an axis of `size`: of factors 2, 3 and 5, at least 2·size − 1."""
    length = 2 * size - 1
    while not smooth(length):
        length += 1
    return length


class Lines:
    """Lines of an image, transformed along x into `work` [line, pitch] and back, some at a time."""

    def __init__(self, engine: Engine, layout: Layout) -> None:
        length = layout.lengths[2]
        self.work = buffer(layout.lines, layout.pitch - PAD)
        parts = even_parts(layout.lines, max(1, TILE // length))
        source, back = (buffer(parts[0].stop, length)[:, :length] for _ in range(2))
        self._steps = [self._step(engine, source, back, part) for part in parts]
        self._kept = layout.grid[2]

    def _step(
        self, engine: Engine, source: Complex, back: Complex, part: slice
    ) -> tuple[slice, Complex, Complex, Execute, Execute]:
        count, length = part.stop - part.start, source.shape[1]
        some, found, place = source[:count], back[:count], self.work[part, :length]
        forward = engine.plan(some, place, axis=1, forward=True)
        return part, some, found, forward, engine.plan(place, found, axis=1, forward=False)

    def transform(self, load: Copy) -> None:
        """`work` from what `load` puts into the line buffer."""
        for part, source, _, forward, _ in self._steps:
            load(source[:, : self._kept], part)
            forward()

    def restore(self, store: Copy) -> None:
        """Hand the lines of `work`, transformed back, to `store`."""
        for part, _, back, _, backward in self._steps:
            backward()
            store(back[:, : self._kept], part)


class Columns:
    """A tile of columns: `kept` values each, zero-padded to `length`; their transforms are the rows of `spectrum`.

    Turning them on the way costs FFTW half of what columns into columns do (measured), and none of our own time.
    """

    def __init__(self, engine: Engine, length: int, kept: int, width: int) -> None:
        self._source, self._back = (buffer(length, width - PAD) for _ in range(2))
        self._rows = buffer(width, length)
        self.spectrum = self._rows[:, :length]
        self._forward = engine.plan(self._source, self.spectrum.T, axis=0, forward=True)
        self._backward = engine.plan(self.spectrum.T, self._back, axis=0, forward=False)
        self._kept = kept

    def transform(self, columns: Complex) -> None:
        """`spectrum` [width, length] from `columns` [kept, width]."""
        self._source[: self._kept] = columns
        self._forward()

    def restore(self, columns: Complex) -> None:
        """`columns` [kept, width] from `spectrum`."""
        self._backward()
        columns[...] = self._back[: self._kept]

    def convolve(self, columns: Complex, response: Real) -> None:
        """`columns` [kept, width] convolved, in place, with what has the transform `response` [width, length + PAD].

        The padding is multiplied too: one contiguous loop takes half as long as one for each row.
        """
        self.transform(columns)
        np.multiply(self._rows, response, out=self._rows)
        self.restore(columns)


class Work:
    """The buffers and plans of one thread."""

    def __init__(self, engine: Engine, layout: Layout) -> None:
        z, y, _ = layout.grid
        self._lines = Lines(engine, layout)
        tiles = self._lines.work.reshape(z, y, -1, layout.width)
        self._tiles = [[tiles[i, :, j] for j in range(tiles.shape[2])] for i in range(z)]  # [z][tile] of [y, width]
        self._along_y = Columns(engine, layout.lengths[1], y, layout.width)
        if z > 1:
            self._along_z = Columns(engine, layout.lengths[0], z, layout.width)
            self._volume = np.zeros((z, tiles.shape[2], layout.width, layout.lengths[1]), np.complex64)

    def convolve(self, load: Copy, response: Real, store: Copy) -> None:
        """Take an image's lines from `load` and hand the convolved ones to `store`."""
        self._lines.transform(load)
        if len(self._tiles) == 1:
            for tile, part in zip(self._tiles[0], response, strict=True):
                self._along_y.convolve(tile, part)
        else:
            self._convolve_volume(response)
        self._lines.restore(store)

    def _convolve_volume(self, response: Real) -> None:
        along = self._along_y
        for plane, spectra in zip(self._tiles, self._volume, strict=True):
            for tile, spectrum in zip(plane, spectra, strict=True):
                along.transform(tile)
                spectrum[...] = along.spectrum
        columns = self._volume.reshape(len(self._volume), len(response), -1)
        for number, part in enumerate(response):
            self._along_z.convolve(columns[:, number], part)
        for plane, spectra in zip(self._tiles, self._volume, strict=True):
            for tile, spectrum in zip(plane, spectra, strict=True):
                along.spectrum[...] = spectrum
                along.restore(tile)


class Convolver:
    """Convolutions by one FFT library, shared among the threads of a team."""

    def __init__(self, engine: Engine, team: Team) -> None:
        self.engine = engine
        self.team = team
        self._works: Pool[Layout, Work] = Pool(partial(Work, engine), idle=team.threads)

    def images(self, x: Complex, layout: Layout, response: Real) -> Complex:
        """Each image of x [*batch, *shape], convolved."""
        lines = np.ascontiguousarray(x).reshape(-1, layout.lines, layout.grid[2])
        out = np.empty_like(lines)

        def some(numbers: Sequence[int]) -> None:
            with self._works.borrow(layout) as work:
                for number in numbers:
                    work.convolve(partial(load_lines, lines[number]), response, partial(store_lines, out[number]))

        self.team.share(some, range(len(lines)))
        return out.reshape(x.shape)

    def coils(self, x: Complex, maps: Complex, layout: Layout, response: Real) -> Complex:
        """Σ_c conj(S_c) · (S_c x convolved): x [*shape], maps [coil, *shape]."""
        image = np.ascontiguousarray(x).reshape(layout.lines, layout.grid[2])
        lines = maps.reshape(len(maps), *image.shape)

        def some(coils: Sequence[int]) -> Complex:
            total = np.zeros_like(image)
            with self._works.borrow(layout) as work:
                for coil in coils:
                    store = partial(add_lines, total, lines[coil])
                    work.convolve(partial(load_product, image, lines[coil]), response, store)
            return total

        return self.team.total(some, len(lines)).reshape(x.shape)


def open_convolver(engine: str, threads: int) -> Convolver:
    """A convolver of its own with `engine`, one of `ENGINES`, and a new team of `threads`."""
    return Convolver(ENGINES[engine](), Team(threads))


def load_lines(image: Complex, target: Complex, part: slice) -> None:
    """target = image."""
    target[...] = image[part]


def store_lines(image: Complex, source: Complex, part: slice) -> None:
    """image = source."""
    image[part] = source


def load_product(image: Complex, sensitivity: Complex, target: Complex, part: slice) -> None:
    """target = S · image."""
    np.multiply(image[part], sensitivity[part], out=target)


def add_lines(total: Complex, sensitivity: Complex, source: Complex, part: slice) -> None:
    """total += conj(S) · source; the source is spent."""
    np.multiply(source, sensitivity[part].conj(), out=source)
    total[part] += source


def response_of(spread: Complex, layout: Layout) -> Real:
    """The transform of a point spread function, as [tile, width, length + PAD], with the scale of both transforms.

    `spread` [*lengths] in FFT order (index s modulo the length) is Hermitian where |s| < N, so that its transform is
    real; beyond, it is set to zero.
    """
    for axis, (size, length) in enumerate(zip(layout.grid, layout.lengths, strict=True)):
        np.moveaxis(spread, axis, 0)[size : length - size + 1] = 0
    half = np.fft.fftn(spread[..., : layout.lengths[2] // 2 + 1], axes=(0, 1))
    values = np.fft.hfft(half, n=layout.lengths[2])
    columns = np.zeros((layout.pitch, *layout.lengths[1::-1]), np.float32)  # [x, y, z]
    np.multiply(values.T, np.float32(1 / spread.size), out=columns[: layout.lengths[2]])
    along = columns[..., 0] if layout.grid[0] == 1 else columns  # [x, y], or as `Work` stores a volume: [x, y], z
    length = along.shape[-1]
    response = np.zeros((columns.size // (layout.width * length), layout.width, length + PAD), np.float32)
    response[..., :length] = along.reshape(-1, layout.width, length)
    return response

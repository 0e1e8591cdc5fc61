"""The orthogonal wavelet transform on a GPU: one launch and one pass over the data per level; nothing waits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from kernels.checks import check_wavelet
from kernels.contract import Complex
from kernels.cuda._load import Runtime, blocks_of, check_here
from kernels.cuda.coils import MOST_BLOCKS_YZ, count
from kernels.cuda.prox import solid

LANES, ROWS = 32, 8  # as in wavelet.cu
SOURCE = "wavelet.cu"
Sizes = tuple[int, int, int]


def level_name(function: str, split: tuple[bool, ...]) -> str:
    """`function` for the axes (z, y, x) that a level splits."""
    return f"{function}<{', '.join(str(axis).lower() for axis in split)}>"


SPLITS = [split for split in product((False, True), repeat=3) if any(split)]
NAMES = {SOURCE: tuple(level_name(function, split) for function in ("split", "join") for split in SPLITS)}


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The levels of a transform of arrays [batch, *full], z, y, x."""

    batch: int
    full: Sizes
    levels: Sizes
    shift: Sizes

    @property
    def depth(self) -> int:
        """How many levels there are."""
        return max(self.levels)

    def corner(self, level: int) -> Sizes:
        """What is left of the grid to be split at `level`."""
        z, y, x = (n >> min(level, most) for n, most in zip(self.full, self.levels, strict=True))
        return z, y, x

    def moved(self, level: int) -> Sizes:
        """The shift of the origin, which belongs to the finest level."""
        return self.shift if level == 0 else (0, 0, 0)


class CudaWavelet:
    """Wavelet transforms of one device; the work memory is the low corners of two levels."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def forward(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.wavelet`."""
        pyramid = self._pyramid(x, levels, shift)
        packed = self._runtime.xp.empty(x.shape, np.complex64)
        source = self._runtime.xp.ascontiguousarray(x)
        for level in range(pyramid.depth):
            low = None if level + 1 == pyramid.depth else self._empty(pyramid, level + 1)
            self._launch("split", (source, low, packed), pyramid, level)
            source = low
        return packed  # type: ignore[no-any-return]

    def inverse(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.iwavelet`."""
        pyramid = self._pyramid(x, levels, shift)
        packed = self._runtime.xp.ascontiguousarray(x)
        low: Any = None
        for level in reversed(range(pyramid.depth)):
            out = self._empty(pyramid, level)
            self._launch("join", (low, packed, out), pyramid, level)
            low = out
        return low.reshape(x.shape)  # type: ignore[no-any-return]

    def _pyramid(self, x: Complex, levels: tuple[int, ...], shift: tuple[int, ...] | None) -> Pyramid:
        check_here(self._runtime, x=x)
        moved = check_wavelet(x, levels, shift)
        count(x)
        grid = x.shape[x.ndim - len(levels) :]
        return Pyramid(prod(x.shape[: x.ndim - len(levels)]), solid(grid, 1), solid(levels, 0), solid(moved, 0))

    def _empty(self, pyramid: Pyramid, level: int) -> Any:
        return self._runtime.xp.empty((pyramid.batch, *pyramid.corner(level)), np.complex64)

    def _launch(self, function: str, arrays: tuple[Any, Any, Any], pyramid: Pyramid, level: int) -> None:
        split = tuple(most > level for most in pyramid.levels)
        z, y, x = pyramid.corner(level + 1)
        grid = (blocks_of(x, LANES), blocks_of(y, ROWS), min(pyramid.batch * z, MOST_BLOCKS_YZ))
        sizes = (pyramid.batch, *pyramid.corner(level), *pyramid.full, *pyramid.moved(level))
        self._runtime.launch((SOURCE, level_name(function, split)), grid, (LANES, ROWS), *arrays, *sizes)

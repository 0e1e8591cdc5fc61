"""Centred FFTs on a GPU: one batched cuFFT pass per axis, and a transpose after it that crops, centres and scales.

Every pass thus runs along contiguous values, and what `crop` removes from one axis is never transformed along the next.
The centring of the input is a factor of the output, so that the input is read where it lies.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from kernels.checks import check_axes, check_crop
from kernels.contract import Complex
from kernels.cuda._load import Recent, Runtime, blocks_of, check_here

TURN = ("fft.cu", "turn")
TURN_EDGE, TURN_ROWS = 32, 8  # as in fft.cu
MOST_TABLES = 256
NAMES = {"fft.cu": ("turn",)}


class CudaFft:
    """Centred orthonormal DFTs of one device; the work memory of a call is twice its input."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._tables = Recent(MOST_TABLES)
        self._lock = threading.Lock()

    def fft(self, x: Complex, *, axes: int) -> Complex:
        """See `Kernels.fft`."""
        check_here(self._runtime, x=x)
        check_axes(x, axes)
        return self._transform(x, x.shape[x.ndim - axes :], inverse=False)

    def ifft(self, x: Complex, *, axes: int, crop: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.ifft`."""
        check_here(self._runtime, x=x)
        check_axes(x, axes)
        grid = x.shape[x.ndim - axes :]
        return self._transform(x, check_crop(crop or grid, grid), inverse=True)

    def _transform(self, x: Complex, crop: Sequence[int], *, inverse: bool) -> Complex:
        """The last len(crop) axes of x, of which the centre is kept."""
        batch, grid = x.shape[: x.ndim - len(crop)], x.shape[x.ndim - len(crop) :]
        values = self._runtime.xp.ascontiguousarray(x)
        for size, kept in zip(reversed(grid), reversed(crop), strict=True):
            values = self._pass(values.reshape(prod(batch), -1, size), kept, inverse=inverse)
        return values.reshape(*batch, *crop)  # type: ignore[no-any-return]

    def _pass(self, values: Any, kept: int, *, inverse: bool) -> Any:
        """[batch, row, size] → [batch, kept, row], transformed along the last axis: it becomes the first."""
        xp = self._runtime.xp
        batch, rows, size = values.shape
        lines = values.reshape(-1, size)
        work, out = xp.empty_like(lines), xp.empty((batch, kept, rows), np.complex64)
        self._runtime.fft(lines, work, axis=1, inverse=inverse)
        grid = (batch, blocks_of(rows, TURN_EDGE), blocks_of(kept, TURN_EDGE))
        first = (size - kept // 2) % size
        factor = self._table(size, kept, inverse=inverse)
        self._runtime.launch(TURN, grid, (TURN_EDGE, TURN_ROWS), work, out, factor, rows, size, kept, first)
        return out

    def _table(self, size: int, kept: int, *, inverse: bool) -> Any:
        with self._lock:
            make = lambda: self._runtime.put(centring(size, kept, inverse=inverse))  # noqa: E731
            return self._tables.get((size, kept, inverse), make)


def centring(size: int, kept: int, *, inverse: bool) -> Complex:
    """What turns a DFT counted from 0 into a centred orthonormal one, at the central `kept` results."""
    place = np.arange(kept) - kept // 2
    turns = (place * (size // 2) % size) / size
    factor: Complex = (np.exp((-2j if inverse else 2j) * np.pi * turns) / np.sqrt(size)).astype(np.complex64)
    return factor

"""The normal operator of a NUFFT on a GPU as a convolution with its point response (doi:10.1109/TMI.2005.855535).

Coils are padded, multiplied and combined inside the passes of the FFT (`grid.FusedGrid`). Pays where there are many
points, as measured.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from kernels.checks import check_normal, check_weights
from kernels.contract import Complex, Real
from kernels.cuda._load import Runtime, check_here
from kernels.cuda.grid import Grid, open_grid
from kernels.cuda.nufft import CudaNufft
from kernels.geometry import smooth
from kernels.plan import FINEST_EPS

SIGMA = 2.0
TRIAL_COILS = 8
LARGEST_SPECTRUM = 1 << 28  # cells, 1 GB: beyond, memory is better spent on frames


class CudaToeplitz:
    """adjoint(weights · forward(x)) for `points` [*samples, axis] and weights [*samples], 1 where None.

    Making it waits for the device and takes a NUFFT on the doubled grid; its calls do not wait, and may be recorded in
    a CUDA graph. Holds 4 bytes per cell of the doubled grid.
    """

    def __init__(self, runtime: Runtime, points: Any, *, shape: tuple[int, ...], weights: Real | None = None) -> None:
        check_here(runtime, weights=weights)
        check_weights(weights, points.shape[:-1])
        self.shape = tuple(shape)
        self.samples = points.shape[:-1]
        self._runtime = runtime
        self._grid = padding(runtime, self.shape)
        doubled = tuple(2 * n for n in self.shape)
        self._spectrum = self._transform(self._response(points, doubled, weights))

    def _response(self, points: Any, doubled: tuple[int, ...], weights: Real | None) -> Complex:
        """Σ_j weights_j exp(i k_j·r) on the doubled grid, 0 at its first voxels: no two voxels are N apart."""
        plan = CudaNufft(self._runtime, points, shape=doubled, eps=FINEST_EPS[SIGMA], sigma=SIGMA)
        ones = self._runtime.xp.ones(self.samples, np.complex64)
        response = plan.adjoint(ones if weights is None else weights.astype(np.complex64))
        for axis in range(len(doubled)):
            response[(slice(None),) * axis + (0,)] = 0
        return response

    def _transform(self, response: Complex) -> Real:
        """The response's transform on the fine grid [z, y, x], which is real: the operator is Hermitian."""
        fine = self._grid.fine[3 - max(2, response.ndim) :]
        axes = (1,) * (len(fine) - response.ndim) + response.shape
        ones = tuple(np.ones(n, np.float32) for n in axes)
        spectrum = open_grid(self._runtime, axes, fine, ones).pad(response.reshape(1, *(1,) * (3 - len(axes)), *axes))
        return self._runtime.xp.ascontiguousarray(spectrum.real)  # type: ignore[no-any-return]

    def __call__(self, x: Complex, *, maps: Complex | None = None) -> Complex:
        """See `Normal`."""
        check_here(self._runtime, x=x, maps=maps)
        check_normal(self, x, None, maps)
        return self._grid.convolve(x, maps, self._spectrum)


def padding(runtime: Runtime, shape: tuple[int, ...]) -> Grid:
    """The grid of at least twice the size that images of `shape` are convolved on."""
    size = (1,) * (len(shape) == 1) + shape
    fine = tuple(map(even_smooth, (2 * n for n in size)))
    scales = tuple(np.full(n, m**-0.5, np.float32) for n, m in zip(size, fine, strict=True))
    return open_grid(runtime, size, fine, scales)


class Pair:
    """The normal operator as spreading after interpolation, k-space in plan order in between; see `Normal`."""

    def __init__(self, plan: CudaNufft, weights: Real | None) -> None:
        self._plan, self._weights = plan, weights

    def __call__(self, x: Complex, *, maps: Complex | None = None) -> Complex:
        """See `Normal`."""
        return self._plan.normal(x, weights=self._weights, maps=maps)


def prefers_toeplitz(runtime: Runtime, plan: CudaNufft) -> bool:
    """Whether a convolution of TRIAL_COILS images takes this device less time than the pair: measured, on zeros.

    Measured once for plans of one size, which then choose alike. Waits for the device.
    """
    shape = plan.shape
    if 2 ** len(shape) * prod(shape) > LARGEST_SPECTRUM:
        return False

    def measure() -> bool:
        grid, zeros = padding(runtime, shape), runtime.xp.zeros
        x, maps = zeros(shape, np.complex64), zeros((TRIAL_COILS, *shape), np.complex64)
        spectrum = zeros(grid.fine, np.float32)
        pair = runtime.seconds(lambda: plan.normal(x, maps=maps))
        return runtime.seconds(lambda: grid.convolve(x, maps, spectrum)) < pair

    chosen: bool = runtime.choices.get(("toeplitz", shape, prod(plan.samples), plan.eps, plan.sigma), measure)
    return chosen


def even_smooth(size: int) -> int:
    """The next even number of factors 2, 3 and 5."""
    found = size + size % 2
    while not smooth(found):
        found += 2
    return found

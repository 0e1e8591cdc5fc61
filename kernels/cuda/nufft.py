"""Non-uniform FFT on a GPU, all coils of a trajectory at once (doi:10.1137/18M120885X); see kernels/plan.py.

Nothing here waits for the device, except for making a plan. Each call works on the caller's current CuPy stream and
takes its memory from the caller's pool: one fine grid of at most 16 coils (4 in 3-D), and the result.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from kernels.checks import check_last, check_normal
from kernels.contract import Complex, Normal, Real
from kernels.cuda._load import Runtime, check_here
from kernels.cuda.grid import open_grid
from kernels.cuda.nufft_steps import Lists
from kernels.geometry import fold
from kernels.plan import plan_geometry

COARSE_EPS = 1e-3  # half precision of the weights adds about 3e-4


class CudaNufft:
    """NUFFT plan for `points` [*samples, axis] on a grid of `shape` ([z,] y, x); see `kernels.contract.NufftPlan`.

    One axis is planned as two, the first of size 1. `half_weights` halves the memory of the weights, for eps ≥ 1e-3.
    Holds per point 4 + 4·axis·(1 + width) bytes and about 8 for the two lists; the same bits for any number of coils.
    A pickled plan is made again from its points.
    """

    def __init__(
        self,
        runtime: Runtime,
        points: Any,
        *,
        shape: tuple[int, ...],
        eps: float = 1e-4,
        sigma: float = 2.0,
        half_weights: bool = False,
    ) -> None:
        if half_weights and eps < COARSE_EPS:
            raise ValueError(f"eps is {eps:g}, expected at least {COARSE_EPS:g} for half weights: use full ones")
        self.shape = tuple(shape)
        self.samples = points.shape[:-1]
        self.eps, self.sigma, self.half_weights = eps, sigma, half_weights
        self._runtime = runtime
        self._points = runtime.get(points)
        folded = fold(self._points, self.shape)
        geometry = plan_geometry(*lift(folded, self.shape), eps=eps, sigma=sigma)
        scales = tuple((1 / factor.astype(np.float64)).astype(np.float32) for factor in geometry.deapodise)
        self._grid = open_grid(runtime, geometry.shape, geometry.fine, scales)
        self._lists = Lists(runtime, geometry, half_weights=half_weights)
        self._operator: tuple[Real | None, int, Normal | None] = (None, 0, None)
        self._lock = threading.Lock()

    def forward(self, x: Complex) -> Complex:
        """x [*batch, *shape] → [*batch, *samples]."""
        check_here(self._runtime, x=x)
        check_last(x, "x", self.shape)
        batch = x.shape[: x.ndim - len(self.shape)]
        images = self._grid.images(x)
        y = self._runtime.xp.empty((len(images), self._lists.points), np.complex64)
        for part in self._grid.turns(len(images)):
            self._lists.interpolate(self._grid.pad(images[part]), y[part], planned=False)
        return y.reshape(*batch, *self.samples)  # type: ignore[no-any-return]

    def adjoint(self, y: Complex) -> Complex:
        """y [*batch, *samples] → [*batch, *shape]."""
        check_here(self._runtime, y=y)
        check_last(y, "y", self.samples)
        batch = y.shape[: y.ndim - len(self.samples)]
        kspace = self._runtime.xp.ascontiguousarray(y).reshape(-1, self._lists.points)
        x = self._runtime.xp.empty((len(kspace), *self._grid.size), np.complex64)
        for part in self._grid.turns(len(kspace)):
            grid = self._grid.empty(part.stop - part.start)
            self._lists.spread(kspace[part], grid, planned=False)
            self._grid.crop(grid, x[part])
        return x.reshape(*batch, *self.shape)  # type: ignore[no-any-return]

    def normal(self, x: Complex, *, weights: Real | None = None, maps: Complex | None = None) -> Complex:
        """See `NufftPlan.normal`; k-space stays in plan order, the maps are multiplied on the way in and out."""
        check_here(self._runtime, x=x, weights=weights, maps=maps)
        check_normal(self, x, weights, maps)
        factor = None if weights is None else weights.ravel()[self._lists.order]
        return self._grid.there_and_back(x, maps, lambda grid: self._through_points(grid, factor))

    def operator(self, weights: Real | None = None) -> Normal:
        """See `NufftPlan.operator`: the pair at first, and the faster of pair and convolution once it is asked again.

        A convolution is planned on the host, which takes as long as thousands of its calls: a trajectory that does not
        come again is not worth it. Waits for the device then; the operator's calls do not.
        """
        from kernels.cuda.toeplitz import CudaToeplitz, Pair, prefers_toeplitz  # which plan their spectrum with this

        with self._lock:
            known, uses, operator = self._operator
            if operator is None or known is not weights:
                uses, operator = 0, Pair(self, weights)
            elif uses == 1 and prefers_toeplitz(self._runtime, self):
                operator = CudaToeplitz(self._runtime, self._points, shape=self.shape, weights=weights)
            self._operator = weights, uses + 1, operator
            return operator

    def _through_points(self, grid: Any, factor: Any) -> None:
        """Fine grid → points · factor → fine grid, in place."""
        y = self._runtime.xp.empty((self._lists.points, grid.shape[2]), np.complex64)
        self._lists.interpolate(grid, y, planned=True, factor=factor)
        self._lists.spread(y, grid, planned=True)

    def __reduce__(self) -> tuple[Any, ...]:
        # Device memory has no meaning elsewhere.
        return _rebuild, (self._runtime, self._points, self.shape, self.eps, self.sigma, self.half_weights)


def _rebuild(runtime: Runtime, points: Real, *rest: Any) -> CudaNufft:
    shape, eps, sigma, half_weights = rest
    return CudaNufft(runtime, points, shape=shape, eps=eps, sigma=sigma, half_weights=half_weights)


def lift(points: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """Points and shape of one axis as those of two, the first of size 1; others as they are."""
    if len(shape) != 1:
        return points, shape
    return np.concatenate([np.zeros_like(points), points], axis=-1), (1, *shape)

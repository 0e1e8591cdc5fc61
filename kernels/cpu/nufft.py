"""Non-uniform FFT on the CPU by FINUFFT (doi:10.1137/18M120885X)."""

from __future__ import annotations

from math import prod
from typing import Any

import finufft
import numpy as np

from kernels.contract import Complex, Real
from kernels.geometry import fold

FINEST_EPS, COARSEST_EPS = 1e-5, 1e-1  # single precision cannot promise less than 1e-5


class CpuNufft:
    """NUFFT plan for `points` [*samples, axis] on a grid of `shape` ([z,] y, x); see `kernels.contract.NufftPlan`."""

    def __init__(self, points: Real, shape: tuple[int, ...], *, eps: float = 1e-4, threads: int = 1) -> None:
        if not FINEST_EPS <= eps <= COARSEST_EPS:
            raise ValueError(
                f"eps is {eps:g}, single precision allows {FINEST_EPS:g} to {COARSEST_EPS:g}: choose one in between"
            )
        folded = fold(points, len(shape))
        self.shape = tuple(shape)
        self.samples = points.shape[:-1]
        self.eps = eps
        self.threads = threads
        self._axes = [np.ascontiguousarray(folded[..., axis].ravel()) for axis in range(len(shape))]
        self._plan = self._build()

    def _build(self) -> Any:
        plan = finufft.Plan(2, self.shape, 1, self.eps, -1, dtype="complex64", nthreads=self.threads)
        plan.setpts(*self._axes)
        return plan

    def forward(self, x: Complex) -> Complex:
        """x [*batch, *shape] → [*batch, *samples]."""
        self._check(x, self.shape, "x", "[*batch, *shape]")
        batch = x.shape[: x.ndim - len(self.shape)]
        y = np.empty((prod(batch), prod(self.samples)), np.complex64)
        for image, out in zip(np.ascontiguousarray(x).reshape(-1, *self.shape), y, strict=True):
            self._plan.execute(image, out)
        return y.reshape(*batch, *self.samples)

    def adjoint(self, y: Complex) -> Complex:
        """y [*batch, *samples] → [*batch, *shape]."""
        self._check(y, self.samples, "y", "[*batch, *samples]")
        batch = y.shape[: y.ndim - len(self.samples)]
        x = np.empty((prod(batch), *self.shape), np.complex64)
        for values, out in zip(np.ascontiguousarray(y).reshape(-1, prod(self.samples)), x, strict=True):
            self._plan.execute_adjoint(values, out)
        return x.reshape(*batch, *self.shape)

    def normal(self, x: Complex, *, weights: Real | None = None, maps: Complex | None = None) -> Complex:
        """See `NufftPlan.normal`."""
        if maps is None:
            return self._weighted(x, weights)
        total = np.zeros_like(x)
        for coil_map in maps:
            total += coil_map.conj() * self._weighted(coil_map * x, weights)
        return total

    def _weighted(self, x: Complex, weights: Real | None) -> Complex:
        y = self.forward(x)
        return self.adjoint(y if weights is None else np.multiply(y, weights, out=y))

    def __reduce__(self) -> tuple[Any, ...]:
        # FINUFFT's plan is a C pointer: the copy plans again from the same points.
        points = np.stack(self._axes, axis=-1).reshape(*self.samples, len(self.shape))
        return _rebuild, (points, self.shape, self.eps, self.threads)

    @staticmethod
    def _check(array: Complex, last: tuple[int, ...], name: str, form: str) -> None:
        if array.dtype != np.complex64:
            raise TypeError(f"{name} has dtype {array.dtype}, expected complex64: convert it first")
        if array.shape[array.ndim - len(last) :] != last:
            raise ValueError(f"{name} has shape {array.shape}, expected {form} ending in {last}: reshape it")


def _rebuild(points: Real, shape: tuple[int, ...], eps: float, threads: int) -> CpuNufft:
    return CpuNufft(points, shape, eps=eps, threads=threads)

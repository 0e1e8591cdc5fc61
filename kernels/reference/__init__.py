"""The slow, obviously right twin of every kernel: direct sums in double precision, for tests and bench."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from kernels.checks import (
    check_axes,
    check_coils,
    check_complex,
    check_crop,
    check_expand,
    check_last,
    check_low_rank,
    check_normal,
    check_phase,
    check_rss,
    check_threshold,
    check_wavelet,
    check_whiten,
)
from kernels.contract import Array, Complex, Equations, Load, Normal, Real
from kernels.geometry import fold
from kernels.reference import direct
from kernels.solve import solve

Single = np.complex64


class ReferenceNufft:
    """`NufftPlan` by direct sums."""

    def __init__(self, points: Real, shape: tuple[int, ...]) -> None:
        self.shape = tuple(shape)
        self.samples = points.shape[:-1]
        self._points = fold(points, self.shape)

    def forward(self, x: Complex) -> Complex:
        """See `NufftPlan.forward`."""
        check_last(x, "x", self.shape)
        return direct.nufft_forward(self._points, x, self.shape).astype(Single)

    def adjoint(self, y: Complex) -> Complex:
        """See `NufftPlan.adjoint`."""
        check_last(y, "y", self.samples)
        return direct.nufft_adjoint(self._points, y, self.shape).astype(Single)

    def normal(self, x: Complex, *, weights: Real | None = None, maps: Complex | None = None) -> Complex:
        """See `NufftPlan.normal`."""
        check_normal(self, x, weights, maps)
        return direct.nufft_normal(self._points, x, self.shape, weights=weights, maps=maps).astype(Single)

    def operator(self, weights: Real | None = None) -> Normal:
        """See `NufftPlan.operator`."""
        return partial(self.normal, weights=weights)


class ReferenceKernels:
    """`Kernels` by the sums of their definitions; results rounded to single precision once, at the end."""

    device = "reference"

    def load(self) -> Load:
        """See `Kernels.load`."""
        return Load()

    def caches(self) -> tuple[tuple[str, int, int, int], ...]:
        """See `Kernels.caches`."""
        return ()

    def to_device(self, array: Array) -> Array:
        """See `Kernels.to_device`."""
        return array

    def to_host(self, array: Array) -> Array:
        """See `Kernels.to_host`."""
        return array

    def nufft(self, points: Real, shape: tuple[int, ...], *, eps: float = 1e-4) -> ReferenceNufft:
        """See `Kernels.nufft`; exact whatever eps asks for."""
        return ReferenceNufft(points, shape)

    def fft(self, x: Complex, *, axes: int) -> Complex:
        """See `Kernels.fft`."""
        check_axes(x, axes)
        return direct.dft(x, x.shape[x.ndim - axes :], sign=-1).astype(Single)

    def ifft(self, x: Complex, *, axes: int, crop: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.ifft`."""
        check_axes(x, axes)
        grid = x.shape[x.ndim - axes :]
        return direct.dft(x, check_crop(crop or grid, grid), sign=1).astype(Single)

    def ifft_rss(self, kspace: Complex, *, crop: tuple[int, int, int], whitening: Complex | None = None) -> Real:
        """See `Kernels.ifft_rss`."""
        check_rss(kspace, crop, whitening)
        mixed = kspace if whitening is None else direct.mix(whitening, kspace)
        return direct.rss(direct.dft(mixed, crop, sign=1)).astype(np.float32)

    def ifft_rss_each(
        self, kspace: Sequence[Complex], *, crop: tuple[int, int, int], whitening: Sequence[Complex | None]
    ) -> list[Real]:
        """See `Kernels.ifft_rss_each`."""
        return [self.ifft_rss(one, crop=crop, whitening=mix) for one, mix in zip(kspace, whitening, strict=True)]

    def rss(self, images: Complex) -> Real:
        """See `Kernels.rss`."""
        check_complex(images, "images", 2)
        return direct.rss(images).astype(np.float32)

    def combine(self, images: Complex, maps: Complex) -> Complex:
        """See `Kernels.combine`."""
        check_coils(images, maps)
        return direct.combine(images, maps).astype(Single)

    def expand(self, image: Complex, maps: Complex) -> Complex:
        """See `Kernels.expand`."""
        check_expand(image, maps)
        return direct.expand(image, maps).astype(Single)

    def whiten(self, whitening: Complex, samples: Complex) -> Complex:
        """See `Kernels.whiten`."""
        check_whiten(whitening, samples)
        return np.moveaxis(direct.mix(whitening, np.moveaxis(samples, -2, 0)), 0, -2).astype(Single)

    def shrink(self, x: Complex, threshold: float) -> Complex:
        """See `Kernels.shrink`."""
        check_threshold(x, threshold)
        return direct.shrink(x, threshold).astype(Single)

    def wavelet(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.wavelet`."""
        return direct.wavelet(x, levels, check_wavelet(x, levels, shift)).astype(Single)

    def iwavelet(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.iwavelet`."""
        return direct.iwavelet(x, levels, check_wavelet(x, levels, shift)).astype(Single)

    def low_rank(
        self, x: Complex, threshold: float, *, block: tuple[int, ...], shift: tuple[int, ...] | None = None
    ) -> Complex:
        """See `Kernels.low_rank`."""
        return direct.low_rank(x, threshold, block, check_low_rank(x, threshold, block, shift)).astype(Single)

    def rotate(self, x: Complex, phase: Real) -> Complex:
        """See `Kernels.rotate`."""
        check_phase(x, phase)
        return direct.rotate(x, phase).astype(Single)

    def cg(self, equations: Equations, rhs: Complex, *, iterations: int, tolerance: float = 0.0) -> Complex:
        """See `Kernels.cg`."""
        return solve(equations, rhs, iterations=iterations, tolerance=tolerance)

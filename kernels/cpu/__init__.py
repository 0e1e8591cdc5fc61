"""Kernels for the CPU: FINUFFT, the fastest FFT library on the machine, BLAS."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.checks import (
    check_axes,
    check_coils,
    check_complex,
    check_crop,
    check_expand,
    check_low_rank,
    check_phase,
    check_rss,
    check_threshold,
    check_wavelet,
    check_whiten,
)
from kernels.contract import Array, Complex, DeviceError, Equations, Load, Real
from kernels.cpu import coils, prox, wavelet
from kernels.cpu.engine import ENGINES
from kernels.cpu.fft import CentredFft
from kernels.cpu.nufft import CpuNufft, size_bytes
from kernels.cpu.rss import FusedRss
from kernels.cpu.team import Team
from kernels.cpu.toeplitz import Convolver
from kernels.geometry import check_points
from kernels.plans import Plans, content_key
from kernels.solve import solve


class CpuKernels:
    """The kernels of this machine's CPU; see `kernels.contract.Kernels`."""

    def __init__(self, *, threads: int = 1, engine: str = "fftw", plans: Plans | None = None) -> None:
        """At most `threads` threads, for NUFFTs and coil operations; FFTs by `engine`, "fftw" or "scipy".

        NUFFT plans are kept in `plans`, by default 512 MB of those used last.
        """
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1: ask for one thread or more")
        if engine not in ENGINES:
            raise DeviceError(f"device cpu:{engine} is not known, expected one of {', '.join(ENGINES)} after 'cpu:'")
        chosen = ENGINES[engine]()
        self.device = "cpu" if engine == "fftw" else f"cpu:{engine}"
        self.threads = threads
        self._fft = CentredFft(chosen)
        self._rss = FusedRss(chosen)
        self._team = Team(threads)
        self._convolver = Convolver(chosen, self._team)
        self.plans = Plans() if plans is None else plans

    def load(self) -> Load:
        """See `Kernels.load`."""
        return Load()

    def caches(self) -> tuple[tuple[str, int, int, int], ...]:
        """See `Kernels.caches`."""
        known = self.plans.statistics()
        return (("plans", known.hits, known.misses, known.bytes),)

    def to_device(self, array: Array) -> Array:
        """See `Kernels.to_device`."""
        return array

    def to_host(self, array: Array) -> Array:
        """See `Kernels.to_host`."""
        return array

    def nufft(self, points: Real, shape: tuple[int, ...], *, eps: float = 1e-4) -> CpuNufft:
        """See `Kernels.nufft`."""
        check_points(points, shape)
        key = content_key(points), tuple(shape), eps
        return self.plans.get(
            key,
            lambda: CpuNufft(points, shape, eps=eps, convolver=self._convolver),
            size_bytes=size_bytes(points.size // len(shape), shape, threads=self.threads),
        )

    def fft(self, x: Complex, *, axes: int) -> Complex:
        """See `Kernels.fft`."""
        check_axes(x, axes)
        return self._fft.transform(x, x.shape[x.ndim - axes :], forward=True)

    def ifft(self, x: Complex, *, axes: int, crop: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.ifft`."""
        check_axes(x, axes)
        grid = x.shape[x.ndim - axes :]
        return self._fft.transform(x, check_crop(crop or grid, grid), forward=False)

    def ifft_rss(self, kspace: Complex, *, crop: tuple[int, int, int], whitening: Complex | None = None) -> Real:
        """See `Kernels.ifft_rss`."""
        check_rss(kspace, crop, whitening)
        return self._rss.image(kspace, crop, whitening)

    def ifft_rss_each(
        self, kspace: Sequence[Complex], *, crop: tuple[int, int, int], whitening: Sequence[Complex | None]
    ) -> list[Real]:
        """See `Kernels.ifft_rss_each`; one after the other, for a coil's plane fills the cache (measured)."""
        return [self.ifft_rss(one, crop=crop, whitening=mix) for one, mix in zip(kspace, whitening, strict=True)]

    def rss(self, images: Complex) -> Real:
        """See `Kernels.rss`."""
        check_complex(images, "images", 2)
        return coils.rss(images)

    def combine(self, images: Complex, maps: Complex) -> Complex:
        """See `Kernels.combine`."""
        check_coils(images, maps)
        return coils.combine(images, maps, self._team)

    def expand(self, image: Complex, maps: Complex) -> Complex:
        """See `Kernels.expand`."""
        check_expand(image, maps)
        return coils.expand(image, maps, self._team)

    def whiten(self, whitening: Complex, samples: Complex) -> Complex:
        """See `Kernels.whiten`."""
        check_whiten(whitening, samples)
        return coils.whiten(whitening, samples)

    def shrink(self, x: Complex, threshold: float) -> Complex:
        """See `Kernels.shrink`."""
        check_threshold(x, threshold)
        return prox.shrink(x, threshold)

    def wavelet(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.wavelet`."""
        return wavelet.forward(x, levels, check_wavelet(x, levels, shift))

    def iwavelet(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.iwavelet`."""
        return wavelet.inverse(x, levels, check_wavelet(x, levels, shift))

    def low_rank(
        self, x: Complex, threshold: float, *, block: tuple[int, ...], shift: tuple[int, ...] | None = None
    ) -> Complex:
        """See `Kernels.low_rank`."""
        return prox.low_rank(x, threshold, block, check_low_rank(x, threshold, block, shift))

    def rotate(self, x: Complex, phase: Real) -> Complex:
        """See `Kernels.rotate`."""
        check_phase(x, phase)
        return coils.rotate(x, phase)

    def cg(self, equations: Equations, rhs: Complex, *, iterations: int, tolerance: float = 0.0) -> Complex:
        """See `Kernels.cg`."""
        return solve(equations, rhs, iterations=iterations, tolerance=tolerance)

"""Kernels for the CPU: FINUFFT, the fastest FFT library on the machine, BLAS."""

from __future__ import annotations

from kernels.contract import Complex, Real
from kernels.cpu import coils, fft
from kernels.cpu.nufft import CpuNufft


class CpuKernels:
    """The kernels of this machine's CPU with at most `threads` threads; see `kernels.contract.Kernels`."""

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1: ask for one thread or more")
        self.device = "cpu"
        self.threads = threads

    def nufft(self, points: Real, shape: tuple[int, ...], *, eps: float = 1e-4) -> CpuNufft:
        """See `Kernels.nufft`; eps from 1e-5 to 1e-1."""
        return CpuNufft(points, shape, eps=eps, threads=self.threads)

    def fft(self, x: Complex, *, axes: int) -> Complex:
        """See `Kernels.fft`."""
        return fft.fft(x, axes=axes, threads=self.threads)

    def ifft(self, x: Complex, *, axes: int, crop: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.ifft`."""
        return fft.ifft(x, axes=axes, crop=crop, threads=self.threads)

    def ifft_rss(self, kspace: Complex, *, crop: tuple[int, int, int]) -> Real:
        """See `Kernels.ifft_rss`."""
        return fft.ifft_rss(kspace, crop=crop, threads=self.threads)

    def rss(self, images: Complex) -> Real:
        """See `Kernels.rss`."""
        return coils.rss(images)

    def combine(self, images: Complex, maps: Complex) -> Complex:
        """See `Kernels.combine`."""
        return coils.combine(images, maps)

    def expand(self, image: Complex, maps: Complex) -> Complex:
        """See `Kernels.expand`."""
        return coils.expand(image, maps)

    def whiten(self, whitening: Complex, samples: Complex) -> Complex:
        """See `Kernels.whiten`."""
        return coils.whiten(whitening, samples)

"""Kernels for NVIDIA GPUs, through CuPy; every call is queued on the caller's current stream and returns at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kernels.contract import Array, Complex, Equations, Load, Real
from kernels.cuda._load import Runtime, open_runtime
from kernels.cuda.cg import Solvers
from kernels.cuda.coils import CudaCoils
from kernels.cuda.fft import CudaFft
from kernels.cuda.nufft import CudaNufft
from kernels.cuda.prox import CudaProx
from kernels.cuda.wavelet import CudaWavelet


def open_device(number: int) -> CudaKernels:
    """The kernels of CUDA device `number`; raises DeviceError with what is missing."""
    return CudaKernels(open_runtime(number))


class CudaKernels:
    """The kernels of one GPU; see `kernels.contract.Kernels`. Arrays are CuPy's, on the runtime's device."""

    def __init__(self, runtime: Runtime) -> None:
        self.device = runtime.device
        self._runtime = runtime
        self._fft = CudaFft(runtime)
        self._coils = CudaCoils(runtime, self._fft)
        self._prox = CudaProx(runtime)
        self._wavelet = CudaWavelet(runtime)
        self._solvers = Solvers(runtime)

    def load(self) -> Load:
        """See `Kernels.load`."""
        return self._runtime.load()

    def caches(self) -> tuple[tuple[str, int, int, int], ...]:
        """See `Kernels.caches`."""
        return ()

    def to_device(self, array: Array) -> Array:
        """See `Kernels.to_device`."""
        self._runtime.use()
        return array if self._runtime.owns(array) else self._runtime.put(array)

    def to_host(self, array: Array) -> Array:
        """See `Kernels.to_host`."""
        return self._runtime.get(array)  # type: ignore[return-value]  # CuPy arrays come back as NumPy's

    def nufft(self, points: Any, shape: tuple[int, ...], *, eps: float = 1e-4) -> CudaNufft:
        """See `Kernels.nufft`; points may be in host memory too. Waits for the device."""
        return CudaNufft(self._runtime, points, shape=shape, eps=eps)

    def fft(self, x: Complex, *, axes: int) -> Complex:
        """See `Kernels.fft`."""
        return self._fft.fft(x, axes=axes)

    def ifft(self, x: Complex, *, axes: int, crop: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.ifft`."""
        return self._fft.ifft(x, axes=axes, crop=crop)

    def ifft_rss(self, kspace: Complex, *, crop: tuple[int, int, int], whitening: Complex | None = None) -> Real:
        """See `Kernels.ifft_rss`."""
        return self._coils.ifft_rss(kspace, crop=crop, whitening=whitening)

    def ifft_rss_each(
        self, kspace: Sequence[Complex], *, crop: tuple[int, int, int], whitening: Sequence[Complex | None]
    ) -> list[Real]:
        """See `Kernels.ifft_rss_each`."""
        return self._coils.ifft_rss_each(kspace, crop=crop, whitening=whitening)

    def rss(self, images: Complex) -> Real:
        """See `Kernels.rss`."""
        return self._coils.rss(images)

    def combine(self, images: Complex, maps: Complex) -> Complex:
        """See `Kernels.combine`."""
        return self._coils.combine(images, maps)

    def expand(self, image: Complex, maps: Complex) -> Complex:
        """See `Kernels.expand`."""
        return self._coils.expand(image, maps)

    def whiten(self, whitening: Complex, samples: Complex) -> Complex:
        """See `Kernels.whiten`."""
        return self._coils.whiten(whitening, samples)

    def rotate(self, x: Complex, phase: Real) -> Complex:
        """See `Kernels.rotate`."""
        return self._coils.rotate(x, phase)

    def shrink(self, x: Complex, threshold: float) -> Complex:
        """See `Kernels.shrink`."""
        return self._prox.shrink(x, threshold)

    def low_rank(
        self, x: Complex, threshold: float, *, block: tuple[int, ...], shift: tuple[int, ...] | None = None
    ) -> Complex:
        """See `Kernels.low_rank`."""
        return self._prox.low_rank(x, threshold, block=block, shift=shift)

    def wavelet(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.wavelet`."""
        return self._wavelet.forward(x, levels=levels, shift=shift)

    def iwavelet(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """See `Kernels.iwavelet`."""
        return self._wavelet.inverse(x, levels=levels, shift=shift)

    def cg(self, equations: Equations, rhs: Complex, *, iterations: int, tolerance: float = 0.0) -> Complex:
        """See `Kernels.cg`; the first solve of a kind waits for the device."""
        return self._solvers.solve(equations, rhs, iterations=iterations, tolerance=tolerance)

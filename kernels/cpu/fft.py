"""Centred orthonormal FFTs on the CPU."""

from __future__ import annotations

import numpy as np
import scipy.fft

from kernels.contract import Complex, Real


def central(length: int, crop: int) -> slice:
    """The `crop` central samples of a centred axis of `length`: r = 0 stays at index ⌊crop/2⌋."""
    start = length // 2 - crop // 2
    return slice(start, start + crop)


def fft(x: Complex, *, axes: int, threads: int = 1) -> Complex:
    """Centred orthonormal DFT, exp(−i), over the last `axes` axes."""
    last = tuple(range(-axes, 0))
    return np.fft.fftshift(scipy.fft.fftn(np.fft.ifftshift(x, last), axes=last, norm="ortho", workers=threads), last)


def ifft(x: Complex, *, axes: int, crop: tuple[int, ...] | None = None, threads: int = 1) -> Complex:
    """Centred orthonormal inverse DFT, exp(+i), over the last `axes` axes; `crop` keeps the central part of each."""
    last = tuple(range(-axes, 0))
    full = np.fft.fftshift(scipy.fft.ifftn(np.fft.ifftshift(x, last), axes=last, norm="ortho", workers=threads), last)
    parts = tuple(central(n, c) for n, c in zip(full.shape[-axes:], crop or full.shape[-axes:], strict=True))
    return np.ascontiguousarray(full[..., *parts])


def ifft_rss(kspace: Complex, *, crop: tuple[int, int, int], threads: int = 1) -> Real:
    """Root-sum-of-squares over coils of the centred inverse DFT: [coil, z, y, x] → [z, y, x] cropped."""
    total = np.zeros(crop, np.float32)
    for coil in kspace:
        image = ifft(coil, axes=3, crop=crop, threads=threads)
        total += image.real**2 + image.imag**2
    return np.sqrt(total, out=total)

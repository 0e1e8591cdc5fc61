"""What a perfect reconstruction of a simulated measurement looks like, and how far noise alone takes it from that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.scan import Counters, Shape3, Space
from recon.simulate.noise import predicted_nrmse
from recon.simulate.phantom import Real, Shapes, Spectrum, Vector, inside


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """One image: `pixels` [z, y, x] combined by root-sum-of-squares, `mask` [z, y, x] of the object, error from noise.

    Pixels are in the unit of the reconstruction: whitened to σ = 1 where the scan has a noise scan.
    """

    counters: Counters
    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    predicted_nrmse: float


@dataclass(frozen=True, slots=True, eq=False)
class Ideal:
    """Noise-free coil images [coil, z, y, x] of one frame; `sigma` is an image's noise per unit of noise in k-space."""

    counters: Counters
    images: NDArray[np.complex64]
    mask: NDArray[np.bool_]
    sigma: float = 1.0


def unit(space: Space, axes: int) -> float:
    """Factor from ∫ρ exp(−2πi k·r) dr to k-space whose orthonormal inverse DFT on the encoded `space` is ρ."""
    return float(np.sqrt(np.prod(space.matrix[3 - axes :])) / np.prod(space.field_of_view_mm[3 - axes :]))


def coil_images(kspace: Spectrum | NDArray[np.complex64], crop: Shape3) -> NDArray[np.complex64]:
    """Centred orthonormal inverse DFT, exp(+i), of k-space [coil, z, y, x], cropped to `crop`.

    It shares no code with the reconstruction, so that a fault there cannot hide here.
    """
    from scipy import fft

    axes = (-3, -2, -1)
    images = fft.fftshift(fft.ifftn(fft.ifftshift(kspace, axes=axes), axes=axes, norm="ortho"), axes=axes)
    cuts = [
        slice(full // 2 - kept // 2, full // 2 - kept // 2 + kept)
        for full, kept in zip(images.shape[1:], crop, strict=True)
    ]
    return np.asarray(images[:, cuts[0], cuts[1], cuts[2]], np.complex64)


def judge(ideal: Ideal, whitening: Spectrum | None) -> Truth:
    """Truth of `ideal` after `whitening` [coil, coil], or without noise where that is None."""
    seen = ideal.images
    if whitening is not None:
        seen = np.tensordot(whitening.astype(np.complex64), seen, axes=1)
    pixels = np.sqrt(np.sum(seen.real**2 + seen.imag**2, axis=0))
    sigma = 0.0 if whitening is None else ideal.sigma
    return Truth(ideal.counters, pixels, ideal.mask, predicted_nrmse(pixels[ideal.mask], len(seen), sigma=sigma))


def pixel_centers(space: Space, axes: int) -> Vector:
    """Where the voxels of `space` are: [[z, ]y, x, axis] mm, axes (x, y[, z]); the voxel n // 2 is at 0."""
    sides = [(np.arange(n) - n // 2) * step for n, step in zip(space.matrix, space.spacing_mm, strict=True)]
    grid = np.meshgrid(*sides[3 - axes :], indexing="ij")
    return np.stack(grid[::-1], axis=-1)


def mask(shapes: Shapes, space: Space) -> NDArray[np.bool_]:
    """Which voxels of `space` have their centre inside the object → [z, y, x]."""
    covered = inside(shapes, pixel_centers(space, shapes.axes)).any(axis=0)
    return covered.reshape(space.matrix)


def nrmse(image: Real | NDArray[np.float32], truth: Truth) -> float:
    """Root of Σ(image − truth)² / Σ truth² over the object; `image` [z, y, x]."""
    difference = (image - truth.pixels)[truth.mask]
    return float(np.linalg.norm(difference) / np.linalg.norm(truth.pixels[truth.mask]))

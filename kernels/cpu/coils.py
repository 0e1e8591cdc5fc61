"""Coil operations on the CPU."""

from __future__ import annotations

import numpy as np

from kernels.contract import Complex, Real


def rss(images: Complex) -> Real:
    """Root-sum-of-squares: images [coil, *grid] → float32 [*grid]."""
    total = np.zeros(images.shape[1:], np.float32)
    for image in images:
        total += image.real**2 + image.imag**2
    return np.sqrt(total, out=total)


def combine(images: Complex, maps: Complex) -> Complex:
    """Σ_c conj(maps_c) · images_c: [coil, *grid] → [*grid]."""
    total = np.zeros(images.shape[1:], np.complex64)
    for image, coil_map in zip(images, maps, strict=True):
        total += coil_map.conj() * image
    return total


def expand(image: Complex, maps: Complex) -> Complex:
    """maps_c · image: [*grid] → [coil, *grid]."""
    return np.multiply(maps, image, dtype=np.complex64)


def whiten(whitening: Complex, samples: Complex) -> Complex:
    """whitening [coil, coil] applied to samples [..., coil, sample] along the coil axis."""
    out: Complex = np.matmul(whitening, samples)
    return out

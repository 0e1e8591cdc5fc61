"""Coil sensitivity maps estimated from coil images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.contract import Complex
from recon.arrays import divided, phase_of

BLOCK = 3  # voxels per axis that share one covariance
REACH = 1  # blocks on either side that are averaged with it: windows of 9 voxels
ITERATIONS = 8  # of the power method: where there is signal the second eigenvalue is noise, many times smaller
SLAB_BYTES = 8 << 20  # covariances held at once: they stay in the cache while they are averaged


def walsh(images: Complex, *, block: int = BLOCK, reach: int = REACH) -> Complex:
    """Maps of adaptive combination: images [coil, z, y, x] → [coil, z, y, x] with Σ|S|² = 1.

    The principal eigenvector of the coils' local covariance, averaged over (2·reach + 1)·block voxels per axis, is
    found once per block and interpolated between (doi:10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G).
    Its phase is relative to the one combination of coils that is strongest over the whole image: smooth wherever that
    combination has signal.
    """
    peak = float(np.abs(images).max())
    scaled = images / np.float32(peak or 1.0)  # squares of extreme units would leave single precision
    sizes = tuple(min(block, n) for n in images.shape[1:])
    reference = strongest(scaled)
    coarse = np.concatenate(
        [
            principal(local_covariance(part, sizes, reach)[inner], reference)
            for part, inner in slabs(scaled, sizes, reach)
        ],
        axis=1,
    )
    maps = interpolate(np.moveaxis(coarse, -1, 0), images.shape[1:], sizes)
    maps /= np.sqrt((maps.real**2 + maps.imag**2).sum(axis=0))
    return maps


def strongest(images: Complex) -> Complex:
    """The combination of coils [coil], of unit norm, that has most power over all of images [coil, z, y, x]."""
    flat = images.reshape(len(images), -1)
    vector: Complex = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    largest = vector[np.abs(vector).argmax()]
    vector *= np.abs(largest) / largest  # eigenvectors come with any phase
    return vector


def slabs(images: Complex, sizes: Sequence[int], reach: int) -> list[tuple[Complex, tuple[slice, slice]]]:
    """Parts of images [coil, z, y, x] along y with `reach` blocks of overlap, and where their own blocks [z, y] lie."""
    coils, *grid = images.shape
    deep, high, wide = (-(-n // size) for n, size in zip(grid, sizes, strict=True))
    rows = max(2 * reach + 1, SLAB_BYTES // (8 * coils**2 * deep * wide))
    parts = []
    for first in range(0, high, rows):
        start, stop = max(0, first - reach), min(high, first + rows + reach)
        own = slice(first - start, first - start + min(rows, high - first))
        parts.append((images[:, :, start * sizes[1] : stop * sizes[1]], (slice(None), own)))
    return parts


def local_covariance(images: Complex, sizes: Sequence[int], reach: int) -> Complex:
    """Covariance [z, y, x, coil, coil] of images [coil, z, y, x] around each block of `sizes` voxels."""
    blocks = split(images, sizes)
    covariance: Complex = blocks @ blocks.conj().swapaxes(-1, -2)
    for axis in range(3):
        covariance = box(covariance, axis, reach)
    return covariance


def split(images: Complex, sizes: Sequence[int]) -> Complex:
    """Images [coil, z, y, x] as blocks [z, y, x, coil, voxel]; the last ones are filled up with zeros."""
    coils, *grid = images.shape
    padded = np.pad(images, [(0, 0), *((0, -n % size) for n, size in zip(grid, sizes, strict=True))])
    (z, a), (y, b), (x, c) = ((n // size, size) for n, size in zip(padded.shape[1:], sizes, strict=True))
    parts = padded.reshape(coils, z, a, y, b, x, c).transpose(1, 3, 5, 0, 2, 4, 6)
    return parts.reshape(z, y, x, coils, a * b * c)


def box(values: Complex, axis: int, reach: int) -> Complex:
    """Sums over `reach` neighbours on either side along `axis`; there are fewer at the ends."""
    moved = np.moveaxis(values, axis, 0)
    total = moved.copy()
    for step in range(1, min(reach, len(moved) - 1) + 1):
        total[step:] += moved[:-step]
        total[:-step] += moved[step:]
    return np.moveaxis(total, 0, axis)


def principal(covariance: Complex, reference: Complex) -> Complex:
    """Principal eigenvectors [..., coil] of covariance [..., coil, coil], their product with `reference` real and ≥ 0.

    Where there is no signal at all it is the reference itself.
    """
    vectors = np.broadcast_to(reference, covariance.shape[:-1])
    for _ in range(ITERATIONS):
        product = (covariance @ vectors[..., np.newaxis])[..., 0]
        norm = np.linalg.norm(product, axis=-1, keepdims=True)
        vectors = divided(product, norm, otherwise=vectors)
    rotated: Complex = vectors * phase_of((vectors @ reference.conj()).conj())[..., np.newaxis]
    return rotated


def interpolate(coarse: Complex, grid: Sequence[int], sizes: Sequence[int]) -> Complex:
    """Values [coil, z, y, x] at block centres, linearly interpolated to the voxels of `grid`."""
    z, y, x = (np.asarray(between(n, size), like=coarse) for n, size in zip(grid, sizes, strict=True))
    deep = coarse.transpose(0, 2, 3, 1) @ z.T  # [coil, y, x, z]
    fine: Complex = y @ np.moveaxis(deep, -1, 1) @ x.T
    return fine


def between(length: int, size: int) -> Complex:
    """Weights [voxel, block] of linear interpolation between block centres, constant beyond the outer ones."""
    count = -(-length // size)
    place = np.clip((np.arange(length) - (size - 1) / 2) / size, 0, count - 1)
    weights: Complex = np.maximum(0, 1 - np.abs(place[:, np.newaxis] - np.arange(count))).astype(np.complex64)
    return weights

"""Proximal steps on the CPU."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex
from kernels.cpu.engine import TILE, even_parts

BLOCKS = 1024  # blocks whose matrices are held at once


def shrink(x: Complex, threshold: float) -> Complex:
    """max(|x| − threshold, 0) · x / |x|, a cache-sized piece at a time; NaN stays NaN."""
    flat = x.reshape(-1)
    out = np.empty(flat.shape, np.complex64)
    least = np.float32(threshold)
    for part in even_parts(len(flat), TILE):
        size = np.abs(flat[part])
        size[size <= least] = least or 1  # their factor is zero; where threshold and value are both zero it may be one
        np.divide(least, size, out=size)
        np.subtract(1, size, out=size)
        np.multiply(flat[part], size, out=out[part])
    return out.reshape(x.shape)


def low_rank(x: Complex, threshold: float, block: tuple[int, ...], shift: tuple[int, ...]) -> Complex:
    """x [frame, *grid] with the singular values of each block less `threshold`."""
    axes = tuple(range(1, x.ndim))
    rolled = np.roll(x, [-s for s in shift], axes) if any(shift) else x
    out = np.empty(x.shape, np.complex64)
    for region in product(*(regions(n, b) for n, b in zip(x.shape[1:], block, strict=True))):
        part = (slice(None), *(cells for cells, _ in region))
        sizes = tuple(size for _, size in region)
        out[part] = shrink_blocks(rolled[part], threshold, sizes)
    return np.roll(out, shift, axes) if any(shift) else out


def regions(length: int, size: int) -> list[tuple[slice, int]]:
    """An axis as the part that whole blocks cover and the part of the last, smaller block; with their block sizes."""
    whole = length // size * size
    parts = [(slice(0, whole), size), (slice(whole, length), length - whole)]
    return [part for part in parts if part[0].start < part[0].stop]


def shrink_blocks(x: Complex, threshold: float, sizes: tuple[int, ...]) -> Complex:
    """`low_rank` of x [frame, *grid] where blocks of `sizes` cover the grid exactly."""
    split = [len(x)]
    for n, size in zip(x.shape[1:], sizes, strict=True):
        split += [n // size, size]
    axes = len(sizes)
    order = (*range(1, 2 * axes, 2), 0, *range(2, 2 * axes + 1, 2))  # [*block, frame, *voxel]
    blocks = x.reshape(split).transpose(order)
    matrices = blocks.reshape(-1, len(x), int(np.prod(sizes)))
    parts = [shrink_matrices(matrices[i : i + BLOCKS], threshold) for i in range(0, len(matrices), BLOCKS)]
    shrunk: Complex = np.concatenate(parts).reshape(blocks.shape).transpose(np.argsort(order)).reshape(x.shape)
    return shrunk


def shrink_matrices(matrices: Complex, threshold: float) -> Complex:
    """Matrices [matrix, row, column] with their singular values less `threshold`.

    From the eigenvectors of the smaller Gram matrix: A·f(AᴴA) or f(AAᴴ)·A. In double precision its squares keep
    singular values down to 1e-8 of the largest, below what single precision can show. A matrix with NaN or infinity
    becomes NaN, the others are as they would be without it.
    """
    exact = matrices.astype(np.complex128)
    broken = ~np.isfinite(exact).all(axis=(1, 2))
    exact[broken] = 0  # LAPACK would refuse them all
    wide = matrices.shape[1] <= matrices.shape[2]
    adjoint = exact.conj().swapaxes(-1, -2)
    powers, vectors = np.linalg.eigh(exact @ adjoint if wide else adjoint @ exact)
    kept = filter_of(vectors, powers, threshold).astype(np.complex64)
    kept[broken] = np.nan
    return kept @ matrices if wide else matrices @ kept


def filter_of(vectors: NDArray[np.complex128], powers: NDArray[np.float64], threshold: float) -> NDArray[np.complex128]:
    """V diag(max(1 − threshold / σ, 0)) Vᴴ with σ² = `powers`."""
    values = np.sqrt(np.maximum(powers, 0))
    factors = 1 - threshold / np.maximum(values, threshold or 1)
    filtered: NDArray[np.complex128] = vectors * factors[..., np.newaxis, :] @ vectors.conj().swapaxes(-1, -2)
    return filtered

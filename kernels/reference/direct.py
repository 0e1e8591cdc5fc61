"""Every kernel as the sum that defines it, in complex128."""

from __future__ import annotations

from itertools import product
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Real

Exact = NDArray[np.complex128]
Points = NDArray[np.float32] | NDArray[np.float64]
BLOCK = 256  # points whose exponentials are held at once
LOW = tuple((a + b * sqrt(3)) / (4 * sqrt(2)) for a, b in ((1, 1), (3, 1), (3, -1), (1, -1)))  # Daubechies 1988, N = 2
HIGH = tuple(sign * tap for sign, tap in zip((1, -1, 1, -1), reversed(LOW), strict=True))


def centred(size: int) -> NDArray[np.int64]:
    """r = −⌊N/2⌋ … ⌈N/2⌉−1."""
    return np.arange(size) - size // 2


def positions(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The centred positions of all voxels, [voxel, axis]."""
    return np.stack(np.meshgrid(*map(centred, shape), indexing="ij"), axis=-1).reshape(-1, len(shape))


def exponentials(points: Points, shape: tuple[int, ...]) -> list[Exact]:
    """exp(−i k_j·r) as blocks [point, voxel]."""
    flat = points.reshape(-1, len(shape)).astype(np.float64)
    r = positions(shape).T.astype(np.float64)
    return [np.exp(-1j * (flat[start : start + BLOCK] @ r)) for start in range(0, len(flat), BLOCK)]


def nufft_forward(points: Points, x: Complex | Exact, shape: tuple[int, ...]) -> Exact:
    """y_j = Σ_r x_r exp(−i k_j·r): x [*batch, *shape] → [*batch, *samples]."""
    batch = x.shape[: x.ndim - len(shape)]
    flat = x.reshape(*batch, -1).astype(np.complex128)
    y = np.concatenate([flat @ block.T for block in exponentials(points, shape)], axis=-1)
    return y.reshape(*batch, *points.shape[:-1])


def nufft_adjoint(points: Points, y: Complex | Exact, shape: tuple[int, ...]) -> Exact:
    """x_r = Σ_j y_j exp(+i k_j·r): y [*batch, *samples] → [*batch, *shape]."""
    batch = y.shape[: y.ndim - points.ndim + 1]
    flat = y.reshape(*batch, -1).astype(np.complex128)
    x = np.zeros((*batch, np.prod(shape)), np.complex128)
    for i, block in enumerate(exponentials(points, shape)):
        x += flat[..., i * BLOCK : (i + 1) * BLOCK] @ block.conj()
    return x.reshape(*batch, *shape)


def nufft_normal(
    points: Points, x: Complex, shape: tuple[int, ...], *, weights: Real | None, maps: Complex | None
) -> Exact:
    """Σ_c conj(S_c) adjoint(weights · forward(S_c x))."""
    images = x if maps is None else expand(x, maps)
    y = nufft_forward(points, images, shape)
    back = nufft_adjoint(points, y if weights is None else y * weights, shape)
    return back if maps is None else combine(back, maps)


def dft(x: Complex | Exact, crop: tuple[int, ...], *, sign: int) -> Exact:
    """Centred orthonormal DFT exp(sign · 2πi k r / N) of the last len(crop) axes, of which the centre is kept."""
    y = x.astype(np.complex128)
    for axis, kept in zip(range(x.ndim - len(crop), x.ndim), crop, strict=True):
        n = x.shape[axis]
        matrix = np.exp(sign * 2j * np.pi * np.outer(centred(kept), centred(n)) / n) / np.sqrt(n)
        y = np.moveaxis(np.tensordot(matrix, y, axes=(1, axis)), 0, axis)
    return y


def mix(whitening: Complex, samples: Complex) -> Exact:
    """Σ_c W_dc s_c over the first axis: samples [coil, ...] → [coil, ...]."""
    return np.tensordot(whitening.astype(np.complex128), samples, axes=(1, 0))


def rss(images: Complex | Exact) -> NDArray[np.float64]:
    """√Σ_c |I_c|²: images [coil, *grid] → [*grid]."""
    power: NDArray[np.float64] = (np.abs(images.astype(np.complex128)) ** 2).sum(axis=0)
    return np.sqrt(power)


def combine(images: Complex | Exact, maps: Complex) -> Exact:
    """Σ_c conj(S_c) I_c: [coil, *grid] → [*grid]."""
    summed: Exact = (maps.conj() * images.astype(np.complex128)).sum(axis=0)
    return summed


def expand(image: Complex, maps: Complex) -> Exact:
    """S_c x: [*grid] → [coil, *grid]."""
    return maps.astype(np.complex128) * image


def shrink(x: Complex | Exact, threshold: float) -> Exact:
    """max(|x| − threshold, 0) · x / |x|."""
    exact = x.astype(np.complex128)
    size = np.abs(exact)
    kept: Exact = exact * np.divide(np.maximum(size - threshold, 0), size, where=size > 0, out=np.zeros_like(size))
    return kept


def rotate(x: Complex, phase: Real) -> Exact:
    """x · exp(i phase)."""
    rotated: Exact = x.astype(np.complex128) * np.exp(1j * phase.astype(np.float64))
    return rotated


def wavelet_matrix(size: int) -> NDArray[np.float64]:
    """One level along one axis: row k holds the low-pass taps at 2k − 1 … 2k + 2, row size/2 + k the high-pass taps."""
    matrix = np.zeros((size, size))
    for k, tap in product(range(size // 2), range(4)):
        matrix[k, (2 * k - 1 + tap) % size] += LOW[tap]
        matrix[size // 2 + k, (2 * k - 1 + tap) % size] += HIGH[tap]
    return matrix


def low_corner(shape: tuple[int, ...], levels: tuple[int, ...], level: int) -> tuple[slice, ...]:
    """Where lies what is left to be split at `level`, in all of the batch."""
    batch = len(shape) - len(levels)
    return (
        *map(slice, shape[:batch]),
        *(slice(n >> min(level, m)) for n, m in zip(shape[batch:], levels, strict=True)),
    )


def wavelet(x: Complex | Exact, levels: tuple[int, ...], shift: tuple[int, ...]) -> Exact:
    """Level by level, axis by axis, the matrix times the low corner."""
    axes = range(-len(levels), 0)
    out = np.roll(x.astype(np.complex128), [-s for s in shift], tuple(axes))
    for level in range(max(levels)):
        part = low_corner(out.shape, levels, level)
        for axis in (a for a in axes if levels[a] > level):
            out[part] = along(wavelet_matrix(out[part].shape[axis]), out[part], axis)
    return out


def iwavelet(x: Complex | Exact, levels: tuple[int, ...], shift: tuple[int, ...]) -> Exact:
    """The transposed matrices in reverse order."""
    axes = range(-len(levels), 0)
    out = x.astype(np.complex128)
    for level in reversed(range(max(levels))):
        part = low_corner(out.shape, levels, level)
        for axis in (a for a in axes if levels[a] > level):
            out[part] = along(wavelet_matrix(out[part].shape[axis]).T, out[part], axis)
    return np.roll(out, shift, tuple(axes))


def along(matrix: NDArray[np.float64], x: Exact, axis: int) -> Exact:
    """The matrix times `x` along `axis`."""
    return np.moveaxis(np.tensordot(matrix, x, axes=(1, axis)), 0, axis)


def low_rank(x: Complex | Exact, threshold: float, block: tuple[int, ...], shift: tuple[int, ...]) -> Exact:
    """The singular values of each block [frame, voxel] shrunk, by LAPACK's SVD; NaN where a block is not finite."""
    axes = tuple(range(1, x.ndim))
    out = np.roll(x.astype(np.complex128), [-s for s in shift], axes)
    for start in product(*(range(0, n, b) for n, b in zip(x.shape[1:], block, strict=True))):
        part = (slice(None), *(slice(s, s + b) for s, b in zip(start, block, strict=True)))
        out[part] = shrink_values(out[part].reshape(len(x), -1), threshold).reshape(out[part].shape)
    return np.roll(out, shift, axes)


def shrink_values(matrix: Exact, threshold: float) -> Exact:
    """A matrix with its singular values less `threshold`, none below zero."""
    if not np.isfinite(matrix).all():
        return np.full_like(matrix, np.nan)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    shrunk: Exact = left * np.maximum(values - threshold, 0) @ right
    return shrunk

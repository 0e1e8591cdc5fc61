"""Priors as proximal steps, for `recon.solve.fista`: sparse wavelets, total variation, low rank; for any device."""

from __future__ import annotations

from collections.abc import Iterable
from math import log, prod, sqrt
from types import EllipsisType

import numpy as np

from kernels.contract import Complex, Kernels
from recon.arrays import contiguous
from recon.solve import Prox

SMALLEST = 16  # voxels along an axis that are not split further
DEEPEST = 4  # levels
DUAL_STEPS = 8  # of total variation in each proximal step; the dual goes on from where the last step left it
SIDES = {1: (64,), 2: (8, 8), 3: (4, 4, 4)}  # of blocks that are locally of low rank, by the number of grid axes
RATIOS = (0.7548776662466927, 0.5698402909980532, 0.4301597090019468)  # powers of the plastic number's inverse
RAYLEIGH_MEDIAN = sqrt(2 * log(2))  # of a complex normal number's magnitude, in σ of each part


def levels_of(grid: tuple[int, ...]) -> tuple[int, ...]:
    """How often each axis of `grid` is split: no low half is shorter than SMALLEST."""
    return tuple(next(level for level in range(DEEPEST, -1, -1) if level == 0 or n >> level >= SMALLEST) for n in grid)


def sparse_wavelets(kernels: Kernels, strength: float, grid: tuple[int, ...]) -> Prox:
    """The prox of strength · ‖wavelet details‖₁ over the last axes, of sizes `grid`: [*batch, *grid].

    The coarsest average is no detail and stays as it is. The transform's origin moves with the iteration, which leaves
    no blocks (doi:10.1007/978-1-4612-2544-7_9); where a size is not divisible, the image is continued with zeros.
    """
    levels = levels_of(grid)
    padding = [-n % (1 << level) for n, level in zip(grid, levels, strict=True)]
    low = last(slice(0, (n + more) >> level) for n, more, level in zip(grid, padding, levels, strict=True))
    inside = last(slice(0, n) for n in grid)

    def prox(x: Complex, step: float, iteration: int) -> Complex:
        shift = origin(levels, iteration)
        padded = np.pad(x, [(0, 0)] * (x.ndim - len(grid)) + [(0, more) for more in padding]) if any(padding) else x
        details = kernels.wavelet(padded, levels=levels, shift=shift)
        shrunk = kernels.shrink(details, step * strength)
        shrunk[low] = details[low]
        return kernels.iwavelet(shrunk, levels=levels, shift=shift)[inside]

    return prox if any(levels) else lambda x, _, __: x


def origin(levels: tuple[int, ...], iteration: int) -> tuple[int, ...]:
    """Where the transform begins in an iteration: a sequence that fills the coarsest cell evenly."""
    return origin_in(tuple(1 << level for level in levels), iteration)


def origin_in(cell: tuple[int, ...], iteration: int) -> tuple[int, ...]:
    """A place in a cell of so many voxels along each axis: the same in every run, and over iterations everywhere."""
    return tuple(int(size * (iteration * ratio % 1)) for size, ratio in zip(cell, RATIOS, strict=False))


def low_rank_blocks(kernels: Kernels, strength: float, axes: int) -> Prox:
    """The prox of a sum over blocks of nuclear norms of [frame, voxel], of x [frame, *sets, *grid] with `axes` of grid.

    A singular value is shrunk by strength · √2 (√frames + √voxels), the largest one of a block of complex noise with
    σ = strength in each part (doi:10.1109/TSP.2013.2270464). Blocks begin elsewhere in each iteration, so that none of
    their edges is seen; several sets are images of their own.
    """

    def prox(x: Complex, step: float, iteration: int) -> Complex:
        grid = x.shape[x.ndim - axes :]
        block = tuple(min(side, n) for side, n in zip(SIDES[axes], grid, strict=True))
        threshold = step * strength * sqrt(2) * (sqrt(len(x)) + sqrt(prod(block)))
        shift = origin_in(block, iteration)
        if x.ndim == axes + 1:
            return kernels.low_rank(x, threshold, block=block, shift=shift)
        sets = [kernels.low_rank(contiguous(x[:, i]), threshold, block=block, shift=shift) for i in range(x.shape[1])]
        return np.stack(sets, axis=1)

    return prox


def noise_of(kernels: Kernels, image: Complex, axes: int) -> float:
    """σ of each part of the noise in image [*batch, *grid] with `axes` grid axes, from its finest diagonal details.

    The median does not see the few details of the object (doi:10.1093/biomet/81.3.425). 0 where the grid is too small.
    """
    even = image[last(slice(0, max(n - n % 2, 1)) for n in image.shape[-axes:])]
    levels = tuple(int(n > 1) for n in even.shape[-axes:])
    if not any(levels):
        return 0.0
    details = kernels.wavelet(contiguous(even), levels=levels)
    fine = details[last(slice(n // 2 * level, None) for n, level in zip(even.shape[-axes:], levels, strict=True))]
    return float(np.median(np.abs(fine))) / RAYLEIGH_MEDIAN


def last(parts: Iterable[slice]) -> tuple[EllipsisType | slice, ...]:
    """The index of `parts` of the last axes."""
    return (..., *parts)


class TotalVariation:
    """The prox of strength · Σ |∇x| over the last `axes` axes, isotropic, by projected gradients of its dual.

    A call starts from the dual of the last one: inside a solver, where arguments change little, a few steps suffice
    (doi:10.1109/TIP.2009.2028250).
    """

    def __init__(self, strength: float, axes: int) -> None:
        self._strength = strength
        self._axes = tuple(range(-axes, 0))
        self._dual: Complex | None = None

    def __call__(self, x: Complex, step: float, _: int, *, steps: int = DUAL_STEPS) -> Complex:
        """The prox of [*batch, *grid], whose shape must not change between calls."""
        weight = step * self._strength
        if weight == 0:
            return x
        dual = np.stack([x * 0 for _ in self._axes]) if self._dual is None else self._dual
        ahead, momentum = dual, 1.0
        for _ in range(steps):
            slope = gradient(x - weight * divergence(ahead, self._axes), self._axes)
            new = unit_ball(ahead + (1 / (4 * len(self._axes) * weight)) * slope)
            following = (1 + sqrt(1 + 4 * momentum * momentum)) / 2
            ahead = new + ((momentum - 1) / following) * (new - dual)
            dual, momentum = new, following
        self._dual = dual
        return x - weight * divergence(dual, self._axes)


def gradient(x: Complex, axes: tuple[int, ...]) -> Complex:
    """Forward differences [axis, ...] of x along each of `axes`, zero at the far end."""
    out = np.stack([x * 0 for _ in axes])
    for i, axis in enumerate(axes):
        moved, target = np.moveaxis(x, axis, 0), np.moveaxis(out[i], axis, 0)
        target[:-1] = moved[1:] - moved[:-1]
    return out


def divergence(dual: Complex, axes: tuple[int, ...]) -> Complex:
    """The adjoint of `gradient`: dual [axis, ...] → [...]."""
    out: Complex = dual[0] * 0
    for part, axis in zip(dual, axes, strict=True):
        moved, target = np.moveaxis(part, axis, 0), np.moveaxis(out, axis, 0)
        target[1:] += moved[:-1]
        target[:-1] -= moved[:-1]
    return out


def unit_ball(dual: Complex) -> Complex:
    """dual [axis, ...] with no vector longer than 1."""
    length = np.sqrt((dual.real**2 + dual.imag**2).sum(axis=0))
    shortened: Complex = dual / np.maximum(length, 1)
    return shortened

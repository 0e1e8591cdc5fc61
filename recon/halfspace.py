"""K-space measured on one side only, completed by what a smooth phase implies: homodyne and POCS, for any device.

An image of real values times a known phase has a symmetric k-space once the phase is taken off. The phase comes from
the centre of k-space, which is measured on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kernels.contract import Complex, Kernels, Real
from recon.arrays import phase_of

ITERATIONS = 20  # of POCS
ENOUGH = 1e-3  # relative change of the image at which POCS stops
EDGE = 4.0  # samples over which the edge of what was measured is smoothed, inside, against ringing


@dataclass(frozen=True, slots=True)
class Extent:
    """Samples along one axis that were measured: from `low` to `high`, counted from the centre, whole or not.

    Both are infinite along an axis that is complete.
    """

    low: float = -np.inf
    high: float = np.inf

    @property
    def partial(self) -> bool:
        """Whether one side is missing."""
        return self.low != -self.high

    @property
    def half(self) -> float:
        """How far both sides reach."""
        return min(-self.low, self.high)


def homodyne(images: Complex, extents: Sequence[Extent], kernels: Kernels) -> Complex:
    """`images` [*batch, *grid] of zero-filled k-space completed in one step (doi:10.1109/42.79473).

    One `extents` for each grid axis. Samples whose mirror image was not measured count twice. Where two axes are
    partial, the corner that neither side measured stays zero.
    """
    grid = images.shape[-len(extents) :]
    here, there = (_product(grid, extents, _inside, mirrored=mirrored) for mirrored in (False, True))
    weights = np.asarray(here * (2 - there), like=images)
    phase = smooth_phase(images, extents, kernels)
    completed: Complex = (_filtered(images, weights, kernels) * phase.conj()).real * phase
    return completed


def pocs(images: Complex, extents: Sequence[Extent], kernels: Kernels) -> Complex:
    """`images` [*batch, *grid] completed by projections onto real images of smooth phase and onto what was measured.

    Slower than `homodyne`, and complete in two directions as well; doi:10.1016/0022-2364(91)90253-P.
    """
    axes = len(extents)
    measured = np.asarray(_product(images.shape[-axes:], extents, _step), like=images)
    phase = smooth_phase(images, extents, kernels)
    kspace = kernels.fft(images, axes=axes) * measured
    current = images
    for _ in range(ITERATIONS):
        projected = (current * phase.conj()).real * phase
        new = kernels.ifft(kspace + kernels.fft(projected.astype(np.complex64), axes=axes) * (1 - measured), axes=axes)
        change = float(np.linalg.norm((new - current).ravel()))
        current = new
        if change <= ENOUGH * float(np.linalg.norm(current.ravel())):
            break
    return current


def smooth_phase(images: Complex, extents: Sequence[Extent], kernels: Kernels) -> Complex:
    """exp(iφ) of `images` from what was measured on both sides, 1 where there is nothing."""
    window = np.asarray(_product(images.shape[-len(extents) :], extents, _bell), like=images)
    low = _filtered(images, window, kernels)
    return phase_of(low)


def _filtered(images: Complex, weights: Real, kernels: Kernels) -> Complex:
    axes = weights.ndim
    return kernels.ifft(kernels.fft(images, axes=axes) * weights, axes=axes)


def _product(
    grid: Sequence[int], extents: Sequence[Extent], shape: Callable[[Real, Extent], Real], *, mirrored: bool = False
) -> Real:
    """The product over axes of `shape` at each sample of `grid`, or of the sample opposite to it."""
    total = np.ones((1,) * len(grid), np.float32)
    for axis, (n, extent) in enumerate(zip(grid, extents, strict=True)):
        if extent.partial:
            place = (np.arange(n) - n // 2).astype(np.float32)
            line = shape(-place if mirrored else place, extent).astype(np.float32)
            total = total * line.reshape((-1,) + (1,) * (len(grid) - 1 - axis))
    return np.broadcast_to(total, tuple(grid)).copy()


def _step(place: Real, extent: Extent) -> Real:
    """1 where measured."""
    inside: Real = ((place >= extent.low - 0.5) & (place <= extent.high + 0.5)).astype(np.float32)
    return inside


def _inside(place: Real, extent: Extent) -> Real:
    """1 where measured, falling smoothly to 0 at the edge that is nearer to the centre, which has its mirror image."""
    width = min(EDGE, extent.half)
    toward = place - extent.low if -extent.low < extent.high else extent.high - place
    ramp = np.clip((toward + 1) / (width + 1), 0, 1)
    smooth: Real = _step(place, extent) * ramp * ramp * (3 - 2 * ramp)
    return smooth


def _bell(place: Real, extent: Extent) -> Real:
    """A raised cosine over the samples measured on both sides."""
    distance = np.abs(place) / (extent.half + 1)
    bell: Real = np.where(distance < 1, np.cos(np.pi / 2 * np.minimum(distance, 1)) ** 2, 0).astype(np.float32)
    return bell

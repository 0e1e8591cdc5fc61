"""Linear operators from an image to the k-space of its coils, in the units of the orthonormal DFT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any

import numpy as np

from kernels.contract import Complex, Equations, Kernels, NufftPlan, Real

Apply = Callable[[Complex], Complex]


@dataclass(frozen=True, slots=True)
class Operator:
    """`forward` maps an image to k-space, `adjoint` k-space to an image; `normal` is adjoint(forward(image))."""

    forward: Apply
    adjoint: Apply
    normal: Apply


def cartesian_sense(kernels: Kernels, maps: Complex, sampled: Real, *, axes: int | None = None) -> Operator:
    """Image [*grid] ↔ k-space [coil, *grid]: coil `maps` [coil, *grid], the DFT, the mask `sampled` (0 or 1).

    `axes`: how many of the last axes are transformed, all of the grid's by default; fully sampled ones need no
    transform. `sampled` broadcasts to [coil, *grid]; doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S.
    """
    last = maps.ndim - 1 if axes is None else axes

    def forward(image: Complex) -> Complex:
        return kernels.fft(kernels.expand(image, maps), axes=last) * sampled

    def adjoint(kspace: Complex) -> Complex:
        return kernels.combine(kernels.ifft(kspace * sampled, axes=last), maps)

    return Operator(forward, adjoint, lambda image: adjoint(forward(image)))


def nufft_sense(kernels: Kernels, plan: NufftPlan, maps: Complex, *, density: Real | None = None) -> Operator:
    """Image [*shape] ↔ k-space [coil, *samples]: coil `maps` [coil, *shape] and the NUFFT `plan` over √∏shape.

    With `density` [*samples] (kernels.geometry) the adjoint weights k-space by density · ∏shape, which makes `normal`
    nearly the identity: then it is the adjoint for that weighted inner product (doi:10.1002/mrm.1241).
    """
    voxels = prod(plan.shape)
    weights = None if density is None else density * density.dtype.type(voxels)
    scale = 1 / sqrt(voxels)

    def forward(image: Complex) -> Complex:
        return plan.forward(kernels.expand(image, maps)) * scale

    def adjoint(kspace: Complex) -> Complex:
        return kernels.combine(plan.adjoint(kspace if weights is None else kspace * weights), maps) * scale

    def normal(image: Complex) -> Complex:
        return plan.normal(image, weights=weights, maps=maps) * (1 / voxels)

    return Operator(forward, adjoint, normal)


def soft_sense(kernels: Kernels, maps: Complex, sampled: Real, *, axes: int) -> Operator:
    """Images [set, *grid] ↔ k-space [coil, *grid]: as `cartesian_sense`, with one image for each of `maps`' sets.

    `maps` are [set, coil, *grid]; k-space is the sum over sets (doi:10.1002/mrm.24751).
    """

    def forward(images: Complex) -> Complex:
        return kernels.fft(expand_sets(kernels, images, maps), axes=axes) * sampled

    def adjoint(kspace: Complex) -> Complex:
        return combine_sets(kernels, kernels.ifft(kspace * sampled, axes=axes), maps)

    return Operator(forward, adjoint, lambda images: adjoint(forward(images)))


def expand_sets(kernels: Kernels, images: Complex, maps: Complex) -> Complex:
    """Coil images [coil, *grid]: the sum over sets of images [set, *grid] seen by maps [set, coil, *grid]."""
    total = kernels.expand(images[0], maps[0])
    for image, own in zip(images[1:], maps[1:], strict=True):
        total = total + kernels.expand(image, own)
    return total


def combine_sets(kernels: Kernels, coils: Complex, maps: Complex) -> Complex:
    """One combination [set, *grid] of coil images [coil, *grid] for each set of maps [set, coil, *grid]."""
    return np.stack([kernels.combine(coils, own) for own in maps])


def regularised(equations: Equations, strength: float) -> Equations:
    """normal(x) + strength · x, for solvers of ‖A x − y‖² + strength · ‖x‖²."""
    if not strength:
        return equations

    def normal(x: Complex, *operands: Any) -> Complex:
        return equations.normal(x, *operands) + strength * x

    return replace(equations, normal=normal, key=(equations.key, strength))

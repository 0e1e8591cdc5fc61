"""One image's data as layer 1 takes them: the equations that the image solves, and how few samples there are."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.contract import Complex, Equations, Kernels, Real
from recon.operators import cartesian_sense


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """`equations` of AᴴA and `rhs` = Aᴴy [y, x], where the noise of the samples y is σ = 1 in each part.

    `acceleration` is the grid's lines over the measured ones, at least 1.
    """

    equations: Equations
    rhs: Complex
    acceleration: float


def cartesian(kernels: Kernels, kspace: Complex, maps: Complex, sampled: Real) -> Measured:
    """The data of k-space [coil, ky, kx], `maps` of that shape, and the lines `sampled` [ky, 1] or [ky, kx] of it."""

    def normal(image: Complex, maps: Complex, sampled: Real) -> Complex:
        return cartesian_sense(kernels, maps, sampled).normal(image)

    rhs = cartesian_sense(kernels, maps, sampled).adjoint(kspace)
    equations = Equations(normal, (maps, sampled), ("cartesian", maps.shape, sampled.shape))
    return Measured(equations, rhs, float(sampled.size / sampled.sum()))

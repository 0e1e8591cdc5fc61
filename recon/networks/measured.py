"""One image's data as layer 1 takes them: the equations that the image solves, and how few samples there are."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.contract import Complex, Equations, Kernels, NufftPlan, Real
from recon.arrays import contiguous
from recon.operators import cartesian_sense, nufft_sense


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """`equations` of AᴴA and `rhs` = Aᴴy [x, y], where the noise of the samples y is σ = 1 in each part.

    `acceleration` is how many samples of the k-space that a full measurement needs there are to one that was taken. Of
    Cartesian data the undersampled axis is the last, as in `recon.methods.problem`.
    """

    equations: Equations
    rhs: Complex
    acceleration: float


def cartesian(kernels: Kernels, kspace: Complex, maps: Complex, lines: Real) -> Measured:
    """The data of k-space [coil, kx, ky] with the `lines` [ky] measured (1) or not (0), and maps [coil, x, y].

    Each x is a problem of its own in ky: the transform along x happens once, before iterating.
    """

    def normal(image: Complex, maps: Complex, lines: Real) -> Complex:
        return cartesian_sense(kernels, maps, lines, axes=1).normal(image)

    hybrid = kernels.ifft(contiguous(kspace.swapaxes(-1, -2)), axes=1).swapaxes(-1, -2)
    rhs = cartesian_sense(kernels, maps, lines, axes=1).adjoint(contiguous(hybrid))
    return Measured(Equations(normal, (maps, lines), ("lines", kernels.device)), rhs, float(lines.size / lines.sum()))


def weighted(
    kernels: Kernels, plan: NufftPlan, samples: Complex, maps: Complex, *, density: Real, acceleration: float
) -> Measured:
    """The data of `samples` [coil, *samples] where `plan` has its points, with weights `density`; maps [coil, x, y].

    Weights make `normal` nearly the identity where k-space is full (doi:10.1002/mrm.1241).
    """
    operator = plan.operator(density)

    def normal(image: Complex, maps: Complex) -> Complex:
        return operator(image, maps=maps)

    rhs = nufft_sense(kernels, plan, maps, density=density).adjoint(samples)
    return Measured(Equations(normal, (maps,), ("shots", operator)), rhs, acceleration)

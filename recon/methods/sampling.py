"""Non-Cartesian sampling: a NUFFT plan on the image's grid and the weights that make its adjoint an inverse."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import prod

import numpy as np

from kernels.contract import BudgetError, Complex, Kernels, NufftPlan, Real
from kernels.geometry import density_koosh, density_pipe_menon, density_radial, density_voronoi
from kernels.plans import content_key
from recon.errors import DeviceError, LimitError, ScanError
from recon.methods.grids import Target, inner
from recon.methods.method import Workbench
from recon.scan import Frame, Shape3, Trajectory

ITERATIONS = 10  # of density compensation; from five on the image changes by less than 0.1 %
BEYOND = np.pi * 1.001  # a point this far out is outside the image's band, not a rounded π
PLAN_BYTES_PER_POINT, PLAN_BYTES_PER_VOXEL = 48, 64


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """`plan` on the image's grid ([z,] y, x) and `weights` [shot, sample] with adjoint(weights · forward(x)) ≈ x.

    The weights are on the device.

    `scale` turns the adjoint of weighted samples into pixels like those of an orthonormal inverse DFT of fully sampled
    Cartesian k-space at the encoded matrix. The planes of a stack are a batch to a plan of two axes.
    """

    plan: NufftPlan
    weights: Real
    scale: np.float32

    @property
    def bytes(self) -> int:
        """About what plan and weights hold."""
        return PLAN_BYTES_PER_POINT * self.weights.size + PLAN_BYTES_PER_VOXEL * prod(self.plan.shape)


def sampling_of(frame: Frame, target: Target, *, eps: float, workbench: Workbench, density: str = "auto") -> Sampling:
    """The sampling of `frame`'s trajectory on the part of `target` inside the encoded field of view, from the cache.

    A trajectory of two axes is that of a plane, or of each plane of a stack (`recon.stack.unstacked`).
    The weights are the wire's own, or those of spokes in closed form, or iterated; with `density` "voronoi" they are
    the cell of each sample, whatever came along.
    Raises LimitError where its plan is larger than the device may make.
    """
    try:
        return workbench.cache.get(
            (*_key(frame, target, eps, workbench.kernels.device), density),
            lambda: _make(frame, target, eps, kernels=workbench.kernels, density=density),
            size=lambda made: made.bytes,
        )
    except BudgetError as error:
        raise LimitError(str(error)) from error


def _key(frame: Frame, target: Target, eps: float, device: str) -> tuple[Hashable, ...]:
    content = content_key(*(array for array in (frame.trajectory, frame.density) if array is not None))
    return "sampling", content, frame.encoding.encoded.matrix, target, eps, device


def _make(frame: Frame, target: Target, eps: float, *, kernels: Kernels, density: str) -> Sampling:
    assert frame.trajectory is not None
    axes = frame.trajectory.shape[-1]
    encoded, full = np.array(frame.encoding.encoded.matrix), np.array(target.full)
    points = frame.trajectory * (encoded / full)[3 - axes :].astype(np.float32)  # radians per voxel of the image
    inside = (np.abs(points) <= BEYOND).all(axis=-1)
    points = np.where(inside[..., None], np.clip(points, -np.pi, np.pi), np.float32(0)).astype(np.float32)
    if not inside.any():
        raise ScanError("no sample of the trajectory is coarse enough for the image's voxels: check the field of view")
    plan = kernels.nufft(points, inner(target)[3 - axes :], eps=eps)
    weights = np.zeros(inside.shape, np.float32)
    if density == "voronoi":
        weights[inside] = _cells(points[inside])
    elif frame.density is None:
        spokes = _spoke_weights(frame.encoding.trajectory, points) if inside.all() else None
        if spokes is None:
            spokes = density_pipe_menon(kernels, points[inside], plan.shape, iterations=ITERATIONS, round_view=True)
        weights[inside] = spokes.reshape(-1)
    else:
        weights[inside] = frame.density[inside]
        weights = normalised(weights, plan, kernels)
    return Sampling(plan, kernels.to_device(weights), _scale(frame.encoding.encoded.matrix, target, axes))


def _scale(encoded: Shape3, target: Target, axes: int) -> np.float32:
    """Along an axis that the plan leaves to the FFT, orthonormal on the image's grid, only its finer voxels count."""
    planned = prod(target.full[3 - axes :]) / np.sqrt(prod(encoded[3 - axes :]))
    return np.float32(planned * np.sqrt(prod(target.full[: 3 - axes]) / prod(encoded[: 3 - axes])))


def _spoke_weights(kind: Trajectory, points: Real) -> Real | None:
    """Weights [shot, sample] in closed form for straight spokes, which a moving window makes ever new."""
    if kind not in (Trajectory.RADIAL, Trajectory.GOLDEN_ANGLE):
        return None
    try:
        return density_radial(points) if points.shape[-1] == 2 else density_koosh(points)
    except ValueError:  # the header says radial, the points are no spokes through the centre
        return None


def _cells(points: Real) -> Real:
    try:
        return density_voronoi(points)
    except ValueError as error:
        raise ScanError(f"density voronoi has no cells to weight with: {error}") from error
    except ModuleNotFoundError as error:  # a CUDA worker need not have it
        raise DeviceError("density voronoi needs SciPy, which this worker lacks: install it or leave it") from error


def normalised(weights: Real, plan: NufftPlan, kernels: Kernels) -> Real:
    """`weights` of any scale, as the wire carries them, made so that adjoint(weights · forward(x)) is as large as x.

    x is smooth, a Gaussian of σ = 2 voxels, so that the corners of k-space that nobody measures do not count.
    """
    axes = np.meshgrid(*((np.arange(n) - n // 2) / 2 for n in plan.shape), indexing="ij")
    smooth: Complex = np.exp(-0.5 * sum(axis**2 for axis in axes)).astype(np.complex64)
    back = plan.normal(kernels.to_device(smooth), weights=kernels.to_device(weights))
    kept = np.vdot(smooth, kernels.to_host(back)).real / np.vdot(smooth, smooth).real
    if kept <= 0:
        raise ScanError("the density that the trajectory carries is zero everywhere: leave it out or correct it")
    return (weights / np.float32(kept)).astype(np.float32)

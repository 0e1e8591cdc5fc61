"""K-space along a trajectory as a method sees it: samples, their sampling, the operators between them and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels, Real
from recon.arrays import contiguous
from recon.field import Segments, segments_of
from recon.methods.combine import whitened
from recon.methods.grids import Target, inner, resize
from recon.methods.method import Workbench
from recon.methods.sampling import Sampling, sampling_of
from recon.recipe import Recipe
from recon.scan import Calibration, Frame, Shape3
from recon.stack import partitions_of


@dataclass(frozen=True, slots=True, eq=False)
class Shots:
    """`kspace` [coil, shot, sample], or [coil, z, shot, sample] of a stack, and how it is made from an image [*grid].

    `trajectory` [shot, sample, axis] is that of the plan; `grid` is the image's part inside the encoded field of view.
    """

    kspace: Complex
    trajectory: Real
    sampling: Sampling
    calibration: Calibration
    kernels: Kernels
    grid: Shape3
    segments: Segments | None = None

    @property
    def planned(self) -> tuple[int, ...]:
        """The sizes of a coil's image: of a plane without the axis of one."""
        return (*self.kspace.shape[1:-2], *self.sampling.plan.shape)

    def images(self, window: Real | None = None) -> Complex:
        """White images [coil, *planned] of the samples weighted for even density, and by a `window` [shot, sample]."""
        sampling = self.sampling
        weights = sampling.weights * sampling.scale
        shown = weights if window is None else weights * window
        images = self.adjoint(np.multiply(self.kspace, shown, dtype=np.complex64))
        return whitened(images, self.calibration, self.kernels)

    def weighted(self, out: Complex) -> None:
        """`out` becomes the samples weighted for even density, as an image's size wants them."""
        np.multiply(self.kspace, self.sampling.weights * self.sampling.scale, out=out)

    def adjoint(self, kspace: Complex) -> Complex:
        """Coil images [coil, *planned] of samples: the plan's adjoint, the phase of each time segment turned back."""
        plan, segments = self.sampling.plan, self.segments
        if segments is None:
            return plan.adjoint(kspace)
        each = zip(segments.weights, segments.phases, strict=True)
        return reduce(add, (phase.conj() * plan.adjoint(kspace * weight.conj()) for weight, phase in each))

    def forward(self, images: Complex) -> Complex:
        """Samples of coil images [coil, *planned]."""
        plan, segments = self.sampling.plan, self.segments
        if segments is None:
            return plan.forward(images)
        each = zip(segments.weights, segments.phases, strict=True)
        return reduce(add, (weight * plan.forward(images * phase) for weight, phase in each))


def images_of(shots: Sequence[Shots]) -> list[Complex]:
    """`images` of each, [coil, *planned]: through one plan at once those that share it."""
    first = shots[0]
    if len(shots) == 1 or any(one.sampling is not first.sampling or one.segments is not None for one in shots):
        return [one.images() for one in shots]
    samples = np.empty((len(shots), *first.kspace.shape), np.complex64, like=first.kspace)
    for one, out in zip(shots, samples, strict=True):
        one.weighted(out)
    images = first.sampling.plan.adjoint(samples)
    return [whitened(made, one.calibration, one.kernels) for made, one in zip(images, shots, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentedNormal:
    """adjoint(weights · forward(x)) of shots with time segments, as a plan's `operator` is called."""

    shots: Shots

    def __call__(self, x: Complex, *, maps: Complex | None = None) -> Complex:
        """x [*batch, *planned], or [*planned] with maps [coil, *planned]."""
        shots, kernels = self.shots, self.shots.kernels
        images = x if maps is None else kernels.expand(x, maps)
        back = shots.adjoint(shots.forward(images) * shots.sampling.weights)
        return back if maps is None else kernels.combine(back, maps)


def shots_of(frame: Frame, target: Target, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> Shots:
    """The shots of `frame`, a stack taken apart; raises ScanError, LimitError."""
    planes = unstacked(frame, target, workbench.kernels)
    density = str(recipe.parameters.get("density", "auto"))
    sampling = sampling_of(planes, target, eps=recipe.number("eps"), density=density, workbench=workbench)
    assert planes.trajectory is not None
    shots = Shots(planes.kspace, planes.trajectory, sampling, calibration, workbench.kernels, inner(target))
    if frame.field is None:
        return shots
    made = segments_of(frame.field.hz, frame.field.bounds_hz, times_of(frame), like=planes.kspace)
    return replace(shots, segments=made)


def times_of(frame: Frame) -> NDArray[np.float64]:
    """When each sample of a shot is measured [sample], in s after the centre of k-space."""
    assert frame.trajectory is not None
    centre = int(np.linalg.norm(frame.trajectory, axis=-1).mean(axis=0).argmin())
    return np.asarray((np.arange(frame.trajectory.shape[1]) - centre) * (frame.sample_time_us * 1e-6), np.float64)


def unstacked(frame: Frame, target: Target, kernels: Kernels) -> Frame:
    """`frame` as it is, or as planes: k-space [coil, z, shot, sample] of the image's z and a path of two axes."""
    rows = partitions_of(frame)
    if rows is None:
        return frame
    assert frame.trajectory is not None
    lines = np.moveaxis(frame.kspace[:, np.asarray(rows, like=frame.kspace)], 1, -1)  # [coil, shot, sample, kz]
    coils, shots, samples, nz = lines.shape
    full = resize(lines.reshape(coils, shots * samples, nz), (coils, shots * samples, target.full[0]))
    planes: Complex = kernels.ifft(contiguous(full), axes=1, crop=(inner(target)[0],))
    kspace = contiguous(np.moveaxis(planes, -1, 1)).reshape(coils, -1, shots, samples)
    density = None if frame.density is None else frame.density[rows[0]]
    return replace(
        frame, kspace=kspace, trajectory=np.ascontiguousarray(frame.trajectory[rows[0], :, 1:]), density=density
    )

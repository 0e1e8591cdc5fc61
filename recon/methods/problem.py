"""Undersampled k-space as a linear problem: coil maps from its own centre, the normal operator and its right side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Equations, Kernels, Normal, Real
from recon.arrays import contiguous
from recon.errors import CalibrationError, ScanError
from recon.espirit import CROP, espirit
from recon.grappa import centre_of
from recon.methods.combine import check_finite, maps_from
from recon.methods.grids import Pixels, Target, inner, interpolation, resize
from recon.methods.hybrid import hybrid, middle, region
from recon.methods.method import Workbench
from recon.methods.shots import SegmentedNormal, Shots, images_of, shots_of
from recon.operators import cartesian_sense, combine_sets, expand_sets, soft_sense
from recon.recipe import Recipe
from recon.scan import Calibration, Frame, Shape3

CENTRE_LINES = 24  # of k-space along each axis make the images that coil maps come from
FEWEST_LINES = 8  # in an undersampled direction
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Find x with normal(x) = `rhs`, both [*grid], or [set, *grid] where several sets of maps each have an image.

    `axes` is how many of the last axes are the grid's; `share` is the part of the grid's lines that were measured, 1
    without a grid. `pixels` turns x into [z, y, x] of the part inside the encoded field of view; of several sets it is
    the root sum of squares. Eigenvalues of `normal` are at most 1 where `bounded`.
    """

    equations: Equations
    rhs: Complex
    axes: int
    pixels: Callable[[Complex], Pixels]
    share: float
    bounded: bool

    def normal(self, x: Complex) -> Complex:
        """The left side."""
        return self.equations.normal(x, *self.equations.operands)


def problem_of(frame: Frame, target: Target, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> Problem:
    """The problem that `frame` is; raises ScanError where the centre of k-space is too small for maps."""
    return problems_of([frame], target, [calibration], recipe, workbench)[0]


def problems_of(
    frames: Sequence[Frame], target: Target, calibrations: Sequence[Calibration], recipe: Recipe, workbench: Workbench
) -> list[Problem]:
    """The problem that each of `frames` is, all of them Cartesian or none."""
    each = zip(frames, calibrations, strict=True)
    if frames[0].trajectory is None:
        return [_cartesian(frame, target, calibration, recipe, workbench) for frame, calibration in each]
    shots = [shots_of(frame, target, calibration, recipe, workbench) for frame, calibration in each]
    return [
        weighted_problem(one, images, maps_of(one, images, recipe))
        for one, images in zip(shots, images_of(shots), strict=True)
    ]


def _cartesian(frame: Frame, target: Target, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> Problem:
    """The problem through maps of the frame's own lines, or of those of a separate scan."""
    kspace, sampled = hybrid_lines(frame, target, calibration, workbench.kernels)
    if frame.reference is None:
        maps = _cartesian_maps(kspace, sampled, recipe, workbench.kernels)
    else:
        maps = hybrid_maps(frame.reference, target, calibration, recipe, workbench.kernels)
    return hybrid_problem(frame, target, (kspace, sampled), maps, workbench.kernels)


def hybrid_lines(frame: Frame, target: Target, calibration: Calibration, kernels: Kernels) -> tuple[Complex, Mask]:
    """White hybrid k-space [coil, x, kz, ky] of a Cartesian `frame`, and which lines [kz, ky] were measured."""
    assert frame.sampled is not None
    sampled = resize(frame.sampled[..., None], (*target.full[:2], 1))[..., 0]
    return hybrid(resize(frame.kspace, target.full), sampled, inner(target)[2], calibration, kernels), sampled


def hybrid_problem(
    frame: Frame, target: Target, lines: tuple[Complex, Mask], maps: Complex, kernels: Kernels
) -> Problem:
    """The problem of `hybrid_lines` through `hybrid_maps`.

    Each x is a problem of its own in (kz, ky): the transform along x happens once, before iterating.
    """
    kspace, sampled = lines
    axes = 1 if sampled.shape[0] == 1 else 2
    flat = (*kspace.shape[:2], *sampled.shape[2 - axes :])  # without a partition axis of one, which would cost a pass
    mask = np.asarray(sampled.reshape(flat[2:]).astype(np.float32), like=kspace)
    several = len(maps) > 1
    operator = soft_sense if several else cartesian_sense
    maps = maps.reshape(-1, *flat) if several else maps[0].reshape(flat)

    def normal(x: Complex, maps: Complex, mask: Real) -> Complex:
        return operator(kernels, maps, mask, axes=axes).normal(x)

    whole = target.full != frame.encoding.encoded.matrix
    scale = interpolation(frame.encoding, target) if whole else np.float32(1)

    def pixels(image: Complex) -> Pixels:
        one = _one_image(image, axes + 1).reshape(kspace.shape[1:])
        return resize(np.moveaxis(one if scale == 1 else one * scale, 0, -1), inner(target))

    rhs = operator(kernels, maps, mask, axes=axes).adjoint(kspace.reshape(flat))
    equations = Equations(normal, (maps, mask), ("cartesian", operator, axes))
    return Problem(equations, rhs, axes + 1, pixels, float(sampled.mean()), bounded=True)


def hybrid_maps(frame: Frame, target: Target, calibration: Calibration, recipe: Recipe, kernels: Kernels) -> Complex:
    """Maps [set, coil, x, z, y] from the lines of `frame`, which may be those of a separate calibration scan."""
    kspace, sampled = hybrid_lines(frame, target, calibration, kernels)
    return _cartesian_maps(kspace, sampled, recipe, kernels)


def _one_image(image: Complex, axes: int) -> Pixels:
    """[*grid] of x: as it is, or the root sum of squares over sets."""
    if image.ndim == axes:
        return image
    total: Real = np.sqrt((image.real**2 + image.imag**2).sum(axis=0))
    return total


def _cartesian_maps(kspace: Complex, sampled: Mask, recipe: Recipe, kernels: Kernels) -> Complex:
    """Maps [set, coil, x, z, y] from the fully sampled centre of hybrid k-space [coil, x, kz, ky]."""
    if recipe["maps"] == "walsh":
        window = np.asarray(centre_window(sampled), like=kspace)
        return maps_from(kernels.ifft(kspace * window, axes=1 if sampled.shape[0] == 1 else 2))[None]
    box = centre_of(sampled)
    check_centre(sampled, *(side.stop - side.start for side in box))
    _, x, z, y = kspace.shape
    calibration = middle(region(kspace, box, kernels), CENTRE_LINES)
    maps = espirit_maps(calibration, (z, y, x), sets=int(recipe.number("sets")))
    return contiguous(np.moveaxis(maps, -1, 2))


def espirit_maps(calibration: Complex, grid: Shape3, *, sets: int) -> Complex:
    """Maps [set, coil, z, y, x]: the first of unit norm, where there is no object too, so that what lies there is seen.

    Further sets are zero where the eigenvalue says that nothing overlaps there.
    """
    check_finite(calibration)
    if sets > len(calibration):
        raise ScanError(
            f"sets is {sets}, the scan has {len(calibration)} coils: ask for at most as many sets as there are coils"
        )
    maps, values = espirit(calibration, grid, sets=sets, crop=0)
    maps[1:] *= (values[1:] >= CROP)[:, np.newaxis]
    return maps


def centre_window(sampled: Mask) -> Real:
    """A smooth window [kz, ky] over the fully sampled box round the centre; raises ScanError where it is too small."""
    half_z, half_y = _centre_box(sampled)
    check_centre(sampled, 2 * half_z, 2 * half_y)
    nz, ny = sampled.shape
    window: Real = np.outer(_bell(nz, half_z), _bell(ny, half_y)).astype(np.float32)
    return window


def enough_lines(found: int, size: int) -> bool:
    """Whether `found` fully sampled lines at the centre of an axis of `size` give coil maps."""
    return found >= min(FEWEST_LINES, size - 1)


def maps_possible(sampled: Mask) -> bool:
    """Whether coil maps can be made from the centre of `sampled` [kz, ky]."""
    box = centre_of(sampled)
    return all(enough_lines(side.stop - side.start, size) for side, size in zip(box, sampled.shape, strict=True))


def check_centre(sampled: Mask, found_z: int, found_y: int) -> None:
    """Raises CalibrationError where fewer lines are found at the centre of `sampled` [kz, ky] than maps need."""
    nz, ny = sampled.shape
    for found, size, name in ((found_y, ny, "kspace_encode_step_1"), (found_z, nz, "kspace_encode_step_2")):
        if not enough_lines(found, size):
            raise CalibrationError(
                f"{found} lines are fully sampled at the centre of {name}, expected at least {FEWEST_LINES} for coil"
                " maps: measure calibration lines or use fft"
            )


def _centre_box(sampled: Mask) -> tuple[int, int]:
    """Half sizes (z, y) of a box round the centre in which every line was measured, grown evenly."""
    nz, ny = sampled.shape
    half = [0, 0]
    growing = [True, True]
    while any(growing):
        for axis in (0, 1):
            wider = [half[0] + (axis == 0), half[1] + (axis == 1)]
            growing[axis] = 2 * wider[axis] <= min(CENTRE_LINES, sampled.shape[axis]) and bool(
                sampled[_around(nz, wider[0]), _around(ny, wider[1])].all()
            )
            if growing[axis]:
                half = wider
    return half[0], half[1]


def _around(size: int, half: int) -> slice:
    middle = size // 2
    return slice(middle - half, middle + max(half, 1))


def _bell(size: int, half: int) -> Real:
    """A raised cosine over the 2·half samples round the centre; everything where the axis is one sample long."""
    if size == 1:
        return np.ones(1, np.float32)
    distance = np.abs(np.arange(size) - size // 2) / (half + 0.5)
    bell: Real = np.where(distance < 1, np.cos(np.pi / 2 * np.minimum(distance, 1)) ** 2, 0).astype(np.float32)
    return bell


def maps_of(shots: Shots, images: Complex, recipe: Recipe) -> Complex:
    """Maps [set, coil, *planned] of `shots`, whose images [coil, *planned] are these."""
    whole = (len(images), *shots.grid)
    if recipe["maps"] == "espirit":
        centre = middle(shots.kernels.fft(images.reshape(whole), axes=3), CENTRE_LINES)
        maps = espirit_maps(centre, shots.grid, sets=int(recipe.number("sets")))
    else:
        bell = np.asarray(radial_bell(shots.trajectory, shots.grid), like=images)
        maps = maps_from(shots.images(bell).reshape(whole))[None]
    return contiguous(maps).reshape(-1, *images.shape)


def weighted_problem(shots: Shots, images: Complex, maps: Complex) -> Problem:
    """The problem of `shots` with these images [coil, *planned], through `maps` [set, coil, *planned]."""
    axes = images.ndim - 1

    def pixels(image: Complex) -> Pixels:
        return _one_image(image, axes).reshape(shots.grid)

    kernels, sampling = shots.kernels, shots.sampling
    if shots.segments is None:
        stacked = axes > len(sampling.plan.shape)
        equations = _through(sampling.plan.operator(sampling.weights), maps, kernels, stacked=stacked)
    else:
        equations = _through(SegmentedNormal(shots), maps, kernels, stacked=False)
    rhs = combine_sets(kernels, images, maps) if len(maps) > 1 else kernels.combine(images, maps[0])
    return Problem(equations, rhs, axes, pixels, 1.0, bounded=False)


def _through(operator: Normal, maps: Complex, kernels: Kernels, *, stacked: bool) -> Equations:
    """The left side through maps [set, coil, *grid]; a stack's operator is that of its planes."""

    def one_set(x: Complex, maps: Complex) -> Complex:
        return operator(x, maps=maps)

    def sets(x: Complex, maps: Complex) -> Complex:
        return combine_sets(kernels, operator(expand_sets(kernels, x, maps)), maps)

    def planes(x: Complex, layers: Complex) -> Complex:
        out = np.empty(x.shape, np.complex64, like=x)  # CuPy stacks many arrays by a copy, which no graph records
        for made, plane, layer in zip(out, x, layers, strict=True):
            made[...] = operator(plane, maps=layer)
        return out

    if len(maps) > 1:
        return Equations(sets, (maps,), ("non-Cartesian, sets", operator))
    if stacked:
        return Equations(planes, (contiguous(np.moveaxis(maps[0], 1, 0)),), ("stack", operator))
    return Equations(one_set, (maps[0],), ("non-Cartesian", operator))


def radial_bell(trajectory: Real, grid: tuple[int, ...]) -> Real:
    """A raised cosine [shot, sample] over the centre of k-space, CENTRE_LINES wide on the image's grid."""
    radius = np.linalg.norm(trajectory, axis=-1) * (max(grid) / (np.pi * CENTRE_LINES))
    bell: Real = (np.cos(np.pi / 2 * np.minimum(radius, 1)) ** 2).astype(np.float32)
    return bell

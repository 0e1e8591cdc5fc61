"""`cg-sense`: undersampled k-space through coil maps from its own centre (doi:10.1002/mrm.1241)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels, Real
from recon.errors import ScanError
from recon.lines import is_cartesian
from recon.methods.combine import maps_from, whitened
from recon.methods.gridding import SECONDS_PER_POINT
from recon.methods.grids import Target, fft_seconds, inner, interpolation, points, resize, target_of, voxels
from recon.methods.images import image_of
from recon.methods.method import Method, Workbench
from recon.methods.sampling import sampling_of
from recon.operators import Apply, cartesian_sense, regularised
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image
from recon.solve import cg

CENTRE_LINES = 24  # of k-space along each axis make the images that coil maps come from
FEWEST_LINES = 8  # in an undersampled direction
USUAL_ITERATIONS = 10
Mask = NDArray[np.bool_]


def run(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """One image with coils combined by maps; raises ScanError where the centre of k-space is too small for maps."""
    target = target_of(frame.encoding, oversampling=recipe.text("oversampling"))
    solve = _cartesian if frame.trajectory is None else _non_cartesian
    pixels = solve(frame, target, calibration, recipe, workbench)
    return [image_of(frame, resize(pixels, target.shape), target, recipe=recipe)]


def _cartesian(frame: Frame, target: Target, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> Complex:
    """[z, y, x] of the part inside the encoded field of view.

    Every line is measured from end to end, so each x is a problem of its own in (kz, ky): the transform along x and
    the removal of oversampling happen once, before iterating.
    """
    assert frame.sampled is not None
    kernels = workbench.kernels
    kspace, sampled = _prepared(frame.kspace, frame.sampled, target, calibration, kernels)
    axes = 1 if sampled.shape[0] == 1 else 2
    maps = maps_from(kernels.ifft(kspace * _centre_window(sampled), axes=axes))
    flat = (*kspace.shape[:2], *sampled.shape[2 - axes :])  # without a partition axis of one, which would cost a pass
    mask = sampled.reshape(flat[2:]).astype(np.float32)
    sense = cartesian_sense(kernels, maps.reshape(flat), mask, axes=axes)
    image = _solved(sense.normal, sense.adjoint(kspace.reshape(flat)), recipe).reshape(kspace.shape[1:])
    if target.full != frame.encoding.encoded.matrix:
        image = image * interpolation(frame.encoding, target)
    return resize(np.moveaxis(image, 0, -1), inner(target))


def _solved(normal: Apply, rhs: Complex, recipe: Recipe) -> Complex:
    iterations = int(recipe.number("iterations"))
    return cg(regularised(normal, recipe.number("lambda")), rhs, iterations=iterations, tolerance=1e-6)


def _prepared(
    kspace: Complex, sampled: Mask, target: Target, calibration: Calibration, kernels: Kernels
) -> tuple[Complex, Mask]:
    """White k-space [coil, x, kz, ky] without readout oversampling, and which (kz, ky) it has."""
    full, mask = resize(kspace, target.full), resize(sampled[..., None], (*target.full[:2], 1))[..., 0]
    lines = kernels.ifft(full, axes=1, crop=(inner(target)[2],))
    return np.ascontiguousarray(np.moveaxis(whitened(lines, calibration, kernels), -1, 1)), mask


def _centre_window(sampled: Mask) -> Real:
    """A smooth window [kz, ky] over the fully sampled box round the centre; raises ScanError where it is too small."""
    half_z, half_y = _centre_box(sampled)
    nz, ny = sampled.shape
    for half, size, name in ((half_y, ny, "kspace_encode_step_1"), (half_z, nz, "kspace_encode_step_2")):
        if 2 * half < min(FEWEST_LINES, size - 1):
            raise ScanError(
                f"cg-sense finds {2 * half} fully sampled lines at the centre of {name}, expected at least"
                f" {FEWEST_LINES} for coil maps: measure calibration lines or use fft"
            )
    window: Real = np.outer(_bell(nz, half_z), _bell(ny, half_y)).astype(np.float32)
    return window


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


def _non_cartesian(
    frame: Frame, target: Target, calibration: Calibration, recipe: Recipe, workbench: Workbench
) -> Complex:
    """The same for k-space with a trajectory, each sample weighted by the density of its surroundings."""
    assert frame.trajectory is not None
    kernels, grid = workbench.kernels, inner(target)
    sampling = sampling_of(frame, target, eps=recipe.number("eps"), workbench=workbench)
    weights, plan = sampling.weights, sampling.plan

    def images_of(window: Real) -> Complex:
        images = plan.adjoint(np.multiply(frame.kspace, window * sampling.scale, dtype=np.complex64))
        return whitened(images, calibration, kernels)

    smooth = _radial_bell(frame.trajectory, grid)
    low = images_of(weights * smooth)
    maps = maps_from(low.reshape(len(low), *grid)).reshape(low.shape)
    rhs = kernels.combine(images_of(weights), maps)
    image = _solved(lambda x: plan.normal(x, weights=weights, maps=maps), rhs, recipe)
    return image.reshape(grid)


def _radial_bell(trajectory: Real, grid: tuple[int, ...]) -> Real:
    """A raised cosine [shot, sample] over the centre of k-space, CENTRE_LINES wide on the image's grid."""
    radius = np.linalg.norm(trajectory, axis=-1) * (max(grid) / (np.pi * CENTRE_LINES))
    bell: Real = (np.cos(np.pi / 2 * np.minimum(radius, 1)) ** 2).astype(np.float32)
    return bell


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """K-space and its prepared copy, maps, and one iteration's coil images, of which two are alive at a time."""
    return 8 * coils * (2 * points(encoding) + 5 * voxels(encoding)) + (64 << 20)


def cost(encoding: Encoding, coils: int) -> float:
    """Maps, and two transforms per coil and iteration: along the undersampled steps only where k-space is Cartesian."""
    transform = 8e-9 * voxels(encoding)
    if not is_cartesian(encoding):
        transform = SECONDS_PER_POINT * points(encoding) + fft_seconds(4 * voxels(encoding))
    return 1e-2 + coils * (5e-8 * voxels(encoding) + 2 * USUAL_ITERATIONS * transform)


CG_SENSE = Method("cg-sense", run, bytes_needed, cost, calibration=True)

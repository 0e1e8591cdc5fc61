"""`cg-sense`: undersampled k-space through coil maps from its own centre (doi:10.1002/mrm.1241)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels, Real
from recon.errors import ScanError
from recon.espirit import VIRTUAL, espirit
from recon.grappa import centre_of
from recon.lines import is_cartesian
from recon.methods.combine import check_finite, maps_from, whitened
from recon.methods.gridding import SECONDS_PER_POINT
from recon.methods.grids import Target, fft_seconds, inner, interpolation, points, resize, target_of, voxels
from recon.methods.hybrid import hybrid, middle, region
from recon.methods.images import image_of
from recon.methods.method import Method, Workbench
from recon.methods.sampling import sampling_of
from recon.operators import Apply, cartesian_sense, regularised
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image, Shape3
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

    Each x is a problem of its own in (kz, ky): the transform along x happens once, before iterating.
    """
    assert frame.sampled is not None
    kernels = workbench.kernels
    sampled = resize(frame.sampled[..., None], (*target.full[:2], 1))[..., 0]
    kspace = hybrid(resize(frame.kspace, target.full), sampled, inner(target)[2], calibration, kernels)
    axes = 1 if sampled.shape[0] == 1 else 2
    make_maps = _espirit_maps if recipe["maps"] == "espirit" else _walsh_maps
    maps = make_maps(kspace, sampled, kernels)
    flat = (*kspace.shape[:2], *sampled.shape[2 - axes :])  # without a partition axis of one, which would cost a pass
    mask = sampled.reshape(flat[2:]).astype(np.float32)
    sense = cartesian_sense(kernels, maps.reshape(flat), mask, axes=axes)
    image = _solved(sense.normal, sense.adjoint(kspace.reshape(flat)), recipe).reshape(kspace.shape[1:])
    if target.full != frame.encoding.encoded.matrix:
        image = image * interpolation(frame.encoding, target)
    return resize(np.moveaxis(image, 0, -1), inner(target))


def _espirit_maps(kspace: Complex, sampled: Mask, kernels: Kernels) -> Complex:
    """Maps [coil, x, z, y] from the fully sampled centre of hybrid k-space [coil, x, kz, ky]."""
    box = centre_of(sampled)
    _check_centre(sampled, *(side.stop - side.start for side in box))
    _, x, z, y = kspace.shape
    calibration = middle(region(kspace, box, kernels), CENTRE_LINES)
    return np.ascontiguousarray(np.moveaxis(_espirit(calibration, (z, y, x)), -1, 1))


def _espirit(calibration: Complex, grid: Shape3) -> Complex:
    """One set of maps [coil, z, y, x] of unit norm, where there is no object too: what lies there is seen."""
    check_finite(calibration)
    (maps,) = espirit(calibration, grid, crop=0)[0]
    return np.ascontiguousarray(maps)


def _walsh_maps(kspace: Complex, sampled: Mask, kernels: Kernels) -> Complex:
    """The same from images of that centre."""
    return maps_from(kernels.ifft(kspace * _centre_window(sampled), axes=1 if sampled.shape[0] == 1 else 2))


def _solved(normal: Apply, rhs: Complex, recipe: Recipe) -> Complex:
    iterations = int(recipe.number("iterations"))
    return cg(regularised(normal, recipe.number("lambda")), rhs, iterations=iterations, tolerance=1e-6)


def _centre_window(sampled: Mask) -> Real:
    """A smooth window [kz, ky] over the fully sampled box round the centre; raises ScanError where it is too small."""
    half_z, half_y = _centre_box(sampled)
    _check_centre(sampled, 2 * half_z, 2 * half_y)
    nz, ny = sampled.shape
    window: Real = np.outer(_bell(nz, half_z), _bell(ny, half_y)).astype(np.float32)
    return window


def _check_centre(sampled: Mask, found_z: int, found_y: int) -> None:
    nz, ny = sampled.shape
    for found, size, name in ((found_y, ny, "kspace_encode_step_1"), (found_z, nz, "kspace_encode_step_2")):
        if found < min(FEWEST_LINES, size - 1):
            raise ScanError(
                f"cg-sense finds {found} fully sampled lines at the centre of {name}, expected at least"
                f" {FEWEST_LINES} for coil maps: measure calibration lines or use fft"
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

    images = images_of(weights)
    whole = (len(images), *grid)
    if recipe["maps"] == "espirit":
        maps = _espirit(middle(kernels.fft(images.reshape(whole), axes=3), CENTRE_LINES), grid)
    else:
        maps = maps_from(images_of(weights * _radial_bell(frame.trajectory, grid)).reshape(whole))
    maps = maps.reshape(images.shape)
    rhs = kernels.combine(images, maps)
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
    maps = 0.05 + 1e-8 * min(coils, VIRTUAL) ** 2 * voxels(encoding)
    transform = 8e-9 * voxels(encoding)
    if not is_cartesian(encoding):
        transform = SECONDS_PER_POINT * points(encoding) + fft_seconds(4 * voxels(encoding))
    return maps + coils * (5e-8 * voxels(encoding) + 2 * USUAL_ITERATIONS * transform)


CG_SENSE = Method("cg-sense", run, bytes_needed, cost, calibration=True)

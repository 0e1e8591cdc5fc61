"""`grappa`: regularly undersampled Cartesian k-space, its missing lines made from the measured ones of all coils."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from kernels.contract import Complex, Kernels
from recon.arrays import contiguous
from recon.grappa import (
    SOURCES,
    SOURCES_VOLUME,
    WIDTH,
    Lattice,
    Mask,
    Weights,
    calibrate,
    centre_of,
    check_acceleration,
    fill,
    geometry_factor,
    lattice_of,
    spanned,
)
from recon.methods import fft
from recon.methods.combine import check_finite, maps_from
from recon.methods.grids import Pixels, Target, fft_seconds, inner, interpolation, resize, target_of, voxels
from recon.methods.hybrid import calibration_of, hybrid, reference_bytes
from recon.methods.images import factor_of, image_of
from recon.methods.method import Method, Workbench, both, lines_alone, refuse, single_slices
from recon.methods.partial import completed, extents_of
from recon.methods.problem import maps_possible
from recon.methods.snr import by_formula, wants_formula
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image

check = both(single_slices("grappa"), lines_alone("grappa", instead="gridding or auto"))


def run(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """One image, its coils combined as the recipe says, and its geometry factor where the recipe wants it.

    Fully sampled k-space needs no calibration, and its factor would be 1: there is none.

    Raises RecipeError for k-space with a trajectory, CalibrationError where the calibration lines or the coils do not
    suffice. Beside the frame it takes 16 · coils bytes per voxel inside the field of view (lines and coil images) and
    2 · SLAB_BYTES.
    """
    refuse(check, frame.encoding)
    assert frame.sampled is not None
    centre = centre_of(frame.sampled)
    lattice = lattice_of(frame.sampled, centre)
    if lattice is None or lattice.acceleration == 1 or frame.sampled[spanned(frame.sampled, lattice)].all():
        return fft.run(frame, calibration, recipe, workbench)  # nothing is missing, or not regularly
    check_acceleration(lattice, len(frame.kspace))
    target, kernels = target_of(frame.encoding, oversampling=recipe.text("oversampling")), workbench.kernels
    lines, weights = _filled(frame, lattice, target, calibration, kernels)
    images = coil_images(lines, target, kernels)
    box = spanned(frame.sampled, lattice)
    if recipe["partial_fourier"] != "off":
        z, y, x = extents_of(frame, box, target, kernels)
        images = completed(images, (x, z, y), recipe, kernels)
    adaptive = recipe.text("combine") == "adaptive"
    maps = maps_from(images) if adaptive else images
    pixels: Pixels = np.moveaxis(kernels.combine(images, maps) if adaptive else kernels.rss(images), 0, -1)
    if target.full != frame.encoding.encoded.matrix:
        pixels *= interpolation(frame.encoding, target)
    comments = fft.unmeasured(box, completion=recipe.text("partial_fourier"))
    found = [image_of(frame, resize(pixels, target.shape), target, recipe=recipe, comments=comments)]
    if recipe["gfactor"] or wants_formula(recipe):
        field = (target.full[2] if _interpolates(frame, target) else images.shape[1], *target.full[:2])
        factor = np.moveaxis(geometry_factor(weights, lattice, maps.conj(), field), 0, -1)
    if recipe["gfactor"]:
        found.append(factor_of(frame, resize(factor, target.shape), target, recipe=recipe))
    if wants_formula(recipe):
        found.append(by_formula(frame, pixels, factor * growth_of(lattice, box), target, recipe))
    return found


def growth_of(lattice: Lattice, box: Mask) -> np.float32:
    """How much the noise of a voxel grows but for the geometry factor: fewer lines, in a `box` [kz, ky] of the grid."""
    return np.float32(sqrt(lattice.acceleration * box.mean()))


def _interpolates(frame: Frame, target: Target) -> bool:
    return bool(target.full[2] != frame.kspace.shape[-1])


def _filled(
    frame: Frame, lattice: Lattice, target: Target, calibration: Calibration, kernels: Kernels
) -> tuple[Complex, tuple[Weights, ...]]:
    """Lines [coil, x, kz, ky] with the missing ones filled in, on the target's x, and the weights that did it."""
    assert frame.sampled is not None
    later = _interpolates(frame, target)  # the readout's zeros are no samples to calibrate with: they come afterwards
    x = frame.kspace.shape[-1] if later else inner(target)[2]
    lines = hybrid(frame.kspace, frame.sampled, x, calibration, kernels)
    known = calibration_of(frame, lines, calibration, kernels)
    check_finite(known)
    source = frame.reference or frame
    assert source.sampled is not None
    weights = calibrate(known, lattice, instead="cg-sense or fft" if maps_possible(source.sampled) else "fft")
    fill(lines, frame.sampled, lattice, weights)
    return (regridded(lines, target, kernels) if later else lines), weights


def regridded(lines: Complex, target: Target, kernels: Kernels) -> Complex:
    """Lines [coil, x, kz, ky] of the encoded readout on the target's x."""
    kspace = kernels.fft(contiguous(np.moveaxis(lines, 1, -1)), axes=1)
    wider = resize(kspace, (*kspace.shape[1:3], target.full[2]))
    return contiguous(np.moveaxis(kernels.ifft(wider, axes=1, crop=(inner(target)[2],)), -1, 1))


def coil_images(lines: Complex, target: Target, kernels: Kernels) -> Complex:
    """Images [coil, x, z, y] inside the encoded field of view from filled `lines` [coil, x, kz, ky]."""
    coils, x = lines.shape[:2]
    full, (z, y, _) = resize(lines, (x, *target.full[:2])), inner(target)
    if target.full[0] == 1:  # without a partition axis of one, which would cost a pass
        return kernels.ifft(full[:, :, 0], axes=1, crop=(y,)).reshape(coils, x, 1, y)
    return kernels.ifft(full, axes=2, crop=(z, y))


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """K-space, its transformed copy, the coils' images, and the calibration's equations."""
    return (
        reference_bytes(encoding, coils)
        + 8 * coils * 4 * voxels(encoding)
        + 100 * _unknowns(encoding, coils) ** 2
        + (96 << 20)
    )


def cost(encoding: Encoding, coils: int) -> float:
    """Calibration by a matrix of unknowns, targets made of sources at every voxel, and one transform per coil."""
    missing = prod(encoding.acceleration) - 1
    groups = missing if encoding.encoded.matrix[0] > 1 else min(missing, 1)  # targets of a plane share their sources
    calibration = 4e-10 * groups * _unknowns(encoding, coils) ** 3
    application = 3e-10 * coils**2 * voxels(encoding) if missing else 0.0
    return 5e-3 + calibration + application + coils * fft_seconds(voxels(encoding))


def _unknowns(encoding: Encoding, coils: int) -> int:
    """Weights of one target in one coil."""
    sources = SOURCES if encoding.encoded.matrix[0] == 1 else SOURCES_VOLUME
    return sources[0] * WIDTH * coils


GRAPPA = Method("grappa", run, bytes_needed, cost, calibration=True, check=check)

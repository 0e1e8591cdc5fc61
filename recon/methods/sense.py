"""`sense`: regularly undersampled Cartesian k-space, unfolded voxel by voxel with coil maps from its own centre."""

from __future__ import annotations

import numpy as np

from kernels.contract import Complex, Kernels, Real
from recon.errors import CalibrationError, RecipeError
from recon.espirit import VIRTUAL, espirit
from recon.grappa import Lattice, Mask, centre_of, check_acceleration, lattice_of, spanned
from recon.methods import fft
from recon.methods.combine import check_finite
from recon.methods.grappa import regridded
from recon.methods.grids import Target, fft_seconds, inner, interpolation, resize, target_of, voxels
from recon.methods.hybrid import calibration_of, hybrid, middle, reference_bytes
from recon.methods.images import factor_of, image_of
from recon.methods.method import Method, Workbench
from recon.methods.partial import completed, extents_of
from recon.methods.problem import CENTRE_LINES, check_centre
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image
from recon.sense import folding_of, grid_for, lines_on, unfold

CROP = 0.5  # eigenvalue below which a voxel holds no object: each such voxel makes the others easier to tell apart


def run(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """One image, and the map of its geometry factor where the recipe wants it, of the lattice's lines alone.

    Raises RecipeError for k-space with a trajectory, CalibrationError where the centre is too small for maps, the lines
    lie on no lattice, or its acceleration is more than the coils can tell apart.
    """
    if frame.sampled is None:
        raise RecipeError(
            f"the method sense needs Cartesian k-space, the scan is {frame.encoding.trajectory}: use cg-sense or auto"
        )
    source = (frame.reference or frame).sampled
    assert source is not None
    check_centre(source, *(side.stop - side.start for side in centre_of(source)))
    centre = centre_of(frame.sampled)
    coils = len(frame.kspace)
    lattice = checked(lattice_of(frame.sampled, centre) or Lattice(1, 1, 0, (0, 0)), frame.sampled, coils)
    target, kernels = target_of(frame.encoding, oversampling=recipe.text("oversampling")), workbench.kernels
    nx = frame.kspace.shape[-1]
    interpolated = target.full[2] != nx
    lines = hybrid(frame.kspace, frame.sampled, nx if interpolated else inner(target)[2], calibration, kernels)
    known = calibration_of(frame, lines, calibration, kernels)
    check_finite(known)
    if interpolated:
        lines = regridded(lines, target, kernels)
    image, factor = unfolded(lines, known, lattice, kernels)
    pixels, box = on_target(image, target, kernels), spanned(frame.sampled, lattice)
    if recipe["partial_fourier"] != "off":
        pixels = completed(pixels, extents_of(frame, box, target, kernels), recipe, kernels)
    if target.full != frame.encoding.encoded.matrix:
        pixels = pixels * interpolation(frame.encoding, target)
    comments = fft.unmeasured(box, completion=recipe.text("partial_fourier"))
    images = [image_of(frame, resize(pixels, target.shape), target, recipe=recipe, comments=comments)]
    if recipe["gfactor"]:
        images.append(factor_of(frame, resize(nearest(factor, target), target.shape), target, recipe=recipe))
    return images


def checked(lattice: Lattice, sampled: Mask, coils: int) -> Lattice:
    """`lattice`; raises CalibrationError where it is none at all, or needs more coils."""
    missing = lines_on(lattice, sampled.shape, lattice.origin) & spanned(sampled, lattice) & ~sampled
    if missing.any():
        raise CalibrationError(
            f"sense finds {int(np.count_nonzero(missing))} lines missing in the pattern with a step of"
            f" {lattice.step_y} in kspace_encode_step_1 and {lattice.step_z} in kspace_encode_step_2, expected every"
            " line of it: use cg-sense or l1-wavelet, which need no regular pattern"
        )
    check_acceleration(lattice, coils)
    return lattice


def unfolded(lines: Complex, known: Complex, lattice: Lattice, kernels: Kernels) -> tuple[Complex, Real]:
    """Image and geometry factor [x, z, y] on the grid of `grid_for`, from white lines [coil, x, kz, ky]."""
    x, nz, ny = lines.shape[1:]
    grid = grid_for(lattice, (nz, ny))
    z, y = (o + m // 2 - n // 2 for o, n, m in zip(lattice.origin, (nz, ny), grid, strict=True))
    mask = lines_on(lattice, grid, (z, y)).astype(np.float32) * np.float32(lattice.acceleration)
    wider = resize(lines, (x, *grid)) * np.asarray(mask, like=lines)
    folded = kernels.ifft(wider[:, :, 0], axes=1)[:, :, None] if grid[0] == 1 else kernels.ifft(wider, axes=2)
    (maps,) = espirit(middle(known, CENTRE_LINES), (*grid, x), crop=CROP)[0]
    return unfold(folded, np.moveaxis(maps, -1, 1), folding_of(lattice, grid, (z, y)))


def on_target(image: Complex, target: Target, kernels: Kernels) -> Complex:
    """`image` [x, z, y] as [z, y, x] inside the encoded field of view, with the target's voxels."""
    z, y, _ = inner(target)
    full = target.full[:2]
    if image.shape[1:] != full:
        kspace = resize(kernels.fft(image, axes=2), (len(image), *full))
        image = kernels.ifft(kspace, axes=2, crop=(z, y))
    return np.moveaxis(resize(image, (len(image), z, y)), 0, -1)


def nearest(factor: Real, target: Target) -> Real:
    """`factor` [x, z, y] as [z, y, x] inside the encoded field of view, each voxel from its nearest neighbour."""
    places = []
    for have, full, kept in zip(factor.shape[1:], target.full, inner(target), strict=False):
        place = np.rint((np.arange(kept) - kept // 2) * have / full).astype(np.int64) + have // 2
        places.append(np.asarray(np.clip(place, 0, have - 1), like=factor))
    found: Real = np.moveaxis(factor[:, places[0]][:, :, places[1]], 0, -1)
    return found


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """K-space, its transformed copy, the folded images, maps, and maps once more in groups."""
    return reference_bytes(encoding, coils) + 8 * coils * 7 * voxels(encoding) + (96 << 20)


def cost(encoding: Encoding, coils: int) -> float:
    """Maps, one transform per coil, and a small matrix per group of voxels."""
    maps = 0.05 + 1e-8 * min(coils, VIRTUAL) ** 2 * voxels(encoding)
    return maps + coils * (fft_seconds(voxels(encoding)) + 5e-8 * voxels(encoding)) + 1e-6 * voxels(encoding)


SENSE = Method("sense", run, bytes_needed, cost, calibration=True)

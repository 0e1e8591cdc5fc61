"""`sense`: regularly undersampled Cartesian k-space, unfolded voxel by voxel with coil maps from its own centre."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from kernels.contract import Complex, Kernels, Real
from recon.arrays import contiguous
from recon.errors import CalibrationError
from recon.espirit import VIRTUAL, espirit
from recon.grappa import Lattice, Mask, centre_of, check_acceleration, lattice_of, spanned
from recon.methods import fft
from recon.methods.combine import check_finite
from recon.methods.grappa import growth_of, regridded
from recon.methods.grids import Target, fft_seconds, inner, interpolation, resize, target_of, voxels
from recon.methods.hybrid import hybrid, middle, reference_bytes, region
from recon.methods.images import factor_of, image_of
from recon.methods.method import Method, Workbench, both, lines_alone, refuse, single_slices
from recon.methods.partial import completed, extents_of
from recon.methods.problem import CENTRE_LINES, centre_window, check_centre
from recon.methods.snr import by_formula, wants_formula
from recon.operators import cartesian_sense
from recon.prox import noise_of
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image
from recon.sense import Unfolded, folding_of, grid_for, lines_on, unfold

CROP = 0.5  # eigenvalue below which a voxel holds no object: each such voxel makes the others easier to tell apart
FAINT = 0.1  # of the usual brightness: what is half as likely to have detail as all that is brighter
DARK = 1e-9  # share of the usual detail's power that is expected where there is no object at all
HELD = 0.5  # how clear a voxel must be for its detail not to be called lost

check = both(single_slices("sense"), lines_alone("sense", instead="cg-sense or auto"))


def run(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """One image, and the map of its geometry factor where the recipe wants it.

    The centre of k-space gives a coarse image; what it lacks comes from the lattice's lines, held back where the coils
    cannot tell it from noise. The factor is that of the lattice's lines: those between them take more noise away.

    Raises RecipeError for k-space with a trajectory, CalibrationError where the centre is too small for maps, the lines
    lie on no lattice, or its acceleration is more than the coils can tell apart.
    """
    refuse(check, frame.encoding)
    assert frame.sampled is not None
    source = (frame.reference or frame).sampled
    assert source is not None
    check_centre(source, *(side.stop - side.start for side in centre_of(source)))
    centre = centre_of(frame.sampled)
    coils = len(frame.kspace)
    lattice = checked(lattice_of(frame.sampled, centre) or Lattice(1, 1, 0, (0, 0)), frame.sampled, coils)
    target, kernels = target_of(frame.encoding, oversampling=recipe.text("oversampling")), workbench.kernels
    view = View.of(frame, lattice, target, calibration, kernels)
    noise = 1 / sqrt(frame.averages) if calibration.whitening is not None else None
    made = unfolded(view, lattice, kernels, noise=noise, strength=recipe.number("lambda"))
    image, factor = made.image, made.factor
    pixels, box = on_target(image, target, kernels), spanned(frame.sampled, lattice)
    if recipe["partial_fourier"] != "off":
        pixels = completed(pixels, extents_of(frame, box, target, kernels), recipe, kernels)
    if target.full != frame.encoding.encoded.matrix:
        pixels = pixels * interpolation(frame.encoding, target)
    comments = fft.unmeasured(box, completion=recipe.text("partial_fourier")) + lost(made, lattice)
    images = [image_of(frame, resize(pixels, target.shape), target, recipe=recipe, comments=comments)]
    factor = nearest(factor, target)
    if recipe["gfactor"]:
        images.append(factor_of(frame, resize(factor, target.shape), target, recipe=recipe))
    if wants_formula(recipe):
        images.append(by_formula(frame, pixels, factor * growth_of(lattice, box), target, recipe))
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


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """White hybrid `lines` [coil, x, kz, ky] on the grid of `grid_for`, of which `sampled` [kz, ky] were measured.

    `known` is k-space [coil, kz, ky, kx] to make maps of, and `centre` [coil, x, kz, ky] the lines round the centre
    under a smooth window, of the frame itself (`own`) or of a separate scan. `origin` is a line of the lattice there.
    """

    lines: Complex
    sampled: Mask
    known: Complex
    centre: Complex
    own: bool
    origin: tuple[int, int]

    @staticmethod
    def of(frame: Frame, lattice: Lattice, target: Target, calibration: Calibration, kernels: Kernels) -> View:
        """The view of `frame`; raises FloatingPointError where its centre is not finite."""
        source = frame.reference or frame
        assert frame.sampled is not None and source.sampled is not None
        nx = frame.kspace.shape[-1]
        kept = nx if target.full[2] != nx else inner(target)[2]
        lines = hybrid(frame.kspace, frame.sampled, kept, calibration, kernels)
        others = lines if source is frame else hybrid(source.kspace, source.sampled, kept, calibration, kernels)
        known = region(others, centre_of(source.sampled), kernels)
        check_finite(known)
        centre = others * np.asarray(centre_window(source.sampled), like=others)
        if target.full[2] != nx:
            lines, centre = (regridded(each, target, kernels) for each in (lines, centre))
        size = frame.sampled.shape
        grid = grid_for(lattice, size)
        lines, centre = (resize(each, (each.shape[1], *grid)) for each in (lines, centre))
        z, y = (o + m // 2 - n // 2 for o, n, m in zip(lattice.origin, size, grid, strict=True))
        return View(lines, resize(frame.sampled[None], (1, *grid))[0], known, centre, source is frame, (z, y))


def unfolded(view: View, lattice: Lattice, kernels: Kernels, *, noise: float | None, strength: float) -> Unfolded:
    """Image, geometry factor and clarity [x, z, y] on the view's grid; `noise` is σ, estimated where it is None."""
    x, *grid = view.lines.shape[1:]
    flat = (len(view.lines), x, *grid[grid[0] == 1 :])  # without a partition axis of one, which would cost a pass
    regular = lines_on(lattice, (grid[0], grid[1]), view.origin)
    (maps,) = espirit(middle(view.known, CENTRE_LINES), (grid[0], grid[1], x), crop=CROP)[0]
    maps = contiguous(np.moveaxis(maps, -1, 1)).reshape(flat)
    lines, between = view.lines.reshape(flat), view.sampled & ~regular
    on, off = (np.asarray(lines_.astype(np.float32).reshape(flat[2:]), like=lines) for lines_ in (regular, between))
    axes = len(flat) - 2
    coarse = kernels.combine(kernels.ifft(view.centre.reshape(flat), axes=axes), maps)
    lattices, others = (cartesian_sense(kernels, maps, lines_, axes=axes) for lines_ in (on, off))
    start = coarse if view.own else coarse * 0
    left = lines * on - lattices.forward(start)
    folded = (kernels.ifft(left, axes=axes) * np.float32(lattice.acceleration)).reshape(view.lines.shape)
    if noise is None:
        noise = noise_of(kernels, folded, 3) / sqrt(lattice.acceleration)
    damping = expected(coarse.reshape(x, *grid), left, lattice.acceleration, noise=noise)
    damping = damping * np.float32(strength)
    found = unfold(
        folded, maps.reshape(view.lines.shape), folding_of(lattice, (grid[0], grid[1]), view.origin), damping
    )
    image = start + found.image.reshape(flat[1:])
    if between.any():
        image = image + others.adjoint(lines - others.forward(image))
    return replace(found, image=image.reshape(x, *grid))


def expected(coarse: Complex, left: Complex, acceleration: int, *, noise: float) -> Real:
    """The noise of folded images over the detail that is expected at each voxel of `coarse` [x, z, y], in power.

    There is detail wherever there is an object, at any brightness; how much, says the energy of the lattice's lines
    `left` [coil, x, ...] by what is known already. Where that is less than noise varies by, it is taken for as much.
    """
    seen = coarse.real**2 + coarse.imag**2
    usual = (seen * seen).sum() / np.maximum(seen.sum(), np.finfo(np.float32).tiny)
    places = seen / np.maximum(seen + np.float32(FAINT**2) * usual, np.finfo(np.float32).tiny)
    samples = left.size / acceleration
    total = (left.real**2 + left.imag**2).sum() - 2 * noise**2 * samples
    energy = np.maximum(total, 2 * noise**2 * sqrt(samples))
    share = 2 * noise**2 * places.sum() / np.maximum(energy, np.finfo(np.float32).tiny)
    damping: Real = (share / np.maximum(places, DARK)).astype(np.float32)
    return damping


def lost(made: Unfolded, lattice: Lattice) -> tuple[str, ...]:
    """What a reader must know where the acceleration is more than coils and noise allow."""
    energy = made.image.real**2 + made.image.imag**2
    tiny = np.finfo(np.float32).tiny
    share = 1 - float((energy * (made.clear < HELD)).sum() / np.maximum(energy.sum(), tiny))  # an empty image is clear
    if share >= HELD:
        return ()
    return (
        f"sense tells aliases of an acceleration of {lattice.acceleration} apart in {100 * share:.0f} % of the image:"
        " elsewhere detail is lost in noise, and what is seen comes from the centre of k-space",
    )


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
    """K-space, lines, centre, maps and folded images, two of them transformed, and maps once more in groups."""
    return reference_bytes(encoding, coils) + 8 * coils * 9 * voxels(encoding) + (96 << 20)


def cost(encoding: Encoding, coils: int) -> float:
    """Maps, one transform per coil, and a small matrix per group of voxels."""
    maps = 0.05 + 1e-8 * min(coils, VIRTUAL) ** 2 * voxels(encoding)
    return maps + coils * (fft_seconds(voxels(encoding)) + 5e-8 * voxels(encoding)) + 1e-6 * voxels(encoding)


SENSE = Method("sense", run, bytes_needed, cost, calibration=True, check=check)

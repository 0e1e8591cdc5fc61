"""`gridding`: non-Cartesian k-space by one density-compensated adjoint NUFFT per coil."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.contract import Complex
from recon.methods.combine import combined
from recon.methods.grids import Target, fft_seconds, inner, points, resize, target_of, voxels
from recon.methods.hybrid import reference_bytes
from recon.methods.images import image_of
from recon.methods.method import Method, Workbench, one_of, refuse, shots_alone
from recon.methods.shots import images_of, shots_of
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image

SECONDS_PER_POINT = 6e-8  # of one CPU core, for one coil

check = shots_alone("gridding", instead="fft or auto")


def run_batch(
    frames: Sequence[Frame], calibrations: Sequence[Calibration], recipe: Recipe, workbench: Workbench
) -> list[list[Image]]:
    """One image of each frame's k-space with a trajectory; raises RecipeError for Cartesian k-space."""
    for frame in frames:
        refuse(check, frame.encoding)
    target = target_of(frames[0].encoding, oversampling=recipe.text("oversampling"))
    each = zip(frames, calibrations, strict=True)
    images = images_of([shots_of(frame, target, calibration, recipe, workbench) for frame, calibration in each])
    return [_shown(frame, made, target, recipe, workbench) for frame, made in zip(frames, images, strict=True)]


def _shown(frame: Frame, images: Complex, target: Target, recipe: Recipe, workbench: Workbench) -> list[Image]:
    grid = images.reshape(len(images), *inner(target))
    pixels = combined(grid, Calibration(), workbench.kernels, how=recipe.text("combine"))
    return [image_of(frame, resize(pixels, target.shape), target, recipe=recipe)]


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """K-space, its weighted copy, the coils' images, the doubled grid of density compensation, calibration echoes."""
    return (
        reference_bytes(encoding, coils)
        + 8 * (2 * coils * points(encoding) + 2 * coils * voxels(encoding) + 32 * voxels(encoding))
        + (64 << 20)
    )


def cost(encoding: Encoding, coils: int) -> float:
    """One NUFFT per coil; a trajectory met for the first time costs about twenty more."""
    return 5e-3 + coils * (SECONDS_PER_POINT * points(encoding) + fft_seconds(4 * voxels(encoding)))


GRIDDING = Method("gridding", one_of(run_batch), bytes_needed, cost, calibration=True, batch=run_batch, check=check)

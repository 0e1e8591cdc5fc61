"""`fft`: Cartesian k-space in two or three dimensions by the inverse FFT; what was not measured is zero."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels, Real
from recon.methods.combine import combined
from recon.methods.grids import Pixels, Target, fft_seconds, inner, interpolation, resize, target_of, voxels
from recon.methods.images import image_of
from recon.methods.method import Method, Workbench, lines_alone, one_of, refuse
from recon.methods.partial import completed, extents_of
from recon.methods.snr import by_formula, wants_formula
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image

check = lines_alone("fft", instead="gridding or auto")


def run_batch(
    frames: Sequence[Frame], calibrations: Sequence[Calibration], recipe: Recipe, workbench: Workbench
) -> list[list[Image]]:
    """One image of each Cartesian frame, its coils combined as the recipe says; raises RecipeError for any other."""
    for frame in frames:
        refuse(check, frame.encoding)
    target = target_of(frames[0].encoding, oversampling=recipe.text("oversampling"))
    if recipe["combine"] == "rss" and recipe["partial_fourier"] == "off":  # the coils' images are never kept
        samples = [resize(frame.kspace, target.full) for frame in frames]
        found: list[Pixels] = [*_rss(samples, calibrations, target, workbench.kernels)]
    else:
        each = zip(frames, calibrations, strict=True)
        found = [_pixels(frame, calibration, target, recipe, workbench.kernels) for frame, calibration in each]
    return [_images(frame, pixels, target, recipe) for frame, pixels in zip(frames, found, strict=True)]


def _rss(
    kspace: Sequence[Complex], calibrations: Sequence[Calibration], target: Target, kernels: Kernels
) -> Sequence[Real]:
    whitening = [calibration.whitening for calibration in calibrations]
    return kernels.ifft_rss_each(kspace, crop=inner(target), whitening=whitening)


def _pixels(frame: Frame, calibration: Calibration, target: Target, recipe: Recipe, kernels: Kernels) -> Pixels:
    assert frame.sampled is not None
    images = kernels.ifft(resize(frame.kspace, target.full), axes=3, crop=inner(target))
    if recipe["partial_fourier"] != "off":
        images = completed(images, extents_of(frame, _spanned(frame.sampled), target, kernels), recipe, kernels)
    return combined(images, calibration, kernels, how=recipe.text("combine"))


def _images(frame: Frame, pixels: Pixels, target: Target, recipe: Recipe) -> list[Image]:
    if target.full != frame.encoding.encoded.matrix:
        pixels *= interpolation(frame.encoding, target)
    assert frame.sampled is not None
    comments = unmeasured(frame.sampled, completion=recipe.text("partial_fourier"))
    found = [image_of(frame, resize(pixels, target.shape), target, recipe=recipe, comments=comments)]
    if wants_formula(recipe):  # a line that was not measured brings no noise
        found.append(by_formula(frame, pixels, sqrt(frame.sampled.mean()), target, recipe))
    return found


def _spanned(sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The smallest box [kz, ky] round all measured lines."""
    box = np.zeros_like(sampled)
    z, y = np.nonzero(sampled)
    box[z.min() : z.max() + 1, y.min() : y.max() + 1] = True
    return box


def unmeasured(sampled: NDArray[np.bool_], *, completion: str = "off") -> tuple[str, ...]:
    """What a reader must know of an image: partial Fourier blurs where nothing completes it, undersampling aliases."""
    return tuple(
        _describe(np.flatnonzero(sampled.any(axis=axis)), sampled.shape[1 - axis], name, completion)
        for axis, name in ((0, "kspace_encode_step_1"), (1, "kspace_encode_step_2"))
        if not sampled.any(axis=axis).all()
    ) or _scattered(sampled)


def _describe(measured: NDArray[np.intp], size: int, name: str, completion: str) -> str:
    missing = size - len(measured)
    if measured[-1] - measured[0] + 1 == len(measured):
        if completion != "off":
            return f"partial Fourier along {name}: {missing} of {size} lines are completed by {completion}"
        return f"partial Fourier along {name}: {missing} of {size} lines are zero-filled, resolution is reduced"
    return f"undersampled along {name}: {missing} of {size} lines are zero-filled, the image is aliased"


def _scattered(sampled: NDArray[np.bool_]) -> tuple[str, ...]:
    missing = sampled.size - int(np.count_nonzero(sampled))
    if not missing:
        return ()
    return (f"undersampled: {missing} of {sampled.size} lines are zero-filled",)


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """K-space, its whitened copy, and (for the adaptive combination) coil images and maps of the image's size."""
    return 8 * coils * 3 * voxels(encoding) + (64 << 20)


def cost(encoding: Encoding, coils: int) -> float:
    """One transform per coil."""
    return 2e-3 + coils * fft_seconds(voxels(encoding))


run = one_of(run_batch)
FFT = Method("fft", run, bytes_needed, cost, batch=run_batch, check=check)

"""Images in units of their noise: by formula (doi:10.1002/mrm.20713), or by replicas (doi:10.1002/mrm.21728)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex
from recon.errors import ScanError
from recon.methods.grids import Pixels, Target, resize
from recon.methods.images import image_of
from recon.recipe import ANALYTIC, Recipe
from recon.scan import Calibration, Frame, Image, Quantity

SNR = "signal-to-noise ratio: the image over the standard deviation of its noise"
SNR_SERIES = 200  # what the series of these maps lies above that of its images
SEED = 1  # the same noise for every frame: equal frames have equal maps


def noise_known(calibration: Calibration, recipe: Recipe) -> None:
    """Raises ScanError where the recipe wants the noise's size and nothing measured it."""
    if recipe.parameters.get("snr", "off") != "off" and calibration.whitening is None:
        raise ScanError(
            f"snr is {recipe['snr']}, but the scan is not whitened: acquire a noise scan and leave whiten on, or set"
            " snr to off"
        )


def wants_formula(recipe: Recipe) -> bool:
    """Whether the map is wanted by formula."""
    return recipe.parameters.get("snr") == ANALYTIC


def by_formula(frame: Frame, pixels: Pixels, growth: Any, target: Target, recipe: Recipe) -> Image:
    """The map of |`pixels`| [z, y, x] whose noise is `growth` times that of a single sample of whitened k-space.

    Where the growth is 0 nothing was measured, and the map is 0.
    """
    noise = np.asarray(growth, dtype=np.float32, like=pixels) / np.float32(sqrt(frame.averages))
    known = noise > 0
    values = np.where(known, np.abs(pixels) / np.where(known, noise, 1), 0)
    return map_of(image_of(frame, resize(values, target.shape), target, recipe=recipe), resize(values, target.shape))


def map_of(image: Image, values: Pixels) -> Image:
    """The map `values` [z, y, x] of `image`, as an image of its own series."""
    return replace(
        image,
        pixels=values[None].astype(np.float32),
        series=image.series + SNR_SERIES,
        quantity=Quantity.MAGNITUDE,
        unit="1",
        comments=(SNR,),
    )


def by_replicas(
    frame: Frame, calibration: Calibration, recipe: Recipe, make: Callable[[Frame, Recipe], Image]
) -> Image:
    """The map of the image that `make` makes of `frame`, again and again with new noise of its own size in k-space.

    Its calibration is done anew each time: what noise does there is counted in.
    """
    plain = replace(recipe, parameters={**recipe.parameters, "output": "magnitude", "snr": "off"} | _off(recipe))
    image = make(frame, plain)
    rng = np.random.default_rng(SEED)
    total, squares = np.zeros((2, *image.pixels.shape))
    count = int(recipe.number("snr"))
    for _ in range(count):
        change = make(noisier(frame, calibration, rng), plain).pixels - image.pixels
        total += change
        squares += change.astype(np.float64) ** 2
    spread = np.sqrt(np.maximum(squares - total**2 / count, 0) / (count - 1))
    values = np.divide(image.pixels, spread, where=spread > 0, out=np.zeros_like(spread))
    return map_of(image, values[0].astype(np.float32))


def _off(recipe: Recipe) -> dict[str, bool]:
    return {"gfactor": False} if "gfactor" in recipe.parameters else {}


def noisier(frame: Frame, calibration: Calibration, rng: np.random.Generator) -> Frame:
    """`frame` with noise as strong as its own on top, wherever it was measured, and on its separate calibration."""
    assert calibration.whitening is not None
    like = frame.kspace
    white = rng.standard_normal((*like.shape, 2), np.float32).view(np.complex64)[..., 0] / np.float32(
        sqrt(frame.averages)
    )
    noise = coloured(np.asarray(white, like=like), calibration)
    if frame.sampled is not None:
        noise = noise * np.asarray(frame.sampled[..., None], like=like)
    reference = None if frame.reference is None else noisier(frame.reference, calibration, rng)
    return replace(frame, kspace=like + noise, reference=reference)


def coloured(white: Complex, calibration: Calibration) -> Complex:
    """White noise [coil, ...] as the coils have it."""
    assert calibration.whitening is not None
    mixed: NDArray[np.complex64] = np.tensordot(np.linalg.inv(calibration.whitening), white, axes=1)
    return mixed.astype(np.complex64)

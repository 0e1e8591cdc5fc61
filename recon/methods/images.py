"""From combined pixels to images: geometry, counters and numbering, the same for every method."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from recon.methods.grids import Pixels, Target
from recon.recipe import Recipe
from recon.scan import Counters, Encoding, Frame, Image, Limit, Provenance, Quantity

FACTOR = "geometry factor: how much more the noise grows than by the square root of the acceleration"
FACTOR_SERIES = 100  # what the series of geometry factors lies above that of its images
_FASTEST_FIRST = ("slice", "contrast", "phase", "set", "repetition")


def image_of(
    frame: Frame,
    pixels: Pixels,
    target: Target,
    *,
    recipe: Recipe,
    comments: tuple[str, ...] = (),
) -> Image:
    """The image of `frame` with combined `pixels` [z, y, x] on the grid `target`, as the recipe's output wants them."""
    shown, quantity, unit = _output(pixels, recipe.text("output"))
    return Image(
        pixels=shown[None],
        spacing_mm=target.spacing_mm,
        geometry=frame.geometry,
        counters=frame.counters,
        series=1 + frame.counters.encoding,  # encoding spaces may differ in size, and images of a series may not
        index=number_of(frame.counters, frame.encoding),
        quantity=quantity,
        unit=unit,
        time_stamp=frame.time_stamp,
        physiology_time_stamp=frame.physiology_time_stamp,
        measurement_uid=frame.measurement_uid,
        user_int=frame.user_int,
        user_float=frame.user_float,
        comments=frame.warnings + comments,
        attributes={"ReconRecipe": recipe.to_json()},
        provenance=Provenance(method=recipe.method, recipe_hash=recipe.hash),
    )


def factor_of(frame: Frame, factor: Pixels, target: Target, *, recipe: Recipe) -> Image:
    """The geometry factor [z, y, x] of `frame`'s image, as an image of its own series."""
    image = image_of(frame, factor, target, recipe=recipe, comments=(FACTOR,))
    pixels = factor[None].real.astype(np.float32)
    return replace(image, pixels=pixels, series=image.series + FACTOR_SERIES, quantity=Quantity.MAGNITUDE, unit="1")


def _output(pixels: Pixels, output: str) -> tuple[Pixels, Quantity, str]:
    if output == "complex":
        return pixels.astype(np.complex64, copy=False), Quantity.COMPLEX, "arbitrary"
    if output == "phase":
        return np.angle(pixels).astype(np.float32, copy=False), Quantity.PHASE, "radian"
    if output == "real":
        return pixels.real.astype(np.float32), Quantity.REAL, "arbitrary"
    magnitude = np.abs(pixels) if np.iscomplexobj(pixels) else pixels
    return magnitude.astype(np.float32, copy=False), Quantity.MAGNITUDE, "arbitrary"


def number_of(counters: Counters, encoding: Encoding) -> int:
    """The image's number in its series, from 1: the same in whatever order images are finished, slices fastest."""
    limits = [encoding.limits.get(name, Limit(0, 0, 0)) for name in _FASTEST_FIRST]
    sizes = [limit.maximum - limit.minimum + 1 for limit in limits]
    places: list[int] = [
        getattr(counters, name) - limit.minimum for name, limit in zip(_FASTEST_FIRST, limits, strict=True)
    ]
    return 1 + sum(place * prod(sizes[:i]) for i, place in enumerate(places))

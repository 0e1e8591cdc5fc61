"""What a picture can show of an image: its real-valued planes, their stored numbers, the window to show them in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.scan import Image, Quantity

Real = NDArray[np.float32]

STORED_MAX = 65535  # pictures store unsigned 16-bit numbers


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """`values` [y, x] of one channel and `z`; value = slope · stored + intercept, the same for its whole image."""

    image: Image
    quantity: Quantity
    values: Real
    channel: int
    z: int
    slope: float
    intercept: float
    shown: tuple[float, float]  # lowest and highest value to show


def real_parts(image: Image) -> list[tuple[Quantity, Real]]:
    """`image` as real arrays [channel, z, y, x]: itself, or magnitude and phase (radians) where it is complex.

    Raises ScanError where a pixel is not finite.
    """
    bad = int(np.count_nonzero(~np.isfinite(image.pixels)))
    if bad:
        raise ScanError(
            f"image {image.index} of series {image.series} has {bad} pixels that are NaN or infinite, "
            "a picture needs finite ones: look at the scan's log for the cause"
        )
    pixels = image.pixels
    if not np.iscomplexobj(pixels):
        return [(image.quantity, np.asarray(pixels, np.float32))]
    return [
        (Quantity.MAGNITUDE, np.abs(pixels).astype(np.float32)),
        (Quantity.PHASE, np.angle(pixels).astype(np.float32)),
    ]


def window(values: Real, quantity: Quantity, *, percentile: float = 99.5) -> tuple[float, float]:
    """Lowest and highest value to show: a few bright pixels do not darken the rest.

    Magnitude runs from 0 to the `percentile` of `values` [...], phase from −π to π, signed parts symmetrically about 0.
    The percentile leaves out exact zeros, which are background that no receiver measured.
    """
    if quantity is Quantity.PHASE:
        return -float(np.pi), float(np.pi)
    measured = np.abs(values[values != 0])
    high = float(np.percentile(measured, percentile)) if measured.size else 1.0
    return (0.0, high) if quantity is Quantity.MAGNITUDE and values.min(initial=0) >= 0 else (-high, high)


def split(image: Image) -> Iterator[Plane]:
    """The planes of `image`: by part (magnitude and phase of a complex image), then channel, then z."""
    for quantity, values in real_parts(image):
        slope, intercept = rescale(values)
        shown = window(values, quantity)
        for channel, z in np.ndindex(*values.shape[:2]):
            yield Plane(image, quantity, values[channel, z], channel, z, slope, intercept, shown)


def rescale(values: Real) -> tuple[float, float]:
    """(slope, intercept) such that slope · stored + intercept spans `values` and zero over the stored range 0 … 65535.

    Both are rounded to nine digits, which a DICOM decimal string holds: readers compute with exactly these numbers.
    """
    low = float(f"{min(0.0, float(values.min())):.8e}")
    slope = float(f"{(max(0.0, float(values.max())) - low) / STORED_MAX:.8e}")
    return (slope, low) if slope > 0 else (1.0, low)

"""Images as PNG: grey, windowed by a robust percentile, all their planes tiled into one picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon.errors import FileError, ReconError
from recon.export.parts import Real, real_parts, window
from recon.scan import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Grey = NDArray[np.uint8] | NDArray[np.uint16]


def to_png(images: Sequence[Image], *, bits: int = 8) -> bytes:
    """All planes (channel, z) of `images` in one PNG of 8 or 16 `bits`, tiled in reading order, one window for all.

    Of a complex image the magnitude is shown. Raises FileError without an image, ScanError for NaN pixels, ReconError
    where pillow is not installed.
    """
    if not images:
        raise FileError("there is no image to draw, a PNG needs at least one: look at the scan's log for the cause")
    parts = [real_parts(image)[0] for image in images]
    low, high = window(np.concatenate([values.ravel() for _, values in parts]), parts[0][0])
    planes = [
        to_grey(plane, low, high, bits=bits) for _, values in parts for plane in values.reshape(-1, *values.shape[2:])
    ]
    return encode(tile(planes))


def to_grey(values: Real, low: float, high: float, *, bits: int = 8) -> Grey:
    """`values` [...] as grey values of 8 or 16 `bits`: `low` is black, `high` white, beyond is clipped."""
    white = 2**bits - 1
    scaled = (values.astype(np.float64) - low) * (white / (high - low))
    grey: Grey = np.rint(np.clip(scaled, 0, white)).astype(np.uint8 if bits == 8 else np.uint16)
    return grey


def tile(planes: Sequence[Grey]) -> Grey:
    """`planes` [y, x] side by side in reading order, as near to a square as they go; smaller ones centred."""
    height, width = (max(plane.shape[axis] for plane in planes) for axis in (0, 1))
    columns = math.ceil(math.sqrt(len(planes) * height / width))
    rows = math.ceil(len(planes) / columns)
    canvas = np.zeros((rows, height, columns, width), planes[0].dtype)
    for number, plane in enumerate(planes):
        row, column = divmod(number, columns)
        y, x = (height - plane.shape[0]) // 2, (width - plane.shape[1]) // 2
        canvas[row, y : y + plane.shape[0], column, x : x + plane.shape[1]] = plane
    return canvas.reshape(rows * height, columns * width)


def encode(grey: Grey) -> bytes:
    """`grey` [y, x] of 8 or 16 bits as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture(grey).save(buffer, format="png")
    return buffer.getvalue()


def picture(grey: Grey) -> Picture:
    """`grey` [y, x] as Pillow's image; raises ReconError where pillow is not installed."""
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise ReconError(
            "PNG output needs the package pillow, which is not installed: install it or choose .h5 output"
        ) from error
    return pillow.fromarray(grey)

"""From the encoded grid to the image's grid: spacing, zero filling, cropping, and the sizes that methods declare."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, prod
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from recon.errors import HeaderError
from recon.lines import is_cartesian, lines_of
from recon.scan import Encoding, Shape3, Space, Vector3

LARGEST_AXIS = 8192  # voxels; twice what a header may declare, since an image may be interpolated

Pixels = NDArray[np.float32] | NDArray[np.complex64]
Array = TypeVar("Array", bound=NDArray[Any])


@dataclass(frozen=True, slots=True)
class Target:
    """`full` is the grid over the encoded field of view with the image's voxels; its central `shape` is the image."""

    full: Shape3
    shape: Shape3
    spacing_mm: Vector3


def target_of(encoding: Encoding, *, oversampling: str = "remove") -> Target:
    """The image grid that the header asks for; `oversampling` "keep" shows the whole encoded field of view.

    Raises HeaderError where the two fields of view ask for an impossible grid.
    """
    if oversampling == "keep":
        return Target(encoding.encoded.matrix, encoding.encoded.matrix, encoding.encoded.spacing_mm)
    axes = [_axis(encoding.encoded, encoding.recon, i) for i in range(3)]
    (fz, nz, dz), (fy, ny, dy), (fx, nx, dx) = axes
    return Target((fz, fy, fx), (nz, ny, nx), (dz, dy, dx))


def _axis(encoded: Space, recon: Space, i: int) -> tuple[int, int, float]:
    """(full, shape, spacing) of one axis; a 2-D slice keeps its thickness whatever the header says of z."""
    if i == 0 and encoded.matrix[0] == 1:
        return 1, 1, (recon if recon.matrix[0] == 1 else encoded).field_of_view_mm[0]
    exact = encoded.field_of_view_mm[i] / recon.spacing_mm[i]
    if not 1 <= round(exact) <= LARGEST_AXIS:
        raise HeaderError(
            f"the encoded field of view of {encoded.field_of_view_mm[i]:g} mm at the image's spacing of"
            f" {recon.spacing_mm[i]:g} mm makes {exact:g} voxels, expected 1 to {LARGEST_AXIS}: correct the header"
        )
    return round(exact), recon.matrix[i], encoded.field_of_view_mm[i] / round(exact)


def resize(array: Array, shape: Shape3) -> Array:
    """The last three axes of `array` cropped or zero-filled to `shape`, r = 0 staying r = 0; a view where possible."""
    resized: NDArray[Any] = array
    for axis, size in zip((-3, -2, -1), shape, strict=True):
        resized = _resize_axis(resized, array.ndim + axis, size)
    return cast(Array, resized)


def _resize_axis(array: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    have = array.shape[axis]
    shift = size // 2 - have // 2
    if size <= have:
        return array[(slice(None),) * axis + (slice(-shift, -shift + size),)]
    padding = [(0, 0)] * array.ndim
    padding[axis] = (shift, size - have - shift)
    return np.pad(array, padding)


def inner(target: Target) -> Shape3:
    """The part of `target.shape` inside the encoded field of view; the rest of the image is empty."""
    z, y, x = (min(n, f) for n, f in zip(target.shape, target.full, strict=True))
    return z, y, x


def interpolation(encoding: Encoding, target: Target) -> np.float32:
    """What keeps pixel values the same on a finer or coarser grid than the encoded one, with orthonormal transforms."""
    return np.float32(np.sqrt(prod(target.full) / prod(encoding.encoded.matrix)))


def voxels(encoding: Encoding) -> int:
    """Voxels of the larger of the encoded grid and the grid that is transformed."""
    return max(prod(encoding.encoded.matrix), prod(target_of(encoding).full))


def points(encoding: Encoding) -> int:
    """Samples per coil of one frame, as far as a header tells: a spiral's shots are as long as they must be."""
    grid = prod(encoding.encoded.matrix)
    return grid if is_cartesian(encoding) else max(grid, lines_of(encoding).total * encoding.encoded.matrix[2])


def fft_seconds(size: int) -> float:
    """One CPU core's time for a complex transform of `size` points: 64 × 256² take 27 ms."""
    return 4e-10 * size * log2(max(size, 2))

"""Slices excited together: which ones, where they lie, and by how much each line of k-space turns them.

A group of slices is measured as one frame; its `slice` counter numbers the group. Of G groups of B slices, group g
holds the slices g, g + G, … g + (B − 1)·G of the scan that calibrates them one by one, in the order of the header's dZ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex
from recon.errors import HeaderError
from recon.scan import Encoding, Geometry, Limit, Multiband, ScanHeader, Shape3, Space, Vector3

SEPARABLE = "separable2D"  # calibration of the slices one by one


@dataclass(frozen=True, slots=True)
class Bands:
    """The `slices` of one group by their counters, `offsets_mm` along the slice direction from the group's position."""

    slices: tuple[int, ...]
    offsets_mm: tuple[float, ...]


def bands_of(encoding: Encoding, group: int) -> Bands:
    """The slices of `group`; raises HeaderError where the header's multiband contradicts itself."""
    multiband = _multiband(encoding)
    every = multiband.spacing_mm
    offsets = every[group] if len(every) > 1 and group < len(every) else every[0] if every else ()
    if len(offsets) != multiband.factor or multiband.factor < 1:
        raise HeaderError(
            f"multiband_factor is {multiband.factor}, but spacing lists {len(offsets)} slices (dZ): correct the header"
        )
    groups = groups_of(encoding)
    return Bands(tuple(group + groups * band for band in range(multiband.factor)), offsets)


def groups_of(encoding: Encoding) -> int:
    """How many groups a scan has."""
    return encoding.limits.get("slice", Limit(0, 0, 0)).maximum + 1


def calibration_space(header: ScanHeader, encoding: Encoding) -> int:
    """The encoding space of the slices one by one; raises HeaderError where the header has no such encoding."""
    multiband = _multiband(encoding)
    if not 0 <= multiband.calibration_encoding < len(header.encodings):
        raise HeaderError(
            f"calibration_encoding of multiband is {multiband.calibration_encoding}, the header has"
            f" {len(header.encodings)} encodings (counted from 0): correct the header"
        )
    return multiband.calibration_encoding


def turns(encoding: Encoding, bands: Bands, kz: NDArray[np.float64]) -> Complex:
    """exp(−2πi kz · delta_kz · offset) [slice, line] for the partitions `kz` [line], counted from k-space's centre.

    The phase that blips along the slice direction give each slice (doi:10.1002/mrm.23097).
    """
    cycles = np.multiply.outer(np.array(bands.offsets_mm), kz * _multiband(encoding).delta_kz)
    return np.asarray(np.exp(-2j * np.pi * cycles), np.complex64)


def place(geometry: Geometry, offset_mm: float) -> Geometry:
    """The slice `offset_mm` along the slice direction from a group's `geometry`."""
    x, y, z = (p + offset_mm * d for p, d in zip(geometry.position_mm, geometry.slice_dir, strict=True))
    position: Vector3 = (x, y, z)
    return replace(geometry, position_mm=position)


def single(encoding: Encoding) -> Encoding:
    """The encoding of the slices that come of a group's frames: plane, and as many as all groups have."""
    multiband = _multiband(encoding)
    thickness = encoding.recon.field_of_view_mm[0] / encoding.recon.matrix[0]
    count = multiband.factor * groups_of(encoding)
    limits = {name: limit for name, limit in encoding.limits.items() if name != "kspace_encode_step_2"}
    return replace(
        encoding,
        encoded=_plane(encoding.encoded, thickness),
        recon=_plane(encoding.recon, thickness),
        limits=limits | {"slice": Limit(0, count - 1, 0)},
        multiband=None,
    )


def _plane(space: Space, thickness_mm: float) -> Space:
    matrix: Shape3 = (1, *space.matrix[1:])
    view: Vector3 = (thickness_mm, *space.field_of_view_mm[1:])
    return Space(matrix, view)


def _multiband(encoding: Encoding) -> Multiband:
    assert encoding.multiband is not None
    return encoding.multiband

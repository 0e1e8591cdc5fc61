"""Where a voxel lies in the patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.scan import Geometry, Image

Vector = NDArray[np.float64]
Axes = tuple[Vector, Vector, Vector]  # unit vectors along read, phase and slice direction

PERPENDICULAR = 1e-3  # largest cosine between directions sent as float32 by scanners that compute them in float32


def voxel_axes(geometry: Geometry) -> Axes | None:
    """Axes of the grid in LPS, None where the scan gave none; raises ScanError if they are not perpendicular."""
    read, phase, normal = (np.asarray(d, float) for d in (geometry.read_dir, geometry.phase_dir, geometry.slice_dir))
    if not read.any() or not phase.any():
        return None
    normal = normal if normal.any() else np.cross(read, phase)
    read, phase, normal = (v / np.linalg.norm(v) for v in (read, phase, normal))
    cosines = np.abs([read @ phase, read @ normal, phase @ normal])
    if not cosines.max() <= PERPENDICULAR:
        raise ScanError(
            f"read, phase and slice directions are {geometry.read_dir}, {geometry.phase_dir}, {geometry.slice_dir}, "
            f"expected perpendicular ones (largest cosine {cosines.max():.3g}): correct the acquisition headers"
        )
    phase = phase - (phase @ read) * read
    phase /= np.linalg.norm(phase)
    cross = np.cross(read, phase)
    return read, phase, cross if cross @ normal > 0 else -cross


def first_voxel(image: Image, axes: Axes, z: int) -> Vector:
    """Position (LPS, mm) of the centre of voxel [z, 0, 0].

    The scan's position is the centre of the volume, which a centred DFT puts at index N//2 along each axis: half a
    voxel beyond the middle of the grid where N is even.
    """
    read, phase, normal = axes
    nz, ny, nx = image.pixels.shape[1:]
    dz, dy, dx = image.spacing_mm
    centre = np.asarray(image.geometry.position_mm, float)
    first: Vector = centre - (nx // 2) * dx * read - (ny // 2) * dy * phase + (z - nz // 2) * dz * normal
    return first

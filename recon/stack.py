"""Stacks: volumes whose shots repeat one planar trajectory in every partition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.scan import Frame

ON_GRID = 1e-3  # of the distance between two partitions: rounding of a float32 kz, no ramp
SAME_DENSITY = 1e-4  # of the largest
SAME_PATH = 1e-4  # radians per voxel: a phase of 0.03 at the edge of 512 voxels
Index = NDArray[np.int64]


def partitions_of(frame: Frame) -> Index | None:
    """Where the stack's readouts are, [kz, shot] of `frame`'s shots; None where it is no stack, or not a whole one.

    Geometry decides: each readout keeps its kz, which lies on the grid, and each partition has the same paths in the
    same order, of the same density.
    """
    assert frame.trajectory is not None
    nz, points = frame.encoding.encoded.matrix[0], frame.trajectory
    if nz == 1 or points.shape[-1] != 3:
        return None
    exact = points[..., 0].astype(np.float64) * (nz / (2 * np.pi)) + nz // 2
    number = np.rint(exact[:, :1])
    if np.abs(exact - number).max() > ON_GRID:
        return None
    partition = number[:, 0].astype(np.int64)
    shots, left = divmod(len(partition), nz)
    if left or partition.min() < 0 or (np.bincount(partition, minlength=nz) != shots).any():
        return None
    rows = np.argsort(partition, kind="stable").reshape(nz, shots)
    paths = points[rows, :, 1:]
    alike = np.abs(paths - paths[0]).max() <= SAME_PATH and _same_density(frame, rows)
    return rows if alike else None


def _same_density(frame: Frame, rows: Index) -> bool:
    if frame.density is None:
        return True
    shown = frame.density[rows]
    return bool(np.abs(shown - shown[0]).max() <= SAME_DENSITY * shown.max())

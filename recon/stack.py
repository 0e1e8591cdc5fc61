"""Stacks: volumes whose shots repeat one planar trajectory in every partition, taken apart by an FFT along kz."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels
from recon.arrays import contiguous
from recon.methods.grids import Target, inner, resize
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


def unstacked(frame: Frame, target: Target, kernels: Kernels) -> Frame:
    """`frame` as it is, or as planes: k-space [coil, z, shot, sample] of the image's z and a path of two axes."""
    rows = partitions_of(frame)
    if rows is None:
        return frame
    assert frame.trajectory is not None
    lines = np.moveaxis(frame.kspace[:, np.asarray(rows, like=frame.kspace)], 1, -1)  # [coil, shot, sample, kz]
    coils, shots, samples, nz = lines.shape
    full = resize(lines.reshape(coils, shots * samples, nz), (coils, shots * samples, target.full[0]))
    planes: Complex = kernels.ifft(contiguous(full), axes=1, crop=(inner(target)[0],))
    kspace = contiguous(np.moveaxis(planes, -1, 1)).reshape(coils, -1, shots, samples)
    density = None if frame.density is None else frame.density[rows[0]]
    return replace(
        frame, kspace=kspace, trajectory=np.ascontiguousarray(frame.trajectory[rows[0], :, 1:]), density=density
    )

"""Planning shared by every device: folding of coordinates and density compensation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Real

FOLD_LIMIT = np.pi * (1 + 1e-6)  # rounding of a float32 π is legal, anything further is a wrong unit


def fold(points: Real, axes: int) -> Real:
    """`points` [*samples, axis] in radians per voxel, folded in float64 into [−π, π), as float32.

    Raises TypeError or ValueError where they are not real, have not `axes` axes, are not finite or exceed π(1 + 1e-6).
    """
    if points.dtype not in (np.float32, np.float64):
        raise TypeError(f"points have dtype {points.dtype}, expected float32 or float64: convert them first")
    if points.ndim < 2 or points.shape[-1] != axes:
        raise ValueError(f"points have shape {points.shape}, expected [*samples, {axes}] for a grid of {axes} axes")
    largest = float(np.abs(points).max(initial=0.0))
    if not largest <= FOLD_LIMIT:
        raise ValueError(
            f"points reach {largest:g} radians per voxel, expected at most π = {np.pi:.6f}: check their unit"
        )
    exact: NDArray[np.float64] = points.astype(np.float64)
    exact = (exact + np.pi) % (2 * np.pi) - np.pi
    return exact.astype(np.float32)

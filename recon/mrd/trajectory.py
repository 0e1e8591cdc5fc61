"""Trajectories as the wire carries them → radians per voxel with axes ([z,] y, x), and density where it came along."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recon.errors import RecipeError, ScanError
from recon.scan import Space

Real = NDArray[np.float32]

UNITS = ("cycles/voxel", "cycles/fov", "1/m")

# Senders compute in float32 and round to their own grid; half a thousandth beyond the edge is still the same unit.
_EDGE = 0.5 * 1.0005


def radians(
    trajectory: Real, *, axes: int, unit: str = "cycles/voxel", space: Space | None = None
) -> tuple[Real, Real | None]:
    """`trajectory` [readout, sample, (x, y[, z][, density])] → points [readout, sample, axis] and density or None.

    `axes` is 2 or 3. Units: "cycles/voxel" (±0.5), "cycles/fov" (±N/2), "1/m"; the last two need the encoded `space`.
    Raises ScanError for missing or surplus axes, values that are not finite and a range that does not fit the unit;
    RecipeError for an unknown unit.
    """
    if unit not in UNITS:
        raise RecipeError(f"unknown trajectory unit {unit!r}, expected one of {', '.join(UNITS)}: choose one of these")
    k, density = _split(trajectory, axes)
    scales = _scales(space, axes)
    if unit not in scales:
        raise ScanError(f"a trajectory in {unit} needs the encoded space, got none: pass the space of its encoding")
    _check_range(k, scales, unit=unit)
    points = k[..., ::-1] * (2 * math.pi * scales[unit][::-1])
    return np.ascontiguousarray(points, np.float32), density


def _split(trajectory: Real, axes: int) -> tuple[Real, Real | None]:
    """The position columns (x, y[, z]) and the density column, if any."""
    k, rest = trajectory[..., :axes], trajectory[..., axes:]
    if axes == 2 and rest.shape[-1] and not rest[..., 0].any():
        rest = rest[..., 1:]  # a plane scanned with three coordinates: z, not a density of nothing
    if k.shape[-1] < axes or rest.shape[-1] > 1:
        raise ScanError(
            f"the trajectory has {trajectory.shape[-1]} columns, expected {axes} or, with density, {axes + 1}: "
            "send (x, y[, z][, density])"
        )
    if not np.isfinite(trajectory).all():
        raise ScanError("the trajectory holds values that are not finite, expected numbers: send it again")
    return k, _density(rest)


def _density(rest: Real) -> Real | None:
    if not rest.shape[-1]:
        return None
    if rest.min() < 0:
        raise ScanError(
            f"the trajectory's density goes down to {rest.min():g}, expected 0 or more: correct its last column"
        )
    return np.ascontiguousarray(rest[..., 0], np.float32)


def _scales(space: Space | None, axes: int) -> Mapping[str, NDArray[np.float64]]:
    """Factors (x, y[, z]) from each unit to cycles per voxel."""
    scales = {"cycles/voxel": np.ones(axes)}
    if space is not None:
        scales["cycles/fov"] = 1 / np.array(space.matrix[::-1][:axes], np.float64)
        scales["1/m"] = np.array(space.spacing_mm[::-1][:axes], np.float64) / 1000
    return scales


def _check_range(k: Real, scales: Mapping[str, NDArray[np.float64]], *, unit: str) -> None:
    reach = np.abs(k).max(axis=tuple(range(k.ndim - 1)), initial=0.0).astype(np.float64)
    if (reach * scales[unit]).max() <= _EDGE:
        return
    # Of the units that would hold it, the one it fills best is the likeliest.
    fitting = {name: (reach * scale).max() for name, scale in scales.items() if (reach * scale).max() <= _EDGE}
    guess = f"it would fit {max(fitting, key=lambda name: fitting[name])}" if fitting else "no unit fits"
    raise ScanError(
        f"the trajectory runs from {k.min():g} to {k.max():g}, beyond what {unit} allows ({guess}): "
        "name its unit in the recipe or correct it"
    )

"""Refusals shared by every device: wrong dtype, shape or crop, with the value and what was expected."""

from __future__ import annotations

import numpy as np

from kernels.contract import Complex


def check_complex(array: Complex, name: str, axes: int) -> None:
    """`array` must be complex64 with at least `axes` axes, none of them empty."""
    if array.dtype != np.complex64:
        raise TypeError(f"{name} has dtype {array.dtype}, expected complex64: convert it first")
    if array.ndim < axes or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}, expected at least {axes} axes, none empty: reshape it")


def check_last(array: Complex, name: str, last: tuple[int, ...]) -> None:
    """`array` must be complex64 and its last axes must have the sizes `last`."""
    check_complex(array, name, len(last))
    if array.shape[array.ndim - len(last) :] != last:
        raise ValueError(f"{name} has shape {array.shape}, expected its last axes to be {last}: reshape it")


def check_crop(crop: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, ...]:
    """`crop` must name a size from 1 to the grid's own for every axis of `grid`."""
    if len(crop) != len(grid) or any(not 1 <= c <= n for c, n in zip(crop, grid, strict=True)):
        raise ValueError(
            f"crop is {crop} for a grid of {grid}, expected sizes from 1 up to the grid's: shrink the crop"
        )
    return crop

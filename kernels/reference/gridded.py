"""The NUFFT as its plan describes it, slowly: spreading and interpolation cell by cell, transforms in double precision.

The twin of every device's spread, interpolate, pad, crop and deapodise kernels.
"""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex
from kernels.plan import Geometry
from kernels.reference.direct import Exact, positions


def cells(geometry: Geometry) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cells of the flattened fine grid that each point touches, and their weights, [point, width^axes]."""
    taps = np.arange(geometry.spreading.width)
    number = np.zeros((geometry.points, 1), np.int64)
    weight = np.ones((geometry.points, 1))
    for axis, n in enumerate(geometry.fine):
        along = (geometry.start[:, axis, np.newaxis] + taps) % n
        number = (number[:, :, np.newaxis] * n + along[:, np.newaxis]).reshape(geometry.points, -1)
        weight = (weight[:, :, np.newaxis] * geometry.weights[:, axis, np.newaxis]).reshape(geometry.points, -1)
    return number, weight


def interpolate(geometry: Geometry, grid: Complex | Exact) -> Exact:
    """grid [*batch, *fine] → values in plan order [*batch, point]."""
    number, weight = cells(geometry)
    flat = grid.reshape(*grid.shape[: grid.ndim - len(geometry.fine)], -1).astype(np.complex128)
    values: Exact = (flat[..., number] * weight).sum(axis=-1)
    return values


def spread(geometry: Geometry, values: Complex | Exact) -> Exact:
    """values in plan order [*batch, point] → grid [*batch, *fine]."""
    number, weight = cells(geometry)
    grid = np.zeros((*values.shape[:-1], prod(geometry.fine)), np.complex128)
    for index in np.ndindex(values.shape[:-1]):
        np.add.at(grid[index], number, values[index][:, np.newaxis] * weight)
    return grid.reshape(*values.shape[:-1], *geometry.fine)


def pad(geometry: Geometry, image: Complex | Exact) -> Exact:
    """image [*batch, *shape] / deapodise, its voxel r at cell r mod n of a fine grid of zeros."""
    batch = image.shape[: image.ndim - len(geometry.shape)]
    grid = np.zeros((*batch, prod(geometry.fine)), np.complex128)
    grid[..., placed(geometry)] = (image / apodisation(geometry)).reshape(*batch, -1)
    return grid.reshape(*batch, *geometry.fine)


def crop(geometry: Geometry, grid: Exact) -> Exact:
    """The adjoint of `pad`."""
    batch = grid.shape[: grid.ndim - len(geometry.fine)]
    flat = grid.reshape(*batch, -1)[..., placed(geometry)]
    return flat.reshape(*batch, *geometry.shape) / apodisation(geometry)


def placed(geometry: Geometry) -> NDArray[np.int64]:
    """The cell of the flattened fine grid where each voxel stands, [voxel]."""
    wrapped = positions(geometry.shape) % np.array(geometry.fine)
    numbers: NDArray[np.int64] = np.ravel_multi_index(tuple(wrapped.T), geometry.fine)
    return numbers


def apodisation(geometry: Geometry) -> NDArray[np.float64]:
    """The product of `deapodise` over the axes, [*shape]."""
    return reduce(np.multiply.outer, [axis.astype(np.float64) for axis in geometry.deapodise])


def forward(geometry: Geometry, image: Complex) -> Exact:
    """image [*batch, *shape] → values [*batch, point] in the order that the points came in."""
    axes = tuple(range(-len(geometry.shape), 0))
    ordered = interpolate(geometry, np.fft.fftn(pad(geometry, image), axes=axes))
    values = np.empty_like(ordered)
    values[..., geometry.order] = ordered
    return values


def adjoint(geometry: Geometry, values: Complex) -> Exact:
    """values [*batch, point] in the order that the points came in → image [*batch, *shape]."""
    axes = tuple(range(-len(geometry.shape), 0))
    grid = spread(geometry, values[..., geometry.order])
    return crop(geometry, np.fft.ifftn(grid, axes=axes, norm="forward"))

"""Unfolding of regularly undersampled k-space with coil maps: SENSE, as array code for any device.

Lines on a lattice (kz, ky) make images in which a few voxels, evenly spaced, lie on top of one another; the maps of
the coils tell them apart, by one small least-squares problem for each such group of voxels
(doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Real
from recon.grappa import Lattice, Mask

RIDGE = 1e-6  # of a voxel's own power: what keeps voxels that the coils cannot tell apart finite
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Folding:
    """Which voxels (z, y) of a grid lie on top of one another: `z`, `y` [group, voxel] and their `phase` [voxel].

    In the lattice's image, times its acceleration, each voxel of a group is the sum of all of them times their phases,
    relative to the first one's.
    """

    z: Index
    y: Index
    phase: NDArray[np.complex64]


def grid_for(lattice: Lattice, shape: tuple[int, int]) -> tuple[int, int]:
    """The smallest grid (z, y) not below `shape` on which the lattice's aliases fall on voxels."""
    turns = lattice.step_y // gcd(lattice.shift, lattice.step_y) if lattice.shift else 1
    periods = (lattice.step_z * turns, lattice.step_y)
    z, y = (-(-n // period) * period for n, period in zip(shape, periods, strict=True))
    return z, y


def lines_on(lattice: Lattice, grid: tuple[int, int], origin: tuple[int, int]) -> Mask:
    """The lattice's lines on `grid` (z, y), as far as it reaches; `origin` is where the grid has the lattice's own."""
    z, y = (np.arange(n)[:, None] if axis == 0 else np.arange(n) for axis, n in enumerate(grid))
    turn, left = np.divmod(z - origin[0], lattice.step_z)
    lines: Mask = (left == 0) & ((y - origin[1] - turn * lattice.shift) % lattice.step_y == 0)
    return lines


def folding_of(lattice: Lattice, grid: tuple[int, int], origin: tuple[int, int]) -> Folding:
    """The groups of voxels of `grid` (z, y), which `grid_for` made; `origin` is a line of the lattice there."""
    deep, high = grid[0] // lattice.step_z, grid[1] // lattice.step_y
    first_z, first_y = (index.ravel() for index in np.indices((deep, high)))
    steps = []
    for p, q in product(range(lattice.step_y), range(lattice.step_z)):
        steps.append((q * deep - p * lattice.shift * deep // lattice.step_y, p * high))
    dz, dy = np.array(steps).T
    centred = [o - n // 2 for o, n in zip(origin, grid, strict=True)]
    turns = centred[0] * dz / grid[0] + centred[1] * dy / grid[1]
    return Folding(
        z=(first_z[:, None] + dz) % grid[0],
        y=(first_y[:, None] + dy) % grid[1],
        phase=np.exp(-2j * np.pi * turns).astype(np.complex64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Unfolded:
    """What `unfold` finds [x, z, y]: the `image`, its geometry `factor`, and how `clear` each voxel is.

    It is the share of a voxel's expected power that least squares with damping would keep: 1 where coils tell it apart
    without loss, near 0 where they see nothing that noise, or another voxel, could not make as well.
    """

    image: Complex
    factor: Real
    clear: Real


def unfold(folded: Complex, maps: Complex, folding: Folding, damping: Real | None = None) -> Unfolded:
    """The image of `folded` coil images [coil, x, z, y], times the acceleration, seen by `maps` of the same shape.

    `maps` are zero where no image is wanted: there the factor is 0. The noise of `folded` is white. The geometry factor
    is how much more the noise grows than by √acceleration.

    `damping` [x, z, y] is the power of the noise of `folded` over that expected of the image in all coils: the least
    mean square error, but for a voxel that nothing lies upon, which keeps its size (doi:10.1002/mrm.10718).
    """
    z, y = (np.asarray(index, like=folded) for index in (folding.z, folding.y))
    encoding = maps[:, :, z, y] * np.asarray(folding.phase, like=folded)  # [coil, x, group, voxel]
    seen = folded[:, :, z[:, 0], y[:, 0]]
    encoding = np.moveaxis(encoding, 0, -2)  # [x, group, coil, voxel]
    adjoint = encoding.conj().swapaxes(-1, -2)
    gram = adjoint @ encoding
    power = np.diagonal(gram, axis1=-2, axis2=-1).real.copy()
    ridge = power * 0 + RIDGE if damping is None else np.maximum(damping[:, z, y], RIDGE)
    places = np.arange(power.shape[-1], like=z)
    damped = gram.copy()
    damped[..., places, places] += np.where(power > 0, ridge * power, 1)
    inverse = np.linalg.inv(damped)
    found = (inverse @ (adjoint @ np.moveaxis(seen, 0, -1)[..., np.newaxis]))[..., 0] * (1 + ridge)
    through = inverse @ gram
    noise = np.einsum("...ij,...ji->...i", through, inverse).real
    made = Unfolded(np.zeros_like(maps[0]), np.zeros_like(maps[0].real), np.zeros_like(maps[0].real))
    made.image[:, z, y], made.clear[:, z, y] = found, np.diagonal(through, axis1=-2, axis2=-1).real
    made.factor[:, z, y] = np.sqrt(np.maximum(noise, 0) * power) * (1 + ridge)
    return made

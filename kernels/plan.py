"""The geometry of a NUFFT, the same for every device: widths, weights, tiles and lists, in NumPy.

forward: image / deapodise, zero-padded to the fine grid (voxel r at cell r mod n), DFT exp(−i), interpolation at the
points; adjoint: spreading, inverse DFT exp(+i) without 1/n, crop, / deapodise. A point k falls at k·n/2π cells; it
touches `width` cells from `start` on, modulo n, weighted by exp(β(√(1 − x²) − 1)) of its distance to each
(doi:10.1137/18M120885X).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import inf, pi, prod, sqrt, tanh
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Real
from kernels.geometry import fold, smooth

Index = NDArray[np.int32]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TILE_EDGE = {1: 256, 2: 16, 3: 8}  # cells of a tile along each axis, by the number of axes
BANKS = 4  # cells of four coils, 32 bytes each, that half a warp reads at once from shared memory
POINTS_PER_BLOCK = 512  # heavier tiles are split, so that the centre of a radial scan keeps many blocks busy
RARE = 1e-6  # the share of random images and random points whose error may exceed eps
RARE_SIGMAS = 4.75342  # as far from its mean as that share of a normal distribution lies
MARGIN = 1.15  # on that error: aliasing falls less evenly from the edge, and errors at few points stray further
FINEST_EPS = {1.25: 5e-5, 2.0: 1e-5}  # below, single precision spoils it: the smaller grid's deapodisation is larger
COARSEST_EPS = 5e-2

# σ: width: (β / (π width (1 − 1/2σ)), error, error at the edge), for one axis. An error is the amplitude that the
# kernel's transform aliases into a voxel over what it leaves there, root mean square over all; β makes it least.
KERNELS = {
    1.25: {
        3: (0.82, 2.17e-2, 7.2e-2),
        4: (0.90, 5.13e-3, 2.0e-2),
        5: (0.94, 1.29e-3, 6.4e-3),
        6: (0.96, 3.31e-4, 2.0e-3),
        7: (0.97, 8.50e-5, 5.5e-4),
        8: (0.98, 2.29e-5, 2.1e-4),
        9: (0.98, 5.62e-6, 3.2e-5),
    },
    2.0: {
        2: (0.76, 3.91e-2, 6.8e-2),
        3: (0.90, 4.61e-3, 1.1e-2),
        4: (0.94, 5.29e-4, 1.3e-3),
        5: (0.96, 5.98e-5, 1.5e-4),
        6: (0.97, 6.91e-6, 1.5e-5),
        7: (0.98, 7.67e-7, 2.7e-6),
    },
}


@dataclass(frozen=True, slots=True)
class Spreading:
    """A spreading kernel: `width` fine cells, exp(beta (√(1 − x²) − 1)) for |x| ≤ 1; a grid `sigma` times as fine."""

    width: int
    sigma: float
    beta: float


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Where the points of one trajectory fall; every array is C-contiguous.

    Plan order is by tile, tiles along a Morton curve, points of a tile as `plan_order` has them, equal ones in the
    order they came in: k-space in plan order is kspace[..., order].
    """

    shape: tuple[int, ...]  # image ([z,] y, x)
    fine: tuple[int, ...]  # oversampled grid
    spreading: Spreading
    order: Index  # [point]
    start: Index  # [point, axis] first cell touched, in plan order, 0 … fine−1; the next ones wrap modulo fine
    weights: Real  # [point, axis, width] in plan order; the weight of a cell is the product over the axes
    tile: tuple[int, ...]  # edges of a tile in cells; the last tile of an axis may be cut off by the grid's end
    tiles: tuple[int, ...]  # how many tiles lie along each axis
    tile_origin: Index  # [tile, axis] first cell of each tile
    blocks: Index  # [block, 3] (tile, first point, last point + 1): each point once, with its start in the tile
    csr_start: Index  # [tile + 1] first entry of each tile
    csr_point: Index  # [entry] the points, in plan order, that touch the tile: ascending, each once per tile
    parts: Index  # [part, 3] (tile, first entry, last entry + 1): every tile at least once, heavy ones split
    deapodise: tuple[Real, ...]  # [N] per axis: divide the image by their product

    @property
    def points(self) -> int:
        """How many points there are."""
        return len(self.order)

    @property
    def bytes(self) -> int:
        """What the arrays hold."""
        arrays = (self.order, self.start, self.weights, self.tile_origin, self.blocks, self.csr_start, self.csr_point)
        return sum(array.nbytes for array in (*arrays, self.parts, *self.deapodise))


def spreading(eps: float, *, sigma: float, shape: tuple[int, ...] = (256, 256, 256)) -> Spreading:
    """The narrowest kernel with a relative L2 error of at most `eps` for random images of `shape` and random points.

    Raises ValueError where sigma is neither 1.25 nor 2, or eps is out of single precision's reach for it.
    """
    if sigma not in KERNELS:
        raise ValueError(f"sigma is {sigma:g}, expected 1.25 or 2: choose one of them")
    if not FINEST_EPS[sigma] <= eps <= COARSEST_EPS:
        raise ValueError(
            f"eps is {eps:g}, expected {FINEST_EPS[sigma]:g} to {COARSEST_EPS:g} for sigma {sigma:g}: choose another"
        )
    widths = KERNELS[sigma]
    width = next((width for width in widths if expected_error(width, sigma, shape) <= eps), max(widths))
    return Spreading(width, sigma, widths[width][0] * pi * width * (1 - 1 / (2 * sigma)))


def expected_error(width: int, sigma: float, shape: tuple[int, ...]) -> float:
    """The relative L2 error that `RARE` draws of a random image of `shape` exceed; each axis adds its own.

    A voxel's error is its aliasing times a random amplitude. Aliased energy falls from the edge as exp(−λd), d from 0
    there to 1 in the middle, λ being the energy at the edge over its mean. Its sum over the n voxels of an axis, and
    the sum of its square, say how much it is and over how many voxels it spreads: the fewer, the further it strays.
    """
    _, error, edge = KERNELS[sigma][width]
    voxels, total = prod(shape), 0.0
    for n in shape:
        fall = (edge / error) ** 2 / n
        energy = error**2 * (fall / tanh(fall) if n > 1 else 1)
        spread = voxels / n * (tanh(2 * fall) / tanh(fall) ** 2 if n > 1 else 1)
        total += energy * rare_ratio(spread, voxels)
    return MARGIN * sqrt(total)


def rare_ratio(some: float, every: float) -> float:
    """What `RARE` ratios of mean energies exceed, of `some` voxels and of `every` one, independent; inf where few.

    An F distribution of twice as many degrees of freedom, by the cube roots of its two parts, which are nearly normal
    (doi:10.1073/pnas.17.12.684); up to a tenth above the true ratio.
    """
    a, b = 1 / (9 * some), 1 / (9 * every)
    square = (1 - b) ** 2 - RARE_SIGMAS**2 * b
    if square <= 0:
        return inf
    middle, rest = (1 - a) * (1 - b), (1 - a) ** 2 - RARE_SIGMAS**2 * a
    return ((middle + sqrt(middle**2 - square * rest)) / square) ** 3


def plan_geometry(points: Real, shape: tuple[int, ...], *, eps: float, sigma: float = 2.0) -> Geometry:
    """The geometry of `points` [*samples, axis] in radians per voxel on a grid of `shape`; see `kernels.geometry.fold`.

    Folding, scaling and weights are computed in double precision and stored as float32.
    """
    folded = fold(points, shape).reshape(-1, len(shape))
    chosen = spreading(eps, sigma=sigma, shape=tuple(shape))
    fine = tuple(fine_size(n, chosen) for n in shape)
    cells = folded * (np.array(fine) / (2 * pi))
    first = np.ceil(cells - chosen.width / 2)
    start = (first % fine).astype(np.int32)
    tile = (TILE_EDGE[len(shape)],) * len(shape)
    tiles = tuple(-(-n // edge) for n, edge in zip(fine, tile, strict=True))
    rank, origin = morton(tiles, tile)
    home = rank[tuple((start // tile).T)]
    order = plan_order(home, start, tile=tile, width=chosen.width)
    start, home = start[order], home[order]
    csr_start, csr_point = touched(start, chosen.width, fine, rank=rank, tile=tile)
    return Geometry(
        shape=tuple(shape),
        fine=fine,
        spreading=chosen,
        order=order.astype(np.int32),
        start=start,
        weights=kernel_weights(first[order] - cells[order], chosen),
        tile=tile,
        tiles=tiles,
        tile_origin=origin,
        blocks=split(np.searchsorted(home, np.arange(len(origin) + 1)), empty=False),
        csr_start=csr_start,
        csr_point=csr_point,
        parts=split(csr_start, empty=True),
        deapodise=tuple(deapodisation(n, m, chosen) for n, m in zip(shape, fine, strict=True)),
    )


def fine_size(size: int, kernel: Spreading) -> int:
    """The next even number of factors 2, 3 and 5 that is at least sigma · size and holds two kernels."""
    least = max(int(np.ceil(kernel.sigma * size)), 2 * kernel.width)
    found = least + least % 2
    while not smooth(found):
        found += 2
    return found


def kernel_weights(distance: Floats, kernel: Spreading) -> Real:
    """Weights [point, axis, width] from the distance [point, axis] of each point to its first cell."""
    x = (distance[..., np.newaxis] + np.arange(kernel.width)) * (2 / kernel.width)
    return profile(x, kernel.beta).astype(np.float32)


def profile(x: Floats, beta: float) -> Floats:
    """exp(beta (√(1 − x²) − 1)) for |x| ≤ 1."""
    root: Floats = np.sqrt(np.maximum(1 - x * x, 0))
    return np.exp(beta * (root - 1))


def transform(kernel: Spreading, frequency: Floats) -> Floats:
    """The kernel's Fourier transform at `frequency` [any], in cycles per fine cell; exact to double precision.

    Over x = sin θ the integrand is smooth, so that Gauss and Legendre's rule converges geometrically.
    """
    nodes, steps = np.polynomial.legendre.leggauss(32 + 16 * kernel.width)
    theta = (nodes + 1) * (pi / 4)
    amplitude = np.exp(kernel.beta * (np.cos(theta) - 1)) * np.cos(theta) * steps * (pi / 4)
    waves = np.cos(np.multiply.outer(frequency, pi * kernel.width * np.sin(theta)))
    result: Floats = kernel.width * (waves @ amplitude)
    return result


def deapodisation(size: int, fine: int, kernel: Spreading) -> Real:
    """What spreading multiplies an axis of the image by, [size]."""
    return transform(kernel, (np.arange(size) - size // 2) / fine).astype(np.float32)


def morton(tiles: tuple[int, ...], tile: tuple[int, ...]) -> tuple[Integers, Index]:
    """The number of each tile on a Morton curve, [*tiles], and the first cell of each numbered tile, [tile, axis]."""
    places = np.indices(tiles).reshape(len(tiles), -1)
    code = np.zeros(places.shape[1], np.int64)
    for bit, (axis, place) in product(range(int(max(tiles)).bit_length()), enumerate(places[::-1])):
        code |= (place >> bit & 1) << (bit * len(tiles) + axis)
    along = np.argsort(code)
    rank = np.empty(len(code), np.int64)
    rank[along] = np.arange(len(code))
    return rank.reshape(tiles), np.ascontiguousarray((places[:, along].T * tile).astype(np.int32))


def plan_order(home: Integers, start: Index, *, tile: tuple[int, ...], width: int) -> Integers:
    """The points by their tile `home`, and in a tile as the devices like to read its cells.

    In a plane by their first cell: the next point often reads the same cells. In a volume, where few points share
    cells, in turns by where the first cell lies in memory: neighbours in the list then meet in no bank.
    """
    if len(tile) < 3:
        return stable_order(home * prod(tile) + cell_in(start, tile, tile))
    span = tuple(edge + width - 1 for edge in tile)
    bank = cell_in(start, tile, span) % BANKS
    by_bank = stable_order(home * BANKS + bank)
    home, bank = home[by_bank], bank[by_bank]
    first = np.flatnonzero(np.append(True, (np.diff(home) != 0) | (np.diff(bank) != 0)))
    turn = np.arange(len(home)) - np.repeat(first, np.diff(np.append(first, len(home))))
    in_turns = stable_order(turn * BANKS + bank)
    in_turns = in_turns[stable_order(home[in_turns])]
    return by_bank[in_turns]


def cell_in(start: Index, tile: tuple[int, ...], span: tuple[int, ...]) -> Integers:
    """The number of each first cell inside its tile, whose lines are as far apart as `span` says, along x fastest."""
    cell = np.zeros(len(start), np.int64)
    for axis, (edge, pitch) in enumerate(zip(tile, span, strict=True)):
        cell = cell * pitch + start[:, axis] % edge
    return cell


def stable_order(keys: NDArray[Any]) -> Integers:
    """The stable ascending order of non-negative `keys`, by two counting passes of 16 bits: NumPy's fast path."""
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    if keys.max() > 0xFFFF:
        order = order[np.argsort((keys[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def touched(
    start: Index, width: int, fine: tuple[int, ...], *, rank: Integers, tile: tuple[int, ...]
) -> tuple[Index, Index]:
    """The points that touch each tile, as (first entry [tile + 1], point [entry])."""
    axes = [tiles_along(start[:, i], width, fine[i], tile[i]) for i in range(len(fine))]
    points, owners = [], []
    for places in product(*(axis.T for axis in axes)):
        there = np.flatnonzero(np.logical_and.reduce([place >= 0 for place in places]))
        points.append(there.astype(np.int32))
        owners.append(rank[tuple(place[there] for place in places)])
    point, owner = np.concatenate(points), np.concatenate(owners)
    first = stable_order(point)
    order = first[stable_order(owner[first])]
    counts = np.bincount(owner, minlength=rank.size)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32), point[order]


def tiles_along(start: Index, width: int, fine: int, edge: int) -> Integers:
    """The tiles of one axis that cells start … start + width − 1 (modulo fine) lie in: [point, candidate], −1 for none.

    A footprint may come back to its first tile round the end of the axis: that one is listed once.
    """
    cells = (start[:, np.newaxis].astype(np.int64) + np.arange(width)) % fine
    found = cells // edge
    again = np.zeros(found.shape, bool)
    again[:, 1:] = (found[:, 1:] == found[:, :-1]) | (found[:, 1:] == found[:, :1])
    found[again] = -1
    return found[:, (found >= 0).any(axis=0)]


def split(starts: NDArray[Any], *, empty: bool) -> Index:
    """Ranges [part, 3] (tile, first, end) of at most POINTS_PER_BLOCK, even within a tile; `empty` tiles too or not."""
    counts = np.diff(starts)
    pieces = np.maximum(-(-counts // POINTS_PER_BLOCK), int(empty))
    tile = np.repeat(np.arange(len(counts)), pieces)
    piece = np.arange(len(tile)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first, end = (starts[tile] + counts[tile] * (piece + i) // pieces[tile] for i in range(2))
    return np.stack([tile, first, end], axis=1).astype(np.int32)


def nufft_bytes(points: int, shape: tuple[int, ...], kernel: Spreading) -> int:
    """About what a geometry of so many points holds: weights, starts, order, and each point in two lists or more."""
    axes = len(shape)
    shared = prod(1 + (kernel.width - 1) / TILE_EDGE[axes] for _ in range(axes))  # tiles that a point touches
    return int(points * (4 + 4 * axes + 4 * axes * kernel.width + 4 * shared)) + 4 * sum(shape)

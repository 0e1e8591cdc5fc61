"""Which of two ways is faster, from measured costs: a table rather than a trial, so that every process chooses alike.

`recon-cluster bench kernels` prints the ratio that the table expects beside the one that it measures.
"""

from __future__ import annotations

from math import ceil, log, log2, pi, prod, sqrt

# Nanoseconds on one core of a Xeon with AVX-512 (FINUFFT 2.5.1, FFTW 3.3.5).
SPREAD_POINT = 12.0  # FINUFFT, type 1 or 2: each point
SPREAD_CELL = 0.3  # and each cell that it touches
GRID_CELL = 0.63  # each cell of FINUFFT's grid, times log₂ of their number: transform, padding, deapodisation
CONVOLVED_CELL = 0.40  # each cell of the doubled grid, times log₂ of their number
HANDED_OVER = 300_000.0  # work for another thread, and its result: less than this is not worth the while
SMALL_GRID, MIDDLE_GRID, LARGE_GRID = 1.25, 1.625, 2.0  # times the image's size along each axis
LARGEST_RESPONSE = LARGEST_SHARED = 1 << 25  # cells, 134 and 268 MB: beyond, memory is better spent on frames


def prefers_toeplitz(points: int, shape: tuple[int, ...], *, eps: float) -> bool:
    """Whether the normal operator is faster as a convolution than as forward and adjoint."""
    cells = prod(2 * n for n in shape)
    return cells <= LARGEST_RESPONSE and convolution_ns(shape) <= 2 * nufft_ns(points, shape, eps=eps)


def convolution_ns(shape: tuple[int, ...]) -> float:
    """One image through the doubled grid and back."""
    cells = prod(2 * n for n in shape)
    return CONVOLVED_CELL * cells * log2(cells)


def nufft_ns(points: int, shape: tuple[int, ...], *, eps: float) -> float:
    """One transform by FINUFFT on its grid, that is `upsampling` times as fine."""
    return spread_ns(points, shape, eps=eps) + grid_ns(points, shape)


def spread_ns(points: int, shape: tuple[int, ...], *, eps: float) -> float:
    """Interpolation or spreading of all points."""
    width = ceil(-log(eps) / (pi * sqrt(1 - 1 / upsampling(points, shape))))
    return points * (SPREAD_POINT + SPREAD_CELL * float(width ** len(shape)))


def grid_ns(points: int, shape: tuple[int, ...]) -> float:
    """What does not depend on how many points are looked at."""
    cells = prod(upsampling(points, shape) * n for n in shape)
    return GRID_CELL * cells * log2(max(cells, 2))


def upsampling(points: int, shape: tuple[int, ...]) -> float:
    """How many times as fine as the image FINUFFT's grid is along each axis, in single precision.

    On the smallest grid a transform is cheapest, and the correction for the spreading kernel largest (tenfold along an
    axis): it enlarges, at the corners of the image, the rounding of sums over many points. Where points crowd, adjoint
    of a real object's samples erred by 7e-3 at eps 1e-4 (koosh-ball, 64³), by 2e-5 on the middle grid, which takes no
    longer there: its kernel is narrower (all measured).
    """
    return MIDDLE_GRID if crowded(points, shape) else SMALL_GRID


def crowded(points: int, shape: tuple[int, ...]) -> bool:
    """Whether there is more than a point to each voxel, or a volume, where spokes meet in the centre."""
    return len(shape) == 3 or points >= prod(shape)


def gains_from_parts(points: int, shape: tuple[int, ...], *, eps: float) -> bool:
    """Whether a lone image is faster where every thread takes a part of the points, and all of a grid of its own."""
    cells = prod(upsampling(points, shape) * n for n in shape)
    enough = max(grid_ns(points, shape), HANDED_OVER)
    return cells <= LARGEST_SHARED and spread_ns(points, shape, eps=eps) >= enough

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
LARGEST_RESPONSE = 1 << 25  # cells, 128 MB: beyond, memory is better spent on frames


def prefers_toeplitz(points: int, shape: tuple[int, ...], *, eps: float) -> bool:
    """Whether the normal operator is faster as a convolution than as forward and adjoint."""
    cells = prod(2 * n for n in shape)
    return cells <= LARGEST_RESPONSE and convolution_ns(shape) <= 2 * nufft_ns(points, shape, eps=eps)


def convolution_ns(shape: tuple[int, ...]) -> float:
    """One image through the doubled grid and back."""
    cells = prod(2 * n for n in shape)
    return CONVOLVED_CELL * cells * log2(cells)


def nufft_ns(points: int, shape: tuple[int, ...], *, eps: float) -> float:
    """One transform by FINUFFT on the grid that is 1.25 times as fine."""
    width = ceil(-log(eps) / (pi * sqrt(1 - 1 / 1.25)))
    cells = prod(1.25 * n for n in shape)
    spread = points * (SPREAD_POINT + SPREAD_CELL * width ** len(shape))
    return float(spread + GRID_CELL * cells * log2(max(cells, 2)))

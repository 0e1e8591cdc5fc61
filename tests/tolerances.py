"""Every tolerance of the numerical tests, derived from precision and requested accuracy; none is tuned to pass.

All are for errors relative to a norm, unless a name says otherwise.
"""

from __future__ import annotations

from math import log2

ROUND = 2.0**-24  # unit roundoff of float32

# Laws of kernels.contract, the same for every device.
ADJOINT = 1e-6  # |⟨Ax, y⟩ − ⟨x, Aᴴy⟩| / (‖Ax‖ ‖y‖): both sides round independently, with random signs
NORMAL = 2e-5  # a Toeplitz normal operator against adjoint∘forward: two padded FFTs and a rounded point spread function


def fft(size: int) -> float:
    """A fast transform of `size` points: each of its log₂ stages rounds a product and a sum, and scaling once more."""
    return 3 * ROUND * (1 + log2(size))


def sum_of(terms: int) -> float:
    """A sum of products, against the sum of their magnitudes: γ_n of its terms, three roundings to a product."""
    return (terms + 3) * ROUND


def nufft(eps: float) -> float:
    """The contract's promise."""
    return eps


def linear(size: int) -> float:
    """A(ax + by) against aAx + bAy: three transforms of `size` values, each with its own rounding, and the scaling."""
    return 3 * fft(size) + sum_of(2)


def wavelet(passes: int) -> float:
    """An orthogonal transform in `passes` of four taps: the matrix of magnitudes has norm Σ|taps| = 1.673 in each."""
    return 1.673 * passes * sum_of(4)


def low_rank(vectors: int, length: int, sweeps: int) -> float:
    """Shrunk singular values, relative to the largest of each block, by plane rotations of `vectors`.

    Soft thresholding of singular values is nonexpansive, so it hands on the error of the basis: every vector meets
    every other once a sweep, each time with three roundings to a value; then come two products with the basis.
    """
    return 3 * ROUND * sweeps * vectors + sum_of(2 * length) + sum_of(2 * vectors)


ROTATION = 8 * ROUND  # a phase reduced to a turn, its sine and cosine to 2 ulp each, and a complex product

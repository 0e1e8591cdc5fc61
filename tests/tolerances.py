"""Every tolerance of the numerical tests, derived from precision and requested accuracy; none is tuned to pass.

All are for errors relative to a norm, unless a name says otherwise.
"""

from __future__ import annotations

from math import exp, log2, pi, sqrt

ROUND = 2.0**-24  # unit roundoff of float32

# Laws of kernels.contract, the same for every device.
ADJOINT = 1e-6  # |⟨Ax, y⟩ − ⟨x, Aᴴy⟩| / (‖Ax‖ ‖y‖): both sides round independently, with random signs
NORMAL = 2e-5  # against adjoint∘forward with eps = 1e-5: the pair's two errors; a convolution's is small beside them


def fft(size: int) -> float:
    """A fast transform of `size` points: each of its log₂ stages rounds a product and a sum, and scaling once more."""
    return 3 * ROUND * (1 + log2(size))


def convolution(size: int, *, spread: float) -> float:
    """A normal operator as a convolution on `size` cells, of a random image, against the exact one.

    The response is a transform: by Parseval its error is `spread`, that of the point spread function, and one rounding
    of either. An image goes through two transforms and a product; its roundings are many and independent, and add like
    a random walk (doi:10.1137/S1064827593247023).
    """
    return spread + 2 * ROUND + 3 * ROUND * sqrt(2 * (1 + log2(size)) + 1)


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


def rim(field: float, distance: float, axes: int = 2) -> float:
    """How far Pipe and Menon's weight of a sample may lie above its share of k-space, relative to that share.

    The weight is one over what the window ψ finds around the sample. Nearer than `distance` (radians per voxel) to the
    edge of what was measured nothing is missing; ψ belongs to a field of view `field` voxels wide, and of an Airy
    pattern 2 / πv is outside v = field · distance / 2, of its like in three dimensions 3 / πv, in both of a box's
    Fejér kernels together 2 / πv.
    """
    return 2 * axes / (pi * field * distance)


def weighted(field: float, edge: float, *, sigma: float, axes: int = 2) -> float:
    """The image of a Gaussian of `sigma` voxels by such weights, of samples that reach out to `edge` radians per voxel.

    The error of every weight, where it has its part in the Gaussian's energy exp(−σ²k²).
    """
    radii = [edge * i / 2000 for i in range(2000)]
    energy = [exp(-((sigma * k) ** 2)) * k ** (axes - 1) for k in radii]
    wrong = [min(1.0, rim(field, edge - k, axes)) ** 2 for k in radii]
    return sqrt(sum(e * w for e, w in zip(energy, wrong, strict=True)) / sum(energy))


def centre_cell(size: int, *, sigma: float) -> float:
    """The image of that Gaussian where spokes have `size` samples for `size` voxels, which is half of what ψ needs.

    The centre's share, π(Δk/2)², is then not determined by its neighbours: ways to share it out differ by half of it,
    and that half times the spectrum's peak 2πσ² is a constant in all `size`² voxels.
    """
    spacing = 2 * pi / size
    half = pi * (spacing / 2) ** 2 / (2 * pi) ** 2 / 2
    return half * 2 * pi * sigma**2 * size / (sigma * sqrt(pi))


def moved(field: float, axes: int = 2) -> float:
    """Points that another unit rounds thrice: their phase at the edge of `field` voxels, in samples and in weights."""
    return 2 * 3 * ROUND * pi * axes * field / 2


def bart_nufft(axes: int = 2) -> float:
    """BART reads its Kaiser-Bessel kernel from a table of 128 steps, linearly: h²/8 of its curvature β on each axis."""
    return axes * 13.9 / (8 * 128**2)


def rss_image(voxels: int, coils: int) -> float:
    """A root sum of squares of FFTs in single precision, against one made likewise."""
    return 2 * fft(voxels) + sum_of(coils)


HEARTS = 0.08  # what the project promises of its simulated hearts: noise and ideal weights take 3 to 4 % of it

# What "no aliases" means. Exact encoding leaves the error of coil maps and iterations alone, for which there is no law.
UNFOLDED = 0.01  # relative to the image: a ten-thousandth of its energy, less than 3 of the 256 steps of a screen
HALVED = 0.5  # relative to the image before: a quarter of its aliases' energy; no unfolding at all leaves 1

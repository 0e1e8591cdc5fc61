"""Receiver noise, correlated between coils, and the error it must cause in a root-sum-of-squares image."""

from __future__ import annotations

from math import exp, lgamma, sqrt

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.simulate.phantom import Real, Spectrum


def covariance(rng: Generator, coils: int) -> Spectrum:
    """A plausible E[n n^H] [coil, coil]: gains differ by tens of percent, neighbours correlate by 0.3, mean variance 2.

    Mean variance 2 is a standard deviation of 1 in each of the real and imaginary parts.
    """
    distance = np.abs(np.subtract.outer(np.arange(coils), np.arange(coils)))
    ring = np.minimum(distance, coils - distance)
    phase = rng.uniform(-np.pi, np.pi, coils)
    gains = rng.uniform(0.75, 1.3, coils) * np.exp(1j * phase)
    # exp(−distance) on a ring has a non-negative spectrum, so the product below is positive definite for any gains.
    matrix = gains[:, None] * np.exp(-1.2 * ring) * gains.conj()
    return np.asarray(2 * coils * matrix / np.trace(matrix).real, np.complex128)


def draw(rng: Generator, matrix: Spectrum, *, readouts: int, samples: int) -> NDArray[np.complex64]:
    """Noise [readout, coil, sample] with covariance `matrix` [coil, coil] between coils, white along samples."""
    root = np.linalg.cholesky(matrix)
    shape = (readouts, len(root), samples, 2)
    white = rng.standard_normal(shape, np.float32).view(np.complex64)[..., 0]
    colored: NDArray[np.complex64] = np.matmul((root / np.sqrt(2)).astype(np.complex64), white)
    return colored


def whitening(matrix: Spectrum) -> Spectrum:
    """W [coil, coil] with W·matrix·W^H = 2·identity: σ = 1 in each of the real and imaginary parts."""
    return np.asarray(np.sqrt(2) * np.linalg.inv(np.linalg.cholesky(matrix)), np.complex128)


def mean_magnitude(truth: Real, coils: int) -> Real:
    """Expected root-sum-of-squares of `coils` complex values with total magnitude `truth` and noise σ = 1 in each part.

    The mean of a non-central chi distribution with 2·coils degrees of freedom (doi:10.1002/mrm.1910380524).
    """
    half = np.square(truth) / 2
    far = 8 * coils + 100.0  # from here on the terms of the asymptotic series shrink by eight at first
    return np.where(half < far, _mean_near(np.minimum(half, far), coils), _mean_far(np.maximum(half, far), coils))


def _mean_near(half: Real, coils: int) -> Real:
    # A Poisson mixture of central chi means. All terms are positive, which the library's 1F1 does not manage.
    term = np.exp(-half) * sqrt(2) * exp(lgamma(coils + 0.5) - lgamma(coils))
    total = term.copy()
    largest = float(half.max(initial=0.0))
    for n in range(1, int(largest + 10 * sqrt(largest) + 40)):  # ten deviations past the mixture's mean
        term = term * half * ((coils + n - 0.5) / (n * (coils + n - 1)))
        total += term
    return np.asarray(total, np.float64)


def _mean_far(half: Real, coils: int) -> Real:
    # Asymptotic series of the confluent function in that mean.
    term, total = np.ones_like(half), np.ones_like(half)
    for n in range(12):
        term = term * (n - 0.5) * (n + 0.5 - coils) / ((n + 1) * half)
        total += term
    return np.asarray(np.sqrt(2 * half) * total, np.float64)


def predicted_nrmse(truth: Real, coils: int, *, sigma: float) -> float:
    """Root of Σ E[(image − truth)²] / Σ truth² of root-sum-of-squares images with noise `sigma` in each part."""
    if sigma == 0:
        return 0.0
    scaled = np.asarray(truth, np.float64).ravel() / sigma
    square = 2 * scaled * (scaled - mean_magnitude(scaled, coils)) + 2 * coils
    return float(np.sqrt(np.sum(square) / np.sum(scaled**2)))

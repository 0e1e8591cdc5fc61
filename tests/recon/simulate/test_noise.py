"""Noise statistics, and the error predicted from noise against integrals and against drawing it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln, ive

from recon.simulate.noise import covariance, draw, mean_magnitude, predicted_nrmse, whitening


@pytest.mark.parametrize("coils", [1, 2, 5, 32])
def test_covariance_is_positive_with_mean_variance_two(coils: int) -> None:
    matrix = covariance(np.random.default_rng(coils), coils)
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert np.trace(matrix).real / coils == pytest.approx(2, rel=1e-12)
    gains = np.sqrt(np.diag(matrix).real)
    if coils > 2:
        assert abs(matrix[0, 1]) / gains[0] / gains[1] == pytest.approx(np.exp(-1.2), rel=1e-12)


def test_drawn_noise_has_the_covariance_asked_for() -> None:
    matrix = covariance(np.random.default_rng(1), 4)
    noise = draw(np.random.default_rng(2), matrix, readouts=500, samples=400)
    flat = noise.transpose(1, 0, 2).reshape(4, -1).astype(np.complex128)
    count, variance = flat.shape[1], np.diag(matrix).real
    # An entry of a sample covariance of proper complex noise has standard deviation √(Ψ_ii Ψ_jj / count).
    deviation = np.sqrt(np.outer(variance, variance) / count)
    assert (np.abs(flat @ flat.conj().T / count - matrix) < 5 * deviation).all()
    assert (np.abs(flat @ flat.T / count) < 5 * np.sqrt(2) * deviation).all()  # proper: no pseudo-covariance
    neighbours = np.mean(flat[:, 1:] * flat[:, :-1].conj(), axis=1)
    assert (np.abs(neighbours) < 5 * variance / np.sqrt(count)).all()  # white along samples


def test_whitened_noise_has_unit_deviation_in_each_part() -> None:
    matrix = covariance(np.random.default_rng(3), 6)
    whiten = whitening(matrix)
    np.testing.assert_allclose(whiten @ matrix @ whiten.conj().T, 2 * np.eye(6), atol=1e-12)


def chi_mean(truth: float, coils: int) -> float:
    """Mean of the non-central chi distribution by integrating its density."""

    def weighted(x: float) -> float:
        if truth == 0:
            return float(np.exp(2 * coils * np.log(x) - x * x / 2 - (coils - 1) * np.log(2) - gammaln(coils)))
        return float(x * x * (x / truth) ** (coils - 1) * np.exp(-((x - truth) ** 2) / 2) * ive(coils - 1, truth * x))

    middle = np.sqrt(truth**2 + 2 * coils)
    value, _ = quad(weighted, max(1e-9, middle - 12), middle + 12, points=[middle], limit=400, epsabs=1e-12)
    return float(value)


@pytest.mark.parametrize("coils", [1, 4, 10, 64])
@pytest.mark.parametrize("truth", [0.0, 0.5, 3.0, 10.0, 15.0, 18.0, 35.0, 1000.0])
def test_mean_magnitude_against_the_density(coils: int, truth: float) -> None:
    # The thirteenth term of the far series is below 8⁻¹³ = 2e-12 of the mean; the integral is good to 1e-10.
    assert mean_magnitude(np.array([truth]), coils)[0] == pytest.approx(chi_mean(truth, coils), abs=1e-8)


@pytest.mark.parametrize("coils", [1, 8, 64])
def test_the_series_meet_where_one_takes_over(coils: int) -> None:
    border = np.sqrt(2 * (8 * coils + 100.0))
    below, above = mean_magnitude(np.array([border * (1 - 1e-14), border * (1 + 1e-14)]), coils)
    assert below == pytest.approx(above, rel=2e-12)  # 8⁻¹³


@pytest.mark.parametrize(("coils", "sigma"), [(1, 1.0), (8, 0.5)])
def test_predicted_error_is_what_drawing_gives(coils: int, sigma: float) -> None:
    rng = np.random.default_rng(5)
    signal = rng.uniform(0, 4, (20000, coils)) + 0j
    truth = np.linalg.norm(signal, axis=1)
    noise = sigma * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    squares = (np.linalg.norm(signal + noise, axis=1) - truth) ** 2
    seen = np.sqrt(squares.sum() / np.sum(truth**2))
    # Relative deviation of a root of a mean of squares: half that of the mean itself.
    deviation = squares.std() / squares.mean() / np.sqrt(len(squares)) / 2
    assert predicted_nrmse(truth, coils, sigma=sigma) == pytest.approx(seen, rel=5 * deviation)


def test_without_noise_there_is_no_error() -> None:
    assert predicted_nrmse(np.ones(3), 4, sigma=0.0) == 0.0

"""Metrics against their definitions: windows one by one, edges of known width, ringing and noise of known size."""

from __future__ import annotations

from math import log10

import numpy as np
import pytest
from scipy.special import erf, erfinv

from recon.networks import metrics

RNG = np.random.default_rng(11)


def ssim_by_windows(image: metrics.Real, truth: metrics.Real) -> float:
    """The definition, window by window."""
    c1, c2 = (0.01 * truth.max()) ** 2, (0.03 * truth.max()) ** 2
    values = []
    for y in range(image.shape[0] - 6):
        for x in range(image.shape[1] - 6):
            a, b = image[y : y + 7, x : x + 7].ravel(), truth[y : y + 7, x : x + 7].ravel()
            (aa, ab), (_, bb) = np.cov(a, b)
            first = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
            values.append(first * (2 * ab + c2) / (aa + bb + c2))
    return float(np.mean(values))


def test_errors_are_those_of_magnitudes_in_the_range_of_the_truth() -> None:
    truth = RNG.uniform(0, 1, (20, 21))
    truth[3, 4] = 2
    image = truth + 0.1 * RNG.standard_normal(truth.shape)
    image[image < 0] = 0
    found = metrics.errors(image * np.exp(2j), truth * np.exp(1j))
    square = np.mean((image - truth) ** 2)
    assert found.psnr_db == pytest.approx(10 * log10(4 / square))
    assert found.nmse == pytest.approx(square / np.mean(truth**2))
    assert found.ssim == pytest.approx(ssim_by_windows(image, truth))
    assert metrics.errors(truth, truth) == metrics.Errors(np.inf, pytest.approx(1), 0)


def test_a_volume_has_the_windows_of_its_planes() -> None:
    image, truth = RNG.uniform(0, 1, (2, 3, 12, 14))
    truth[:, 0, 0] = 1
    planes = [ssim_by_windows(*pair) for pair in zip(image, truth, strict=True)]
    assert metrics.ssim(image, truth) == pytest.approx(np.mean(planes), rel=1e-3)  # the planes' own maxima are one


def test_the_mean_is_of_each_measure() -> None:
    assert metrics.mean_of([metrics.Errors(30, 0.9, 0.1), metrics.Errors(40, 0.7, 0.3)]) == {
        "psnr_db": 35,
        "ssim": pytest.approx(0.8),
        "nmse": 0.2,
    }


@pytest.mark.parametrize("sigma", [0.6, 1.0])
def test_the_width_of_a_soft_edge_is_known(sigma: float) -> None:
    depth = metrics.distances((96, 96), (0.3, -0.4), 30.2)
    image = 3 + 2 * erf(depth / (sigma * np.sqrt(2)))
    exact = 2 * sigma * np.sqrt(2) * erfinv(0.8)
    assert metrics.edge_width(image, depth) == pytest.approx(exact, abs=0.05)  # bins of a quarter of a pixel
    assert metrics.edge_width(5 - image, depth) == pytest.approx(exact, abs=0.05)
    tail = 2 * (1 - erf(metrics.PLATEAU[0] / (sigma * np.sqrt(2))))  # what the edge leaves where plateaus begin
    assert metrics.plateaus(image, depth) == (pytest.approx(1, abs=tail), pytest.approx(5, abs=tail))


def test_the_energy_of_ringing_is_known() -> None:
    depth = metrics.distances((96, 96), (0, 0), 30)
    step = np.where(depth > 0, 2.0, 1.0)
    wave = np.where(np.abs(depth) < metrics.STRIP[1], 0.1 * np.cos(2 * np.pi * depth), 0)
    wave[np.abs(depth) > metrics.PLATEAU[0]] = 0
    beside = (np.abs(depth) > metrics.STRIP[0]) & (np.abs(depth) < metrics.STRIP[1])
    assert metrics.ringing(step, depth) == 0
    assert metrics.ringing(step + wave, depth) == pytest.approx(np.mean(wave[beside] ** 2))


def test_bias_and_noise_of_a_region() -> None:
    truth, region = np.full((40, 40), 4.0), np.zeros((40, 40), np.bool_)
    region[:20] = True
    assert metrics.bias(np.where(region, 4.1, 9), truth, region) == pytest.approx(0.025)
    replicas = truth + 0.5 * RNG.standard_normal((30, 40, 40))
    samples = 29 * region.sum()
    assert metrics.noise_in(replicas, region) == pytest.approx(0.5, rel=5 / np.sqrt(2 * samples))

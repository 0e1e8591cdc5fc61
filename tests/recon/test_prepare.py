"""Noise whitening: white afterwards, in SNR units, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import kernels
from kernels.contract import Complex
from recon.errors import ScanError
from recon.prepare import noise_covariance, whitening, whitening_matrix
from recon.scan import Readouts
from tests import tolerances
from tests.laws import assert_near
from tests.recon.builders import header, heads, noise

RNG = np.random.default_rng(11)
CPU = kernels.on("cpu")
HEADER = header()


def correlated(readouts: int, coils: int, samples: int) -> Complex:
    """Noise [readout, coil, sample] that is unequal in and correlated between the coils."""
    mixing = np.eye(coils) + 0.4 * noise(RNG, (coils, coils)) / coils
    mixing *= np.linspace(1, 3, coils)[:, np.newaxis]
    return np.einsum("dc,rcs->rds", mixing, noise(RNG, (readouts, coils, samples))).astype(np.complex64)


def run_of(samples: Complex, *, sample_time_us: float = 5.0) -> Readouts:
    """A noise run with that dwell time."""
    head = heads(len(samples), samples=samples.shape[2], coils=samples.shape[1], sample_time_us=sample_time_us)
    return Readouts(head, samples)


@pytest.mark.parametrize("coils", [1, 3, 8, 32])
def test_the_noise_scan_itself_comes_out_white(coils: int) -> None:
    samples = correlated(40, coils, 64)
    made = whitening([run_of(samples)], header=HEADER, sample_time_us=5.0)
    assert made.whitening is not None
    white = CPU.whiten(made.whitening, samples)
    # E[n nᴴ] = 2 I is σ = 1 in each part; rounding of W and of the product, coils terms each, in the norm of coils.
    assert_near(noise_covariance(white), 2 * np.eye(coils), 4 * coils * tolerances.sum_of(coils))


def test_later_noise_has_unit_standard_deviation_in_each_part() -> None:
    samples = correlated(400, 4, 256)
    made = whitening([run_of(samples[:200])], header=HEADER, sample_time_us=5.0)
    assert made.whitening is not None
    white = CPU.whiten(made.whitening, samples[200:])
    count = 200 * 256
    for part in (white.real, white.imag):
        # σ̂ of n samples has relative standard error 1/√(2n), twice over (noise scan and test); five of them.
        assert np.abs(part.std(axis=(0, 2)) - 1).max() < 5 * np.sqrt(2 / (2 * count))


@pytest.mark.parametrize(("noise_us", "imaging_us", "bandwidth", "factor"), [
    (5.0, 5.0, None, 1.0),
    (5.0, 10.0, None, np.sqrt(2.0)),
    (8.0, 2.0, 0.79, np.sqrt(0.25 * 0.79)),
    (0.0, 10.0, None, 1.0),
    (5.0, 0.0, None, 1.0),
])  # fmt: skip
def test_dwell_times_and_bandwidth_scale_the_noise(
    noise_us: float, imaging_us: float, bandwidth: float | None, factor: float
) -> None:
    """A longer imaging dwell means less noise there, so that whitening amplifies more."""
    samples = correlated(8, 3, 32)
    base = whitening([run_of(samples)], header=HEADER, sample_time_us=5.0).whitening
    scan = replace(HEADER, relative_noise_bandwidth=bandwidth)
    scaled = whitening([run_of(samples, sample_time_us=noise_us)], header=scan, sample_time_us=imaging_us).whitening
    assert base is not None
    assert scaled is not None
    assert_near(scaled, base * np.float32(factor), 4 * tolerances.ROUND)


def test_runs_count_by_their_samples_and_their_own_dwell_time() -> None:
    samples = correlated(12, 3, 16)
    halves = [run_of(samples[:4]), run_of(samples[4:] * np.float32(np.sqrt(0.5)), sample_time_us=10.0)]
    whole = whitening([run_of(samples)], header=HEADER, sample_time_us=5.0).whitening
    joined = whitening(halves, header=HEADER, sample_time_us=5.0).whitening
    assert whole is not None
    assert joined is not None
    assert_near(joined, whole, 8 * tolerances.ROUND)


def test_the_hash_names_the_content() -> None:
    samples = correlated(8, 3, 32)
    first, again = (whitening([run_of(samples)], header=HEADER, sample_time_us=5.0) for _ in range(2))
    other = whitening([run_of(samples[1:])], header=HEADER, sample_time_us=5.0)
    assert first.hash == again.hash != other.hash
    assert len(first.hash) == 64


def test_unaligned_views_of_a_stream_are_read() -> None:
    samples = correlated(6, 2, 16)
    raw = np.zeros(samples.nbytes + 2, np.uint8)
    view: Complex = np.ndarray(samples.shape, np.complex64, raw.data, 2)
    view[...] = samples
    assert np.array_equal(noise_covariance(view), noise_covariance(samples))


def dead_coil(samples: Complex) -> Complex:
    samples[:, 2] = 0
    return samples


def twin_coils(samples: Complex) -> Complex:
    samples[:, 2] = 0.5j * samples[:, 0]
    return samples


def not_a_number(samples: Complex) -> Complex:
    samples[3, 1, 4] = np.nan
    return samples


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (dead_coil, "noise scan's coil 2 holds no noise, it is not connected: acquire .* again or set whiten to false"),
        (
            twin_coils,
            "coils are not independent .*, expected at least 1e-06.*: acquire the noise scan again or set whi",
        ),
        (not_a_number, "noise scan's coil 1 holds NaN or infinity: acquire the noise scan again or set whiten to fals"),
        (lambda samples: samples[:1, :, :7], "noise scan has 7 samples of 4 coils, expected at least 8: acquire the"),
        (lambda samples: samples * 0, "noise scan's coil 0 holds no noise"),
    ],
)
def test_noise_that_cannot_whiten_is_refused(spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    run = run_of(spoil(correlated(8, 4, 32)))
    with pytest.raises(ScanError, match=message):
        whitening([run], header=HEADER, sample_time_us=5.0)


def test_runs_of_different_coils_are_refused() -> None:
    runs = [run_of(correlated(4, coils, 32)) for coils in (2, 3)]
    with pytest.raises(ScanError, match=r"the noise scan has runs of \[2, 3\] coils, expected one number: acquire"):
        whitening(runs, header=HEADER, sample_time_us=5.0)
    with pytest.raises(ScanError, match=r"the noise scan has runs of \[\] coils"):
        whitening([], header=HEADER, sample_time_us=5.0)


@pytest.mark.parametrize("bandwidth", [-0.5, float("nan"), float("inf")])
def test_an_impossible_noise_bandwidth_is_refused(bandwidth: float) -> None:
    scan = replace(HEADER, relative_noise_bandwidth=bandwidth)
    with pytest.raises(
        ScanError, match=r"relative receiver noise bandwidth is .*, expected above 0: correct the header"
    ):
        whitening([run_of(correlated(4, 2, 32))], header=scan, sample_time_us=5.0)


def test_a_quiet_coil_is_not_a_dead_one() -> None:
    covariance = np.diag([1.0, 1e-6, 1.0]).astype(np.complex128)
    matrix = whitening_matrix(covariance)
    assert_near(matrix, np.sqrt(2) * np.diag([1.0, 1e3, 1.0]), 2 * tolerances.ROUND)

"""The field from two echoes, and the phase it makes as a sum over a few moments."""

from __future__ import annotations

import numpy as np
import pytest

from recon.errors import CalibrationError
from recon.field import EXACT, field_from, moments_for, range_of, segments_of
from tests.recon.methods.phantoms import CPU, noise_kspace

TIME_S = np.arange(1500) * 4e-6


@pytest.mark.parametrize(("low", "high"), [(-100.0, 115.0), (20.0, 21.0), (-400.0, 350.0)])
def test_a_few_moments_make_the_phase_of_any_frequency(low: float, high: float) -> None:
    moments, weights = moments_for(TIME_S, low, high)
    frequencies = np.random.default_rng(0).uniform(low, high, 200)
    made = np.exp(2j * np.pi * np.outer(frequencies, moments)) @ weights
    exact = np.exp(2j * np.pi * np.outer(frequencies, TIME_S))
    assert np.abs(made - exact).max() <= 1.5 * EXACT  # between the frequencies that it was made for
    # Nyquist's number of turns, and some more for the ends, where neighbours stand on one side only.
    assert len(moments) <= (high - low) * np.ptp(TIME_S) + 8


def test_one_frequency_needs_one_moment() -> None:
    moments, weights = moments_for(TIME_S, 50.0, 50.0)
    assert len(moments) == 1
    np.testing.assert_allclose(np.abs(weights), 1, atol=1e-12)


def test_too_many_turns_are_refused() -> None:
    with pytest.raises(CalibrationError) as caught:
        moments_for(TIME_S, -20_000.0, 20_000.0)
    assert str(caught.value) == "frequencies from -20000 to 20000 Hz turn too often in a readout of 6.0 ms"


def test_the_phase_between_echoes_is_the_field() -> None:
    """A constant field exactly, in all coils; what is empty holds no frequency that counts."""
    first = noise_kspace((4, 24, 24))
    first[:, 16:] = 0
    second = (first * np.exp(2j * np.pi * 70.0 * 2e-3)).astype(np.complex64)
    field_hz, size = field_from(first, second, 2e-3, CPU)
    seen = size > 0.1 * size.max()
    np.testing.assert_allclose(field_hz[seen], 70.0, atol=1e-3)
    low, high = range_of(field_hz, size)
    assert 69.9 < low <= high < 70.1
    assert segments_of(field_hz, (low, high), TIME_S, like=first).phases.shape[1:] == (24, 24)


def test_echoes_without_signal_are_refused() -> None:
    field_hz, size = field_from(0 * noise_kspace((2, 8, 8)), 0 * noise_kspace((2, 8, 8)), 2e-3, CPU)
    with pytest.raises(CalibrationError, match="the calibration echoes hold no signal"):
        range_of(field_hz, size)

"""Heartbeats, contraction and the ECG."""

from __future__ import annotations

import numpy as np

from recon.scan import Physiology
from recon.simulate.physiology import BLOCK_SAMPLES, SYSTOLE_S, TRIGGER, beats, contraction, ecg, since_beat


def test_beats_begin_at_zero_and_vary_little() -> None:
    times = beats(np.random.default_rng(0), count=200, interval_s=0.9)
    assert times[0] == 0
    intervals = np.diff(times)
    assert (np.abs(intervals / 0.9 - 1) <= 0.09 + 1e-12).all()
    # Mean of 199 intervals with deviation 3 %.
    assert abs(intervals.mean() / 0.9 - 1) < 5 * 0.03 / np.sqrt(199)
    assert intervals.std() > 0


def test_since_beat_counts_from_the_last_beat() -> None:
    np.testing.assert_allclose(since_beat(np.array([0.0, 0.8, 0.9, 2.5]), np.array([0.0, 0.9, 1.7])), [0, 0.8, 0, 0.8])


def test_the_heart_contracts_in_systole_and_rests_in_diastole() -> None:
    time = np.linspace(0, 1, 2001)
    state = contraction(time)
    assert state.min() == 0
    assert state.max() <= 1
    assert abs(time[state.argmax()] - SYSTOLE_S) < 1e-3
    assert (state[time > 0.53] < 1e-12).all()
    # Smooth: the steepest slope of sin² over 0.2 s is (π/2)/0.2 per second.
    assert np.abs(np.diff(state)).max() <= np.pi / 2 / 0.2 * 5.1e-4


def test_the_ecg_shows_every_beat() -> None:
    r_waves = np.array([0.0, 0.9, 1.82])
    blocks = ecg(r_waves, seconds=2.2, first_tick=1000, measurement_uid=5)
    assert [block.time_stamp for block in blocks] == [1000 + BLOCK_SAMPLES * i for i in range(6)]
    assert all(block.samples.shape == (3, BLOCK_SAMPLES) and block.samples.dtype == np.uint32 for block in blocks)
    assert {block.kind for block in blocks} == {Physiology.ECG}
    assert [block.scan_counter for block in blocks] == [1, 2, 3, 4, 5, 6]
    trace = np.concatenate([block.samples for block in blocks], axis=1)
    np.testing.assert_array_equal(np.flatnonzero(trace[2] == TRIGGER), [0, 360, 728])
    for beat in (360, 728):
        assert abs(int(trace[0, beat - 60 : beat + 60].argmax()) - 60) <= 1

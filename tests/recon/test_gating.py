"""Heartbeats from simulated ECGs with known R waves, and readouts sorted by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.gating import Beats, Trace, beats_of, phases, r_waves, systole, trace_of
from recon.scan import TICK_S, Physiology, Waveform
from recon.simulate.physiology import WAVES, ecg

FIRST = 14_400_000  # tick of the first sample


def intervals(count: int, *, mean_s: float = 0.9, variability: float = 0.1) -> NDArray[np.float64]:
    """R waves [beat] in s whose intervals vary by `variability`."""
    rng = np.random.default_rng(3)
    lengths = mean_s * (1 + variability * np.clip(rng.standard_normal(count), -2.2, 2.2))
    return np.cumsum(lengths) - lengths[0] + 0.3


def trace(beats_s: NDArray[np.float64], *, noise: float = 0.0, t_wave: float = 1.0) -> Trace:
    """The ECG of a simulated heart, its noise relative to the R wave of lead aVF; the trigger channel stays in."""
    whole = trace_of(ecg(beats_s, seconds=float(beats_s[-1]) + 1, first_tick=FIRST, measurement_uid=1))
    rng = np.random.default_rng(4)
    time = np.arange(whole.samples.shape[1]) * TICK_S
    samples = whole.samples.copy()
    delay, width, *heights = WAVES[-1]
    for beat in beats_s:
        samples[:2] += (t_wave - 1) * np.outer(heights, np.exp(-0.5 * ((time - beat - delay) / width) ** 2))
    samples[:2] += noise * 1000 * rng.standard_normal((2, len(time)))
    return replace(whole, samples=samples)


@pytest.mark.parametrize("variability", [0.0, 0.1])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("t_wave", [1.0, 4.0])
@pytest.mark.parametrize("polarity", [1, -1])
def test_each_r_wave_is_found_once_and_in_its_place(
    variability: float, noise: float, t_wave: float, polarity: int
) -> None:
    beats_s = intervals(30, variability=variability)
    found = trace(beats_s, noise=noise, t_wave=t_wave)
    turned = replace(found, samples=polarity * found.samples)
    times = r_waves(turned) - FIRST * TICK_S
    assert len(times) == len(beats_s)
    # Within half the smoothing window: the highest point of a window that contains the R wave.
    assert np.abs(times - beats_s).max() < 0.02


def test_a_slow_drift_and_hum_change_nothing() -> None:
    beats_s = intervals(20)
    clean = trace(beats_s)
    time = np.arange(clean.samples.shape[1]) * TICK_S
    drift = 3000 * np.sin(2 * np.pi * 0.25 * time) + 100 * np.sin(2 * np.pi * 50 * time)
    times = r_waves(replace(clean, samples=clean.samples + np.array([[1], [1], [0]]) * drift)) - FIRST * TICK_S
    assert len(times) == len(beats_s) and np.abs(times - beats_s).max() < 0.02


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_no_heartbeat(seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal((2, 8000))
    with pytest.raises(ScanError, match=r"the ECG of 20 s shows no two R-peaks .*: check the electrodes"):
        r_waves(Trace(samples, 0.0, TICK_S))


def test_a_flat_line_is_no_heartbeat() -> None:
    with pytest.raises(ScanError, match="no two R-peaks"):
        r_waves(Trace(np.full((3, 4000), 2048.0), 0.0, TICK_S))


def test_blocks_are_joined_by_their_time_stamps() -> None:
    blocks = ecg(intervals(5), seconds=4.0, first_tick=FIRST, measurement_uid=1)
    whole = trace_of(blocks)
    shuffled = trace_of((blocks[2], blocks[0], *blocks[3:], blocks[1]))
    np.testing.assert_array_equal(shuffled.samples, whole.samples)
    assert (whole.start_s, whole.interval_s) == (FIRST * TICK_S, pytest.approx(TICK_S))
    gap = trace_of((*blocks[:2], *blocks[3:]))
    assert gap.samples.shape == whole.samples.shape
    np.testing.assert_array_equal(gap.samples[:, 480:], whole.samples[:, 480:])
    np.testing.assert_array_equal(gap.samples[:, 320:480], np.repeat(whole.samples[:, 319:320], 160, axis=1))


def block(count: int, *, at: int = 0, time_us: float = 2500.0, kind: int = 0) -> Waveform:
    return Waveform(np.zeros((2, count), np.uint32), time_us, kind, at)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([block(9, kind=2)], "the scan has no ECG waveform, gating needs one: send it beside the readouts"),
        ([block(9), block(9, at=9, time_us=1000.0)], r"the ECG blocks have .* expected one of each"),
        ([block(9, time_us=0.0)], r"the ECG blocks have .*, the time above 0: send equal blocks"),
        ([block(9), block(9, at=1 << 25)], r"the ECG spans 8.39e\+04 s, 33554432 samples, the limit is 16777216"),
        ([block(800), block(800, at=160)], "an ECG block at tick 0 holds 2 s, the next one begins 0.4 s later"),
    ],
)
def test_waveforms_that_make_no_trace_are_refused(blocks: list[Waveform], message: str) -> None:
    with pytest.raises(ScanError, match=message):
        trace_of(blocks, Physiology.ECG)


def test_a_premature_beat_and_the_pause_after_it_are_left_out() -> None:
    beats = beats_of(np.array([0, 1, 2, 2.5, 4.0, 5.0, 6.1]))
    assert beats.regular.tolist() == [True, True, False, False, True, True]
    assert beats.mean_s == pytest.approx((1 + 1 + 1 + 1.1) / 4)
    _, used = phases(np.array([-0.1, 0.5, 2.2, 3.0, 4.5, 7.0]), beats)
    assert used.tolist() == [False, True, False, False, True, False]


def test_a_beat_after_a_premature_one_is_left_out_whatever_its_length() -> None:
    assert beats_of(np.array([0, 1, 2, 2.6, 3.6, 4.6])).regular.tolist() == [True, True, False, False, True]


def test_hearts_without_rhythm_are_refused() -> None:
    with pytest.raises(ScanError, match="none of 2 heartbeats is within 30 % of their median of 1 s: raise rr_toler"):
        beats_of(np.array([0, 0.5, 2.0]))


def test_phases_rise_from_zero_to_one_in_every_beat() -> None:
    beats = beats_of(intervals(20))
    for start, length in zip(beats.start_s, beats.length_s, strict=True):
        place, used = phases(start + length * np.linspace(0, 1, 50, endpoint=False), beats)
        assert used.all() and place[0] == 0 and (np.diff(place) > 0).all() and place[-1] < 1
    edges, _ = phases(beats.start_s + systole(beats.length_s), beats)
    np.testing.assert_allclose(edges, systole(np.array(beats.mean_s)) / beats.mean_s, rtol=1e-12)


def test_equal_beats_are_mapped_in_proportion() -> None:
    beats = Beats(np.arange(5.0), np.ones(5), np.ones(5, np.bool_))
    place, _ = phases(np.array([0.0, 0.25, 1.5, 4.75]), beats)
    np.testing.assert_allclose(place, [0, 0.25, 0.5, 0.75], atol=1e-12)

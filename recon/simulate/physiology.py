"""A beating heart in time: when it beats, how far it has contracted, and what the ECG shows."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from recon.scan import TICK_S, Physiology, Waveform
from recon.simulate.phantom import Vector

BLOCK_SAMPLES = 160  # 0.4 s of ECG in one message
BASELINE, TRIGGER = 2048, 16384
SYSTOLE_S, RELAXATION_S = 0.33, 0.20
# Waves of one beat: time after the R wave s, width s, height in lead I and in lead aVF (counts).
WAVES = (
    (-0.16, 0.025, 60, 90),
    (-0.025, 0.008, -50, -70),
    (0.0, 0.010, 700, 1000),
    (0.025, 0.008, -120, -200),
    (0.27, 0.050, 150, 210),
)


def beats(rng: Generator, *, count: int, interval_s: float, variability: float = 0.03) -> Vector:
    """Times of `count` R waves, the first at 0; intervals vary by `variability`, by 3 % as in a resting person."""
    spread = np.clip(variability * rng.standard_normal(count), -3 * variability, 3 * variability)
    # No beat is shorter than contraction and relaxation.
    intervals = np.maximum(interval_s * (1 + spread), SYSTOLE_S + RELAXATION_S)
    return np.asarray(np.cumsum(intervals) - intervals[0], np.float64)


def since_beat(times_s: Vector, r_waves_s: Vector) -> Vector:
    """Seconds since the last R wave at each of `times_s` (none may precede the first beat)."""
    last = np.searchsorted(r_waves_s, times_s, side="right") - 1
    return np.asarray(times_s - r_waves_s[last], np.float64)


def contraction(since_s: Vector) -> Vector:
    """How far the heart has contracted `since_s` seconds after the R wave: 1 at the end of systole, 0 in diastole."""
    rise = np.sin(np.pi / 2 * np.clip(since_s / SYSTOLE_S, 0, 1)) ** 2
    fall = np.cos(np.pi / 2 * np.clip((since_s - SYSTOLE_S) / RELAXATION_S, 0, 1)) ** 2
    return np.asarray(rise * fall, np.float64)


def ecg(r_waves_s: Vector, *, seconds: float, first_tick: int, measurement_uid: int) -> tuple[Waveform, ...]:
    """Whole blocks of ECG that cover `seconds`: two leads and a trigger channel, a sample each tick."""
    blocks = int(np.ceil(seconds / (BLOCK_SAMPLES * TICK_S)))
    time = np.arange(blocks * BLOCK_SAMPLES) * TICK_S
    trace = np.full((3, len(time)), BASELINE, np.float64)
    trace[2] = 0
    for beat in r_waves_s:
        for delay, width, *heights in WAVES:
            trace[:2] += np.outer(heights, np.exp(-0.5 * ((time - beat - delay) / width) ** 2))
    seen = (r_waves_s >= 0) & (r_waves_s < time[-1])
    trace[2, np.rint(r_waves_s[seen] / TICK_S).astype(int)] = TRIGGER
    cut = np.rint(trace).astype(np.uint32).reshape(3, blocks, BLOCK_SAMPLES)
    return tuple(
        Waveform(
            samples=np.ascontiguousarray(cut[:, block]),
            sample_time_us=TICK_S * 1e6,
            kind=int(Physiology.ECG),
            time_stamp=first_tick + block * BLOCK_SAMPLES,
            measurement_uid=measurement_uid,
            scan_counter=block + 1,
        )
        for block in range(blocks)
    )

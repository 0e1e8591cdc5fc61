"""A body in time: when the heart beats and how far it has contracted, how deep a breath is, and what sensors show."""

from __future__ import annotations

from dataclasses import dataclass

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
BELLOWS_S, BELLOWS_SAMPLES, BELLOWS_SPAN = 0.02, 40, 1200  # 0.8 s in one message; counts of a usual breath


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
    """Whole blocks of ECG that cover `seconds`: two leads and a trigger channel, a sample each tick.

    The waves of a beat are Gaussians (doi:10.1109/TBME.2003.808805).
    """
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


@dataclass(frozen=True, slots=True, eq=False)
class Breaths:
    """Breathing: the ends of expiration `start_s` [breath + 1] that breaths lie between, and their `depth` [breath].

    A usual breath has depth 1.
    """

    start_s: Vector
    depth: Vector


def breaths(rng: Generator, *, seconds: float, period_s: float = 3.6, variability: float = 0.15) -> Breaths:
    """Breaths that cover `seconds` from 0, of which the first has begun before; they vary in length and depth."""
    count = 2 + int(seconds / (period_s * (1 - 2 * variability)))
    spread = np.clip(variability * rng.standard_normal((2, count)), -2 * variability, 2 * variability)
    start_s = np.concatenate([[0.0], np.cumsum(period_s * (1 + spread[0]))])
    return Breaths(start_s - rng.uniform(0, start_s[1]), 1 + spread[1])


def breath(times_s: Vector, breathing: Breaths) -> Vector:
    """How far the diaphragm is down at `times_s`, 0 at the end of expiration: depth · sin⁴ of the part of the breath.

    Most of the time goes by near the end of expiration (doi:10.1118/1.598577).
    """
    which = np.searchsorted(breathing.start_s, times_s, side="right") - 1
    begun, ended = breathing.start_s[which], breathing.start_s[which + 1]
    part = (times_s - begun) / (ended - begun)
    return np.asarray(breathing.depth[which] * np.sin(np.pi * part) ** 4, np.float64)


def bellows(breathing: Breaths, *, seconds: float, first_tick: int, measurement_uid: int) -> tuple[Waveform, ...]:
    """Whole blocks of the pressure of a belt round the body that cover `seconds`; it rises as air comes in."""
    blocks = int(np.ceil(seconds / (BELLOWS_SAMPLES * BELLOWS_S)))
    time = np.arange(blocks * BELLOWS_SAMPLES) * BELLOWS_S
    inside = np.minimum(time, breathing.start_s[-1] - BELLOWS_S)
    trace = BASELINE + np.rint(BELLOWS_SPAN * breath(inside, breathing))
    cut = trace.astype(np.uint32).reshape(blocks, 1, BELLOWS_SAMPLES)
    return tuple(
        Waveform(
            samples=block,
            sample_time_us=BELLOWS_S * 1e6,
            kind=int(Physiology.RESPIRATION),
            time_stamp=first_tick + round(number * BELLOWS_SAMPLES * BELLOWS_S / TICK_S),
            measurement_uid=measurement_uid,
            scan_counter=number + 1,
        )
        for number, block in enumerate(cut)
    )

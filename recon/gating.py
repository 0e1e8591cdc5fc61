"""Retrospective gating: heartbeats from the ECG, and where in its beat each readout was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.scan import TICK_S, Physiology, Waveform

Times = NDArray[np.float64]
Mask = NDArray[np.bool_]

QRS_S = 0.012  # standard deviation of the Gaussian that an R wave resembles; a T wave's is four times as wide
SMOOTH_S = 0.04  # energy is averaged over half a QRS complex
REFRACTORY_S = 0.25  # no second beat comes sooner: 240 beats a minute
LEVEL_S = 2.5  # holds at least one beat, down to 24 a minute
SHARE = 0.4  # of the usual peak is a peak; the filtered T wave stays below a tenth, noise below a quarter
CLEAR = 4.0  # times the median level is what an R wave reaches at least: noise alone stays below 3
LONGEST = 1 << 24  # samples of a trace: two hours at 2 kHz
TOLERANCE = 0.3  # a beat that differs by more from the median length is an arrhythmia


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Physiology in one piece: `samples` [channel, sample], the time of the first in s and the interval between two."""

    samples: NDArray[np.float64]
    start_s: float
    interval_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Beats:
    """R waves `start_s` [beat], the lengths of the beats that they begin `length_s`, and which are `regular`."""

    start_s: Times
    length_s: Times
    regular: Mask

    @property
    def mean_s(self) -> float:
        """The mean length of the regular beats."""
        return float(self.length_s[self.regular].mean())


def trace_of(waveforms: Sequence[Waveform], kind: Physiology = Physiology.ECG) -> Trace:
    """The blocks of one `kind` joined by their time stamps; gaps repeat the value before. Raises ScanError."""
    blocks = sorted((block for block in waveforms if block.kind == kind), key=lambda block: block.time_stamp)
    name = kind.name
    if not blocks:
        raise ScanError(f"the scan has no {name} waveform, gating needs one: send it beside the readouts")
    interval_s = blocks[0].sample_time_us * 1e-6
    shapes = {(len(block.samples), block.sample_time_us) for block in blocks}
    if len(shapes) > 1 or not interval_s > 0:
        raise ScanError(
            f"the {name} blocks have (channels, sample time in µs) {sorted(shapes)}, expected one of each, the time"
            " above 0: send equal blocks"
        )
    first = blocks[0].time_stamp
    starts = [round((block.time_stamp - first) * TICK_S / interval_s) for block in blocks]
    _check_overlap(blocks, starts, interval_s, name=name)
    if starts[-1] + blocks[-1].samples.shape[1] > LONGEST:
        raise ScanError(
            f"the {name} spans {starts[-1] * interval_s:.3g} s, {starts[-1]} samples, the limit is {LONGEST}: correct"
            " sample_time_us or the time stamps"
        )
    samples = np.zeros((len(blocks[0].samples), starts[-1] + blocks[-1].samples.shape[1]))
    for block, start, stop in zip(blocks, starts, [*starts[1:], samples.shape[1]], strict=True):
        kept = block.samples[:, : stop - start]
        samples[:, start : start + kept.shape[1]] = kept
        samples[:, start + kept.shape[1] : stop] = kept[:, -1:]
    return Trace(samples, first * TICK_S, interval_s)


def _check_overlap(blocks: Sequence[Waveform], starts: Sequence[int], interval_s: float, *, name: str) -> None:
    """Blocks that hold more time than passes between their stamps contradict them; a tick is rounding."""
    slack = 1 + TICK_S / interval_s
    for block, start, following in zip(blocks, starts, starts[1:], strict=False):
        if start + block.samples.shape[1] > following + slack:
            raise ScanError(
                f"an {name} block at tick {block.time_stamp} holds {block.samples.shape[1] * interval_s:.3g} s, the"
                f" next one begins {(following - start) * interval_s:.3g} s later: correct sample_time_us or the"
                " time stamps"
            )


def r_waves(ecg: Trace) -> Times:
    """The times [beat] of the R waves of an ECG, in s; raises ScanError where there are fewer than two.

    A filter matched to the curvature of a QRS complex leaves little of baseline, hum and T wave whatever the polarity;
    the energy of all leads together is compared with its own usual peak, as doi:10.1109/TBME.1985.325532 does.
    """
    steep = np.sum(_qrs(ecg) ** 2, axis=0)
    level = np.sqrt(_averaged(steep, ecg.interval_s))
    usual = _usual_peak(level, ecg.interval_s)
    floor = float(np.median(level))
    peaks = _peaks(level, max(SHARE * usual, CLEAR * floor), round(REFRACTORY_S / ecg.interval_s))
    if len(peaks) < 2 or usual <= CLEAR * floor:
        raise ScanError(
            f"the ECG of {ecg.samples.shape[1] * ecg.interval_s:.3g} s shows no two R-peaks (they reach {usual:.3g},"
            f" its usual level is {floor:.3g}): check the electrodes"
        )
    return ecg.start_s + _refined(steep, _highest(steep, peaks, ecg.interval_s)) * ecg.interval_s


def _qrs(ecg: Trace) -> NDArray[np.float64]:
    """Leads [lead, sample] of equal weight, seen through a Gaussian's curvature; two values make no lead."""
    reach = int(np.ceil(4 * QRS_S / ecg.interval_s))
    place = np.arange(-reach, reach + 1) * ecg.interval_s / QRS_S
    kernel = (1 - place**2) * np.exp(-(place**2) / 2)
    kernel -= kernel.mean()
    centred = ecg.samples - np.median(ecg.samples, axis=1, keepdims=True)
    busy = np.array([len(np.unique(lead)) > 2 for lead in ecg.samples])
    padded = np.pad(centred[busy], ((0, 0), (reach, reach)), mode="edge")
    leads = np.array([np.convolve(lead, kernel, mode="valid") for lead in padded]).reshape(-1, ecg.samples.shape[1])
    scale = np.sqrt(np.mean(leads**2, axis=1, keepdims=True))
    even: NDArray[np.float64] = np.divide(leads, scale, where=scale > 0, out=np.zeros_like(leads))
    return even


def _averaged(energy: NDArray[np.float64], interval_s: float) -> NDArray[np.float64]:
    width = max(1, round(SMOOTH_S / interval_s))
    averaged: NDArray[np.float64] = np.convolve(energy, np.ones(width) / width, mode="same")
    return averaged


def _usual_peak(level: NDArray[np.float64], interval_s: float) -> float:
    """The median over stretches that hold a beat each of their highest value: no burst and no pause changes it."""
    width = max(1, min(len(level), round(LEVEL_S / interval_s)))
    whole = len(level) // width * width
    return float(np.median(level[:whole].reshape(-1, width).max(axis=1)))


def _peaks(level: NDArray[np.float64], threshold: float, apart: int) -> NDArray[np.int64]:
    """Places of the highest values above `threshold`, at least `apart` samples from any higher one."""
    inner = (level[1:-1] >= level[:-2]) & (level[1:-1] > level[2:]) & (level[1:-1] > threshold)
    found = np.flatnonzero(inner) + 1
    taken: list[int] = []
    for place in found[np.argsort(-level[found], kind="stable")].tolist():
        if all(abs(place - other) >= apart for other in taken):
            taken.append(place)
    return np.array(sorted(taken), np.int64)


def _highest(steep: NDArray[np.float64], peaks: NDArray[np.int64], interval_s: float) -> NDArray[np.int64]:
    """The R wave itself inside each complex: Q and S waves differ in size, which moves the middle of the energy."""
    reach = round(SMOOTH_S / interval_s)
    starts = np.maximum(peaks - reach, 1)
    stops = np.minimum(peaks + reach + 1, len(steep) - 1)
    return np.array([a + int(steep[a:b].argmax()) for a, b in zip(starts, stops, strict=True)], np.int64)


def _refined(level: NDArray[np.float64], peaks: NDArray[np.int64]) -> Times:
    """Places between samples: the tops of parabolas through three values."""
    before, at, after = (level[peaks + step] for step in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = np.divide(before - after, 2 * bend, where=bend != 0, out=np.zeros_like(bend))
    return np.asarray(peaks + np.clip(shift, -0.5, 0.5), np.float64)


def counted(times_s: Times, since_s: Times) -> Times:
    """The times [beat] of the R waves that readouts at `times_s` count from: each was measured `since_s` after its own.

    Raises ScanError where the readouts do not count, or know of one beat only.
    """
    if not (since_s > 0).any():
        raise ScanError("the readouts' physiology_time_stamp counts nothing: send an ECG waveform or the counters")
    begun = np.sort(times_s - since_s)
    first = np.r_[True, np.diff(begun) > REFRACTORY_S]
    if first.sum() < 2:
        raise ScanError(
            f"the readouts' physiology_time_stamp tells of one heartbeat in {np.ptp(times_s):.3g} s, gating needs two"
            " R waves: correct the counters or send an ECG waveform"
        )
    ends = np.flatnonzero(np.r_[first[1:], True]) + 1
    return np.array([np.median(begun[a:b]) for a, b in zip(np.flatnonzero(first), ends, strict=True)])


def beats_of(r_waves_s: Times, *, tolerance: float = TOLERANCE) -> Beats:
    """The beats between R waves; a beat is irregular where its length is off the median's by more than `tolerance`.

    So is the beat after a premature one, which fills differently. Raises ScanError where no beat is regular.
    """
    length = np.diff(r_waves_s)
    usual = float(np.median(length))
    regular = np.abs(length / usual - 1) <= tolerance
    premature = length < (1 - tolerance) * usual
    regular[1:] &= ~premature[:-1]
    if not regular.any():
        raise ScanError(
            f"none of {len(length)} heartbeats is within {100 * tolerance:.0f} % of their median of {usual:.3g} s:"
            " raise rr_tolerance or measure again"
        )
    return Beats(r_waves_s[:-1], length, regular)


def phases(times_s: Times, beats: Beats) -> tuple[Times, Mask]:
    """Where in the mean beat each of `times_s` falls, from 0 to 1, and which times lie in a regular beat.

    Systole, which hardly follows the heart rate, is mapped onto systole and diastole onto diastole; its length is
    546 ms − 2.1 ms · beats per minute (doi:10.1161/01.CIR.37.2.149).
    """
    which = np.searchsorted(beats.start_s, times_s, side="right") - 1
    inside = np.clip(which, 0, len(beats.start_s) - 1)
    since, length, mean = times_s - beats.start_s[inside], beats.length_s[inside], beats.mean_s
    used = (which >= 0) & (since < length) & beats.regular[inside]
    own, common = systole(length), systole(np.array(mean))
    early = since * (common / own)
    late = common + (since - own) * ((mean - common) / (length - own))
    place = np.where(since < own, early, late) / mean
    return np.clip(place, 0, np.nextafter(1, 0)), used


def systole(length_s: Times) -> Times:
    """The length of systole in s in beats of `length_s`; at most 60 % of the beat, however fast."""
    return np.minimum(0.546 - 2.1e-3 * 60 / length_s, 0.6 * length_s)

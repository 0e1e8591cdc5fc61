"""Where in its breath each readout was measured: from a belt's waveform, or from the readouts' own k-space centres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.gating import trace_of
from recon.lines import is_cartesian, step_limits
from recon.scan import TICK_S, Encoding, Physiology, Readouts, Waveform

Real = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]

SMOOTH_S = 0.2  # standard deviation of the low-pass: it keeps 0.94 of 16 breaths a minute, 0.04 of 120 heartbeats
STEP_S = 0.05  # of the grid on which signals are smoothed
SLOWEST_S = 3.0  # a breath of 20 a minute must be within the scan
CLEAR = 2.0  # times what noise alone can make is a signal
REACH = 0.02  # this share of the values at each end counts as outliers


@dataclass(frozen=True, slots=True, eq=False)
class Breathed:
    """`depth` [readout]: the share of readouts that lie nearer to the end of expiration; and where it comes from."""

    depth: Real
    source: str


def breathed(waveforms: Sequence[Waveform], run: Readouts, encoding: Encoding, *, source: str) -> Breathed:
    """The breath by the "waveform", by "self"-gating, or with "auto" by the waveform where there is one that serves.

    Raises ScanError, with the reasons, where there is no signal.
    """
    times_s = run.head["acquisition_time_stamp"] * TICK_S
    if source == "waveform":
        return Breathed(_depth(by_waveform(waveforms, times_s)), "the respiratory waveform")
    if source == "self":
        return Breathed(_depth(by_centre(run, encoding, times_s)), "the centre of k-space")
    try:
        return breathed(waveforms, run, encoding, source="waveform")
    except ScanError as error:
        try:
            return breathed(waveforms, run, encoding, source="self")
        except ScanError as other:
            raise ScanError(f"{error}; and {other}") from other


def _depth(signal: Real) -> Real:
    """Ranks from 0 to 1, the end of expiration first: of both ends of the signal the one where more time is spent."""
    low, middle, high = np.quantile(signal, (REACH, 0.5, 1 - REACH))
    rising = signal if middle - low <= high - middle else -signal
    rank = np.empty(len(signal))
    rank[np.argsort(rising, kind="stable")] = np.arange(len(signal))
    return rank / len(signal)


def by_waveform(waveforms: Sequence[Waveform], times_s: Real) -> Real:
    """The respiratory waveform [readout] at `times_s`, smoothed; raises ScanError where it tells nothing of them."""
    trace = trace_of(waveforms, Physiology.RESPIRATION)
    start_s, stop_s = trace.start_s, trace.start_s + trace.samples.shape[1] * trace.interval_s
    inside = (times_s >= start_s) & (times_s < stop_s)
    if not inside.all():
        raise ScanError(
            f"the respiratory waveform lies between {start_s:.1f} and {stop_s:.1f} s, {np.count_nonzero(~inside)} of"
            f" {len(times_s)} readouts elsewhere: correct the time stamps or send all of it"
        )
    spread = np.ptp(trace.samples, axis=1)
    if not spread.max():
        raise ScanError(f"the respiratory waveform is {trace.samples[0, 0]:g} throughout: check the belt")
    own_s = np.asarray(start_s + np.arange(trace.samples.shape[1]) * trace.interval_s, np.float64)
    return _smoothed(own_s, trace.samples[[int(spread.argmax())]].T, times_s)[:, 0]


def by_centre(run: Readouts, encoding: Encoding, times_s: Real) -> Real:
    """A breath's course [readout] from how bright the coils see the object, and where (doi:10.1002/mrm.22306).

    Both are seen at k-space's centre: the value, and the slope along the readout, which is the centre of mass along it.
    Of all combinations of these and of coils that one is taken whose slow part is largest against its fast part, which
    noise, eddy currents and the heart make. Raises ScanError where that is no more than noise would have.
    """
    rows, signal = _centres(run, encoding, times_s)
    seen_s = times_s[rows]
    duration_s = float(np.ptp(seen_s)) if len(seen_s) else 0.0
    least = 4 * signal.shape[1]
    if len(seen_s) < least or duration_s < SLOWEST_S or len(seen_s) * SMOOTH_S < duration_s:
        raise ScanError(
            f"k-space's centre was measured {len(seen_s)} times in {duration_s:.3g} s, self-gating needs it {least}"
            f" times, for {SLOWEST_S:g} s and every {SMOOTH_S:g} s: measure it more often"
        )
    slow = _smoothed(seen_s, signal, seen_s)
    course, gain = _slowest(slow, signal - slow)
    expected = _by_chance(len(seen_s), duration_s, channels=signal.shape[1])
    if gain < CLEAR * expected:
        raise ScanError(
            f"k-space's centre shows no breath: its slow part is {gain:.2g} of its fast part, noise alone reaches"
            f" {expected:.2g}: send a respiratory waveform"
        )
    return np.interp(times_s, seen_s, slow @ course)


def _centres(run: Readouts, encoding: Encoding, times_s: Real) -> tuple[Rows, Real]:
    """Which readouts pass k-space's centre, in the order of time, and what changes there [readout, channel]."""
    rows, volume = np.argsort(times_s, kind="stable"), encoding.encoded.matrix[0] > 1
    step_1, step_2 = step_limits(encoding)
    if volume and (run.trajectory is None or run.trajectory.shape[2] == 2):
        rows = rows[run.head["kspace_encode_step_2"][rows] == step_2.center]
    if is_cartesian(encoding):
        rows = rows[run.head["kspace_encode_step_1"][rows] == step_1.center]
        middle = run.head["center_sample"][rows].astype(np.int64)
        along = np.ones((len(rows), 1))
    else:
        middle, along = _crossing(run, rows, axes=3 if volume else 2)
    last = run.samples.shape[2] - 1
    before, middle, after = (np.clip(middle + step, 0, last) for step in (-1, 0, 1))
    value, slope = run.samples[rows, :, middle], run.samples[rows, :, after] - run.samples[rows, :, before]
    drift = np.stack([np.ones(len(rows)), times_s[rows] - times_s[rows].mean()], axis=1)
    usual = [along * drift[:, :1], along * drift[:, 1:], *(along**power for power in (3, 5))]  # odd, as a slope is
    moving = _without(_real(slope), np.concatenate(usual, axis=1))
    parts = [_without(_real(value), drift), *(moving * axis[:, None] for axis in along.T)]
    return rows, np.concatenate(parts, axis=1)


def _crossing(run: Readouts, rows: Rows, *, axes: int) -> tuple[Rows, Real]:
    """The sample of each readout that is nearest to k-space's centre, and the direction [readout, axis] there."""
    if run.trajectory is None:
        raise ScanError("the readouts carry no trajectory, self-gating needs one: send it with every readout")
    path = run.trajectory[rows, :, : min(axes, run.trajectory.shape[2])].astype(np.float64)
    middle = np.sum(path**2, axis=2).argmin(axis=1)
    every, last = np.arange(len(rows)), path.shape[1] - 1
    step = path[every, np.minimum(middle + 1, last)] - path[every, np.maximum(middle - 1, 0)]
    return middle, step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _real(values: NDArray[np.complex64]) -> Real:
    return np.concatenate([values.real, values.imag], axis=1).astype(np.float64)


def _without(signal: Real, usual: Real) -> Real:
    """`signal` [readout, channel] less what it has of the `usual` courses [readout, course]: what rests, and drift."""
    left: Real = signal - usual @ np.linalg.lstsq(usual, signal, rcond=None)[0]
    return left


def _smoothed(own_s: Real, signal: Real, times_s: Real) -> Real:
    """`signal` [sample, channel] at `own_s`, seen through a Gaussian of SMOOTH_S, at `times_s`."""
    grid_s = np.arange(own_s[0], own_s[-1] + STEP_S, STEP_S)
    cell = np.clip(np.rint((own_s - own_s[0]) / STEP_S).astype(np.int64), 0, len(grid_s) - 1)
    reach = int(4 * SMOOTH_S / STEP_S)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * STEP_S / SMOOTH_S) ** 2)
    count = np.convolve(np.bincount(cell, minlength=len(grid_s)), kernel, mode="same")
    columns = [
        np.convolve(np.bincount(cell, column, minlength=len(grid_s)), kernel, mode="same") / np.maximum(count, 1e-12)
        for column in signal.T
    ]
    return np.stack([np.interp(times_s, grid_s, column) for column in columns], axis=1)


def _slowest(slow: Real, fast: Real) -> tuple[Real, float]:
    """The combination of channels whose slow part has most power against its fast part, and how much."""
    noise = fast.T @ fast / len(fast)
    # Channels are never told apart better than to a tenth: fast parts that cancel exactly would win over the breath.
    noise += np.diag(0.1 * np.diag(noise) + np.finfo(np.float64).tiny)
    factor = np.linalg.inv(np.linalg.cholesky(noise))
    powers, vectors = np.linalg.eigh(factor @ (slow.T @ slow / len(slow)) @ factor.T)
    return factor.T @ vectors[:, -1], float(powers[-1])


def _by_chance(count: int, duration_s: float, *, channels: int) -> float:
    """The largest power of slow parts against fast ones that `channels` of white noise have.

    A Gaussian leaves 1 / n of the power of n = 2√π · SMOOTH_S readouts a second, in as many independent values; the
    largest eigenvalue of their covariance is (1 + √(channels / values))² of that (doi:10.1070/SM1967v001n04ABEH001994).
    """
    width_s = 2 * np.sqrt(np.pi) * SMOOTH_S
    share = 1 / max(count * width_s / duration_s, 1.0)
    return float(share / (1 - share + 1e-12) * (1 + np.sqrt(channels * width_s / duration_s)) ** 2)


def resting(breath: Breathed, *, bins: int, acceptance: float) -> list[Mask]:
    """Which readouts [readout] make each of `bins` images: equal shares of the `acceptance` nearest to expiration."""
    number = np.floor(breath.depth / acceptance * bins)
    return [number == i for i in range(bins)]

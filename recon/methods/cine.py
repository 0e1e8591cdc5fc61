"""`cine`: the beating heart in phases, by sorting all readouts of a slice by the ECG that came beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.gather import gather
from recon.gating import Beats, beats_of, phases, r_waves, trace_of
from recon.lines import is_cartesian
from recon.methods import fft, gridding
from recon.methods.method import Method, Workbench
from recon.recipe import CINE, Recipe
from recon.scan import TICK_S, Calibration, Encoding, Frame, Image, Limit, Material, Readouts, ScanHeader

Index = NDArray[np.int64]
Places = NDArray[np.float64]


def run(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """The image of one phase: by the FFT where lines make a grid, otherwise by gridding."""
    method = fft.FFT if frame.sampled is not None else gridding.GRIDDING
    return method.run(frame, calibration, recipe, workbench)


def gated(header: ScanHeader, material: Material, whole: Frame, recipe: Recipe) -> list[Frame]:
    """A frame for each cardiac phase of `material`; the `whole` as it is, with the reason, where gating fails."""
    count = int(recipe.number("phases"))
    run = _joined(material.readouts)
    try:
        beats = beats_of(r_waves(trace_of(material.waveforms)), tolerance=recipe.number("rr_tolerance"))
        place, used = phases(run.head["acquisition_time_stamp"] * TICK_S, beats)
        if not used.any():
            raise ScanError(_apart(beats, run))
    except ScanError as error:
        reason = f"not gated, the image is an average over the heart's motion: {error}"
        return [replace(whole, warnings=(*whole.warnings, reason))]
    kept = _taken(run, np.flatnonzero(used))
    unit = recipe.text("trajectory_unit")
    return [
        _named(gather(header, [part], trajectory_unit=unit), whole, beats, phase=phase, count=count, remarks=remarks)
        for phase in range(count)
        for part, remarks in [_of_phase(kept, place[used], whole.encoding, phase=phase, count=count)]
    ]


def _apart(beats: Beats, run: Readouts) -> str:
    ticks = run.head["acquisition_time_stamp"] * TICK_S
    return (
        f"the regular heartbeats of the ECG lie between {beats.start_s[0]:.1f} and"
        f" {beats.start_s[-1] + beats.length_s[-1]:.1f} s, the readouts between {ticks.min():.1f} and {ticks.max():.1f}"
        " s: correct the time stamps"
    )


def _joined(runs: Sequence[Readouts]) -> Readouts:
    paths = [run.trajectory for run in runs if run.trajectory is not None]
    return Readouts(
        np.concatenate([run.head for run in runs]),
        np.concatenate([run.samples for run in runs]),
        np.concatenate(paths) if len(paths) == len(runs) else None,
    )


def _taken(run: Readouts, rows: Index) -> Readouts:
    return Readouts(run.head[rows], run.samples[rows], None if run.trajectory is None else run.trajectory[rows])


def _of_phase(
    run: Readouts, place: Places, encoding: Encoding, *, phase: int, count: int
) -> tuple[Readouts, tuple[str, ...]]:
    """The readouts that make phase number `phase` of `count`, and what a reader must know of them."""
    away = np.abs(place - (phase + 0.5) / count)
    away = np.minimum(away, 1 - away) * count  # in phases; the end of a beat is next to its beginning
    if not is_cartesian(encoding):
        rows = np.flatnonzero(away <= 0.5)
        return _taken(run, rows if len(rows) else np.array([int(away.argmin())])), ()
    steps = np.stack([run.head["kspace_encode_step_1"], run.head["kspace_encode_step_2"]], axis=1)
    _, line = np.unique(steps, axis=0, return_inverse=True)
    weights = np.maximum(1 - away, 0)
    shared = _share(line.ravel(), away, weights)
    made = _weighted(run, line.ravel(), weights)
    text = f"{shared} of {len(made.head)} lines of phase {phase} are shared with the phase nearest in time"
    return made, (text,) if shared else ()


def _share(line: Index, away: Places, weights: Places) -> int:
    """Give each line that has no weight its readout nearest in phase; returns how many they are."""
    bare = np.flatnonzero(np.bincount(line, weights) == 0)
    for number in bare.tolist():
        rows = np.flatnonzero(line == number)
        weights[rows[away[rows].argmin()]] = 1
    return len(bare)


def _weighted(run: Readouts, line: Index, weights: Places) -> Readouts:
    """One readout for each `line`: the mean of its own with `weights`, linear interpolation where two are near."""
    rows = np.flatnonzero(weights)
    rows = rows[np.argsort(line[rows], kind="stable")]
    first = np.flatnonzero(np.r_[True, np.diff(line[rows]) > 0])
    share = (weights[rows] / np.bincount(line, weights)[line[rows]]).astype(np.float32)
    samples = np.add.reduceat(run.samples[rows] * share[:, None, None], first, axis=0)
    return Readouts(run.head[rows[first]], samples.astype(np.complex64, copy=False))


def _named(frame: Frame, whole: Frame, beats: Beats, *, phase: int, count: int, remarks: tuple[str, ...]) -> Frame:
    """`frame` as phase number `phase`, its trigger delay in the place that MRD has for it."""
    limits = {**whole.encoding.limits, "phase": Limit(0, count - 1, 0)}
    left_out = int(np.count_nonzero(~beats.regular))
    if left_out:
        remarks += (f"{left_out} of {len(beats.regular)} heartbeats are irregular and left out",)
    delay = round((phase + 0.5) / count * beats.mean_s / TICK_S)
    return replace(
        frame,
        encoding=replace(whole.encoding, limits=limits),
        counters=replace(whole.counters, phase=phase),
        physiology_time_stamp=(delay, *whole.physiology_time_stamp[1:]),
        warnings=whole.warnings + remarks,
    )


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """All readouts of the slice, some fifty times a frame's, in one piece, and one phase as the method needs it."""
    return 50 * fft.bytes_needed(encoding, coils)


def cost(encoding: Encoding, coils: int) -> float:
    """Some thirty phases."""
    inner = fft.cost(encoding, coils) if is_cartesian(encoding) else gridding.cost(encoding, coils)
    return 0.1 + 30 * inner


CINE_METHOD = Method(CINE, run, bytes_needed, cost)

"""`cine`: the beating heart in phases, by sorting all readouts of a slice by the ECG that came beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from recon.assemble import SEPARATE, is_calibration
from recon.errors import CalibrationError, ScanError
from recon.gather import gather
from recon.gating import Beats, beats_of, counted, phases, r_waves, trace_of
from recon.lines import is_cartesian
from recon.methods import fft, gridding
from recon.methods.breathing import kept_by_breath
from recon.methods.grappa import GRAPPA
from recon.methods.grids import fft_seconds, target_of, voxels
from recon.methods.method import Method, Workbench
from recon.recipe import CINE, METHOD_PARAMETERS, Recipe
from recon.scan import (
    TICK_S,
    Calibration,
    Encoding,
    Frame,
    Image,
    Limit,
    Material,
    Provenance,
    Readouts,
    ScanHeader,
    Waveform,
)
from recon.sorting import Index, joined, lines_of, share, taken, weighted

Places = NDArray[np.float64]

MARGIN_S = 2.5  # of ECG before a slice's first and after its last readout: a beat, down to 24 a minute
# One core: a byte is copied, weighted and summed for both phases that it lies between. 40 MB took 0.2 s.
SECONDS_PER_BYTE = 5e-9


def run(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """The image of one phase: by gridding, by GRAPPA where lines were left out by a rule, otherwise by the FFT."""
    method = _inner(frame.encoding)
    given = {name: value for name, value in recipe.parameters.items() if name in METHOD_PARAMETERS[method.name]}
    try:
        images = method.run(frame, calibration, Recipe(method.name, given), workbench)
    except CalibrationError as error:
        reason = f"{method.name} was not possible, this is the zero-filled image: {error}"
        plain = fft.FFT.run(frame, calibration, recipe, workbench)
        images = [replace(image, comments=(reason, *image.comments)) for image in plain]
    return [replace(image, provenance=Provenance(recipe.method, recipe.hash)) for image in images]


def _inner(encoding: Encoding) -> Method:
    if not is_cartesian(encoding):
        return gridding.GRIDDING
    return GRAPPA if prod(encoding.acceleration) > 1 and encoding.calibration_mode else fft.FFT


def gated(header: ScanHeader, material: Material, whole: Frame, recipe: Recipe) -> Iterator[Frame]:
    """A frame for each cardiac phase of `material`, made when it is asked for, so that one at a time is in memory.

    The `whole` as it is, with the reason, where gating fails.
    """
    count = int(recipe.number("phases"))
    run, apart = _parted(material.readouts, whole.encoding)
    try:
        beats, place, remarks = _placed(material.waveforms, run, tolerance=recipe.number("rr_tolerance"))
    except ScanError as error:
        reason = f"not gated, the image is an average over the heart's motion: {error}"
        yield replace(whole, warnings=(*whole.warnings, reason))
        return
    breath, told = kept_by_breath(material.waveforms, run, whole.encoding, recipe)
    rows, unit = np.flatnonzero(~np.isnan(place) & breath), recipe.text("trajectory_unit")
    remarks += told
    for phase in range(count):
        part, shared = _of_phase(run, rows, place[rows], encoding=whole.encoding, phase=(phase, count))
        frame = gather(header, [*apart, part], trajectory_unit=unit, calibration=True)
        yield _named(frame, whole, beats, phase=(phase, count), remarks=(*remarks, *shared))


def _placed(waveforms: Sequence[Waveform], run: Readouts, *, tolerance: float) -> tuple[Beats, Places, tuple[str, ...]]:
    """The heartbeats, and where in its beat each readout lies (NaN: in none that is regular), by the ECG.

    By the readouts' own counters where that fails, which is said.
    """
    times_s = run.head["acquisition_time_stamp"] * TICK_S
    try:
        return *_within(r_waves(trace_of(_around(waveforms, times_s))), times_s, tolerance=tolerance), ()
    except ScanError as error:
        try:
            waves = counted(times_s, run.head["physiology_time_stamp"][:, 0] * TICK_S)
            remark = f"gated by the readouts' physiology_time_stamp: {error}"
            return *_within(waves, times_s, tolerance=tolerance), (remark,)
        except ScanError as other:
            raise ScanError(f"{error}; and {other}") from other


def _around(waveforms: Sequence[Waveform], times_s: Places) -> Sequence[Waveform]:
    """The waveforms of the readouts' time, or all where there are none: each slice has a mean beat of its own.

    So a slice that is gated before the scan ends comes out as it does when all of the scan is there.
    """
    low, high = times_s.min() - MARGIN_S, times_s.max() + MARGIN_S
    near = [block for block in waveforms if low <= block.time_stamp * TICK_S <= high]
    return near or waveforms


def _within(waves_s: Places, times_s: Places, *, tolerance: float) -> tuple[Beats, Places]:
    beats = beats_of(waves_s, tolerance=tolerance)
    place, used = phases(times_s, beats)
    if not used.any():
        raise ScanError(
            f"the regular heartbeats of the ECG lie between {beats.start_s[0]:.1f} and"
            f" {beats.start_s[-1] + beats.length_s[-1]:.1f} s, the readouts between {times_s.min():.1f} and"
            f" {times_s.max():.1f} s: correct the time stamps"
        )
    return beats, np.where(used, place, np.nan)


def _parted(runs: Sequence[Readouts], encoding: Encoding) -> tuple[Readouts, list[Readouts]]:
    """The readouts to be gated in one run, and those of a separate calibration, which no heartbeat has."""
    separate = [is_calibration(run.head["flags"]) & (encoding.calibration_mode in SEPARATE) for run in runs]
    apart = [taken(run, np.flatnonzero(mask)) for run, mask in zip(runs, separate, strict=True) if mask.any()]
    own = [
        taken(run, np.flatnonzero(~mask)) if mask.any() else run
        for run, mask in zip(runs, separate, strict=True)
        if not mask.all()
    ]
    return joined(own), apart


def _of_phase(
    run: Readouts, rows: Index, place: Places, *, encoding: Encoding, phase: tuple[int, int]
) -> tuple[Readouts, tuple[str, ...]]:
    """What makes `phase` (number, of how many) of the `rows` of `run`, which lie at `place`; and what to know of it."""
    number, count = phase
    away = np.abs(place - (number + 0.5) / count)
    away = np.minimum(away, 1 - away) * count  # in phases; the end of a beat is next to its beginning
    if not is_cartesian(encoding):
        near = away <= 0.5
        return taken(run, rows[near] if near.any() else rows[[int(away.argmin())]]), ()
    line, weights = lines_of(run, rows), np.maximum(1 - away, 0)  # linear interpolation where two are near
    shared = share(line, away, weights)
    made = weighted(run, rows, line, weights)
    text = f"{shared} of {len(made.head)} lines of phase {number} are shared with the phase nearest in time"
    return made, (text,) if shared else ()


def _named(frame: Frame, whole: Frame, beats: Beats, *, phase: tuple[int, int], remarks: tuple[str, ...]) -> Frame:
    """`frame` as `phase` (number, of how many), its trigger delay in the place that MRD has for it."""
    number, count = phase
    limits = {**whole.encoding.limits, "phase": Limit(0, count - 1, 0)}
    left_out = int(np.count_nonzero(~beats.regular))
    if left_out:
        remarks += (f"{left_out} of {len(beats.regular)} heartbeats are irregular and left out",)
    delay = round((number + 0.5) / count * beats.mean_s / TICK_S)
    return replace(
        frame,
        encoding=replace(whole.encoding, limits=limits),
        counters=replace(whole.counters, phase=number),
        physiology_time_stamp=(delay, *whole.physiology_time_stamp[1:]),
        warnings=whole.warnings + remarks,
    )


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """One phase as its method needs it; see `whole_bytes` for the readouts that it is made of."""
    return _inner(encoding).bytes_needed(encoding, coils)


def cost(encoding: Encoding, coils: int) -> float:
    """One phase."""
    return _inner(encoding).cost(encoding, coils)


def needs(encoding: Encoding, coils: int, recipe: Recipe, raw_bytes: int) -> tuple[int, float]:
    """Bytes and seconds for a slice whose readouts are `raw_bytes` long.

    They are joined once; a phase takes two of `phases` parts, as they came and weighted; the frame that stands for all
    of them stays, and so do the images.
    """
    count = int(recipe.number("phases"))
    images = 8 * count * prod(target_of(encoding).shape)
    held = raw_bytes + 4 * raw_bytes // count + 8 * coils * voxels(encoding) + images
    return held + bytes_needed(encoding, coils), _seconds(encoding, coils, count=count, raw_bytes=raw_bytes)


def _seconds(encoding: Encoding, coils: int, *, count: int, raw_bytes: int) -> float:
    """Sorting, and for each phase its method: a NUFFT of all samples together, as many as there are."""
    sorting = SECONDS_PER_BYTE * raw_bytes
    if is_cartesian(encoding):
        return sorting + count * cost(encoding, coils)
    transforms = count * (5e-3 + coils * fft_seconds(4 * voxels(encoding)))
    return sorting + transforms + gridding.SECONDS_PER_POINT * raw_bytes / 8


CINE_METHOD = Method(CINE, run, bytes_needed, cost, calibration=True, of_scan=needs)

"""Free breathing: the readouts of a frame sorted by the breath, so that each image shows one state of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from recon.breathing import Breathed, Mask, breathed, resting
from recon.errors import ScanError
from recon.gather import gather
from recon.lines import is_cartesian
from recon.recipe import Recipe, breathes
from recon.scan import Encoding, Frame, Limit, Material, Readouts, ScanHeader, Waveform
from recon.sorting import joined, lines_of, share, taken, weighted


def parted(header: ScanHeader, material: Material, whole: Frame, recipe: Recipe) -> Iterator[Frame]:
    """A frame for each state of the breath, from the end of expiration on, made when it is asked for.

    The `whole` as it is, with the reason, where there is no signal of the breath.
    """
    run = joined(material.readouts)
    bins, acceptance = int(recipe.number("bins")), recipe.number("acceptance")
    try:
        breath = breathed(material.waveforms, run, whole.encoding, source=recipe.text("respiration"))
    except ScanError as error:
        reason = f"not gated, the image is an average over the breath: {error}"
        yield replace(whole, warnings=(*whole.warnings, reason))
        return
    unit = str(recipe.parameters.get("trajectory_unit", "cycles/voxel"))
    for state, mask in enumerate(resting(breath, bins=bins, acceptance=acceptance)):
        part, remarks = _of_state(run, mask, breath, cartesian=is_cartesian(whole.encoding))
        frame = gather(header, [part], trajectory_unit=unit)
        yield _named(frame, whole, state=state, bins=bins, remarks=remarks)


def kept_by_breath(
    waveforms: Sequence[Waveform], run: Readouts, encoding: Encoding, recipe: Recipe
) -> tuple[Mask, tuple[str, ...]]:
    """Which readouts a method that sorts by something else is to use, and what to know of them: all by default."""
    everything = np.ones(len(run.head), np.bool_)
    if not breathes(recipe):
        return everything, ()
    try:
        breath = breathed(waveforms, run, encoding, source=recipe.text("respiration"))
    except ScanError as error:
        return everything, (f"not gated by the breath: {error}",)
    (mask,) = resting(breath, bins=1, acceptance=recipe.number("acceptance"))
    return mask, (f"{np.count_nonzero(mask)} of {len(mask)} readouts near the end of expiration, by {breath.source}",)


def _of_state(run: Readouts, mask: Mask, breath: Breathed, *, cartesian: bool) -> tuple[Readouts, list[str]]:
    """The readouts of one state; lines that were not measured in it are those nearest to it."""
    told = [f"{np.count_nonzero(mask)} of {len(mask)} readouts, by {breath.source}"]
    if not cartesian:
        return taken(run, np.flatnonzero(mask)), told
    line, weights = lines_of(run, np.arange(len(mask))), mask.astype(np.float64)
    low, high = breath.depth[mask].min(), breath.depth[mask].max()
    away = np.maximum(np.maximum(low - breath.depth, breath.depth - high), 0)
    elsewhere = share(line, away, weights)
    made = weighted(run, np.arange(len(mask)), line, weights)
    if elsewhere:
        told.append(f"{elsewhere} of {len(made.head)} lines are of the nearest other state of the breath")
    return made, told


def _named(frame: Frame, whole: Frame, *, state: int, bins: int, remarks: list[str]) -> Frame:
    """`frame` as one state of the breath, which the phase counts where there are several."""
    warnings = (*whole.warnings, *(f"state {state + 1} of {bins} of the breath: {text}" for text in remarks))
    if bins == 1:
        return replace(frame, encoding=whole.encoding, counters=whole.counters, warnings=warnings)
    limits = {**whole.encoding.limits, "phase": Limit(0, bins - 1, 0)}
    encoding = replace(whole.encoding, limits=limits)
    return replace(frame, encoding=encoding, counters=replace(whole.counters, phase=state), warnings=warnings)

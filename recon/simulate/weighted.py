"""Protocols for quantification: several echoes, inversion times, diffusion weightings and velocity encodings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
from numpy.random import Generator

from recon.labels import INVERSION_IN, VELOCITY, VELOCITY_DIRECTION
from recon.scan import Counters, Diffusion, Geometry, Vector3
from recon.simulate.anatomies import ABDOMEN, CAROTID, VESSELS
from recon.simulate.measurement import Choice, Measurement, chest_array, geometry, head_array, header, oblique, seen_by
from recon.simulate.objects import CHEST, Region, fill_regions, heart_regions
from recon.simulate.phantom import Vector
from recon.simulate.physiology import beats
from recon.simulate.series import Series, Signal, View, encoding_of, measure, nested, plane
from recon.simulate.tissue import (
    FAT_HZ,
    TISSUES,
    Timing,
    Tissue,
    diffusion,
    gradient_echo,
    inversion_recovery,
    prepared,
    pulsed,
    recovered,
    shown,
    spin_echo,
    velocity_phase,
)

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
THICKNESS_MM = 5.0

ECHOES = Timing(tr_ms=120.0, te_ms=1.2, flip_deg=25.0)
ECHO_SPACING_MS, ECHO_COUNT = 1.4, 6
ECHO_SLICES, ECHO_SLICE_MM, ECHO_VIEW_MM = 3, 20.0, 400.0

INVERSION = Timing(tr_ms=4000.0, te_ms=12.0, flip_deg=90.0)
INVERSION_TIMES_MS = (50.0, 150.0, 400.0, 800.0, 1600.0, 3000.0)
TRAIN = 16  # lines read after one inversion

MOLLI = Timing(tr_ms=2.5, te_ms=1.25, flip_deg=35.0)
MOLLI_FIRST_MS = (120.0, 200.0)  # inversion to centre of k-space, in the first heartbeat of each group
MOLLI_GROUPS, MOLLI_PAUSE = (5, 3), 3  # images, and heartbeats between the groups (doi:10.1002/mrm.20110)
MOLLI_DELAY_S, MOLLI_HEARTBEAT_S = 0.58, 1.0  # the heart rests from 0.53 s after the R wave
HEART_VIEW_MM, HEART_THICKNESS_MM, HEART_EDGE_MM = 320.0, 8.0, 1.0

DIFFUSION = Timing(tr_ms=3000.0, te_ms=80.0, flip_deg=90.0)
LINE_MS = 0.6  # between lines of a single shot
AVERAGES = 2
_H = 0.5**0.5
WEIGHTINGS = (
    Diffusion(0.0),
    *(Diffusion(500.0, g) for g in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))),
    *(Diffusion(1000.0, g) for g in ((_H, _H, 0.0), (_H, -_H, 0.0), (_H, 0.0, _H))),
    *(Diffusion(1000.0, g) for g in ((_H, 0.0, -_H), (0.0, _H, _H), (0.0, _H, -_H))),
)

CONTRAST_PHASE = Timing(tr_ms=12.0, te_ms=5.0, flip_deg=20.0)
VENC_CM_S, FLOW_PHASES, FLOW_LINES, FLOW_HEARTBEAT_S = 150.0, 8, 4, 0.9
FLOW_DIRECTION: Vector3 = (0.0, 0.0, 1.0)
FRESH = 0.6  # share of the blood that no pulse has met before


def _planes(
    regions: Sequence[Region], choice: Choice, places_mm: Sequence[float], *, view_mm: float, chest: bool
) -> list[View]:
    field = (chest_array if chest else head_array)(choice.coils)
    axes = oblique(*AXIAL, about_x_deg=6, about_z_deg=3)
    return [plane(regions, geometry(axes, (0, 0, z)), field=field, view_mm=view_mm) for z in places_mm]


def _by_tissue(signal: partial[complex]) -> Signal:
    return lambda region: signal(TISSUES[region.tissue])


def abdomen_multiecho(choice: Choice, _: Generator) -> Measurement:
    """Spoiled gradient echoes of the abdomen, six after each pulse: fat and water turn against each other."""
    n, repetitions = choice.matrix, choice.repetitions
    counts = {"contrast": ECHO_COUNT, "slice": ECHO_SLICES, "repetition": repetitions}
    encoding = encoding_of((1, n, n), (THICKNESS_MM, ECHO_VIEW_MM, ECHO_VIEW_MM), **counts)
    echoes = ECHOES.te_ms + ECHO_SPACING_MS * np.arange(ECHO_COUNT)
    scan = replace(header("abdomen-multiecho", encoding, coils=choice.coils, timing=ECHOES), te_ms=tuple(echoes))
    places = [ECHO_SLICE_MM * (i - 1) + 15 for i in range(ECHO_SLICES)]
    order = nested(repetition=repetitions, kspace_encode_step_1=n, slice=ECHO_SLICES, contrast=ECHO_COUNT)
    excitation = order["repetition"] * n + order["kspace_encode_step_1"] + order["slice"] / ECHO_SLICES
    start_s = (excitation * ECHOES.tr_ms + order["contrast"] * ECHO_SPACING_MS) / 1000
    order["state"] = order["repetition"] * ECHO_COUNT + order["contrast"]
    states = [Counters(contrast=e, repetition=r) for r in range(repetitions) for e in range(ECHO_COUNT)]
    views = _planes(ABDOMEN, choice, places, view_mm=ECHO_VIEW_MM, chest=True)
    signals = [_echo(replace(ECHOES, te_ms=float(echoes[state.contrast]))) for state in states]
    return measure(scan, Series(views, states, order, start_s, sample_time_us=3.0, noise_std=0.003), signals)


def _echo(timing: Timing) -> Signal:
    def signal(region: Region) -> complex:
        tissue = TISSUES[region.tissue]
        return gradient_echo(replace(tissue, offset_hz=FAT_HZ) if region.tissue == "fat" else tissue, timing)

    return signal


def brain_ir(choice: Choice, _: Generator) -> Measurement:
    """Inversion recovery of one slice at six inversion times; all lines of a train have the same brightness."""
    n, repetitions, count = choice.matrix, choice.repetitions, len(INVERSION_TIMES_MS)
    encoding = encoding_of((1, n, n), (THICKNESS_MM, 240.0, 240.0), contrast=count, repetition=repetitions)
    scan = header("brain-ir", replace(encoding, echo_train_length=TRAIN), coils=choice.coils, timing=INVERSION)
    scan = replace(scan, ti_ms=INVERSION_TIMES_MS)
    order = nested(state=repetitions * count, kspace_encode_step_1=n)
    line, inversion_ms = order["kspace_encode_step_1"], np.array(INVERSION_TIMES_MS)[order["state"] % count]
    shot = order["state"] * -(-n // TRAIN) + line // TRAIN
    first = inversion_ms[0] / 1000
    start_s = (shot * INVERSION.tr_ms + inversion_ms + line % TRAIN * INVERSION.te_ms) / 1000 - first
    states = [Counters(contrast=t, repetition=r) for r in range(repetitions) for t in range(count)]
    signals = [
        _by_tissue(partial(inversion_recovery, timing=INVERSION, ti_ms=INVERSION_TIMES_MS[state.contrast]))
        for state in states
    ]
    views = _planes(VESSELS, choice, [10.0], view_mm=240.0, chest=False)
    return measure(scan, Series(views, states, order, start_s, sample_time_us=10.0, noise_std=0.006), signals)


def heart_molli(choice: Choice, rng: Generator) -> Measurement:
    """Modified Look–Locker: an inversion, then balanced single shots in the same rest of successive heartbeats; twice.

    Their inversion times follow the heart; each readout carries its own in user_int.
    """
    n, repetitions, count = choice.matrix, choice.repetitions, sum(MOLLI_GROUPS)
    view_mm = (HEART_THICKNESS_MM, HEART_VIEW_MM, HEART_VIEW_MM)
    encoding = encoding_of((1, n, n), view_mm, set=count, repetition=repetitions)
    scan = header("heart-molli", encoding, coils=choice.coils, timing=MOLLI)
    scan = replace(scan, ti_ms=_nominal(), user={INVERSION_IN: 7})
    of_one = count + MOLLI_PAUSE
    r_waves_s = beats(rng, count=repetitions * (of_one + MOLLI_PAUSE), interval_s=MOLLI_HEARTBEAT_S)
    beat = np.concatenate([np.arange(count) + MOLLI_PAUSE * (np.arange(count) >= MOLLI_GROUPS[0])] * repetitions)
    beat += np.repeat(np.arange(repetitions), count) * (of_one + MOLLI_PAUSE)
    shots_s = r_waves_s[beat] + MOLLI_DELAY_S
    order = nested(state=repetitions * count, kspace_encode_step_1=n)
    start_s = shots_s[order["state"]] + order["kspace_encode_step_1"] * MOLLI.tr_ms / 1000
    inversion_s = inversion_times(shots_s, lines=n)
    states = [Counters(set=i, repetition=r) for r in range(repetitions) for i in range(count)]
    signals = [_by_tissue(partial(_look_locker, shots_s=shots_s, lines=n, shot=i)) for i in range(len(states))]
    series = Series([_chest(choice)], states, order, start_s - start_s[0], sample_time_us=4.0, noise_std=0.004)
    measured = measure(scan, series, signals)
    measured.head["user_int"][:, 7] = np.rint(inversion_s[order["state"]] * 1e6)
    return replace(measured, r_waves_s=r_waves_s - start_s[0])  # time counts from the first readout


def _nominal() -> tuple[float, ...]:
    groups = zip(MOLLI_FIRST_MS, MOLLI_GROUPS, strict=True)
    return tuple(first + 1000 * MOLLI_HEARTBEAT_S * i for first, images in groups for i in range(images))


def inversion_times(shots_s: Vector, *, lines: int) -> Vector:
    """Seconds from each shot's inversion to the centre of its k-space; shots begin at `shots_s`."""
    centre = shots_s + lines // 2 * MOLLI.tr_ms / 1000
    return np.asarray(centre - [inverted for inverted, _ in _inversions(shots_s, lines)], np.float64)


def _inversions(shots_s: Vector, lines: int) -> list[tuple[float, bool]]:
    """When the inversion of each shot was, and whether no other shot is between."""
    half_s = lines // 2 * MOLLI.tr_ms / 1000
    found: list[tuple[float, bool]] = []
    for i, start in enumerate(shots_s):
        group, place = divmod(i % sum(MOLLI_GROUPS), MOLLI_GROUPS[0])
        inverted = start + half_s - MOLLI_FIRST_MS[group] / 1000 if place == 0 else found[-1][0]
        found.append((float(inverted), place == 0))
    return found


def _look_locker(tissue: Tissue, *, shots_s: Vector, lines: int, shot: int) -> complex:
    """Signal at the centre of a shot: every pulse and pause since the first inversion, which found all at rest.

    Shots are balanced, each prepared by half a pulse half a TR before it; what is across after one is spoiled.
    """
    along, now = 1.0, -1e6
    train_s, half_s = lines * MOLLI.tr_ms / 1000, MOLLI.tr_ms / 2000
    for start, (inverted, first) in zip(shots_s[: shot + 1], _inversions(shots_s, lines), strict=False):
        if first:
            along, now = -recovered(along, tissue, 1000 * (inverted - now)), inverted
        begun = prepared(recovered(along, tissue, 1000 * (start - half_s - now)), tissue, MOLLI)
        centre, (_, along) = pulsed(begun, tissue, MOLLI, lines // 2), pulsed(begun, tissue, MOLLI, lines)
        now = start + train_s
    return shown(centre, tissue, MOLLI)


def _chest(choice: Choice) -> View:
    regions = (*CHEST, *heart_regions(0.0))
    shapes = replace(fill_regions(regions, lambda _: 1), blur_mm=HEART_EDGE_MM)
    coils = seen_by(chest_array(choice.coils), Geometry(), np.array([HEART_VIEW_MM, HEART_VIEW_MM]))
    where = geometry(oblique((0.8, 0.6, 0), (0, 0, -1), about_x_deg=25, about_z_deg=10), (40, -30, 10))
    return View(regions, shapes, coils, where)


def brain_dwi(choice: Choice, _: Generator) -> Measurement:
    """Diffusion weighting of two slices: b = 0 and shells of 500 and 1000 s/mm², two averages of single shots."""
    n, repetitions, count = choice.matrix, choice.repetitions, len(WEIGHTINGS)
    counts = {"set": count, "average": AVERAGES, "slice": 2, "repetition": repetitions}
    encoding = encoding_of((1, n, n), (THICKNESS_MM, 240.0, 240.0), **counts)
    scan = header("brain-dwi", replace(encoding, echo_train_length=n), coils=choice.coils, timing=DIFFUSION)
    scan = replace(scan, diffusion=WEIGHTINGS, diffusion_dimension="set")
    order = nested(state=repetitions * count, average=AVERAGES, slice=2, kspace_encode_step_1=n)
    excitation = (order["state"] * AVERAGES + order["average"]) + order["slice"] / 2
    start_s = (excitation * DIFFUSION.tr_ms + order["kspace_encode_step_1"] * LINE_MS) / 1000
    states = [Counters(set=i, repetition=r) for r in range(repetitions) for i in range(count)]
    signals = [_by_tissue(partial(_weighted, weighting=WEIGHTINGS[state.set])) for state in states]
    views = _planes(VESSELS, choice, [-2.0, 14.0], view_mm=240.0, chest=False)
    return measure(scan, Series(views, states, order, start_s, sample_time_us=2.0, noise_std=0.004), signals)


def _weighted(tissue: Tissue, *, weighting: Diffusion) -> complex:
    return spin_echo(tissue, DIFFUSION) * diffusion(tissue, weighting.b_s_mm2, weighting.direction)


def carotid_pc(choice: Choice, rng: Generator) -> Measurement:
    """Phase-contrast cine across the carotid arteries: set 1 encodes the velocity along the neck, set 0 none."""
    n, repetitions = choice.matrix, choice.repetitions
    counts = {"set": 2, "phase": FLOW_PHASES, "repetition": repetitions}
    encoding = encoding_of((1, n, n), (THICKNESS_MM, 180.0, 180.0), **counts)
    scan = header("carotid-pc", encoding, coils=choice.coils, timing=CONTRAST_PHASE)
    direction = " ".join(f"{part:g}" for part in FLOW_DIRECTION)
    scan = replace(scan, user={f"{VELOCITY}1": VENC_CM_S, f"{VELOCITY_DIRECTION}1": direction})
    segments = -(-n // FLOW_LINES)
    order = nested(repetition=repetitions, beat=segments, phase=FLOW_PHASES, turn=FLOW_LINES, set=2)
    order["kspace_encode_step_1"] = order["beat"] * FLOW_LINES + order["turn"]
    order = {name: numbers[order["kspace_encode_step_1"] < n] for name, numbers in order.items()}
    r_waves_s = beats(rng, count=repetitions * segments + 1, interval_s=FLOW_HEARTBEAT_S)
    pulse = (order["phase"] * FLOW_LINES + order["turn"]) * 2 + order["set"]
    start_s = r_waves_s[order["repetition"] * segments + order["beat"]] + pulse * CONTRAST_PHASE.tr_ms / 1000
    order["state"] = (order["repetition"] * FLOW_PHASES + order["phase"]) * 2 + order["set"]
    every = product(range(repetitions), range(FLOW_PHASES), range(2))
    states = [Counters(repetition=r, phase=p, set=s) for r, p, s in every]
    signals = [_flowing(state) for state in states]
    views = _planes(CAROTID, choice, [33.0], view_mm=180.0, chest=False)
    series = Series(views, states, order, start_s, sample_time_us=6.0, noise_std=0.002)
    return replace(measure(scan, series, signals), r_waves_s=r_waves_s)


def pulse_wave(phase: int) -> float:
    """Velocity in a phase of the heartbeat, relative to its mean over all phases."""
    wave = 0.5 + np.exp(-0.5 * ((np.arange(FLOW_PHASES) - 1.6) / 0.9) ** 2)
    return float(wave[phase] / wave.mean())


def _flowing(state: Counters) -> Signal:
    def signal(region: Region) -> complex:
        still = gradient_echo(TISSUES[region.tissue], CONTRAST_PHASE, fresh=FRESH if region.velocity_cm_s else 0.0)
        velocity = pulse_wave(state.phase) * region.velocity_cm_s
        return still * velocity_phase(velocity, VENC_CM_S) if state.set else still

    return signal

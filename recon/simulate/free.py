"""A heart that beats while its owner breathes: golden-angle spokes without a pause, ECG and belt beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.scan import Counters, Encoding, Geometry, Space, Trajectory
from recon.simulate.cine import STATES, phase_images
from recon.simulate.coils import coil_spectrum
from recon.simulate.heads import flag, heads, place
from recon.simulate.heart import (
    HEARTBEAT_S,
    MOMENTS,
    RADIAL,
    THICKNESS_MM,
    VIEW_MM,
    Stage,
    balanced_signal,
    chest,
    grid,
    heart,
    plane,
)
from recon.simulate.measurement import Choice, Measurement, chest_array, header, limits, seen_by
from recon.simulate.phantom import Vector
from recon.simulate.physiology import beats, breath, breaths, contraction, since_beat
from recon.simulate.trajectories import Points, golden_spokes, spoke_areas
from recon.simulate.truth import Ideal, mask, unit

FREE_PHASES, FREE_S = 12, 18.0
FREE_NOISE = 0.002
MOTION_MM = np.array([0.0, 9.0])  # of the heart in the slice for a usual breath: to the feet
VARIABILITY = 0.05


def heart_free(choice: Choice, rng: Generator) -> Measurement:
    """Spokes of a heart that beats and breathes; the truth are its phases at the end of expiration."""
    n, spokes = choice.matrix, round(1000 * FREE_S / RADIAL.tr_ms)
    encoding = Encoding(
        Space((1, n, 2 * n), (THICKNESS_MM, VIEW_MM, 2 * VIEW_MM)),
        Space((1, n, n), (THICKNESS_MM, VIEW_MM, VIEW_MM)),
        limits(kspace_encode_step_1=spokes),
        Trajectory.GOLDEN_ANGLE,
    )
    scan = replace(
        header("heart-free", encoding, coils=choice.coils, timing=RADIAL), user={"RetroGatedImages": FREE_PHASES}
    )
    count = 4 + int(FREE_S / HEARTBEAT_S / (1 - 3 * VARIABILITY))
    r_waves_s = beats(rng, count=count, interval_s=HEARTBEAT_S, variability=VARIABILITY)
    breathing = breaths(rng, seconds=FREE_S)
    start_s = np.asarray(np.arange(spokes) * (RADIAL.tr_ms / 1000), np.float64)
    points = golden_spokes(spokes, 2 * n)
    head = heads(spokes, samples=2 * n, coils=choice.coils, sample_time_us=4.0, axes=2)
    head["kspace_encode_step_1"] = np.arange(spokes)
    place(head, [plane()])
    flag(head)
    coils = seen_by(chest_array(choice.coils), Geometry(), np.full(2, VIEW_MM))
    stage = Stage(encoding, coils, balanced_signal)
    contracted = contraction(since_beat(start_s, r_waves_s))
    seen = r_waves_s[r_waves_s < start_s[-1]]
    return Measurement(
        header=scan,
        head=head,
        samples=_samples(stage, points, contracted, breath(start_s, breathing)),
        start_s=start_s,
        ideals=_ideals(stage, float(np.diff(seen).mean()), points),
        noise_std=FREE_NOISE,
        trajectory=points,
        r_waves_s=r_waves_s,
        breathing=breathing,
    )


def _samples(stage: Stage, points: Points, contracted: Vector, breathed: Vector) -> NDArray[np.complex64]:
    """[readout, coil, sample]: the chest rests, the heart is as it beats and breathes at each readout."""
    encoded = stage.encoding.encoded
    k = points.astype(np.float64) / np.array(encoded.spacing_mm[:0:-1])
    samples = coil_spectrum(chest(stage), stage.coils, k).transpose(1, 0, 2)
    state = np.rint(contracted * STATES).astype(np.int64)
    for value in np.unique(state).tolist():
        rows = np.flatnonzero(state == value)
        moved = breathed[rows, None, None] * MOTION_MM
        moving = coil_spectrum(heart(stage, value / STATES), stage.coils, k[rows], moved_mm=moved)
        samples[rows] += moving.transpose(1, 0, 2)
    return (unit(encoded, 2) * samples).astype(np.complex64)


def _ideals(stage: Stage, mean_s: float, points: Points) -> tuple[Ideal, ...]:
    """Each phase averaged over its own window of the mean beat, at the end of expiration.

    The noise is that of an image made of all spokes of one phase.
    """
    rest = chest(stage)
    resting, inside = grid(stage, rest), mask(rest, stage.encoding.recon)
    share = spoke_areas(max(1, len(points) // FREE_PHASES), points.shape[1])
    sigma = float(np.sqrt(np.sum(share**2) * np.prod(stage.encoding.encoded.matrix)))
    moments = (np.arange(MOMENTS) + 0.5) / MOMENTS
    states = [contraction((phase + moments) / FREE_PHASES * mean_s) for phase in range(FREE_PHASES)]
    return tuple(
        Ideal(Counters(phase=phase), phase_images(stage, resting, contracted), inside, sigma)
        for phase, contracted in enumerate(states)
    )

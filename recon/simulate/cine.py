"""Retrospectively gated Cartesian cine: segments of k-space beat after beat, the ECG beside them, one early beat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.scan import Counters, Encoding, Geometry, Space, Trajectory
from recon.simulate.coils import coil_spectrum
from recon.simulate.heads import flag, heads, place
from recon.simulate.heart import HEARTBEAT_S, THICKNESS_MM, VIEW_MM, Stage, balanced_signal, chest, grid, heart, plane
from recon.simulate.measurement import Choice, Measurement, chest_array, header, limits, seen_by
from recon.simulate.phantom import Vector
from recon.simulate.physiology import beats, contraction, since_beat
from recon.simulate.tissue import Timing
from recon.simulate.truth import Ideal, coil_images, mask, unit

CINE = Timing(tr_ms=3.0, te_ms=1.5, flip_deg=50.0)
CINE_PHASES, CINE_SEGMENT = 20, 12
CINE_SAMPLE_TIME_US, CINE_NOISE = 4.0, 0.002
VARIABILITY = 0.1
EARLY = 0.6  # the early beat's length relative to the mean; the one after it is longer by as much
STATES = 256  # the heart moves in as many steps, of a thirtieth of a millimetre
MOMENTS = 9


def heart_cine(choice: Choice, rng: Generator) -> Measurement:
    """Each beat measures the lines of one segment again and again; an early beat's segment is measured once more."""
    n = choice.matrix
    segments = -(-n // CINE_SEGMENT)
    encoding = Encoding(
        Space((1, n, 2 * n), (THICKNESS_MM, VIEW_MM, 2 * VIEW_MM)),
        Space((1, n, n), (THICKNESS_MM, VIEW_MM, VIEW_MM)),
        limits(kspace_encode_step_1=n, segment=segments),
        Trajectory.CARTESIAN,
    )
    scan = header("heart-cine", encoding, coils=choice.coils, timing=CINE)
    scan = replace(scan, user={"RetroGatedImages": CINE_PHASES, "RetroGatedSegmentSize": CINE_SEGMENT})
    r_waves_s, early = rhythm(rng, count=segments + 3, at=segments // 2)
    start_s = np.asarray(np.arange(int(1000 * r_waves_s[-1] / CINE.tr_ms)) * (CINE.tr_ms / 1000), np.float64)
    line, segment = lines(start_s, r_waves_s, early=early, matrix=n)
    head = heads(len(line), samples=2 * n, coils=choice.coils, sample_time_us=CINE_SAMPLE_TIME_US)
    head["kspace_encode_step_1"], head["segment"] = line, segment
    place(head, [plane()])
    flag(head)
    coils = seen_by(chest_array(choice.coils), Geometry(), np.array([VIEW_MM, VIEW_MM]))
    stage = Stage(encoding, coils, balanced_signal)
    return Measurement(
        header=scan,
        head=head,
        samples=samples(stage, line, contraction(since_beat(start_s, r_waves_s))),
        start_s=start_s,
        ideals=ideals(stage, float(np.delete(np.diff(r_waves_s), [early, early + 1]).mean())),
        noise_std=CINE_NOISE,
        r_waves_s=r_waves_s,
    )


def rhythm(rng: Generator, *, count: int, at: int) -> tuple[Vector, int]:
    """R waves [beat] of which beat number `at` is early and the next one late, and that number."""
    lengths = np.diff(beats(rng, count=count + 1, interval_s=HEARTBEAT_S, variability=VARIABILITY))
    lengths[at : at + 2] = HEARTBEAT_S * np.array([EARLY, 2 - EARLY])
    return np.concatenate([[0.0], np.cumsum(lengths)]), at


def lines(
    start_s: Vector, r_waves_s: Vector, *, early: int, matrix: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The line and the segment of each readout; the early beat and the one after it play their segment once more."""
    beat = np.searchsorted(r_waves_s, start_s, side="right") - 1
    segments = -(-matrix // CINE_SEGMENT)
    segment = (beat - np.clip(beat - early, 0, 2)) % segments
    first = np.searchsorted(start_s, r_waves_s)[beat]
    within = np.arange(len(start_s)) - first
    spaced = np.arange(CINE_SEGMENT) * segments
    line = spaced[within % CINE_SEGMENT] + segment
    return np.where(line < matrix, line, segment), segment


def samples(stage: Stage, line: NDArray[np.int64], contracted: Vector) -> NDArray[np.complex64]:
    """[readout, coil, sample]: the resting chest from its grid, the heart as it is at each readout."""
    encoded = stage.encoding.encoded
    _, ny, nx = encoded.matrix
    resting = grid(stage, chest(stage)).astype(np.complex64).transpose(1, 0, 2)
    made = resting[line]
    kx, ky = ((np.arange(n) - n // 2) / fov for n, fov in zip((nx, ny), encoded.field_of_view_mm[:0:-1], strict=True))
    state = np.rint(contracted * STATES).astype(np.int64)
    for value in np.unique(state).tolist():
        rows = np.flatnonzero(state == value)
        seen, which = np.unique(line[rows], return_inverse=True)
        k = np.stack(np.broadcast_arrays(kx[None, :], ky[seen][:, None]), axis=-1)
        moving = unit(encoded, 2) * coil_spectrum(heart(stage, value / STATES), stage.coils, k)
        made[rows] += moving.transpose(1, 0, 2)[which.ravel()].astype(np.complex64)
    return made


def ideals(stage: Stage, mean_s: float) -> tuple[Ideal, ...]:
    """Each phase averaged over its own window of the mean beat."""
    rest = chest(stage)
    resting, inside = grid(stage, rest), mask(rest, stage.encoding.recon)
    moment = (np.arange(MOMENTS) + 0.5) / MOMENTS
    states = [contraction((phase + moment) / CINE_PHASES * mean_s) for phase in range(CINE_PHASES)]
    return tuple(
        Ideal(Counters(phase=phase), phase_images(stage, resting, contracted), inside)
        for phase, contracted in enumerate(states)
    )


def phase_images(stage: Stage, resting: NDArray[np.complex128], states: Vector) -> NDArray[np.complex64]:
    """Coil images [coil, z, y, x] of the `resting` chest's grid and the mean of the heart's `states`."""
    moving = sum(grid(stage, heart(stage, float(state))) for state in states) / len(states)
    return coil_images((resting + moving)[:, None], stage.encoding.recon.matrix)

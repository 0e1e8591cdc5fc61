"""Real-time Cartesian cine: every third line of the beating heart, others in each frame, which calibrate each other."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.random import Generator

from recon.scan import Counters, Encoding, Geometry, Space, Trajectory
from recon.simulate.cine import CINE, CINE_NOISE, CINE_SAMPLE_TIME_US, phase_images, samples
from recon.simulate.heads import flag, heads, place
from recon.simulate.heart import HEARTBEAT_S, MOMENTS, THICKNESS_MM, VIEW_MM, Stage, balanced_signal, chest, grid, plane
from recon.simulate.measurement import Choice, Measurement, chest_array, header, limits, seen_by
from recon.simulate.phantom import Vector
from recon.simulate.physiology import beats, contraction, since_beat
from recon.simulate.truth import Ideal, mask

REALTIME = CINE
STEP = 3  # every so many lines a frame; the next frame's lie one further


def heart_realtime(choice: Choice, rng: Generator) -> Measurement:
    """One frame after the other, whatever the heart does."""
    n = choice.matrix
    encoding = Encoding(
        Space((1, n, 2 * n), (THICKNESS_MM, VIEW_MM, 2 * VIEW_MM)),
        Space((1, n, n), (THICKNESS_MM, VIEW_MM, VIEW_MM)),
        limits(kspace_encode_step_1=n, repetition=choice.repetitions),
        Trajectory.CARTESIAN,
        acceleration=(STEP, 1),
        calibration_mode="interleaved",
    )
    every = [np.arange(frame % STEP, n, STEP) for frame in range(choice.repetitions)]
    line, frame = np.concatenate(every), np.repeat(np.arange(len(every)), [len(lines) for lines in every])
    start_s = np.asarray(np.arange(len(line)) * (REALTIME.tr_ms / 1000), np.float64)
    r_waves_s = beats(rng, count=2 + int(start_s[-1] / (0.9 * HEARTBEAT_S)), interval_s=HEARTBEAT_S)
    head = heads(len(line), samples=2 * n, coils=choice.coils, sample_time_us=CINE_SAMPLE_TIME_US)
    head["kspace_encode_step_1"], head["repetition"] = line, frame
    place(head, [plane()])
    flag(head)
    coils = seen_by(chest_array(choice.coils), Geometry(), np.array([VIEW_MM, VIEW_MM]))
    stage, contracted = Stage(encoding, coils, balanced_signal), contraction(since_beat(start_s, r_waves_s))
    return Measurement(
        header=header("heart-realtime", encoding, coils=choice.coils, timing=REALTIME),
        head=head,
        samples=samples(stage, line, contracted),
        start_s=start_s,
        ideals=_ideals(stage, [contracted[frame == number] for number in range(len(every))]),
        noise_std=CINE_NOISE,
        r_waves_s=r_waves_s,
    )


def _ideals(stage: Stage, frames: list[Vector]) -> tuple[Ideal, ...]:
    """Each frame averaged over its own time; a third of the lines has √3 times the noise, however good the coils."""
    rest = chest(stage)
    resting, inside = grid(stage, rest), mask(rest, stage.encoding.recon)
    moments = (np.arange(MOMENTS) + 0.5) / MOMENTS
    return tuple(
        Ideal(Counters(repetition=number), phase_images(stage, resting, states), inside, sigma=sqrt(STEP))
        for number, states in enumerate(np.quantile(contracted, moments) for contracted in frames)
    )

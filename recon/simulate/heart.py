"""Protocols of the beating heart: triggered golden-angle radial cine, and real-time spirals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.scan import Counters, Encoding, Geometry, ScanHeader, Space, Trajectory
from recon.simulate import objects
from recon.simulate.coils import Coils, coil_grid_spectrum, coil_spectrum
from recon.simulate.heads import Heads, flag, heads, place
from recon.simulate.measurement import Choice, Measurement, chest_array, geometry, header, limits, oblique, seen_by
from recon.simulate.phantom import Shapes, Spectrum, Vector
from recon.simulate.physiology import beats, contraction, since_beat
from recon.simulate.tissue import TISSUES, Timing, Tissue, balanced, gradient_echo
from recon.simulate.trajectories import Gradients, Points, golden_spokes, spiral, spiral_areas, spoke_areas
from recon.simulate.truth import Ideal, coil_images, mask, unit

VIEW_MM, THICKNESS_MM = 320.0, 8.0
HEARTBEAT_S = 0.9
EDGE_MM = 1.0  # an 8 mm slice cuts organs obliquely: its edges are soft, here by less than half a voxel
MOMENTS = 6  # a frame's truth is averaged over these moments of its time window (midpoint rule)

RADIAL = Timing(tr_ms=3.0, te_ms=1.5, flip_deg=50.0)
RADIAL_PHASES, RADIAL_BEATS, RADIAL_DELAY_S = 12, 9, 0.02
RADIAL_SAMPLE_TIME_US, RADIAL_NOISE = 4.0, 0.005
SPIRAL = Timing(tr_ms=9.0, te_ms=1.0, flip_deg=15.0)
SPIRAL_SAMPLE_TIME_US, SPIRAL_NOISE = 2.5, 0.002
SPIRAL_GRADIENTS = Gradients(amplitude_mt_m=24.0, slew_t_m_s=150.0)
FRESH_BLOOD = 0.3  # share of the blood in the slice that is new at every pulse
FAT_LEFT = 0.15  # share of the fat that a spatial-spectral pulse excites

Signal = Callable[[Tissue], complex]
Counter = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """When each readout is measured: its shot (row of `points` [shot, sample, 2]), frame, start, time after the R wave.

    `areas` [shot, sample] is the part of k-space, in (cycles per voxel)², that a sample stands for.
    """

    points: Points
    areas: Vector
    shot: Counter
    frame: Counter
    start_s: Vector
    since_beat_s: Vector


def heart_radial(choice: Choice, rng: Generator) -> Measurement:
    """Triggered cine: every heartbeat adds golden-angle spokes to each cardiac phase; nine beats complete them."""
    n, per_beat = choice.matrix, max(1, round(choice.matrix / 8))
    encoding = Encoding(
        Space((1, n, 2 * n), (THICKNESS_MM, VIEW_MM, 2 * VIEW_MM)),
        Space((1, n, n), (THICKNESS_MM, VIEW_MM, VIEW_MM)),
        limits(kspace_encode_step_1=RADIAL_BEATS * per_beat, phase=RADIAL_PHASES, repetition=choice.repetitions),
        Trajectory.GOLDEN_ANGLE,
    )
    scan = header("heart-radial", encoding, coils=choice.coils, timing=RADIAL)
    r_waves_s = beats(rng, count=RADIAL_BEATS * choice.repetitions, interval_s=HEARTBEAT_S)
    film = triggered(golden_spokes(RADIAL_BEATS * per_beat, 2 * n), r_waves_s, per_beat=per_beat)
    head = _heads(film, coils=choice.coils, sample_time_us=RADIAL_SAMPLE_TIME_US)
    head["repetition"], head["phase"] = np.divmod(film.frame, RADIAL_PHASES)
    return _measure(scan, film, head, signal=balanced_signal, noise_std=RADIAL_NOISE, r_waves_s=r_waves_s)


def heart_spiral(choice: Choice, rng: Generator) -> Measurement:
    """Real-time spoiled gradient echo with fat suppression: one frame after the other, whatever the heart does."""
    n = choice.matrix
    space = Space((1, n, n), (THICKNESS_MM, VIEW_MM, VIEW_MM))
    interleaves = max(1, round(n / 8))
    encoding = Encoding(
        space,
        space,
        limits(kspace_encode_step_1=interleaves, repetition=choice.repetitions),
        Trajectory.SPIRAL,
    )
    scan = header("heart-spiral", encoding, coils=choice.coils, timing=SPIRAL)
    points = spiral(
        interleaves=interleaves,
        matrix=n,
        field_of_view_mm=VIEW_MM,
        sample_time_us=SPIRAL_SAMPLE_TIME_US,
        gradients=SPIRAL_GRADIENTS,
    )
    seconds = choice.repetitions * interleaves * SPIRAL.tr_ms / 1000
    r_waves_s = beats(rng, count=2 + int(seconds / (0.9 * HEARTBEAT_S)), interval_s=HEARTBEAT_S)
    film = continuous(points, r_waves_s, repetitions=choice.repetitions)
    head = _heads(film, coils=choice.coils, sample_time_us=SPIRAL_SAMPLE_TIME_US)
    head["repetition"], head["center_sample"] = film.frame, 0
    return _measure(scan, film, head, signal=spoiled_signal, noise_std=SPIRAL_NOISE, r_waves_s=r_waves_s)


def triggered(spokes: Points, r_waves_s: Vector, *, per_beat: int) -> Film:
    """Cine: `per_beat` spokes of each phase in every beat; frame = repetition · phases + phase."""
    beat, phase, spoke = (i.ravel() for i in np.indices((len(r_waves_s), RADIAL_PHASES, per_beat)))
    repetition, beat_of_frame = np.divmod(beat, RADIAL_BEATS)
    delay = RADIAL_DELAY_S + (phase * per_beat + spoke) * RADIAL.tr_ms / 1000
    return Film(
        points=spokes,
        areas=spoke_areas(*spokes.shape[:2]),
        shot=beat_of_frame * per_beat + spoke,
        frame=repetition * RADIAL_PHASES + phase,
        start_s=r_waves_s[beat] + delay,
        since_beat_s=delay,
    )


def continuous(points: Points, r_waves_s: Vector, *, repetitions: int) -> Film:
    """Real time: the same interleaves again and again, one a TR; frame = repetition."""
    frame, shot = (i.ravel() for i in np.indices((repetitions, len(points))))
    start_s = np.arange(len(shot)) * SPIRAL.tr_ms / 1000
    return Film(points, spiral_areas(points), shot, frame, start_s, since_beat(start_s, r_waves_s))


def balanced_signal(kind: Tissue) -> complex:
    return balanced(kind, RADIAL)


def spoiled_signal(kind: Tissue) -> complex:
    fresh = FRESH_BLOOD if kind is TISSUES["blood"] else 0.0
    left = FAT_LEFT if kind is TISSUES["fat"] else 1.0
    return left * gradient_echo(kind, SPIRAL, fresh=fresh)


def plane() -> Geometry:
    # A short-axis view of a usual heart: it faces left, front and up.
    return geometry(oblique((0.8, 0.6, 0), (0, 0, -1), about_x_deg=25, about_z_deg=10), (40, -30, 10))


def _heads(film: Film, *, coils: int, sample_time_us: float) -> Heads:
    head = heads(len(film.shot), samples=film.points.shape[1], coils=coils, sample_time_us=sample_time_us, axes=2)
    head["kspace_encode_step_1"] = film.shot
    return head


def _measure(
    scan: ScanHeader, film: Film, head: Heads, *, signal: Signal, noise_std: float, r_waves_s: Vector
) -> Measurement:
    place(head, [plane()])
    flag(head)
    coils = seen_by(chest_array(scan.coils or 1), Geometry(), np.array([VIEW_MM, VIEW_MM]))
    stage = Stage(scan.encodings[0], coils, signal)
    return Measurement(
        header=scan,
        head=head,
        samples=_samples(stage, film),
        start_s=film.start_s,
        ideals=_ideals(stage, film, head),
        noise_std=noise_std,
        trajectory=film.points[film.shot],
        r_waves_s=r_waves_s,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The chest in its coils, as the sequence sees it."""

    encoding: Encoding
    coils: Coils
    signal: Signal


def chest(stage: Stage) -> Shapes:
    return replace(objects.chest(stage.signal), blur_mm=EDGE_MM)


def heart(stage: Stage, contracted: float) -> Shapes:
    return replace(objects.heart(stage.signal, contracted), blur_mm=EDGE_MM)


def _samples(stage: Stage, film: Film) -> NDArray[np.complex64]:
    """[readout, coil, sample]: the chest once per shot, the heart as it is at each readout."""
    encoded = stage.encoding.encoded
    k = film.points.astype(np.float64) / np.array(encoded.spacing_mm[:0:-1])
    scale = unit(encoded, 2)
    resting = (scale * coil_spectrum(chest(stage), stage.coils, k)).astype(np.complex64)
    samples = resting.transpose(1, 0, 2)[film.shot]
    contracted = contraction(film.since_beat_s)
    # Triggered readouts meet the same state in every beat, so there are fewer states than readouts.
    for state in np.unique(contracted):
        rows = np.flatnonzero(contracted == state)
        moving = coil_spectrum(heart(stage, float(state)), stage.coils, k[film.shot[rows]])
        samples[rows] += scale * moving.transpose(1, 0, 2)
    return samples


def _ideals(stage: Stage, film: Film, head: Heads) -> tuple[Ideal, ...]:
    rest = chest(stage)
    resting, inside = grid(stage, rest), mask(rest, stage.encoding.recon)
    sigma = _noise_gain(film, stage.encoding.encoded)
    frames = [np.flatnonzero(film.frame == frame) for frame in range(int(film.frame.max()) + 1)]
    return tuple(
        Ideal(_counters(head, rows), _frame(stage, resting, contraction(film.since_beat_s[rows])), inside, sigma)
        for rows in frames
    )


def _counters(head: Heads, rows: Counter) -> Counters:
    return Counters(phase=int(head["phase"][rows[0]]), repetition=int(head["repetition"][rows[0]]))


def _noise_gain(film: Film, space: Space) -> float:
    """Noise of an image made with ideal density weights per unit of noise in k-space.

    A sample's weight is its area times the number of encoded voxels, which gives the image the scale of the
    orthonormal transform of a full Cartesian grid.
    """
    return float(np.sqrt(np.sum(film.areas**2) * np.prod(space.matrix)))


def _frame(stage: Stage, resting: Spectrum, contracted: Vector) -> NDArray[np.complex64]:
    """Coil images [coil, z, y, x] of the object averaged over the states that the heart is in during a frame."""
    states = np.quantile(contracted, (np.arange(MOMENTS) + 0.5) / MOMENTS)
    hearts = objects.join(*(heart(stage, float(state)) for state in states))
    mean = replace(hearts, intensity=hearts.intensity / MOMENTS)
    return coil_images((resting + grid(stage, mean))[:, None], stage.encoding.recon.matrix)


def grid(stage: Stage, shapes: Shapes) -> Spectrum:
    encoded = stage.encoding.encoded
    matrix, view = encoded.matrix[:0:-1], np.array(encoded.field_of_view_mm[:0:-1])
    return unit(encoded, 2) * coil_grid_spectrum(shapes, stage.coils, matrix=matrix, field_of_view_mm=view)

"""Spokes and spirals of a head and an enhancing breast: slices, stacks of stars, a koosh ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.scan import Counters, Encoding, Flag, ScanHeader, Space, Trajectory
from recon.simulate.anatomies import BREAST
from recon.simulate.coils import coil_spectrum
from recon.simulate.dynamic import DCE, DCE_VIEW_MM, breast_curves, enhancing
from recon.simulate.evolution import Evolving, evolved_spectrum
from recon.simulate.heads import flag, heads, place
from recon.simulate.measurement import Choice, Measurement, geometry, head_array, header, limits, oblique
from recon.simulate.objects import HEAD, Region
from recon.simulate.phantom import Shapes, Spectrum, Vector
from recon.simulate.series import Signal, View, alike, courses, exact_kspace, plane, volume
from recon.simulate.tissue import TISSUES, Timing, gradient_echo
from recon.simulate.trajectories import (
    Gradients,
    Points,
    ball_areas,
    ball_spokes,
    golden_spokes,
    spiral,
    spiral_areas,
    spoke_areas,
)
from recon.simulate.truth import Ideal, coil_images, mask, unit

SPOKES = Timing(tr_ms=6.0, te_ms=2.4, flip_deg=12.0)
VIEW_MM = 220.0
SAMPLE_TIME_US = 5.0
STARS_NOISE, KOOSH_NOISE, BREAST_NOISE, RADIAL_NOISE = 0.0015, 0.0006, 0.0012, 0.002
THICKNESS_MM = 5.0
SPIRAL = Timing(tr_ms=40.0, te_ms=2.0, flip_deg=20.0)
SPIRAL_SAMPLE_TIME_US, SPIRAL_NOISE, TURNS = 4.0, 0.002, 16
GRADIENTS = Gradients(amplitude_mt_m=24.0, slew_t_m_s=120.0)
FIELD_HZ = 150.0  # at the edge of the field of view; 100 Hz at the scalp
LATER_MS = 2.0  # between the echoes that a field map is made of: ±250 Hz are told apart
LATE_US = (3.5, -2.0, 0.75)  # usual sizes: doi:10.1002/mrm.27506
SOFT = 0.7  # of a voxel: little of edges so soft lies in the corners of k-space, which spokes do not reach
MOMENTS = 8  # the truth of a frame is the mean over so many moments of it
INJECTION_S = 2.0
CROWD = 3  # a frame of the breast has 1/3 of the matrix's size in spokes, a fifth of what Nyquist asks for

Counter = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tour:
    """Where the readouts of a volume go: `points` [readout, sample, 3], the frame of each, when it starts.

    `areas` [readout, sample] is the part of k-space, in (cycles per voxel)³, that a sample of a frame stands for.
    """

    points: Points
    areas: Vector
    frame: Counter
    step_1: Counter
    step_2: Counter
    start_s: Vector
    late_us: tuple[float, float, float] = (0.0, 0.0, 0.0)  # gradients along x, along y, and of each by the other


def head_stars(choice: Choice, _: Generator) -> Measurement:
    """A stack of stars of a head at rest: as many golden-angle spokes in each partition as Nyquist asks for."""
    spokes, partitions = round(np.pi / 2 * choice.matrix), max(4, round(choice.matrix / 4))
    tour = stack(spokes, partitions, choice, tr_ms=SPOKES.tr_ms)
    encoding = _encoding(partitions, choice, (VIEW_MM, VIEW_MM), kspace_encode_step_1=spokes)
    return _measure(header("head-stars", encoding, coils=choice.coils, timing=SPOKES), tour, _head_view(choice))


def head_radial(choice: Choice, _: Generator) -> Measurement:
    """Golden-angle spokes in a slice of the head by a scanner whose gradients are late; its header does not say so."""
    spokes = round(np.pi / 2 * choice.matrix)
    tour = replace(stack(spokes, 1, choice, tr_ms=SPOKES.tr_ms), late_us=LATE_US)
    encoding = _encoding(1, choice, (THICKNESS_MM, VIEW_MM), kspace_encode_step_1=spokes)
    where = geometry(oblique((1, 0, 0), (0, 1, 0), about_x_deg=4, about_z_deg=3), (0, 0, 8))
    view = plane(HEAD, where, field=head_array(choice.coils), view_mm=VIEW_MM)
    scan = header("head-radial", encoding, coils=choice.coils, timing=SPOKES)
    return _measure(scan, tour, _still(view, choice), noise_std=RADIAL_NOISE)


def head_spiral(choice: Choice, _: Generator) -> Measurement:
    """Spirals in a slice of the head where the field runs from side to side; two echoes for a field map come first."""
    n = choice.matrix
    points = spiral(
        interleaves=max(1, round(n / TURNS)),
        matrix=n,
        field_of_view_mm=VIEW_MM,
        sample_time_us=SPIRAL_SAMPLE_TIME_US,
        gradients=GRADIENTS,
    )
    scan = replace(
        header("head-spiral", _spiral_encoding(choice, len(points)), coils=choice.coils, timing=SPIRAL),
        te_ms=(SPIRAL.te_ms, SPIRAL.te_ms + LATER_MS),
    )
    where = geometry(oblique((1, 0, 0), (0, 1, 0), about_x_deg=4, about_z_deg=3), (0, 0, 8))
    play = _still(plane(HEAD, where, field=head_array(choice.coils), view_mm=VIEW_MM), choice)
    return spirals(scan, play, points)


def spirals(scan: ScanHeader, play: Play, points: Points) -> Measurement:
    """Calibration echoes and repetitions along `points` [shot, sample, 2], the field growing along x."""
    encoding = scan.encodings[0]
    frames = encoding.limits["repetition"].maximum + 1
    turn, shot = (i.ravel() for i in np.indices((2 + frames, len(points))))
    head = heads(
        len(turn), samples=points.shape[1], coils=scan.coils or 1, sample_time_us=SPIRAL_SAMPLE_TIME_US, axes=2
    )
    head["kspace_encode_step_1"], head["center_sample"] = shot, 0
    head["contrast"], head["repetition"] = np.where(turn < 2, turn, 0), np.maximum(turn - 2, 0)
    place(head, [play.view.geometry])
    head["flags"][turn < 2] = Flag.IS_PARALLEL_CALIBRATION.mask
    flag(head[2 * len(points) :])
    late_s = np.where(turn == 1, LATER_MS / 1000, 0.0)
    echoes = {late: _turning(scan, play, points, late_s=late) for late in np.unique(late_s).tolist()}
    samples = np.stack([echoes[late][spoke] for late, spoke in zip(late_s.tolist(), shot.tolist(), strict=True)])
    areas = spiral_areas(points)
    tour = Tour(points, areas, np.maximum(turn - 2, 0), shot, 0 * shot, np.arange(len(turn)) * SPIRAL.tr_ms / 1000)
    return Measurement(
        header=scan,
        head=head,
        samples=samples,
        start_s=tour.start_s,
        ideals=_ideals(encoding, tour, play),
        noise_std=SPIRAL_NOISE,
        trajectory=points[shot],
    )


def _turning(scan: ScanHeader, play: Play, points: Points, *, late_s: float) -> NDArray[np.complex64]:
    """[shot, coil, sample] of spirals that begin `late_s` after the echo time, while the field turns the signal."""
    space, shapes = scan.encodings[0].encoded, play.view.shapes
    bright = replace(shapes, intensity=courses(play.view, play.signals)[0])
    slope = np.tile([FIELD_HZ / (VIEW_MM / 2), 0.0], (len(bright.intensity), 1))
    moving = Evolving(bright, np.zeros(len(slope), np.complex128), slope)
    time_s = late_s + np.arange(points.shape[1]) * (SPIRAL_SAMPLE_TIME_US * 1e-6)
    k = points.astype(np.float64) / np.array(space.spacing_mm[:0:-1])
    exact = evolved_spectrum(moving, play.view.coils, k, np.broadcast_to(time_s, k.shape[:-1]))
    return np.asarray((unit(space, 2) * exact).transpose(1, 0, 2), np.complex64)


def _spiral_encoding(choice: Choice, interleaves: int) -> Encoding:
    space = Space((1, choice.matrix, choice.matrix), (THICKNESS_MM, VIEW_MM, VIEW_MM))
    steps = limits(kspace_encode_step_1=interleaves, repetition=choice.repetitions)
    return Encoding(space, space, steps, Trajectory.SPIRAL, calibration_mode="separate")


def head_koosh(choice: Choice, _: Generator) -> Measurement:
    """A koosh ball of a head at rest: spokes in all directions of space, π/2 · matrix² of them."""
    spokes = round(np.pi / 2 * choice.matrix**2)
    points = np.concatenate([ball_spokes(spokes, 2 * choice.matrix)] * choice.repetitions)
    frame, spoke = (i.ravel() for i in np.indices((choice.repetitions, spokes)))
    areas = ball_areas(spokes, 2 * choice.matrix)
    tour = Tour(points, areas, frame, spoke, np.zeros_like(spoke), np.arange(len(frame)) * SPOKES.tr_ms / 1000)
    encoding = _encoding(choice.matrix, choice, (VIEW_MM, VIEW_MM), kspace_encode_step_1=spokes)
    scan = header("head-koosh", encoding, coils=choice.coils, timing=SPOKES)
    return _measure(scan, tour, _head_view(choice), noise_std=KOOSH_NOISE)


def breast_stars(choice: Choice, _: Generator) -> Measurement:
    """A stack of stars of the breast as the agent arrives: few spokes a frame, the golden angle going on all along."""
    spokes, partitions = max(5, round(choice.matrix / CROWD)), max(4, round(choice.matrix / 4))
    tour = stack(spokes, partitions, choice, tr_ms=DCE.tr_ms)
    encoding = _encoding(partitions, choice, (DCE_VIEW_MM, DCE_VIEW_MM), kspace_encode_step_1=spokes)
    where = geometry(oblique((1, 0, 0), (0, 1, 0), about_x_deg=5, about_z_deg=-4), (0, 0, 0))
    view = volume(BREAST, where, field=head_array(choice.coils), view_mm=np.full(3, DCE_VIEW_MM))
    view = replace(view, shapes=replace(view.shapes, blur_mm=SOFT * DCE_VIEW_MM / choice.matrix))
    curves = breast_curves(float(tour.start_s[-1]) + 1, injection_s=INJECTION_S)
    states = [tour.start_s[tour.frame == frame] for frame in range(choice.repetitions)]
    moments = np.array([np.quantile(times, (np.arange(MOMENTS) + 0.5) / MOMENTS) for times in states])
    scan = header("breast-stars", encoding, coils=choice.coils, timing=DCE)
    play = Play(view, tuple(enhancing(curves, float(t), DCE) for t in moments.ravel()), moments)
    return _measure(scan, tour, play, noise_std=BREAST_NOISE)


def stack(spokes: int, partitions: int, choice: Choice, *, tr_ms: float) -> Tour:
    """`spokes` a frame, each measured in all partitions before the next one, a golden angle further."""
    flat_spokes = golden_spokes(spokes * choice.repetitions, 2 * choice.matrix)
    frame, spoke, partition = (i.ravel() for i in np.indices((choice.repetitions, spokes, partitions)))
    kz = ((partition - partitions // 2) / partitions).astype(np.float32)
    flat = flat_spokes[frame * spokes + spoke]
    points = np.concatenate([flat, np.broadcast_to(kz[:, None, None], (*flat.shape[:2], 1))], axis=-1)
    areas = np.repeat(spoke_areas(spokes, 2 * choice.matrix) / partitions, partitions, axis=0)
    return Tour(points, areas, frame, spoke, partition, np.arange(len(frame)) * tr_ms / 1000)


@dataclass(frozen=True, slots=True, eq=False)
class Play:
    """What the scanner sees: the `view`, and its `signals` at the moments [frame, moment], one frame after another.

    A single moment is all the time.
    """

    view: View
    signals: Sequence[Signal]
    moment_s: Vector


def _head_view(choice: Choice) -> Play:
    where = geometry(oblique((0, 1, 0), (0, 0, -1), about_x_deg=0, about_z_deg=4), (0, 0, 0))
    view = volume(HEAD, where, field=head_array(choice.coils), view_mm=np.full(3, VIEW_MM))
    return _still(view, choice)


def _still(view: View, choice: Choice) -> Play:
    view = replace(view, shapes=replace(view.shapes, blur_mm=SOFT * VIEW_MM / choice.matrix))

    def signal(region: Region) -> complex:
        return gradient_echo(TISSUES[region.tissue], SPOKES)

    return Play(view, (signal,), np.zeros((1, 1)))


def _encoding(partitions: int, choice: Choice, view_mm: tuple[float, float], **counts: int) -> Encoding:
    """Voxels over `view_mm` (z, in the plane), the readout oversampled twice."""
    n, (z, plane) = choice.matrix, view_mm
    steps = counts | {"kspace_encode_step_2": partitions if partitions != n else 1, "repetition": choice.repetitions}
    return Encoding(
        Space((partitions, n, 2 * n), (z, plane, 2 * plane)),
        Space((partitions, n, n), (z, plane, plane)),
        limits(**steps),
        Trajectory.GOLDEN_ANGLE,
    )


def _measure(scan: ScanHeader, tour: Tour, play: Play, *, noise_std: float = STARS_NOISE) -> Measurement:
    count, samples = tour.points.shape[:2]
    axes = play.view.shapes.axes
    head = heads(count, samples=samples, coils=scan.coils or 1, sample_time_us=SAMPLE_TIME_US, axes=axes)
    head["kspace_encode_step_1"], head["kspace_encode_step_2"] = tour.step_1, tour.step_2
    head["repetition"] = tour.frame
    place(head, [play.view.geometry])
    flag(head)
    return Measurement(
        header=scan,
        head=head,
        samples=_samples(scan.encodings[0].encoded, tour, play),
        start_s=tour.start_s,
        ideals=_ideals(scan.encodings[0], tour, play),
        noise_std=noise_std,
        trajectory=tour.points[..., :axes],
    )


def _samples(space: Space, tour: Tour, play: Play) -> NDArray[np.complex64]:
    """[readout, coil, sample]: shapes that brighten alike are transformed once, and scaled readout by readout."""
    course, shapes = courses(play.view, play.signals), play.view.shapes
    k = (_visited(tour) / np.array(space.spacing_mm[::-1]))[..., : shapes.axes]
    out = np.zeros((len(k), len(play.view.coils.coefficients), k.shape[1]), np.complex64)
    for rows, factors in alike(course):
        brightest = int(factors.argmax())
        part = Shapes(shapes.center[rows], shapes.semiaxes[rows], course[brightest, rows], shapes.blur_mm)
        exact = unit(space, shapes.axes) * coil_spectrum(part, play.view.coils, k)
        size = _at(tour.start_s, play.moment_s.ravel(), course[:, rows[0]] / course[brightest, rows[0]])
        out += exact.transpose(1, 0, 2) * size[:, None, None]
    return out


def _visited(tour: Tour) -> Vector:
    """Where the spokes really go: a gradient that is late makes them late along its axis."""
    x, y, xy = tour.late_us
    points = tour.points.astype(np.float64)
    speed = (points[:, -1, :2] - points[:, 0, :2]) / (points.shape[1] - 1) / SAMPLE_TIME_US
    points[..., :2] -= (speed @ np.array([[x, xy], [xy, y]]))[:, None]
    return points


def _at(time_s: Vector, moment_s: Vector, values: Spectrum) -> Spectrum:
    """Values that run straight from moment to moment."""
    if len(moment_s) == 1:
        return np.repeat(values, len(time_s))
    return np.asarray(np.interp(time_s, moment_s, values), np.complex128)


def _ideals(encoding: Encoding, tour: Tour, play: Play) -> tuple[Ideal, ...]:
    covered = mask(play.view.shapes, encoding.recon)
    sigma = float(np.sqrt(np.sum(tour.areas**2) * np.prod(encoding.encoded.matrix)))
    moments = play.moment_s.shape[1]
    means = [_mean(play.signals[i : i + moments]) for i in range(0, len(play.signals), moments)]
    kspace = exact_kspace(play.view, means, encoding.encoded) * _reached(encoding.encoded, tour)
    frames = range(int(tour.frame.max()) + 1)
    images = [coil_images(grid, encoding.recon.matrix) for grid in kspace]
    return tuple(Ideal(Counters(repetition=i), images[i % len(images)], covered, sigma) for i in frames)


def _reached(space: Space, tour: Tour) -> NDArray[np.bool_]:
    """The part of k-space [kz, ky, kx] that spokes reach: a disc in each partition, or a ball.

    A perfect reconstruction of what was measured knows nothing of the corners.
    """
    z, y, x = np.meshgrid(*((np.arange(n) - n // 2) / n for n in space.matrix), indexing="ij")
    ball = tour.points.shape[-1] == 3 and len(np.unique(tour.points[:, 0, 2])) > space.matrix[0]
    return np.asarray(x**2 + y**2 + ball * z**2 <= 0.25)


def _mean(signals: Sequence[Signal]) -> Signal:
    return lambda region: sum(signal(region) for signal in signals) / len(signals)

"""Gradient delays of spokes, found from the data: where two spokes cross, both must have measured the same.

A gradient that is late moves a spoke of direction n by S·n, S symmetric. Each pair of spokes then crosses where S says,
and that S is taken for which they agree best there (doi:10.1002/mrm.27506, by least squares over all pairs at once).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels
from recon.errors import CalibrationError
from recon.scan import Frame, Trajectory
from recon.stack import partitions_of

SPOKES = 20  # of a frame are asked, evenly spread; all pairs of them
APART = 0.7  # sine of the angle between two spokes below which their crossing is too uncertain
LARGEST = 4.0  # samples; a delay beyond is a wrong trajectory
SMALLEST = 0.05  # samples: turns the edge of the image by 0.08 radians where readouts are oversampled twice
CLEAR = 5.0  # times its own uncertainty is what a delay must be
STEP = 1 / 64  # samples that delays are rounded to, so that frames of a scan share their plans
HALF_WIDTH, BETA = 8, 12.6  # of a Kaiser window about a sinc: 1e-6 of error for readouts oversampled twice
PER_SAMPLE = 256
ITERATIONS = 12
SAME = 1e-3  # of a sample: the change at which the search ends
FORMS = np.array([[[0, 0], [0, 1]], [[1, 0], [0, 0]], [[0, 1], [1, 0]]], np.float64)  # x, y, xy with axes (y, x)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Straight spokes: unit `direction` [shot, 2], a point of each `start` [shot, 2] and their `spacing` in radians.

    `first` is where the kept samples [coil, shot, sample] begin, counted from the first sample, which is at `start`;
    `sinc` (see `sinc_table`) finds values between them.
    """

    direction: Floats
    start: Floats
    spacing: float
    samples: Complex
    first: int
    sinc: Floats


@dataclass(frozen=True, slots=True)
class Delays:
    """Shifts of k along x, along y and of each by the other (x, y, xy), in samples, and how uncertain they are."""

    shift: tuple[float, float, float]
    error: float


def undelayed(frames: Sequence[Frame], kernels: Kernels) -> list[Frame]:
    """`frames` with their spokes where all of them together say that they were measured, and words about it.

    Frames of other trajectories are left as they are; where nothing can be found out, with the reason.
    """
    planes = [_plane(frame) for frame in frames]
    if not all(planes):
        return list(frames)
    try:
        lines = lines_of([frame for frame in planes if frame is not None], kernels)
        found = estimate(lines)
    except CalibrationError as error:
        reason = f"gradient delays could not be found and are not corrected: {error}"
        return [replace(frame, warnings=(*frame.warnings, reason)) for frame in frames]
    if max(map(abs, found.shift)) < max(SMALLEST, CLEAR * found.error):
        return list(frames)
    rounded = tuple(STEP * round(value / STEP) for value in found.shift)
    x, y, xy = (-value * frames[0].sample_time_us for value in rounded)
    words = f"gradient delays found and corrected: x {x:.2f} µs, y {y:.2f} µs, between them {xy:.2f} µs"
    moved = np.tensordot(np.array(rounded) * lines.spacing, FORMS, axes=1)
    return [replace(_moved(frame, moved), warnings=(*frame.warnings, words)) for frame in frames]


def _plane(frame: Frame) -> Frame | None:
    """The spokes of a plane, or those of a stack's central partition; None where there are none."""
    if frame.trajectory is None or frame.encoding.trajectory not in (Trajectory.RADIAL, Trajectory.GOLDEN_ANGLE):
        return None
    if frame.trajectory.shape[-1] == 2:
        return frame
    rows = partitions_of(frame)
    if rows is None:
        return None
    middle = rows[len(rows) // 2]
    kspace = frame.kspace[:, np.asarray(middle, like=frame.kspace)]
    return replace(frame, kspace=kspace, trajectory=frame.trajectory[middle, :, 1:])


def lines_of(frames: Sequence[Frame], kernels: Kernels) -> Lines:
    """The spokes of `frames` about their middle, brought to the host; raises CalibrationError where they are none."""
    paths = np.concatenate([frame.trajectory for frame in frames if frame.trajectory is not None]).astype(np.float64)
    count = paths.shape[1]
    across = paths[:, -1] - paths[:, 0]
    length = np.linalg.norm(across, axis=-1)
    if count < 4 * HALF_WIDTH or not length.min() > 0:
        raise CalibrationError(f"the shots have {count} samples, expected spokes of at least {4 * HALF_WIDTH}")
    direction, spacing = across / length[:, None], float(np.median(length)) / (count - 1)
    straight = paths[:, :1] + np.arange(count)[:, None] * spacing * direction[:, None]
    if np.abs(paths - straight).max() > 0.1 * spacing:
        raise CalibrationError("the shots are no straight and evenly sampled spokes")
    middle = round(float(np.median(-(paths[:, 0] * direction).sum(axis=-1))) / spacing)
    near = HALF_WIDTH + int(LARGEST)
    if not near <= middle < count - near:
        raise CalibrationError("the spokes begin at the centre of k-space, expected spokes through it")
    reach = min(near + int(LARGEST), middle, count - 1 - middle)  # spokes that are askew cross further out
    kept = slice(middle - reach, middle + reach + 1)
    chosen = np.unique(np.linspace(0, len(paths) - 1, SPOKES).round().astype(int))
    every = np.concatenate([frame.kspace[..., kept] for frame in frames], axis=1)
    samples = kernels.to_host(every[:, np.asarray(chosen, like=every)])
    return Lines(direction[chosen], paths[chosen, 0], spacing, samples, middle - reach, sinc_table())


def estimate(lines: Lines) -> Delays:
    """The delays for which spokes agree best where they cross, by Gauss and Newton's method.

    Raises CalibrationError where too few spokes cross, or where no delay makes them agree.
    """
    pairs = np.array(list(combinations(range(len(lines.direction)), 2)), np.int64).reshape(-1, 2)
    one, other = lines.direction[pairs[:, 0]], lines.direction[pairs[:, 1]]
    pairs = pairs[np.abs(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) > APART]
    if len(pairs) < 3:
        raise CalibrationError(f"{len(pairs)} pairs of spokes cross at more than 45 degrees, expected at least 3")
    still, slopes = _crossings(lines, pairs)
    shift = np.zeros(3)
    for _ in range(ITERATIONS):
        apart, slope = _disagreement(lines, pairs, still + slopes @ shift, slopes)
        gram = slope.T @ slope
        if not np.isfinite(gram).all() or np.linalg.cond(gram) > 1e8:
            raise CalibrationError("the centre of k-space holds no signal that tells delays apart")
        move = -np.linalg.solve(gram, slope.T @ apart)
        shift += move * min(1.0, 1.0 / max(float(np.abs(move).max()), 1e-12))  # a sample at a time
        if np.abs(shift).max() > LARGEST:
            break
        if np.abs(move).max() < SAME:
            return Delays(_three(shift), _uncertainty(apart, gram, pairs=len(pairs), spokes=len(lines.direction)))
    raise CalibrationError("no delays up to 4 samples make the spokes agree where they cross")


def _three(values: Floats) -> tuple[float, float, float]:
    x, y, xy = (float(value) for value in values)
    return x, y, xy


def _uncertainty(apart: Floats, gram: Floats, *, pairs: int, spokes: int) -> float:
    """The standard deviation of the least certain shift; pairs that share spokes err alike."""
    variance = float(apart @ apart) / max(len(apart) - 3, 1) * pairs / spokes
    return float(np.sqrt(variance * np.diag(np.linalg.inv(gram)).max()))


def _crossings(lines: Lines, pairs: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Where each of two spokes meets the other without delays [pair, 2], in samples, and how that moves [pair, 2, 3].

    Moved spokes meet where start + ρ n + S n agree: ρ₁ n₁ − ρ₂ n₂ = start₂ − start₁ + S (n₂ − n₁).
    """
    (n1, n2), (start1, start2) = (
        (values[pairs[:, 0]], values[pairs[:, 1]]) for values in (lines.direction, lines.start)
    )
    inverse = np.linalg.inv(np.stack([n1, -n2], axis=-1))
    still = (inverse @ (start2 - start1)[..., None])[..., 0] / lines.spacing
    turned = np.einsum("kij,pj->pik", FORMS, n2 - n1)  # S is in samples: its spacing cancels
    return still, inverse @ turned


def _disagreement(lines: Lines, pairs: NDArray[np.int64], places: Floats, slopes: Floats) -> tuple[Floats, Floats]:
    """What two spokes differ by where they cross, real parts before imaginary ones, and how shifts change it [:, 3]."""
    values, steep = zip(*(_at(lines, pairs[:, side], places[:, side]) for side in (0, 1)), strict=True)
    apart = values[0] - values[1]  # [pair, coil]
    slope = steep[0][..., None] * slopes[:, None, 0] - steep[1][..., None] * slopes[:, None, 1]
    flat = slope.reshape(-1, 3)
    return np.concatenate([apart.real.ravel(), apart.imag.ravel()]), np.concatenate([flat.real, flat.imag])


def _at(lines: Lines, spoke: NDArray[np.int64], place: Floats) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Values and slopes [pair, coil] of spokes between their samples."""
    limit = lines.samples.shape[-1] - 1 - HALF_WIDTH
    inside = np.clip(place - lines.first, HALF_WIDTH, limit)
    nearest = np.clip(np.floor(inside).astype(np.int64), HALF_WIDTH - 1, limit)
    taps = nearest[:, None] + np.arange(1 - HALF_WIDTH, HALF_WIDTH + 1)
    taken = lines.samples[:, spoke[:, None], taps].astype(np.complex128)  # [coil, pair, tap]
    weights = [np.interp(inside[:, None] - taps, lines.sinc[0], column) for column in lines.sinc[1:]]
    value, slope = (np.einsum("cpt,pt->pc", taken, weight) for weight in weights)
    return value, slope


def sinc_table() -> Floats:
    """Distances, and the values and slopes there of a sinc under a Kaiser window: rows of a table [3, place].

    Straight lines between its places are off by less than 2e-5.
    """
    away = np.linspace(-HALF_WIDTH, HALF_WIDTH, 2 * HALF_WIDTH * PER_SAMPLE + 1)
    window = np.i0(BETA * np.sqrt(np.maximum(1 - (away / HALF_WIDTH) ** 2, 0))) / np.i0(BETA)
    value = np.sinc(away) * window
    return np.stack([away, value, np.gradient(value, away)])


def _moved(frame: Frame, matrix: Floats) -> Frame:
    """`frame` with each spoke of direction n moved by `matrix` n in the plane."""
    assert frame.trajectory is not None
    across = (frame.trajectory[:, -1, -2:] - frame.trajectory[:, 0, -2:]).astype(np.float64)
    direction = across / np.linalg.norm(across, axis=-1, keepdims=True)
    trajectory = frame.trajectory.copy()
    trajectory[..., -2:] += (direction @ matrix).astype(np.float32)[:, None]
    return replace(frame, trajectory=trajectory)

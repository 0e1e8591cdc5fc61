"""Where radial and spiral readouts go in k-space, as on the wire: axes (x, y), cycles per encoded voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.simulate.phantom import Vector

Points = NDArray[np.float32]
GOLDEN_ANGLE_DEG = 180 / ((1 + 5**0.5) / 2)  # doi:10.1109/TMI.2006.885337
GOLDEN_MEANS = (0.4655712318767680, 0.6823278038280193)  # of two dimensions: doi:10.1002/mrm.21837
GYROMAGNETIC_HZ_T = 42.577478518e6
SLEW_SHARE = 0.85  # the closed form overshoots the slew it is given by up to 17 % where it goes from start to curve


@dataclass(frozen=True, slots=True)
class Gradients:
    """What the gradient system can do: amplitude mT/m and slew rate T/m/s."""

    amplitude_mt_m: float
    slew_t_m_s: float


def golden_spokes(count: int, samples: int) -> Points:
    """`count` spokes through the centre, each turned by the golden angle from the one before → [readout, sample, 2]."""
    angle = np.deg2rad(GOLDEN_ANGLE_DEG) * np.arange(count)
    along = (np.arange(samples) - samples // 2) / samples
    spokes = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None] * along[:, None]
    return spokes.astype(np.float32)


def ball_spokes(count: int, samples: int) -> Points:
    """`count` spokes through the centre of space, evenly in all directions → [readout, sample, 3].

    Heights and angles go on by the two golden means, so that any few in a row are even too (doi:10.1002/mrm.21837).
    """
    number = np.arange(count)
    height, turn = number * GOLDEN_MEANS[0] % 1, 2 * np.pi * (number * GOLDEN_MEANS[1] % 1)
    flat = np.sqrt(1 - height**2)
    along = (np.arange(samples) - samples // 2) / samples
    spokes = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=-1)[:, None] * along[:, None]
    return spokes.astype(np.float32)


def ball_areas(count: int, samples: int) -> Vector:
    """The part of k-space, (cycles per voxel)³, that each sample of such spokes stands for → [readout, sample]."""
    radius = np.abs(np.arange(samples) - samples // 2) / samples
    # Two samples of every spoke share a shell; the ball in the centre belongs to one.
    shell = np.where(radius > 0, 2 * np.pi * radius**2 / samples, 4 / 3 * np.pi / (2 * samples) ** 3)
    return np.tile(shell / count, (count, 1))


def spiral(
    *, interleaves: int, matrix: int, field_of_view_mm: float, sample_time_us: float, gradients: Gradients
) -> Points:
    """Archimedean interleaves with Nyquist's spacing of turns, within the gradients' limits → [readout, sample, 2].

    Timing in closed form: slew-limited at first, then amplitude-limited
    (doi:10.1002/(SICI)1522-2594(199908)42:2<412::AID-MRM25>3.0.CO;2-U).
    """
    pitch = interleaves / (2 * np.pi * field_of_view_mm / 1000)  # cycles/m per radian
    last = np.pi * matrix / interleaves  # angle at which |k| is half a cycle per voxel
    angle = _spiral_angle(pitch, last, sample_time_s=sample_time_us * 1e-6, gradients=gradients)
    radius = angle * interleaves / (2 * np.pi * matrix)
    turned = angle + 2 * np.pi * np.arange(interleaves)[:, None] / interleaves
    return np.asarray(radius[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=-1), np.float32)


def _spiral_angle(pitch: float, last: float, *, sample_time_s: float, gradients: Gradients) -> Vector:
    # Glover's θ(t): ½βt² / (1 + β t^(4/3) / (2a)) while the slew rate limits, √(θ₁² + 2 γG(t − t₁)/λ) afterwards.
    fastest = GYROMAGNETIC_HZ_T * gradients.amplitude_mt_m * 1e-3 / pitch
    beta = SLEW_SHARE * GYROMAGNETIC_HZ_T * gradients.slew_t_m_s / pitch
    a = (9 * beta / 4) ** (1 / 3)
    switch = (3 * fastest / (2 * a * a)) ** 3
    at_switch = _slewing(np.array([switch]), beta, a)[0]
    end = 2 * max(switch, (last / a) ** 1.5) + max(last * last - at_switch * at_switch, 0.0) / (2 * fastest)
    time = np.arange(0, end + sample_time_s, sample_time_s)
    coasting = np.sqrt(at_switch**2 + 2 * fastest * np.maximum(time - switch, 0))
    angle = np.where(time < switch, _slewing(time, beta, a), coasting)
    return np.asarray(angle[angle <= last], np.float64)


def _slewing(time: Vector, beta: float, a: float) -> Vector:
    return np.asarray(beta * time**2 / 2 / (1 + beta / (2 * a) * time ** (4 / 3)), np.float64)


def spoke_areas(count: int, samples: int) -> Vector:
    """The part of k-space, (cycles per voxel)², that each sample of even spokes stands for → [readout, sample]."""
    radius = np.abs(np.arange(samples) - samples // 2) / samples
    # The ring of a radius is shared by two samples of every spoke, the small disc in the centre by one.
    ring = np.where(radius > 0, np.pi * radius / samples, np.pi / (2 * samples) ** 2)
    return np.tile(ring / count, (count, 1))


def spiral_areas(points: Points) -> Vector:
    """The same for samples of evenly turned spiral interleaves [readout, sample, 2]: ring by ring of growing radius."""
    squares = np.linalg.norm(points.astype(np.float64), axis=-1) ** 2
    edges = np.concatenate([squares[:, :1], (squares[:, 1:] + squares[:, :-1]) / 2, squares[:, -1:]], axis=1)
    return np.asarray(np.pi * np.diff(edges, axis=1) / len(points), np.float64)

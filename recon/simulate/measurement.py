"""What a protocol makes, and the parts that all protocols share: places, coils, headers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.scan import Encoding, Geometry, Limit, ScanHeader, Vector3, vector3
from recon.simulate.coils import Coils, fit, loops, object_phase, receive_field
from recon.simulate.heads import Heads
from recon.simulate.phantom import Spectrum, Vector, directions
from recon.simulate.physiology import Breaths
from recon.simulate.tissue import Timing
from recon.simulate.truth import Ideal

Field = Callable[[Vector], Spectrum]
FIELD_T, FREQUENCY_HZ = 1.5, 63_866_217.0
NOISE_BANDWIDTH = 0.79  # relative receiver noise bandwidth, a usual figure


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user may choose: repetitions, coils, in-plane matrix, noise relative to the protocol's own."""

    repetitions: int
    coils: int
    matrix: int
    noise: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """A measurement without noise: `samples` [readout, coil, sample], heads, and `start_s` [readout] after its begin.

    `header` lacks its XML. `noise_std` is the noise to add to the real and the imaginary part of each sample, averaged
    over coils. `r_waves_s` are the heartbeats and `breathing` the breaths, where there are any, on the clock of
    `start_s`.
    """

    header: ScanHeader
    head: Heads
    samples: NDArray[np.complex64]
    start_s: Vector
    ideals: tuple[Ideal, ...]
    noise_std: float
    trajectory: NDArray[np.float32] | None = None
    r_waves_s: Vector | None = None
    breathing: Breaths | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """A sequence by name: what it is, its timing, its usual choice, and the function that plays it."""

    name: str
    description: str
    timing: Timing
    usual: Choice
    measure: Callable[[Choice, Generator], Measurement]


def head_array(count: int) -> Field:
    """The field of a close-fitting head coil at points [point, 3] mm in patient coordinates → [coil, point]."""
    return _array(count, radii_mm=(165, 180), stagger_mm=40, loop_mm=75)


def chest_array(count: int) -> Field:
    """The field of chest and spine coils at points [point, 3] mm of the heart's plane (z = 0) → [coil, point]."""
    return _array(count, radii_mm=(230, 190), stagger_mm=50, loop_mm=95)


def _array(count: int, *, radii_mm: tuple[float, float], stagger_mm: float, loop_mm: float) -> Field:
    # Scaled so that root-sum-of-squares is 1 in the middle of the array: pixels are then about as bright as the tissue.
    corners = loops(count, radii_mm=radii_mm, stagger_mm=stagger_mm, loop_mm=loop_mm)
    corner = np.array([(x, y, z) for x in (-40.0, 40.0) for y in (-40.0, 40.0) for z in (-40.0, 40.0)])
    scale = 1 / np.mean(np.linalg.norm(receive_field(corners, corner), axis=0))
    return lambda points: scale * receive_field(corners, points) * object_phase(points, length_mm=radii_mm[1])


def seen_by(field: Field, geometry: Geometry, view_mm: Vector) -> Coils:
    """The coil series on the plane or in the volume at `geometry`, fitted over `view_mm` (x, y[, z])."""
    turn = directions(geometry)[: len(view_mm)]
    return fit(lambda points: field(np.array(geometry.position_mm) + points @ turn), view_mm)


def oblique(read: Vector3, phase: Vector3, *, about_x_deg: float, about_z_deg: float) -> Vector:
    """Read, phase and slice direction [3, 3], right-handed, turned about the patient's x and then z axis."""
    a, b = np.deg2rad(about_x_deg), np.deg2rad(about_z_deg)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.asarray(np.stack([read, phase, np.cross(read, phase)]) @ (z @ x).T, np.float64)


def geometry(axes: Vector, center_mm: Vector3, *, offset_mm: float = 0.0) -> Geometry:
    """The slice or volume with directions `axes` [3, 3], `offset_mm` along the slice direction from `center_mm`."""
    position = np.array(center_mm) + offset_mm * axes[2]
    return Geometry(*(vector3(v) for v in (position, *axes)))


def limits(**counts: int) -> dict[str, Limit]:
    """Limits of counters that run from 0 to count − 1; phase-encoding steps have k = 0 in the middle."""
    every = {"kspace_encode_step_1": 1, "kspace_encode_step_2": 1, "slice": 1, "phase": 1, "repetition": 1} | counts
    return {name: Limit(0, n - 1, n // 2 if name.startswith("kspace") else 0) for name, n in every.items()}


def header(protocol: str, encoding: Encoding, *, coils: int, timing: Timing) -> ScanHeader:
    """The scan's header but for its XML and what tells one simulated patient from another."""
    return ScanHeader(
        xml=b"",
        encodings=(encoding,),
        coils=coils,
        tr_ms=(timing.tr_ms,),
        te_ms=(timing.te_ms,),
        flip_angle_deg=(timing.flip_deg,),
        field_t=FIELD_T,
        frequency_hz=FREQUENCY_HZ,
        relative_noise_bandwidth=NOISE_BANDWIDTH,
        protocol=protocol,
        series_description=protocol,
        manufacturer="recon-cluster",
        model="simulated scanner",
        institution="simulated hospital",
        station=f"SIM-{protocol}",
    )

"""Images and headers for the tests of exports."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.scan import Counters, Encoding, Geometry, Image, Limit, Provenance, ScanHeader, Space, Trajectory, Vector3

PATIENT = {"patientName": "Döe^Jane", "patientID": "P1", "patientBirthdate": "1970-01-02", "patientGender": "F"}
STUDY = {"studyDate": "2026-01-02", "studyTime": "10:11:12.5", "studyID": "S7", "studyDescription": "knee\\left"}


def header(*, xml: bytes = b"<ismrmrdHeader/>", repetitions: int = 1, phases: int = 1, **facts: object) -> ScanHeader:
    """A header of a spin-echo scan at 1.5 T; `facts` replace its fields."""
    space = Space((1, 6, 8), (5.0, 120.0, 160.0))
    limits = {"repetition": Limit(0, repetitions - 1, 0), "phase": Limit(0, phases - 1, 0)}
    known: dict[str, object] = {
        "encodings": (Encoding(space, space, limits, Trajectory.CARTESIAN, echo_train_length=3),),
        "tr_ms": (500.0,),
        "te_ms": (12.0, 24.0),
        "flip_angle_deg": (90.0,),
        "field_t": 1.5,
        "frequency_hz": 63.87e6,
        "protocol": "t2_tse",
        "manufacturer": "Simulated",
        "patient": PATIENT,
        "study": STUDY,
    }
    return ScanHeader(xml=xml, **(known | facts))  # type: ignore[arg-type]


def image(pixels: NDArray[np.float32] | NDArray[np.complex64] | None = None, **facts: object) -> Image:
    """An image [1, 1, 6, 8] of random magnitudes, or of `pixels`; `facts` replace its fields."""
    if pixels is None:
        pixels = np.random.default_rng(1).random((1, 1, 6, 8), np.float32)
    known: dict[str, object] = {
        "spacing_mm": (5.0, 20.0, 20.0),
        "geometry": Geometry((1.0, 2.0, 3.0)),
        "counters": Counters(),
        "provenance": Provenance("fft", "ab12", "", "worker-0", "0.1.0"),
    }
    return Image(pixels, **(known | facts))  # type: ignore[arg-type]


def oblique(seed: int, *, left_handed: bool = False, position_mm: Vector3 = (11.0, -7.5, 42.0)) -> Geometry:
    """Random perpendicular directions, rounded to float32 as on the wire; the slice direction may be −read × phase."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    read, phase = q[:, 0], q[:, 1]
    normal = np.cross(read, phase) * (-1 if left_handed else 1)
    directions = (tuple(float(np.float32(v)) for v in axis) for axis in (read, phase, normal))
    return Geometry(position_mm, *directions)  # type: ignore[arg-type]

"""Scans, messages and headers that the tests of `recon.mrd` share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from recon.mrd import wire
from recon.mrd.wire import AcquisitionRun, ImageMessage, Message, WaveformMessage
from recon.scan import (
    READOUT_HEAD,
    Counters,
    Diffusion,
    Encoding,
    Geometry,
    Image,
    Limit,
    Provenance,
    Quantity,
    Readouts,
    ScanHeader,
    Space,
    Trajectory,
    Waveform,
)


def readouts(count: int, coils: int, samples: int, *, axes: int = 0, seed: int = 0) -> Readouts:
    """A run of random readouts whose heads differ in every field that does not set a size."""
    rng = np.random.default_rng(seed)
    # Any bit pattern is a legal head; one made of random bytes leaves no field untested. NaN would not equal itself.
    head = rng.integers(0, 0x7F, (count, READOUT_HEAD.itemsize), np.uint8).view(READOUT_HEAD)[:, 0]
    head["number_of_samples"], head["active_channels"], head["trajectory_dimensions"] = samples, coils, axes
    values = rng.standard_normal((count, coils, 2 * samples)).astype(np.float32).view(np.complex64)
    trajectory = rng.uniform(-0.5, 0.5, (count, samples, axes)).astype(np.float32) if axes else None
    return Readouts(head, values, trajectory)


def waveform(channels: int = 2, samples: int = 5, *, time_stamp: int = 7, seed: int = 0) -> Waveform:
    """A block of random physiology."""
    values = np.random.default_rng(seed).integers(0, 2**32, (channels, samples), np.uint32)
    return Waveform(
        values, sample_time_us=2500.0, kind=1, time_stamp=time_stamp, flags=9, measurement_uid=3, scan_counter=11
    )


def image(shape: tuple[int, int, int, int] = (1, 2, 3, 4), *, series: int = 1, seed: int = 0) -> Image:
    """A random magnitude image that uses every field; all lengths are exact in float32."""
    return Image(
        pixels=np.random.default_rng(seed).standard_normal(shape).astype(np.float32),
        spacing_mm=(4.0, 0.5, 1.25),
        geometry=Geometry((1.5, -2.0, 3.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, -8.0)),
        counters=Counters(encoding=1, slice=2, contrast=3, phase=4, repetition=5, set=6),
        series=series,
        index=42,
        quantity=Quantity.MAGNITUDE,
        unit="ms",
        time_stamp=123,
        physiology_time_stamp=(1, 2, 3),
        measurement_uid=77,
        user_int=(1, -2, 3, 4, 5, 6, 7, 250_000),
        user_float=(0.5, -1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0),
        comments=("two lines are missing", 'T1 < 3 & that\'s "short"'),
        attributes={"SeriesDescription": "localiser é", "WindowCenter": "1\n2"},
        provenance=Provenance("fft", "abc", "def", "worker-1", "0.1.0"),
        patient_position="FFP",
    )


def complex_image(*, series: int = 2) -> Image:
    """The same with complex pixels."""
    plain = image(series=series)
    return replace(plain, pixels=plain.pixels * np.complex64(1 + 2j), quantity=Quantity.COMPLEX)


def header() -> ScanHeader:
    """A header that uses every field."""
    step = Limit(0, 95, 48)
    first = Encoding(
        encoded=Space((1, 96, 192), (5.0, 240.0, 480.0)),
        recon=Space((1, 96, 96), (5.0, 240.0, 240.0)),
        limits={"kspace_encode_step_1": step, "slice": Limit(0, 4, 2), "repetition": Limit(0, 9, 0)},
        trajectory=Trajectory.CARTESIAN,
        acceleration=(2, 1),
        calibration_mode="embedded",
        echo_train_length=7,
    )
    second = Encoding(Space((32, 64, 64), (160.0, 320.0, 320.0)), first.recon, {}, Trajectory.SPIRAL)
    return ScanHeader(
        xml=b"",
        encodings=(first, second),
        coils=8,
        tr_ms=(500.0,),
        te_ms=(4.6, 9.2),
        ti_ms=(100.0,),
        flip_angle_deg=(15.0, 90.0),
        echo_spacing_ms=(0.5,),
        diffusion=(Diffusion(0.0), Diffusion(1000.0, (0.6, -0.8, 0.0))),
        diffusion_dimension="set",
        field_t=2.89362,
        frequency_hz=123_200_000.0,
        relative_noise_bandwidth=0.79,
        patient_position="HFP",
        measurement_id="7_42_1",
        dependencies=(("Noise", "7_41_1"), ("SenMap", "7_40_1")),
        coil_names=("head 1", "head 2"),
        protocol="brain <1> & more",
        manufacturer="Example",
        model="Model é",
        station="MR3",
        institution="Hospital",
        series_description="axial",
        study_uid="1.2.3",
        frame_of_reference_uid="1.2.4",
        patient={"patientName": "Doe^Jane", "patientWeight_kg": "61.5", "patientID": "42", "patientGender": "F"},
        study={"studyDate": "2026-01-02", "studyID": "7", "studyInstanceUID": "1.2.3"},
        user={"dwell": 12, "scale": 0.25, "comment": "text"},
    )


def told(messages: Iterable[Message]) -> list[object]:
    """Messages as values that compare, one entry per readout: how a run is cut is not part of what a stream says."""
    return [entry for message in messages for entry in _entries(message)]


def _entries(message: Message) -> list[object]:
    match message:
        case AcquisitionRun(run, offset, stride):
            points = run.trajectory if run.trajectory is not None else np.empty((len(run.head), 0))
            parts = zip(run.head, points, run.samples, strict=True)
            return [(offset + i * stride, *(part.tobytes() for part in each)) for i, each in enumerate(parts)]
        case WaveformMessage(block, offset):
            return [(offset, wire.encode_waveform(block))]
        case ImageMessage(picture, offset):
            return [(offset, wire.encode_image(picture))]
        case _:
            return [message]

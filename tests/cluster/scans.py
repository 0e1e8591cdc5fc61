"""Small Cartesian scans as MRD streams, and servers to send them to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from cluster.config import ClusterConfig
from cluster.intake import Intake
from cluster.job import ScanRecord, ScanRequest
from cluster.service import Service
from cluster.worker import WorkerSettings
from cluster.workers import ThreadWorkers, Workers
from recon.errors import ReconError
from recon.mrd.header import write_header
from recon.mrd.wire import encode_close, encode_config_file, encode_header, encode_readouts
from recon.scan import READOUT_HEAD, Encoding, Flag, Limit, Readouts, ScanHeader, Space, Trajectory
from tests import tolerances
from tests.laws import assert_near

LINES, SAMPLES, COILS = 12, 20, 3  # unequal on purpose


def header(
    *, repetitions: int = 1, slices: int = 1, lines: int = LINES, samples: int = SAMPLES, coils: int = COILS
) -> ScanHeader:
    """A 2-D Cartesian header without oversampling."""
    space = Space((1, lines, samples), (5.0, 120.0, 200.0))
    limits = {
        "kspace_encode_step_1": Limit(0, lines - 1, lines // 2),
        "repetition": Limit(0, repetitions - 1, 0),
        "slice": Limit(0, slices - 1, 0),
    }
    return ScanHeader(b"", (Encoding(space, space, limits, Trajectory.CARTESIAN),), coils=coils)


def frame(
    *, seed: int, repetition: int = 0, lines: int = LINES, samples: int = SAMPLES, coils: int = COILS
) -> Readouts:
    """One frame of random k-space, lines in order."""
    random = np.random.default_rng(seed)
    head = np.zeros(lines, READOUT_HEAD)
    head["version"] = 1
    head["number_of_samples"] = samples
    head["center_sample"] = samples // 2
    head["available_channels"] = head["active_channels"] = coils
    head["kspace_encode_step_1"] = np.arange(lines)
    head["repetition"] = repetition
    head["scan_counter"] = np.arange(lines) + lines * repetition
    head["sample_time_us"] = 5
    for name, axis in (("read_dir", 0), ("phase_dir", 1), ("slice_dir", 2)):
        head[name][:, axis] = 1
    head["flags"][-1] = Flag.LAST_IN_REPETITION.mask | Flag.LAST_IN_SLICE.mask
    parts = random.standard_normal((2, lines, coils, samples), dtype=np.float32)
    return Readouts(head, (parts[0] + 1j * parts[1]).astype(np.complex64))


def noise(*, seed: int = 99, readouts: int = 16, samples: int = SAMPLES, coils: int = COILS) -> Readouts:
    """A noise pre-scan."""
    made = frame(seed=seed, lines=readouts, samples=samples, coils=coils)
    made.head["flags"] = Flag.IS_NOISE_MEASUREMENT.mask
    return made


def truth(readouts: Readouts) -> np.ndarray:
    """The root-sum-of-squares image [y, x] of one frame: centred inverse DFT, orthonormal."""
    kspace = readouts.samples.transpose(1, 0, 2)
    axes = (1, 2)
    images = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes), axes=axes, norm="ortho"), axes)
    return np.sqrt((np.abs(images) ** 2).sum(axis=0))


def assert_true(pixels: np.ndarray, readouts: Readouts) -> None:
    """`pixels` [y, x] are the image of one frame as exactly as single precision allows."""
    coils, samples = readouts.samples.shape[1:]
    assert_near(pixels, truth(readouts), tolerances.rss_image(len(readouts.head) * samples, coils))


def frames(count: int, **sizes: int) -> list[Readouts]:
    """`count` repetitions."""
    return [frame(seed=number, repetition=number, **sizes) for number in range(count)]


def stream(
    readouts: Sequence[Readouts], scan_header: ScanHeader | None = None, *, config: str = "fft", close: bool = True
) -> bytes:
    """A whole MRD stream."""
    described = scan_header or header(repetitions=len(readouts))
    parts = [encode_config_file(config), encode_header(write_header(described))]
    parts += [encode_readouts(run).tobytes() for run in readouts]
    return b"".join([*parts, encode_close()] if close else parts)


def long_header(size: int) -> bytes:
    """The XML of `header`, `size` bytes longer than it need be."""
    start, end, rest = write_header(header()).rpartition(b"</")
    return start + b" " * size + end + rest


def settings(**changes: object) -> WorkerSettings:
    """Settings of a small CPU worker."""
    return replace(WorkerSettings(memory_bytes=1 << 30), **changes)  # type: ignore[arg-type]


def config(data: Path, **changes: object) -> ClusterConfig:
    """A configuration for tests: nothing waits long."""
    quick: dict[str, object] = {"tick_s": 0.02, "spool_free_bytes": 0}
    return ClusterConfig(data=data, **{**quick, **changes})  # type: ignore[arg-type]


@contextmanager
def serving(data: Path, workers: Workers | None = None, **changes: object) -> Iterator[Service]:
    """A running server without gateways."""
    service = Service(config(data, **changes), workers or ThreadWorkers(["w0", "w1"], settings()))
    service.start()
    try:
        yield service
    finally:
        service.close()


def send(intake: Intake, data: bytes, *, chunk: int = 1 << 16) -> None:
    """Hand a stream over as a socket would."""
    sent = 0
    while sent < len(data):
        buffer = intake.get_buffer()
        part = data[sent : sent + min(chunk, len(buffer))]
        buffer[: len(part)] = part
        intake.received(len(part))
        sent += len(part)


def run(service: Service, data: bytes, *, transport: str = "tcp", **request: object) -> ScanRecord:
    """Send a stream and wait for the scan's end."""
    intake = service.open_scan(ScanRequest(transport, **request))  # type: ignore[arg-type]
    send(intake, data)
    intake.finish()
    return service.wait(intake.scan_id, 30.0)


def try_run(service: Service, data: bytes, *, transport: str = "tcp", **request: object) -> tuple[ScanRecord, str]:
    """Send a stream that may be bad, as a gateway does; the scan at its end, and what the sender is told."""
    intake = service.open_scan(ScanRequest(transport, **request))  # type: ignore[arg-type]
    told = ""
    try:
        send(intake, data)
        intake.finish()
    except ReconError as error:
        told = str(error)
    return service.wait(intake.scan_id, 30.0), told

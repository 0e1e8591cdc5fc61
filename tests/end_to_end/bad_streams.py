"""Streams that no server should swallow, each with what it must say about them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from recon.mrd.header import write_header
from recon.mrd.wire import (
    MessageId,
    encode_close,
    encode_config_file,
    encode_header,
    encode_readouts,
)
from recon.scan import READOUT_HEAD, Readouts, Trajectory
from tests.cluster import scans


@dataclass(frozen=True)
class Bad:
    """A stream, and words that the one-sentence reason must hold; `late`: a worker finds it, not the gateway."""

    stream: Callable[[], bytes]
    words: tuple[str, ...]
    late: bool = False


HEADER = encode_config_file("fft") + encode_header(write_header(scans.header()))


def _readouts(readouts: Readouts) -> bytes:
    return encode_readouts(readouts).tobytes()


def _unknown_id() -> bytes:
    return HEADER + _readouts(scans.frame(seed=1)) + struct.pack("<H", 4711)


def _array() -> bytes:
    return HEADER + struct.pack("<HHHH", MessageId.ARRAY, 5, 0, 0)


def _header_of(text: str) -> bytes:
    return encode_config_file("fft") + encode_header(text.encode()) + encode_close()


def _entities() -> bytes:
    xml = write_header(scans.header()).decode().partition("?>")[2]
    bomb = "".join(f'<!ENTITY e{n} "&e{n - 1};&e{n - 1};">' for n in range(1, 40))
    return _header_of(f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">{bomb}]>{xml}')


def _external() -> bytes:
    xml = write_header(scans.header()).decode().partition("?>")[2]
    return _header_of(f'<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd">{xml}')


def _no_header() -> bytes:
    return encode_config_file("fft") + _readouts(scans.frame(seed=1)) + encode_close()


def _counter() -> bytes:
    readouts = scans.frame(seed=1)
    readouts.head["kspace_encode_step_1"][5] = 999
    return HEADER + _readouts(readouts) + encode_close()


def _coils() -> bytes:
    good, other = scans.frame(seed=1), scans.frame(seed=2, coils=scans.COILS + 1)
    half = Readouts(good.head[:6], good.samples[:6])
    rest = Readouts(other.head[6:], other.samples[6:])
    return HEADER + _readouts(half) + _readouts(rest) + encode_close()


def _no_trajectory() -> bytes:
    header = scans.header()
    radial = replace(header, encodings=(replace(header.encodings[0], trajectory=Trajectory.RADIAL),))
    start = encode_config_file("default") + encode_header(write_header(radial))
    return start + _readouts(scans.frame(seed=1)) + encode_close()


def _nan() -> bytes:
    readouts = scans.frame(seed=1)
    readouts.samples[3, 1, 4] = np.nan
    return HEADER + _readouts(readouts) + encode_close()


def _long_text() -> bytes:
    return HEADER + struct.pack("<HI", MessageId.TEXT, 0xFFFFFFFF) + b"x" * 100


def _huge_acquisition() -> bytes:
    head = np.zeros(1, READOUT_HEAD)
    head["number_of_samples"], head["active_channels"], head["trajectory_dimensions"] = 65535, 65535, 65535
    return HEADER + struct.pack("<H", MessageId.ACQUISITION) + head.tobytes() + b"x" * 100


def _unknown_config() -> bytes:
    return scans.stream(scans.frames(1), config="../../etc/passwd")


def _no_readout() -> bytes:
    return HEADER + encode_close()


def _truncated() -> bytes:
    return scans.stream(scans.frames(1), close=False)[:-50]


BAD: Mapping[str, Bad] = {
    "unknown message id": Bad(_unknown_id, ("unknown message id 4711",)),
    "array": Bad(_array, ("1030", "array")),
    "header that is not XML": Bad(lambda: _header_of("this is no XML"), ("header", "XML")),
    "header with entities": Bad(_entities, ("entities", "never expanded")),
    "header with an external DTD": Bad(_external, ("document type", "never expanded")),
    "acquisition without header": Bad(_no_header, ("before the header",)),
    "counter outside its limits": Bad(_counter, ("kspace_encode_step_1", "999", "11")),
    "wrong coil count": Bad(_coils, ("4", "3", "coil")),
    "trajectory missing": Bad(_no_trajectory, ("trajectory",)),
    "NaN": Bad(_nan, ("nan", "coil 1, sample 4", "finite"), late=True),
    "4 GB text": Bad(_long_text, ("4294967295 bytes", "text_bytes")),
    "34 GB acquisition": Bad(_huge_acquisition, ("65535", "limit")),
    "unknown config name": Bad(_unknown_config, ("../../etc/passwd", "unknown", "fft", "default.xml")),
    "no readout": Bad(_no_readout, ("readout",)),
}
TRUNCATED = _truncated

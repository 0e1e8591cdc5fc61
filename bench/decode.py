"""How fast MRD bytes become readouts and readouts become bytes, in turn with the `ismrmrd` package."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ismrmrd
import numpy as np
from ismrmrd.serialization import ProtocolDeserializer, ProtocolSerializer

from bench.report import Row, row
from recon.mrd import wire
from recon.mrd.wire import AcquisitionRun
from recon.scan import READOUT_HEAD, Readouts

SIZES = ((1, 64), (8, 256), (32, 512))  # coils × samples: messages of 0.9, 17 and 131 kB
STREAM_BYTES = 16_000_000
_RUN_BYTES = 1 << 20  # encoded at a time


@dataclass(frozen=True, slots=True)
class _Case:
    """The same readouts as arrays, as a stream, and as the objects of the `ismrmrd` package."""

    readouts: Readouts
    stream: bytes
    acquisitions: list[ismrmrd.Acquisition]


def measure(*, rounds: int = 10, stream_bytes: int = STREAM_BYTES) -> list[Row]:
    """Rates in acquisitions/s, medians of `rounds` alternated runs over streams of about `stream_bytes`.

    `decode.*`: bytes in memory to arrays. `decode.stream.*`: the same through a receive buffer, which copies every byte
    once as a socket would. `encode.*`: arrays to bytes, in pieces, into one memory that is used again by both sides.
    """
    return [
        entry for coils, samples in SIZES for entry in _rows(coils, samples, rounds=rounds, stream_bytes=stream_bytes)
    ]


def _rows(coils: int, samples: int, *, rounds: int, stream_bytes: int) -> Iterator[Row]:
    case, size = _case(coils, samples, stream_bytes=stream_bytes), f"{coils}x{samples}"
    for name, ours, theirs in (
        ("decode", _decode, _package_decodes),
        ("decode.stream", _decode_stream, _package_decodes),
        ("encode", _encode, _package_encodes),
    ):
        base, rates = [], []
        for _ in range(rounds):
            base.append(_rate(theirs, case))
            rates.append(_rate(ours, case))
        yield row(f"{name}.{size}", rates, "acquisitions/s", base)


def _rate(work: Callable[[_Case], int], case: _Case) -> float:
    start = time.perf_counter()
    count = work(case)
    elapsed = time.perf_counter() - start
    if count != len(case.readouts.head):
        raise RuntimeError(
            f"{work.__name__} saw {count} acquisitions of {len(case.readouts.head)}: it measures nothing"
        )
    return count / elapsed


def _case(coils: int, samples: int, *, stream_bytes: int) -> _Case:
    count = max(1, stream_bytes // (8 * coils * samples))
    rng = np.random.default_rng(0)
    head = np.zeros(count, READOUT_HEAD)
    head["number_of_samples"], head["active_channels"], head["scan_counter"] = samples, coils, np.arange(count)
    values = rng.standard_normal((count, coils, 2 * samples), np.float32).view(np.complex64)
    readouts = Readouts(head, values)
    stream = wire.encode_readouts(readouts).tobytes() + wire.encode_close()
    heads = (ismrmrd.AcquisitionHeader.from_buffer_copy(record.tobytes()) for record in head)
    return _Case(readouts, stream, [ismrmrd.Acquisition(h, v) for h, v in zip(heads, values, strict=True)])


def _decode(case: _Case) -> int:
    return sum(len(m.readouts.head) for m in wire.Decoder().feed(case.stream) if isinstance(m, AcquisitionRun))


def _decode_stream(case: _Case) -> int:
    source, decoder, count = io.BytesIO(case.stream), wire.Decoder(), 0
    while received := source.readinto(decoder.get_buffer()):
        count += sum(len(m.readouts.head) for m in decoder.received(received) if isinstance(m, AcquisitionRun))
    return count


def _package_decodes(case: _Case) -> int:
    return sum(1 for _ in ProtocolDeserializer(io.BytesIO(case.stream)).deserialize())


def _pieces(readouts: Readouts) -> Iterator[Readouts]:
    step = max(1, _RUN_BYTES // (readouts.samples[0].nbytes + READOUT_HEAD.itemsize))
    for first in range(0, len(readouts.head), step):
        yield Readouts(readouts.head[first : first + step], readouts.samples[first : first + step])


def _encode(case: _Case) -> int:
    count, memory = 0, np.empty(2 * _RUN_BYTES, np.uint8)
    for piece in _pieces(case.readouts):
        wire.encode_readouts(piece, memory=memory)
        count += len(piece.head)
    return count


def _package_encodes(case: _Case) -> int:
    """Into one memory of a piece's size that is used again, which spares the package the growth of a buffer."""
    sink = io.BytesIO()
    serializer = ProtocolSerializer(sink)
    for acquisition in case.acquisitions:
        if sink.tell() > _RUN_BYTES:
            sink.seek(0)
        serializer.serialize(acquisition)
    return len(case.acquisitions)

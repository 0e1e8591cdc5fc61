"""The `ismrmrd` package as an independent client: every message kind over a real socket, in both directions."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import ismrmrd
import numpy as np
import pytest
from ismrmrd.serialization import ConfigFile, ConfigText, ProtocolDeserializer, ProtocolSerializer

from recon.mrd import wire
from recon.mrd.header import parse_header, write_header
from recon.mrd.wire import AcquisitionRun, Close, Decoder, HeaderXml, ImageMessage, Message, WaveformMessage
from tests.recon.mrd.builders import complex_image, header, image, readouts, told, waveform

XML = write_header(header())
RUNS = (readouts(300, 8, 64), readouts(3, 2, 16, axes=3))
IMAGES = (image(), complex_image(), image((2, 3, 40, 50)))
Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        theirs.settimeout(30)
        yield ours, theirs


def their_acquisitions() -> Iterator[ismrmrd.Acquisition]:
    for run in RUNS:
        for i, head in enumerate(run.head):
            points = None if run.trajectory is None else run.trajectory[i]
            yield ismrmrd.Acquisition(
                ismrmrd.AcquisitionHeader.from_buffer_copy(head.tobytes()), run.samples[i], points
            )


def their_messages() -> Iterator[object]:
    yield ConfigFile("default.xml")
    yield ConfigText('{"method": "fft"}')
    yield ismrmrd.xsd.CreateFromDocument(XML)
    yield "words"
    yield ismrmrd.Waveform.from_bytes(wire.encode_waveform(waveform())[2:])
    yield from their_acquisitions()
    yield from (ismrmrd.Image.from_bytes(wire.encode_image(i)[2:]) for i in IMAGES)


def send_theirs(end: socket.socket) -> None:
    with end.makefile("wb") as stream, ProtocolSerializer(stream) as serializer:
        for message in their_messages():
            serializer.serialize(message)


def receive_ours(end: socket.socket) -> list[tuple[Message, list[object]]]:
    """Messages and, of those that are views, what they said while they were valid."""
    decoder, came = Decoder(buffer_bytes=1 << 16), list[tuple[Message, list[object]]]()
    while not (came and isinstance(came[-1][0], Close)):
        count = end.recv_into(decoder.get_buffer())
        assert count, "the client left without a close message"
        came += [(message, told([message])) for message in decoder.received(count)]
    return came


def test_what_the_package_sends_we_understand(ends: Ends) -> None:
    ours, theirs = ends
    with ThreadPoolExecutor(1) as pool:
        sender = pool.submit(send_theirs, theirs)
        came = receive_ours(ours)
        sender.result(30)
    plain = [m for m, _ in came if not isinstance(m, AcquisitionRun | ImageMessage | WaveformMessage)]
    xml = next(m.xml for m in plain if isinstance(m, HeaderXml))
    assert parse_header(xml).encodings == header().encodings
    texts = [getattr(m, "name", getattr(m, "text", None)) for m in plain if not isinstance(m, HeaderXml | Close)]
    assert texts == ["default.xml", '{"method": "fft"}', "words"]
    acquired = [entry[1:] for m, entries in came if isinstance(m, AcquisitionRun) for entry in entries]
    assert acquired == [(bytes(a.getHead()), a.traj.tobytes(), a.data.tobytes()) for a in their_acquisitions()]
    assert [wire.encode_waveform(m.waveform) for m, _ in came if isinstance(m, WaveformMessage)] == [
        wire.encode_waveform(waveform())
    ]
    assert [wire.encode_image(m.image) for m, _ in came if isinstance(m, ImageMessage)] == [
        wire.encode_image(i) for i in IMAGES
    ]


def send_ours(end: socket.socket) -> None:
    for part in (
        wire.encode_config_file("default.xml"),
        wire.encode_config_text('{"method": "fft"}'),
        wire.encode_header(XML),
        wire.encode_text("words"),
        wire.encode_waveform(waveform()),
        *(wire.encode_readouts(run) for run in RUNS),
        *(wire.encode_image(i) for i in IMAGES),
        wire.encode_close(),
    ):
        end.sendall(part)


def test_what_we_send_the_package_understands(ends: Ends) -> None:
    ours, theirs = ends
    with ThreadPoolExecutor(1) as pool, theirs.makefile("rb") as stream:
        sender = pool.submit(send_ours, ours)
        came = list(ProtocolDeserializer(stream).deserialize())
        sender.result(30)
    expected = list(their_messages())
    assert [type(message) for message in came] == [type(message) for message in expected]
    for mine, yours in zip(came, expected, strict=True):
        if isinstance(yours, ismrmrd.Image):
            # Equality of the package's images compares a header length that only its own sender fills in.
            np.testing.assert_array_equal(mine.data, yours.data)
            assert mine.meta == yours.meta
            assert bytes(mine.getHead())[:-4] == bytes(yours.getHead())[:-4]
        else:
            assert mine == yours

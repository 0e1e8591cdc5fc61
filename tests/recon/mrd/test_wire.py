"""MRD v1 on the wire: what goes in comes out, however the bytes are split, and hostile bytes cost one sentence."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.errors import LimitError, ReconError, ScanError, WireError
from recon.mrd import wire
from recon.mrd.images import IMAGE_HEAD
from recon.mrd.wire import (
    AcquisitionRun,
    Close,
    ConfigFile,
    ConfigText,
    Decoder,
    HeaderXml,
    Message,
    Query,
    Response,
    Text,
    WireLimits,
)
from recon.scan import READOUT_HEAD, Readouts
from tests.recon.mrd.builders import complex_image, image, readouts, told, waveform


def decode(stream: bytes, *, limits: WireLimits = wire.DEFAULT_LIMITS) -> list[Message]:
    decoder = Decoder(limits)
    messages = list(decoder.feed(stream))
    decoder.finish()
    assert decoder.position == len(stream)
    return messages


def through_buffer(decoder: Decoder, stream: bytes, *, chunk: int) -> Iterator[Message]:
    """What a socket does: at most `chunk` bytes at a time into the decoder's own buffer."""
    while stream:
        space = decoder.get_buffer()
        taken = min(len(space), chunk, len(stream))
        assert taken, "the decoder gave no room for the next byte"
        space[:taken] = stream[:taken]
        stream = stream[taken:]
        yield from decoder.received(taken)


def run(stream: bytes) -> Readouts:
    (message,) = decode(stream)
    assert isinstance(message, AcquisitionRun)
    return message.readouts


# ---- what goes in comes out ----


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (wire.encode_config_file("default.xml"), ConfigFile("default.xml", 0)),
        (wire.encode_config_file("x" * 1023), ConfigFile("x" * 1023, 0)),
        (wire.encode_config_text('{"method": "fft"}'), ConfigText('{"method": "fft"}', 0)),
        (wire.encode_header(b"<ismrmrdHeader/>"), HeaderXml(b"<ismrmrdHeader/>", 0)),
        (wire.encode_text("größer"), Text("größer", 0)),
        (wire.encode_text(""), Text("", 0)),
        (wire.encode_query("gadgetron::info", correlation=2**63), Query("gadgetron::info", 2**63, 0)),
        (wire.encode_response("4.7", correlation=5), Response("4.7", 5, 0)),
        (wire.encode_close(), Close(0)),
    ],
)
def test_plain_messages(stream: bytes, message: Message) -> None:
    assert decode(stream) == [message]


def test_layout_of_the_plain_messages() -> None:
    assert wire.encode_config_file("a.xml") == b"\x01\x00" + b"a.xml".ljust(1024, b"\0")
    assert wire.encode_config_text("ab") == b"\x02\x00\x02\x00\x00\x00ab"
    assert wire.encode_header(b"<a/>") == b"\x03\x00\x04\x00\x00\x00<a/>"
    assert wire.encode_close() == b"\x04\x00"
    assert wire.encode_text("ab") == b"\x05\x00\x02\x00\x00\x00ab"
    # Gadgetron: eight reserved bytes, the correlation id, a 64-bit length; a response has no reserved bytes.
    assert wire.encode_query("ab", correlation=3) == b"\x06\x00" + struct.pack("<QQQ", 0, 3, 2) + b"ab"
    assert wire.encode_response("ab", correlation=3) == b"\x07\x00" + struct.pack("<QQ", 3, 2) + b"ab"


@pytest.mark.parametrize("kind", [2, 3, 5])
def test_a_trailing_nul_is_stripped(kind: int) -> None:
    (message,) = decode(struct.pack("<HI", kind, 4) + b"abc\0")
    assert getattr(message, "text", None) == "abc" or getattr(message, "xml", None) == b"abc"


def test_a_config_file_name_ends_at_its_first_nul() -> None:
    assert decode(b"\x01\x00" + b"a.xml\0leftover".ljust(1024, b"\xff")) == [ConfigFile("a.xml", 0)]


@pytest.mark.parametrize(
    "given", [(5, 4, 16, 0), (1, 1, 1, 0), (7, 3, 9, 2), (3, 2, 5, 4), (2, 0, 4, 2), (2, 3, 0, 0), (3, 0, 0, 3)]
)
def test_a_run_of_acquisitions(given: tuple[int, int, int, int]) -> None:
    count, coils, samples, axes = given
    sent = readouts(count, coils, samples, axes=axes)
    came = run(bytes(wire.encode_readouts(sent)))
    assert came.head.tobytes() == sent.head.tobytes()
    np.testing.assert_array_equal(came.samples, sent.samples)
    assert (came.trajectory is None) == (sent.trajectory is None)
    if sent.trajectory is not None:
        np.testing.assert_array_equal(came.trajectory, sent.trajectory)


def test_a_run_is_written_into_memory_that_is_given_as_far_as_it_fits() -> None:
    sent = readouts(7, 3, 9, axes=2)
    alone = bytes(wire.encode_readouts(sent))
    for spare in (100, 0, -1):
        memory = np.full(len(alone) + spare, 0xFF, np.uint8)
        data = wire.encode_readouts(sent, memory=memory)
        assert bytes(data) == alone
        assert np.shares_memory(data, memory) == (spare >= 0)
        assert (memory[len(alone) if spare >= 0 else 0 :] == 0xFF).all()


def test_a_run_of_nothing_is_no_bytes() -> None:
    assert bytes(wire.encode_readouts(readouts(0, 2, 8, axes=2))) == b""


def test_what_is_sent_need_not_be_contiguous() -> None:
    sent = readouts(6, 4, 8, axes=2)
    assert sent.trajectory is not None
    turned = Readouts(sent.head[::2], sent.samples[::2, ::-1, ::-1], sent.trajectory[::2, :, ::-1])
    came = run(bytes(wire.encode_readouts(turned)))
    np.testing.assert_array_equal(came.samples, turned.samples)
    np.testing.assert_array_equal(came.trajectory, turned.trajectory)
    # What a decoder gave, strided as it is, can be sent on as it is.
    assert bytes(wire.encode_readouts(came)) == bytes(wire.encode_readouts(turned))


def test_waveforms_and_images() -> None:
    for stream in (
        wire.encode_waveform(waveform(3, 7)),
        wire.encode_waveform(waveform(0, 0)),
        wire.encode_image(image()),
        wire.encode_image(complex_image()),
    ):
        assert told(decode(stream)) == [(0, stream)]


def test_equal_acquisitions_are_one_view_of_the_bytes() -> None:
    stream = bytes(wire.encode_readouts(readouts(1000, 2, 8, axes=1)))
    (message,) = decode(stream)
    assert isinstance(message, AcquisitionRun)
    assert (message.offset, message.stride, len(message.readouts.head)) == (0, len(stream) // 1000, 1000)
    memory = np.frombuffer(stream, np.uint8)
    for array in (message.readouts.head, message.readouts.samples, message.readouts.trajectory):
        assert array is not None
        assert np.shares_memory(array, memory)


def test_runs_end_where_a_size_or_a_kind_changes() -> None:
    parts = [
        bytes(wire.encode_readouts(readouts(40, 2, 8))),
        bytes(wire.encode_readouts(readouts(3, 3, 8))),
        wire.encode_waveform(waveform()),
        bytes(wire.encode_readouts(readouts(100, 3, 8))),
        bytes(wire.encode_readouts(readouts(2, 3, 8, axes=1))),
        bytes(wire.encode_readouts(readouts(1, 3, 9, axes=1))),
        wire.encode_close(),
    ]
    sizes = [len(m.readouts.head) if isinstance(m, AcquisitionRun) else 0 for m in decode(b"".join(parts))]
    assert sizes == [40, 3, 0, 100, 2, 1, 0]


def test_view_run_rebuilds_the_run_from_the_raw_stream() -> None:
    sent = readouts(50, 2, 8, axes=2)
    stream = wire.encode_header(b"<a/>") + bytes(wire.encode_readouts(sent)) + wire.encode_close()
    message = decode(stream)[1]
    assert isinstance(message, AcquisitionRun)
    again = wire.view_run(memoryview(stream)[message.offset :], count=50)
    for name in ("head", "samples", "trajectory"):
        np.testing.assert_array_equal(getattr(again, name), getattr(sent, name))
        assert np.shares_memory(getattr(again, name), np.frombuffer(stream, np.uint8))


@pytest.mark.parametrize(
    ("buffer", "count", "found"),
    [
        (b"", 1, 0),
        (b"\x04\x00", 1, 0),
        (wire.encode_text("x" * 400), 1, 0),
        (bytes(wire.encode_readouts(readouts(3, 1, 4))), 4, 3),
        (bytes(wire.encode_readouts(readouts(3, 1, 4)))[:-1], 3, 2),
        (bytes(wire.encode_readouts(readouts(3, 1, 4))) + bytes(wire.encode_readouts(readouts(9, 2, 4))), 5, 3),
    ],
)
def test_view_run_refuses_what_is_not_the_run(buffer: bytes, count: int, found: int) -> None:
    with pytest.raises(WireError, match=f"begin with {found} acquisitions of one size, expected {count}: read"):
        wire.view_run(buffer, count=count)


# ---- any split of the bytes gives the same messages ----

messages = st.one_of(
    st.builds(wire.encode_config_file, st.text(max_size=20)),
    st.builds(wire.encode_config_text, st.text(max_size=20)),
    st.builds(wire.encode_text, st.text(max_size=20)),
    st.builds(wire.encode_header, st.binary(max_size=50)),
    st.builds(wire.encode_query, st.text(max_size=9), correlation=st.integers(0, 2**64 - 1)),
    st.builds(wire.encode_response, st.text(max_size=9), correlation=st.integers(0, 2**64 - 1)),
    st.builds(lambda c, n, seed: wire.encode_waveform(waveform(c, n, seed=seed)), *[st.integers(0, 4)] * 3),
    st.builds(lambda *shape: wire.encode_image(image(shape)), *[st.integers(0, 3)] * 4),
    st.builds(
        lambda n, c, s, axes, seed: bytes(wire.encode_readouts(readouts(n, c, s, axes=axes, seed=seed))),
        *[st.integers(1, 4)] * 3,
        *[st.integers(0, 3)] * 2,
    ),
)
streams = st.lists(messages, max_size=8).map(lambda parts: b"".join([*parts, wire.encode_close()]))


def cut(stream: bytes, fractions: list[float]) -> list[bytes]:
    places = sorted({0, len(stream), *(round(f * len(stream)) for f in fractions)})
    return [stream[a:b] for a, b in pairwise(places)]


@given(streams, st.lists(st.floats(0, 1), max_size=12), st.sampled_from([64, 1000, 1 << 16]))
def test_any_split_gives_the_same_messages(stream: bytes, fractions: list[float], buffer_bytes: int) -> None:
    whole = told(decode(stream))
    pieces = cut(stream, fractions)
    fed = Decoder()
    assert told([message for piece in pieces for message in fed.feed(piece)]) == whole
    received = Decoder(buffer_bytes=buffer_bytes)
    came: list[object] = []
    for piece in pieces:
        for message in through_buffer(received, piece, chunk=len(piece)):
            came += told([message])
    assert came == whole
    assert fed.position == received.position == len(stream)
    for decoder in (fed, received):
        decoder.finish()


@settings(max_examples=20)
@given(streams, st.sampled_from([64, 1 << 16]))
def test_one_byte_at_a_time_gives_the_same_messages(stream: bytes, buffer_bytes: int) -> None:
    fed, received = Decoder(), Decoder(buffer_bytes=buffer_bytes)
    assert told(m for i in range(len(stream)) for m in fed.feed(stream[i : i + 1])) == told(decode(stream))
    assert [e for m in through_buffer(received, stream, chunk=1) for e in told([m])] == told(decode(stream))


@settings(max_examples=50)
@given(streams, st.integers(1, 60), st.lists(st.floats(0, 1), max_size=5))
def test_a_broken_stream_gives_its_good_messages_first(stream: bytes, missing: int, fractions: list[float]) -> None:
    """Everything before the fault arrives, and the fault is the same sentence however the bytes were split."""
    broken = stream[:-2] + struct.pack("<H", 999) + b"\0" * missing

    def outcome(pieces: list[bytes]) -> tuple[list[object], str]:
        decoder, came = Decoder(), []
        with pytest.raises(WireError) as caught:
            for piece in pieces:
                for message in decoder.feed(piece):
                    came += told([message])
        return came, str(caught.value)

    assert outcome(cut(broken, fractions)) == outcome([broken])
    assert outcome([broken])[0] == told(decode(stream))[:-1]


# ---- bad bytes ----


def acquisition_asking(samples: int, coils: int, axes: int = 0) -> bytes:
    head = np.zeros((), READOUT_HEAD)
    head["number_of_samples"], head["active_channels"], head["trajectory_dimensions"] = samples, coils, axes
    return struct.pack("<H", 1008) + head.tobytes()


def image_asking(
    *, attributes: int = 0, size: tuple[int, int, int] = (1, 1, 1), channels: int = 1, kind: int = 5
) -> bytes:
    head = np.zeros((), IMAGE_HEAD)
    head["matrix_size"], head["channels"], head["data_type"] = size, channels, kind
    return struct.pack("<H", 1022) + head.tobytes() + struct.pack("<Q", attributes)


def waveform_asking(channels: int, samples: int) -> bytes:
    head = np.zeros((), wire.WAVEFORM_HEAD)
    head["channels"], head["number_of_samples"] = channels, samples
    return struct.pack("<H", 1026) + head.tobytes()


HOSTILE = {
    "unknown id": (struct.pack("<H", 999), WireError, "unknown message id 999 at byte 0, expected one of 1, 2, 3"),
    "array": (
        struct.pack("<H", 1030),
        WireError,
        r"message 1030 \(array\) at byte 0 is not accepted: send acquisitions",
    ),
    "4 GB config": (
        struct.pack("<HI", 2, 2**32 - 1),
        LimitError,
        "config text at byte 0 is 4294967295 bytes long.*text_bytes",
    ),
    "4 GB text": (
        struct.pack("<HI", 5, 2**32 - 1),
        LimitError,
        "the text at byte 0 is 4294967295 bytes long, and this server's limit text_bytes is 1048576: send less",
    ),
    "4 GB header": (
        struct.pack("<HI", 3, 2**32 - 1),
        LimitError,
        "header at byte 0 is 4294967295 bytes long.*header_bytes",
    ),
    "huge query": (
        struct.pack("<HQQQ", 6, 0, 1, 2**64 - 1),
        LimitError,
        "query at byte 0 is 18446744073709551615 bytes",
    ),
    "huge response": (struct.pack("<HQQ", 7, 1, 2**63), LimitError, "response at byte 0 is 9223372036854775808 bytes"),
    "reserved": (
        struct.pack("<HQQQ", 6, 8, 1, 0),
        WireError,
        "query at byte 0 has 8 in its reserved bytes, expected 0",
    ),
    "34 GB acquisition": (
        acquisition_asking(65535, 65535),
        LimitError,
        "acquisition at byte 0 declares 65535 samples × 65535 coils .*, 34358689800 bytes.*coils is 1024",
    ),
    "500 MB acquisition": (
        acquisition_asking(65535, 1024),
        LimitError,
        "65535 samples × 1024 coils with 0 trajectory axes, 536862720 bytes, and .*acquisition_bytes is 67108864: send",
    ),
    "17 GB trajectory": (acquisition_asking(65535, 1, 65535), LimitError, "65535 trajectory axes, .*acquisition_bytes"),
    "17 GB waveform": (
        waveform_asking(65535, 65535),
        LimitError,
        "waveform at byte 0 declares 65535 channels × 65535 samples, 17179344900 bytes.*waveform_bytes",
    ),
    "attribute length of 64 bits": (
        image_asking(attributes=2**64 - 1),
        LimitError,
        "image at byte 0 declares 18446744073709551615 bytes of attributes.*attribute_bytes is 1048576",
    ),
    "huge image": (
        image_asking(size=(65535, 65535, 65535), channels=65535, kind=8),
        LimitError,
        "declares 65535 channels × 65535 × 65535 × 65535 voxels, .*image_bytes",
    ),
    "pixel type": (image_asking(kind=9), WireError, "image at byte 0 has the pixel type 9, expected 1 to 8"),
    "not UTF-8": (
        struct.pack("<HI", 5, 2) + b"\xff\xff",
        WireError,
        r"the text at byte 0 is not UTF-8 \(.*\): send UTF-8",
    ),
    "after close": (
        wire.encode_close() + b"\0",
        WireError,
        "bytes follow the close message at byte 2: open a new stream",
    ),
    "attributes": (
        image_asking(attributes=4) + b"<ab>" + b"\0" * 4,
        WireError,
        "the text of attributes of the image at byte 0 is not XML",
    ),
}


@pytest.mark.parametrize(("stream", "error", "sentence"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused_in_one_sentence(stream: bytes, error: type[ReconError], sentence: str) -> None:
    before = wire.encode_text("hello")
    shifted = sentence.replace("at byte 0", f"at byte {len(before)}").replace("at byte 2", f"at byte {len(before) + 2}")
    tracemalloc.start()
    try:
        for step in (len(stream), 1):
            decoder, came = Decoder(), list[Message]()
            with pytest.raises(error, match=shifted) as caught:
                for begin in range(0, len(before + stream), step):
                    came.extend(decoder.feed((before + stream)[begin : begin + step]))
            assert told(came)[0] == Text("hello", 0)
            assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_claim_within_the_limits_costs_no_memory_until_the_bytes_come() -> None:
    claims = (
        acquisition_asking(65_000, 100),
        image_asking(size=(500, 500, 500)),
        waveform_asking(60_000, 60),
        struct.pack("<HI", 3, 8 << 20),
    )
    for claim in claims:
        decoder = Decoder(buffer_bytes=1 << 12)
        tracemalloc.start()
        try:
            for i in range(len(claim)):
                assert list(through_buffer(decoder, claim[i : i + 1], chunk=1)) == []
            assert len(decoder.get_buffer()) > 0
            assert tracemalloc.get_traced_memory()[1] < 1 << 18
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", ["coils", "samples", "acquisition_bytes"])
def test_limits_are_the_receivers_to_set(name: str) -> None:
    stream = bytes(wire.encode_readouts(readouts(1, 8, 16)))
    exact = {"coils": 8, "samples": 16, "acquisition_bytes": 8 * 16 * 8}[name]
    assert len(decode(stream, limits=WireLimits(**{name: exact}))) == 1
    with pytest.raises(LimitError, match=f"8 coils .* limit {name} is {exact - 1}: send less, or raise the limit"):
        decode(stream, limits=WireLimits(**{name: exact - 1}))


@pytest.mark.parametrize(
    ("stream", "kept", "sentence"),
    [
        (wire.encode_text("hello"), 1, "inside the next message at byte 0, 1 of 2 or more bytes came: send the rest"),
        (wire.encode_text("hello"), 3, "inside the text message at byte 0, 3 of 6 or more bytes came"),
        (wire.encode_text("hello"), 8, "inside the text message at byte 0, 8 of 11 or more bytes came"),
        (wire.encode_config_file("a"), 1000, "inside the config file message at byte 0, 1000 of 1026 or more"),
        (
            bytes(wire.encode_readouts(readouts(3, 2, 8))),
            1200,
            "the acquisition message at byte 940, 260 of 342 or more",
        ),
        (
            bytes(wire.encode_readouts(readouts(3, 2, 8))),
            1400,
            "the acquisition message at byte 940, 460 of 470 or more",
        ),
    ],
)
def test_a_truncated_stream_says_where_it_stops(stream: bytes, kept: int, sentence: str) -> None:
    decoder = Decoder()
    list(decoder.feed(stream[:kept]))
    with pytest.raises(WireError, match=f"the stream stops .*{sentence}"):
        decoder.finish()


def test_encoding_refuses_what_the_receiver_could_not_read() -> None:
    with pytest.raises(WireError, match="config file name is 1024 bytes long, 1023 fit: shorten it"):
        wire.encode_config_file("x" * 1024)
    sent = readouts(3, 2, 8)
    with pytest.raises(
        ScanError, match="active_channels is 2 in the head of readout 0, but its array has 1: make the head"
    ):
        wire.encode_readouts(Readouts(sent.head, sent.samples[:, :1]))


# ---- copies and memory ----


def test_large_messages_are_not_copied_but_for_the_carried_tail() -> None:
    """4 MiB buffer, 131 kB messages: per pass over the buffer less than one message moves, and every run is a view."""
    sent = readouts(200, 32, 512)
    stream = bytes(wire.encode_readouts(sent))
    decoder, moved, passes, rest = Decoder(), 0, 0, memoryview(stream)
    buffer = np.frombuffer(decoder.get_buffer(), np.uint8)

    def place(space: memoryview) -> int:
        return np.frombuffer(space, np.uint8).ctypes.data - buffer.ctypes.data

    written, came = 0, 0
    while rest:
        space = decoder.get_buffer()
        if place(space) != written:
            passes, moved = passes + 1, moved + place(space)
        taken = min(len(space), 300_000, len(rest))
        space[:taken] = rest[:taken]
        rest, written = rest[taken:], place(space) + taken
        for message in decoder.received(taken):
            assert isinstance(message, AcquisitionRun)
            assert np.shares_memory(message.readouts.samples, buffer)
            count = len(message.readouts.head)
            np.testing.assert_array_equal(message.readouts.samples, sent.samples[came : came + count])
            came += count
    assert came == 200
    assert passes >= len(stream) // (4 << 20)
    assert moved < passes * len(stream) // 200


def test_the_buffer_grows_to_one_large_message_and_shrinks_again() -> None:
    decoder = Decoder(buffer_bytes=1 << 16)
    large, small = wire.encode_header(b"x" * (3 << 20)), wire.encode_text("hello")
    tracemalloc.start()
    try:
        sizes = [len(decoder.get_buffer()) for _ in through_buffer(decoder, large + small * 10, chunk=1 << 15)]
        # The buffer, twice for the moment in which it grows, and the text that comes out.
        assert tracemalloc.get_traced_memory()[1] < 3.2 * len(large)
    finally:
        tracemalloc.stop()
    assert sizes[-1] <= 1 << 16


def test_views_stay_valid_until_the_next_buffer() -> None:
    sent = readouts(30, 2, 8)
    stream = bytes(wire.encode_readouts(sent))
    decoder = Decoder()
    decoder.get_buffer()[: len(stream)] = stream
    runs = list(decoder.received(len(stream)))
    assert told(runs) == told(decode(stream))


def test_feed_takes_what_the_caller_keeps_without_copying_it() -> None:
    stream = bytes(wire.encode_readouts(readouts(20, 2, 8)))
    halves = stream[:5000], stream[5000:]
    decoder = Decoder()
    first, (carried, second) = list(decoder.feed(halves[0])), decoder.feed(halves[1])
    assert told([*first, carried, second]) == told(decode(stream))
    assert isinstance(second, AcquisitionRun)
    assert np.shares_memory(second.readouts.samples, np.frombuffer(halves[1], np.uint8))

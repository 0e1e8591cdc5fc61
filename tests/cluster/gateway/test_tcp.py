"""MRD over TCP: what a session says and when, its limits in time and number, and how it ends."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.events import State
from recon.mrd.header import write_header
from recon.mrd.wire import (
    Close,
    Decoder,
    ImageMessage,
    Text,
    encode_close,
    encode_config_file,
    encode_config_text,
    encode_header,
    encode_query,
    encode_readouts,
    encode_text,
)
from tests.cluster import scans
from tests.end_to_end.running import converse, eventually, listen, running


def test_images_come_while_readouts_are_still_sent(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(2), close=False)
    with running(tmp_path) as server, socket.create_connection(server.mrd, timeout=30.0) as connection:
        connection.sendall(stream)
        decoder, images = Decoder(), []
        while len(images) < 2:
            count = connection.recv_into(decoder.get_buffer())
            assert count
            images += [m.image for m in decoder.received(count) if isinstance(m, ImageMessage)]
        connection.sendall(encode_close())
        rest = listen(connection)
    assert sorted(image.counters.repetition for image in images) == [0, 1]
    assert (rest.images, rest.texts, rest.closed) == ([], [], True)


@pytest.mark.parametrize(
    ("start", "chosen"),
    [
        (encode_config_file("simplefft"), "fft"),
        (encode_config_file("default.xml"), "fft"),
        (encode_config_file("null"), "null"),
        (encode_config_text('{"method": "fft", "parameters": {"combine": "rss"}}'), "fft"),
        (b"", "fft"),
    ],
)
def test_the_configuration_picks_the_recipe(tmp_path: Path, start: bytes, chosen: str) -> None:
    (readouts,) = scans.frames(1)
    stream = start + encode_header(write_header(scans.header())) + encode_readouts(readouts).tobytes() + encode_close()
    with running(tmp_path) as server:
        heard = converse(server.mrd, stream)
        (record,) = server.service.scans()
    assert (heard.texts, heard.closed) == ([], True)
    assert (record.state, record.chosen, len(heard.images)) == (State.DONE, chosen, 0 if chosen == "null" else 1)


def test_json_after_the_header_sets_parameters(tmp_path: Path) -> None:
    (readouts,) = scans.frames(1)
    parameters = json.dumps({"parameters": {"output": "complex", "customconfig": ""}})
    stream = encode_config_file("openrecon") + encode_header(write_header(scans.header())) + encode_text(parameters)
    with running(tmp_path) as server:
        heard = converse(server.mrd, stream + encode_readouts(readouts).tobytes() + encode_close())
    assert heard.texts == []
    assert [image.pixels.dtype for image in heard.images] == [np.complex64]


def test_queries_are_answered_and_leave_no_scan(tmp_path: Path) -> None:
    names = (
        "gadgetron::info",
        "recon::version",
        "recon::status",
        "recon::recipes",
        "recon::queries",
        "recon::nonsense",
    )
    queries = b"".join(encode_query(name, correlation=7 + number) for number, name in enumerate(names))
    with running(tmp_path) as server:
        assert eventually(lambda: server.service.ready)
        heard = converse(server.mrd, queries + encode_close())
        assert server.service.scans() == []
    assert [response.correlation for response in heard.responses] == [7, 8, 9, 10, 11, 12]
    info, _, status, recipes, known, nonsense = (response.text for response in heard.responses)
    assert info.startswith("recon-cluster ")
    assert json.loads(status)["ready"] is True
    assert {"fft", "default.xml"} <= {entry["name"] for entry in json.loads(recipes)["recipes"]}
    assert json.loads(known) == sorted(names[:-1])
    assert nonsense.startswith("ERROR the query 'recon::nonsense' is unknown, expected one of ")
    assert heard.closed


def test_a_query_inside_a_scan(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(1), close=False)
    with running(tmp_path) as server:
        heard = converse(server.mrd, stream + encode_query("recon::version", correlation=3) + encode_close())
    assert [response.correlation for response in heard.responses] == [3]
    assert (len(heard.images), heard.texts, heard.closed) == (1, [], True)


@pytest.mark.parametrize("niceness", [0, 7])
def test_receiving_gives_way_to_the_workers_and_images_do_not(tmp_path: Path, niceness: int) -> None:
    base = os.getpriority(os.PRIO_PROCESS, 0)
    stream = scans.stream(scans.frames(1), close=False)
    with running(tmp_path, receive_niceness=niceness) as server, socket.create_connection(server.mrd) as connection:
        connection.sendall(stream)
        assert eventually(lambda: {"mrd-session", "mrd-images"} <= set(_niceness()))
        assert eventually(lambda: _niceness()["mrd-session"] == max(base, niceness))
        assert _niceness()["mrd-images"] == base
        connection.sendall(encode_close())
        assert listen(connection).closed


def _niceness() -> dict[str, int]:
    """Priority of each thread of this process by its name."""
    threads = [thread for thread in threading.enumerate() if thread.native_id is not None]
    return {thread.name: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in threads}


def test_a_silent_client_is_told_and_let_go(tmp_path: Path) -> None:
    with running(tmp_path, header_timeout_s=0.2) as server:
        with socket.create_connection(server.mrd, timeout=10.0) as connection:
            start = time.monotonic()
            heard = listen(connection)
        assert 0.15 < time.monotonic() - start < 5.0
        assert server.service.scans() == []
    assert heard.texts == ["ERROR no complete header came within 0.2 s: send configuration and header first"]
    assert heard.closed


def test_half_a_header_is_not_waited_for(tmp_path: Path) -> None:
    with running(tmp_path, header_timeout_s=0.3) as server:
        with socket.create_connection(server.mrd, timeout=10.0) as connection:
            connection.sendall(encode_config_file("fft") + struct.pack("<HI", 3, 1000) + b"<ismrmrdHeader>")
            heard = listen(connection)
        (record,) = server.service.scans()
        record = server.service.wait(record.id, 10.0)
    assert record.state is State.INCOMPLETE
    assert heard.texts == [f"ERROR {record.reason}"]
    assert "no complete header came within 0.3 s" in record.reason


def test_silence_inside_a_scan_ends_it(tmp_path: Path) -> None:
    with running(tmp_path, idle_timeout_s=0.3) as server:
        with socket.create_connection(server.mrd, timeout=10.0) as connection:
            connection.sendall(scans.stream(scans.frames(1), close=False))
            heard = listen(connection)
        (record,) = server.service.scans()
        record = server.service.wait(record.id, 10.0)
    assert (record.state, record.images, len(heard.images)) == (State.INCOMPLETE, 1, 1)
    assert record.reason.startswith("nothing came for 0.3 s before the close message")
    assert heard.texts == [f"ERROR {record.reason}"]
    assert heard.closed


def test_a_scan_that_drags_on_is_ended(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(1), close=False)
    with (
        running(tmp_path, total_timeout_s=0.4) as server,
        socket.create_connection(server.mrd, timeout=10.0) as connection,
    ):
        connection.sendall(stream)
        for _ in range(20):
            time.sleep(0.05)
            try:
                connection.sendall(encode_text("still here"))
            except OSError:
                break
        heard = listen(connection)
    assert heard.texts == ["ERROR the scan took longer than 0.4 s: send it faster, or raise total_timeout_s"]
    assert heard.closed


def test_a_port_probe_leaves_no_trace(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        socket.create_connection(server.mrd).close()
        assert converse(server.mrd, scans.stream(scans.frames(1))).closed
        assert len(server.service.scans()) == 1


def test_connections_beyond_the_limit_are_told_so(tmp_path: Path) -> None:
    with running(tmp_path, max_connections=1) as server:
        with socket.create_connection(server.mrd, timeout=10.0) as first:
            first.sendall(encode_config_file("fft"))
            assert eventually(lambda: bool(server.service.scans()))
            with socket.create_connection(server.mrd, timeout=10.0) as second:
                heard = listen(second)
        assert heard.texts == ["ERROR all 1 connections are in use: connect again later, or raise max_connections"]
        assert heard.closed
        # The place is free again once the first has gone.
        stream = scans.stream(scans.frames(1))
        assert eventually(lambda: bool(converse(server.mrd, stream).images))


def test_a_full_server_refuses_at_the_first_byte(tmp_path: Path) -> None:
    with (
        running(tmp_path, max_scans_in_flight=1) as server,
        socket.create_connection(server.mrd, timeout=10.0) as first,
    ):
        first.sendall(scans.stream(scans.frames(1), close=False))
        assert eventually(lambda: bool(server.service.scans()))
        heard = converse(server.mrd, scans.stream(scans.frames(1)))
        first.sendall(encode_close())
        assert listen(first).closed
    assert len(heard.texts) == 1
    assert heard.texts[0].startswith("ERROR 1 scans are in flight, the server takes 1 at once")


def test_a_client_that_takes_no_images_stops_nobody(tmp_path: Path) -> None:
    # Images of 4 MB each: far more than the socket's buffers hold.
    sizes = {"lines": 1024, "samples": 1024, "coils": 1}
    frames = scans.frames(6, **sizes)
    header = replace(scans.header(repetitions=6, lines=1024, samples=1024), coils=1)
    stream = scans.stream(frames, header, close=False)
    with (
        running(tmp_path, send_timeout_s=0.5) as server,
        socket.create_connection(server.mrd, timeout=30.0) as connection,
    ):
        connection.sendall(stream)
        other = converse(server.mrd, scans.stream(scans.frames(1)))
        assert (len(other.images), other.texts, other.closed) == (1, [], True)
        connection.sendall(encode_close())
        slow = next(r for r in server.service.scans() if r.bytes > 1 << 20 or r.readouts > 12)
        record = server.service.wait(slow.id, 30.0)
        assert (record.state, record.images) == (State.DONE, 6)
        assert sum(1 for _ in server.service.images(record.id)) == 6


def test_cancelling_a_scan_that_still_comes_in(tmp_path: Path) -> None:
    with running(tmp_path) as server, socket.create_connection(server.mrd, timeout=30.0) as connection:
        stream = scans.stream(scans.frames(2))
        connection.sendall(stream[: len(stream) // 2])
        assert eventually(lambda: bool(server.service.scans() and server.service.scans()[0].readouts))
        scan = server.service.scans()[0].id
        assert server.service.cancel(scan).state is State.CANCELLED
        connection.sendall(stream[len(stream) // 2 :])
        heard = listen(connection)
    assert heard.closed
    assert len(heard.texts) == 1
    assert "cancelled" in heard.texts[0]


def test_stopping_cuts_what_does_not_end_and_keeps_it(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(2), close=False)
    with running(tmp_path) as server:
        connection = socket.create_connection(server.mrd, timeout=30.0)
        connection.sendall(stream)
        assert eventually(lambda: bool(server.service.scans() and server.service.scans()[0].images == 2))
        scan = server.service.scans()[0].id
    # The context has closed gateways and service: the connection is over, the bytes are on disk.
    with connection:
        listen(connection)
    assert (tmp_path / "spool" / f"{scan}.mrd").read_bytes() == stream


def test_the_last_words_reach_a_client_that_never_stops_sending(tmp_path: Path) -> None:
    """Closing while bytes are unread would reset the connection and destroy the reason under way."""
    flood = encode_readouts(scans.frame(seed=1)).tobytes() * 400
    with running(tmp_path) as server, socket.create_connection(server.mrd, timeout=30.0) as connection:
        connection.sendall(encode_config_file("fft") + flood)  # no header: refused at the first readout
        heard = listen(connection)
    assert heard.closed
    assert len(heard.texts) == 1
    assert "before the header" in heard.texts[0]


def test_texts_are_decoded_as_the_standard_says() -> None:
    messages = list(Decoder().feed(encode_text("ERROR x") + encode_close()))
    assert isinstance(messages[0], Text)
    assert isinstance(messages[1], Close)

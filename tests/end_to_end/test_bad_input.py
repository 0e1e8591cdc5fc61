"""Bad input: one sentence to client and record, raw data kept, others untouched, the server alive and small."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from cluster.events import State
from cluster.job import ScanRecord, ScanRequest
from recon.mrd.wire import encode_header
from tests.cluster import scans
from tests.end_to_end.bad_streams import BAD, HEADER, TRUNCATED, Bad
from tests.end_to_end.running import Running, converse, eventually, listen, running

GROWTH_BYTES = 64 << 20  # what one bad scan may cost: its receive buffer, its threads; far below what it asks for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all: each test leaves it as alive as it was."""
    with running(tmp_path_factory.mktemp("data"), linger_timeout_s=1.0) as server:
        yield server


@pytest.fixture(autouse=True)
def neighbour(server: Running) -> Iterator[None]:
    """A scan that is half sent while a test does its worst, and must come out whole."""
    readouts = scans.frames(1)
    stream = scans.stream(readouts)
    intake = server.service.open_scan(ScanRequest("tcp"))
    scans.send(intake, stream[: len(stream) // 2])
    yield
    scans.send(intake, stream[len(stream) // 2 :])
    intake.finish()
    record = server.service.wait(intake.scan_id, 30.0)
    assert (record.state, record.reason, record.images) == (State.DONE, "", 1)
    (image,) = server.service.images(record.id)
    scans.assert_true(image.pixels[0, 0], readouts[0])
    assert httpx.get(f"{server.http}/healthz").status_code == 200


def newest(server: Running, transport: str) -> ScanRecord:
    """The record of the scan just sent, once it has ended."""
    records = [record for record in server.service.scans() if record.transport == transport]
    return server.service.wait(records[0].id, 10.0)


def raw(server: Running, scan: str) -> bytes:
    """The raw data kept, as a client fetches them."""
    return httpx.get(f"{server.http}/v1/scans/{scan}/raw").raise_for_status().content


def resident_bytes() -> int:
    """Memory of this process, the server included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def check_reason(record: ScanRecord, bad: Bad) -> None:
    """One sentence, and the right one."""
    assert record.state is State.FAILED
    assert "\n" not in record.reason
    for words in bad.words:
        assert words in record.reason


@pytest.mark.parametrize("name", BAD)
def test_over_tcp(server: Running, name: str) -> None:
    bad, before = BAD[name], resident_bytes()
    stream = bad.stream()
    # The neighbour is the newest TCP scan until this one comes.
    known = {record.id for record in server.service.scans()}
    heard = converse(server.mrd, stream)
    (record,) = [record for record in server.service.scans() if record.id not in known]
    record = server.service.wait(record.id, 10.0)
    check_reason(record, bad)
    assert heard.texts == [f"ERROR {record.reason}"]
    assert heard.closed
    kept = raw(server, record.id)
    assert kept and stream.startswith(kept)
    assert resident_bytes() - before < GROWTH_BYTES


@pytest.mark.parametrize("name", BAD)
def test_over_http(server: Running, name: str) -> None:
    bad, before = BAD[name], resident_bytes()
    stream = bad.stream()
    answer = httpx.post(f"{server.http}/v1/scans", content=stream, headers={"content-type": "application/x-mrd"})
    if bad.late:
        assert answer.status_code == 201
        scan = answer.json()["scan"]
        text = httpx.get(f"{server.http}/v1/scans/{scan}/images?follow=1").content
        assert b"ERROR " in text
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code in (400, 413, 422)
        scan = answer.json()["scan"]
    record = server.service.wait(scan, 10.0)
    check_reason(record, bad)
    if not bad.late:
        assert answer.json()["detail"] == record.reason
    assert stream.startswith(raw(server, scan))
    assert resident_bytes() - before < GROWTH_BYTES


def test_a_stream_cut_short_over_tcp(server: Running) -> None:
    stream = TRUNCATED()
    known = {record.id for record in server.service.scans()}
    with socket.create_connection(server.mrd, timeout=30.0) as connection:
        connection.sendall(stream)
        connection.shutdown(socket.SHUT_WR)
        heard = listen(connection)
    (record,) = [record for record in server.service.scans() if record.id not in known]
    record = server.service.wait(record.id, 10.0)
    assert record.state is State.INCOMPLETE
    assert "left before the close message" in record.reason
    assert heard.texts == [f"ERROR {record.reason}"]
    assert heard.closed
    assert raw(server, record.id) == stream


def test_a_stream_cut_short_over_http(server: Running) -> None:
    stream = TRUNCATED()
    answer = httpx.post(f"{server.http}/v1/scans", content=stream, headers={"content-type": "application/x-mrd"})
    assert answer.status_code == 400
    record = server.service.wait(answer.json()["scan"], 10.0)
    assert record.state is State.FAILED
    assert "772 of 822" in record.reason == answer.json()["detail"]
    assert raw(server, record.id) == stream


def test_a_client_that_leaves_in_the_middle_of_a_connection(server: Running) -> None:
    stream = scans.stream(scans.frames(2), close=False)
    known = {record.id for record in server.service.scans()}
    with socket.create_connection(server.mrd, timeout=30.0) as connection:
        connection.sendall(stream)
        assert eventually(lambda: any(r.id not in known and r.readouts == 24 for r in server.service.scans()))
        # A reset, as of a process that was killed.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    (record,) = [record for record in server.service.scans() if record.id not in known]
    record = server.service.wait(record.id, 10.0)
    assert record.state is State.INCOMPLETE
    assert record.images == 2  # what was complete is done all the same
    assert raw(server, record.id) == stream


def test_a_client_that_leaves_in_the_middle_of_an_upload(server: Running) -> None:
    stream = scans.stream(scans.frames(2))
    known = {record.id for record in server.service.scans()}
    head = "POST /v1/scans HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-mrd\r\n"
    with socket.create_connection(address_of(server.http), timeout=30.0) as connection:
        connection.sendall(f"{head}content-length: {len(stream) + 1000}\r\n\r\n".encode() + stream[:-2])
        assert eventually(lambda: any(r.id not in known and r.readouts == 24 for r in server.service.scans()))
    (record,) = [record for record in server.service.scans() if record.id not in known]
    record = server.service.wait(record.id, 10.0)
    assert record.state is State.INCOMPLETE
    assert "before the end of the body" in record.reason
    assert record.images == 2
    assert raw(server, record.id) == stream[:-2]


def address_of(url: str) -> tuple[str, int]:
    """Host and port of an HTTP address."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


@pytest.mark.parametrize(
    "content", [b"\x89HDF\r\n\x1a\n" + 1250 * b"\xff\x00\x7f!", b"not HDF5 at all " * 100], ids=[1, 2]
)
def test_a_file_that_is_not_hdf5(server: Running, content: bytes) -> None:
    answer = httpx.post(f"{server.http}/v1/scans", content=content, headers={"content-type": "application/x-hdf5"})
    assert answer.status_code == 400, answer.text
    record = server.service.wait(answer.json()["scan"], 10.0)
    assert record.state is State.FAILED
    assert "HDF5" in record.reason == answer.json()["detail"]
    assert raw(server, record.id) == content


def test_an_hdf5_file_that_is_not_ismrmrd(server: Running, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["temperature"] = np.arange(12.0)
    content = (tmp_path / "other.h5").read_bytes()
    answer = httpx.post(f"{server.http}/v1/scans", content=content, headers={"content-type": "application/x-hdf5"})
    assert answer.status_code == 400, answer.text
    record = server.service.wait(answer.json()["scan"], 10.0)
    assert record.state is State.FAILED
    assert "dataset" in record.reason == answer.json()["detail"]
    assert raw(server, record.id) == content


def test_images_before_a_bad_readout(server: Running) -> None:
    sent = scans.frames(4)
    sent[3].head["kspace_encode_step_1"][5] = 999
    stream = scans.stream(sent)
    known = {record.id for record in server.service.scans()}
    heard = converse(server.mrd, stream)
    (record,) = [record for record in server.service.scans() if record.id not in known]
    images = sorted(heard.images, key=lambda image: image.counters.repetition)
    for image, readouts in zip(images, sent[:3], strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)
    assert heard.texts == [f"ERROR {record.reason}"] and heard.closed
    assert "readout 41 has kspace_encode_step_1 999, the header's limits allow 0 to 11" in record.reason
    assert (record.state, record.images) == (State.FAILED, 3)
    assert stream.startswith(raw(server, record.id))


def test_a_second_header(server: Running) -> None:
    heard = converse(server.mrd, HEADER + encode_header(b"<x/>"))
    assert len(heard.texts) == 1
    assert heard.texts[0].startswith("ERROR ")
    assert heard.closed

"""How scans come in: every way to send a body, and requests that cannot be met."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cluster.documents import read_record
from cluster.events import State
from recon.mrd.hdf5 import write_scan
from recon.mrd.header import parse_header, write_header
from recon.mrd.wire import Decoder, HeaderXml
from recon.scan import Scan
from tests.cluster import scans
from tests.cluster.gateway.http.conversation import (
    HDF5,
    MRD,
    begun,
    check_problem,
    head,
    status,
    upload,
)
from tests.end_to_end.running import Running, eventually


def test_a_scan_is_on_disk_when_it_is_answered(server: Running, http: httpx.Client) -> None:
    stream = scans.stream(scans.frames(2))
    answer = http.post("/v1/scans?method=fft&priority=stat&name=head", content=stream, headers=MRD)
    assert answer.status_code == 201
    record = read_record(answer.json())
    assert answer.headers["location"] == f"/v1/scans/{record.id}"
    assert (server.service.config.spool_folder / f"{record.id}.mrd").read_bytes() == stream
    assert (record.priority.name, record.name, record.transport, record.complete) == ("STAT", "head", "http", True)
    assert (record.readouts, record.frames, record.bytes) == (24, 2, len(stream))


def pieces(stream: bytes, size: int) -> Iterator[bytes]:
    """`stream` cut up."""
    return (stream[at : at + size] for at in range(0, len(stream), size))


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_a_body_of_unknown_length(server: Running, http: httpx.Client, size: int) -> None:
    stream = scans.stream([scans.frame(seed=3, lines=4)], scans.header(lines=4))
    answer = http.post("/v1/scans?method=fft", content=pieces(stream, size), headers=MRD)
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert answer.status_code == 201
    record = server.service.wait(answer.json()["scan"], 30.0)
    assert (record.state, record.images, record.bytes) == (State.DONE, 1, len(stream))


@pytest.mark.parametrize("cut", [0, 1, 5000])
def test_a_body_that_comes_slowly(server: Running, cut: int) -> None:
    """Whether the first bytes come with the request or after it, the body is the same."""
    stream = scans.stream(scans.frames(1))
    with upload(server) as connection:
        connection.sendall(head(len(stream)) + stream[:cut])
        time.sleep(0.1)
        for piece in pieces(stream[cut:], 3000):
            connection.sendall(piece)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 201 ")
    assert b"connection: close" in start
    assert server.service.wait(json.loads(body)["scan"], 30.0).images == 1


def test_a_client_that_asks_before_it_sends(server: Running) -> None:
    """curl sends large bodies only after `100 Continue`, and spares them where the answer is no."""
    stream = scans.stream(scans.frames(1))
    with upload(server) as connection:
        connection.sendall(head(len(stream), "expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(stream)
        assert status(connection) == 201
    with upload(server) as connection:
        connection.sendall(head(10**9, "expect: 100-continue", kind="text/plain"))
        assert status(connection) == 415


def test_a_connection_serves_many_small_scans(server: Running) -> None:
    """A body that comes with its request leaves the connection open; one read by a thread closes it."""
    stream = scans.stream(scans.frames(1))
    with httpx.Client(base_url=server.http) as client:
        answers = [client.post("/v1/scans", content=stream, headers=MRD) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [201] * 5
        assert client.get("/healthz").status_code == 200


def hdf5(path: Path, count: int = 2) -> bytes:
    """An ISMRMRD file of `count` frames."""
    header = parse_header(write_header(scans.header(repetitions=count)))
    write_scan(path, Scan(header, tuple(scans.frames(count))))
    return path.read_bytes()


def spool_bytes(http: httpx.Client) -> float:
    """As scraped."""
    lines = http.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("recon_spool_bytes "))


def test_an_hdf5_file(server: Running, http: httpx.Client, tmp_path: Path) -> None:
    content, before = hdf5(tmp_path / "scan.h5"), spool_bytes(http)
    answer = http.post("/v1/scans?method=fft", content=content, headers=HDF5)
    assert answer.status_code == 201, answer.text
    record = server.service.wait(answer.json()["scan"], 30.0)
    assert (record.state, record.images, record.group) == (State.DONE, 2, "dataset")
    start = (server.service.config.spool_folder / f"{record.id}.mrd").read_bytes()
    (message,) = Decoder().feed(start)  # of the stream made of the file its header stays, for DICOM
    assert isinstance(message, HeaderXml)
    assert spool_bytes(http) - before == len(content) + len(start)
    assert http.get(f"/v1/scans/{record.id}/images/0.dcm").status_code == 200
    server.service.requeue(record.id)
    assert server.service.wait(record.id, 30.0).state is State.DONE
    assert spool_bytes(http) - before == len(content) + len(start)
    raw = http.get(f"/v1/scans/{record.id}/raw")
    assert raw.headers["content-type"] == "application/x-hdf5"
    assert raw.content == content
    images = sorted(server.service.images(record.id), key=lambda image: image.counters.repetition)
    for image, readouts in zip(images, scans.frames(2), strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)
    (server.service.config.spool_folder / f"{record.id}.h5").unlink()  # the stream's start alone is not what was sent
    check_problem(http.get(f"/v1/scans/{record.id}/raw"), 404, f"no raw data of scan {record.id} are kept")


@pytest.mark.parametrize("body", [b"", b"\x04\x00"], ids=["empty", "close"])
def test_a_stream_that_holds_no_scan_is_refused(server: Running, http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/scans", content=body, headers=MRD)
    check_problem(answer, 400, "the stream closed before a header came: send the header, then the readouts")
    assert server.service.wait(answer.json()["scan"], 30.0).state is State.FAILED


def test_a_key_makes_a_repeated_upload_the_same_scan(server: Running, http: httpx.Client) -> None:
    stream, headers = scans.stream(scans.frames(1)), {**MRD, "idempotency-key": "only-once"}
    first = http.post("/v1/scans", content=stream, headers=headers)
    again = http.post("/v1/scans", content=stream, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["scan"] == again.json()["scan"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = http.post("/v1/scans", content=stream, headers={**MRD, "idempotency-key": "another"})
    assert other.json()["scan"] != first.json()["scan"]


def test_a_key_of_a_scan_that_is_still_coming_in(server: Running, http: httpx.Client) -> None:
    stream = scans.stream(scans.frames(1))
    with begun(server, stream, 2000, "idempotency-key: in-flight") as (connection, scan):
        answer = http.post("/v1/scans", content=stream, headers={**MRD, "idempotency-key": "in-flight"})
        check_problem(answer, 409, "still coming in", scan)
        assert answer.headers["retry-after"] == "1"
        connection.sendall(stream[2000:])
        assert status(connection) == 201


def test_a_key_whose_first_upload_broke_off_counts_anew(server: Running, http: httpx.Client) -> None:
    stream = scans.stream(scans.frames(1))
    with begun(server, stream, 2000, "idempotency-key: broke-off"):
        pass

    def send() -> int:
        return http.post("/v1/scans", content=stream, headers={**MRD, "idempotency-key": "broke-off"}).status_code

    assert eventually(lambda: send() == 201)


@pytest.mark.parametrize(
    ("path", "headers", "status", "words"),
    [
        ("/v1/scans", {"content-type": "text/plain"}, 415, ("'text/plain'", "application/x-mrd", "application/x-hdf5")),
        ("/v1/scans", {}, 415, ("''",)),
        ("/v1/scans?method=magic", MRD, 422, ("'magic'", "fft", "default.xml")),
        ("/v1/scans?method=%7B%22method%22%3A%22fft%22%2C%22x%22%3A1%7D", MRD, 422, ("'x'", "fft")),
        ("/v1/scans?priority=now", MRD, 422, ("'now'", "stat, routine, research")),
        (f"/v1/scans?name={'x' * 201}", MRD, 422, ("name", "200 characters")),
        ("/v1/scans?group=a", MRD, 422, ("the group is 'a', but an MRD stream has none: leave it out",)),
        ("/v1/scans?group=a%00", HDF5, 422, (r"the group is 'a\x00', which no HDF5 file can hold",)),
    ],
)
def test_requests_that_cannot_be_met(
    http: httpx.Client, path: str, headers: dict[str, str], status: int, words: tuple[str, ...]
) -> None:
    check_problem(http.post(path, content=scans.stream(scans.frames(1)), headers=headers), status, *words)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/scans?limit=0",
        "/v1/scans?state=sleeping",
        "/v1/scans/x/images?start=-1",
        "/v1/scans/x/images?follow=perhaps",
        "/v1/scans/x/images/0.dcm?plane=-1",
        "/v1/scans/x/images/x.png",
    ],
)
def test_a_parameter_that_cannot_be_used_is_a_problem_of_its_own(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    check_problem(answer, 422, "correct the request")
    assert answer.json()["type"] == "urn:recon-cluster:problem:request"
    assert answer.json()["title"] == "A parameter of the request cannot be used"


def test_each_refusal_of_a_request_has_a_name(http: httpx.Client, done: str) -> None:
    kinds = {
        "media-type": http.post("/v1/scans", content=b"x", headers={"content-type": "text/plain"}),
        "accept": http.get(f"/v1/scans/{done}/images", headers={"accept": "text/html"}),
        "route": http.get("/"),
        "verb": http.post("/v1/cluster"),
        "request": http.get("/v1/scans?limit=0"),
        "missing": http.get("/v1/scans/nowhere"),
    }
    assert {kind: answer.json()["type"] for kind, answer in kinds.items()} == {
        kind: f"urn:recon-cluster:problem:{kind}" for kind in kinds
    }


def test_problems_of_a_submission_tell_parameters_from_recipes(http: httpx.Client) -> None:
    kinds = {"priority=now": "request", f"name={'x' * 201}": "request", "method=magic": "recipe"}
    for query, kind in kinds.items():
        answer = http.post(f"/v1/scans?{query}", content=scans.stream(scans.frames(1)), headers=MRD)
        assert answer.json()["type"] == f"urn:recon-cluster:problem:{kind}"

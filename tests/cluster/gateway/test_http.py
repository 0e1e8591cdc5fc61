"""The HTTP API over real sockets: every route, every way to send a body, problems, limits, the OpenAPI document."""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import numpy as np
import pytest

from cluster.client import Client, Options
from cluster.documents import PROBLEM_TYPE, problem_schema, read_record
from cluster.events import State
from cluster.gateway.http import Context, Following, _events
from cluster.gateway.limits import Slots
from cluster.job import ScanRecord
from cluster.sources import MRD_TYPE
from recon.errors import FileError, PackageError
from recon.mrd.hdf5 import read_images, write_scan
from recon.mrd.header import parse_header, write_header
from recon.mrd.wire import Close, Decoder, HeaderXml, ImageMessage, Text
from recon.scan import Image, Scan
from tests.cluster import scans
from tests.end_to_end.running import Running, eventually, running

MRD = {"content-type": "application/x-mrd"}
HDF5 = {"content-type": "application/x-hdf5"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        assert eventually(lambda: server.service.ready)
        yield server


@pytest.fixture(scope="module")
def http(server: Running) -> Iterator[httpx.Client]:
    """A plain HTTP client: not ours, which would hide what the server says."""
    with httpx.Client(base_url=server.http, timeout=30.0) as http:
        yield http


@pytest.fixture(scope="module")
def done(server: Running, http: httpx.Client) -> str:
    """A scan of three frames that is done."""
    answer = http.post("/v1/scans?method=fft&name=three", content=scans.stream(scans.frames(3)), headers=MRD)
    assert answer.status_code == 201
    scan: str = answer.json()["scan"]
    assert server.service.wait(scan, 30.0).state is State.DONE
    return scan


def decode(data: bytes) -> tuple[list[Image], list[str], bool]:
    """Images, texts and whether the stream was closed."""
    messages = list(Decoder().feed(data))
    images = [message.image for message in messages if isinstance(message, ImageMessage)]
    return images, [m.text for m in messages if isinstance(m, Text)], isinstance(messages[-1], Close)


def check_problem(answer: httpx.Response, status: int, *words: str) -> None:
    """A problem document with this status, whose detail holds these words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM_TYPE
    problem = answer.json()
    assert {"type", "title", "status", "detail"} <= problem.keys()
    assert problem["status"] == status
    assert problem["type"] in problem_schema()["properties"]["type"]["enum"]
    for word in words:
        assert word in problem["detail"]


def address_of(url: str) -> tuple[str, int]:
    """Host and port of an HTTP address."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def head(length: int | None, *lines: str, kind: str = "application/x-mrd") -> bytes:
    """The start of an upload as it stands on the wire; without `length`, of a chunked one."""
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return "\r\n".join(["POST /v1/scans HTTP/1.1", "host: x", f"content-type: {kind}", size, *lines, "\r\n"]).encode()


def upload(server: Running) -> socket.socket:
    """A bare connection to the HTTP gateway."""
    return socket.create_connection(address_of(server.http), timeout=30.0)


@contextmanager
def begun(
    server: Running, stream: bytes, count: int, *lines: str, until: Callable[[ScanRecord], bool] = lambda record: True
) -> Iterator[tuple[socket.socket, str]]:
    """An upload of which `count` bytes are sent, and its scan once `until` is true of it."""
    known = {record.id for record in server.service.scans(limit=10_000)}

    def seen() -> str:
        records = server.service.scans(limit=10)
        return next((record.id for record in records if record.id not in known and until(record)), "")

    with upload(server) as connection:
        connection.sendall(head(len(stream), *lines) + stream[:count])
        assert eventually(lambda: bool(seen()))
        yield connection, seen()


def status(connection: socket.socket) -> int:
    """The status that a bare connection is answered with."""
    return int(connection.recv(65536).split(b" ", 2)[1])


# ---- scans in ----


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
    head = (server.service.config.spool_folder / f"{record.id}.mrd").read_bytes()
    (message,) = Decoder().feed(head)  # of the stream made of the file its header stays, for DICOM
    assert isinstance(message, HeaderXml)
    assert spool_bytes(http) - before == len(content) + len(head)
    assert http.get(f"/v1/scans/{record.id}/images/0.dcm").status_code == 200
    server.service.requeue(record.id)
    assert server.service.wait(record.id, 30.0).state is State.DONE
    assert spool_bytes(http) - before == len(content) + len(head)
    raw = http.get(f"/v1/scans/{record.id}/raw")
    assert raw.headers["content-type"] == "application/x-hdf5"
    assert raw.content == content
    images = sorted(server.service.images(record.id), key=lambda image: image.counters.repetition)
    for image, readouts in zip(images, scans.frames(2), strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)


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


# ---- states ----


def test_the_list_is_newest_first_and_can_be_narrowed(server: Running, http: httpx.Client, done: str) -> None:
    ids = [record["scan"] for record in http.get("/v1/scans?limit=1000").json()["scans"]]
    assert ids == sorted(ids, reverse=True)
    assert done in ids
    assert len(http.get("/v1/scans?limit=1").json()["scans"]) == 1
    states = {record["state"] for record in http.get("/v1/scans?state=done").json()["scans"]}
    assert states == {"done"}
    check_problem(http.get("/v1/scans?state=sleeping"), 422, "state")
    check_problem(http.get("/v1/scans?limit=0"), 422, "limit")


def test_a_record_says_what_happened_when(http: httpx.Client, done: str) -> None:
    record = read_record(http.get(f"/v1/scans/{done}").json())
    assert (record.id, record.state, record.chosen, record.images, record.name) == (done, State.DONE, "fft", 3, "three")
    times = [record.created_s, record.header_s, record.received_s, record.finished_s]
    assert times == sorted(times)
    assert abs(times[0] - time.time()) < 600.0


def test_the_log_as_text_and_as_json(http: httpx.Client, done: str) -> None:
    text = http.get(f"/v1/scans/{done}/log")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text.endswith("Z done\n")
    lines = http.get(f"/v1/scans/{done}/log", headers={"accept": "application/json"}).json()["lines"]
    assert [line["text"] for line in lines] == [line.split(" ", 1)[1] for line in text.text.splitlines()]


def test_raw_data_are_what_was_sent(http: httpx.Client, done: str) -> None:
    answer = http.get(f"/v1/scans/{done}/raw")
    assert answer.headers["content-type"] == "application/x-mrd"
    assert answer.content == scans.stream(scans.frames(3))


def test_cancelling_twice_is_cancelling_once(server: Running, http: httpx.Client, done: str) -> None:
    assert http.delete(f"/v1/scans/{done}").json()["state"] == "done"  # what has ended stays as it is
    stream = scans.stream(scans.frames(1))
    with begun(server, stream, len(stream) - 2, until=lambda record: record.readouts == 12) as (connection, scan):
        for _ in range(2):
            assert http.delete(f"/v1/scans/{scan}").json()["state"] == "cancelled"
        connection.sendall(stream[-2:])
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert b"cancelled" in answer


def test_requeue_runs_a_scan_again(server: Running, http: httpx.Client) -> None:
    scan = http.post("/v1/scans?method=fft", content=scans.stream(scans.frames(2)), headers=MRD).json()["scan"]
    before = server.service.wait(scan, 30.0)
    assert http.post(f"/v1/scans/{scan}/requeue").status_code == 200
    after = server.service.wait(scan, 30.0)
    assert (after.state, after.images) == (State.DONE, 2)
    assert after.finished_s > before.finished_s


def test_requeue_of_a_scan_that_runs_is_refused(server: Running, http: httpx.Client) -> None:
    stream = scans.stream(scans.frames(1))
    with begun(server, stream, 5000) as (connection, scan):
        check_problem(http.post(f"/v1/scans/{scan}/requeue"), 409, "only one that has ended can run again")
        connection.sendall(stream[5000:])
        assert status(connection) == 201


UNKNOWN = ("", "/images", "/images?follow=1", "/images/0.png", "/images/0.dcm", "/log", "/raw", "/events")


@pytest.mark.parametrize("below", UNKNOWN)
def test_a_scan_that_is_not_there(http: httpx.Client, below: str) -> None:
    check_problem(http.get(f"/v1/scans/nowhere{below}"), 404, "'nowhere'")


def test_other_things_that_are_not_there(http: httpx.Client, done: str) -> None:
    check_problem(http.delete("/v1/scans/nowhere"), 404, "'nowhere'")
    check_problem(http.post("/v1/scans/nowhere/requeue"), 404, "'nowhere'")
    check_problem(http.get("/v2/scans"), 404, "there is nothing at '/v2/scans': /openapi.json lists what there is")
    answer = http.put(f"/v1/scans/{done}")
    check_problem(answer, 405, f"'/v1/scans/{done}' does not take PUT, it takes DELETE, GET: use one of them")
    assert answer.headers["allow"] == "DELETE, GET"
    check_problem(http.get(f"/v1/scans/{done}/images/3.png"), 404, "3 images", "no image 3: ask for one of them")
    check_problem(http.get(f"/v1/scans/{done}/images/x.png"), 422, "number")
    for picture in ("-1.png", "-1.dcm"):
        check_problem(http.get(f"/v1/scans/{done}/images/{picture}"), 422, "number", "greater than or equal to 0")
    check_problem(http.get(f"/v1/scans/{done}/images/0.dcm?plane=1"), 404, "1 planes")


# ---- images out ----


def test_images_as_an_mrd_stream(http: httpx.Client, done: str) -> None:
    for query in ("", "?follow=1"):
        answer = http.get(f"/v1/scans/{done}/images{query}", headers={"accept": "application/x-mrd"})
        assert answer.headers["content-type"] == "application/x-mrd"
        images, texts, closed = decode(answer.content)
        assert (len(images), texts, closed) == (3, [], True)
    rest = decode(http.get(f"/v1/scans/{done}/images?start=2").content)[0]
    np.testing.assert_array_equal(rest[0].pixels, images[2].pixels)
    assert len(rest) == 1
    assert decode(http.get(f"/v1/scans/{done}/images?start=99").content) == ([], [], True)


def test_images_are_followed_as_they_are_made(server: Running) -> None:
    stream = scans.stream(scans.frames(2))
    first = len(stream) - 2 - 11 * (len(stream) // 30)  # the first frame, and a part of the second
    with (
        begun(server, stream, first, until=lambda record: record.images == 1) as (connection, scan),
        httpx.Client(base_url=server.http, timeout=30.0) as client,
        client.stream("GET", f"/v1/scans/{scan}/images?follow=1") as answer,
    ):
        decoder, images, closed = Decoder(), 0, False
        for data in answer.iter_bytes():
            for message in decoder.feed(data):
                closed = closed or isinstance(message, Close)
                if isinstance(message, ImageMessage):
                    images += 1
                    if images == 1:  # the rest is sent only once the first image is here
                        connection.sendall(stream[first:])
    assert (images, closed) == (2, True)


def test_images_as_hdf5_dicom_and_png(server: Running, http: httpx.Client, done: str, tmp_path: Path) -> None:
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": "application/x-hdf5"})
    (tmp_path / "images.h5").write_bytes(answer.content)
    stored = list(server.service.images(done))
    for image, expected in zip(read_images(tmp_path / "images.h5"), stored, strict=True):
        np.testing.assert_array_equal(image.pixels, expected.pixels)
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 3
        assert all(archive.read(name)[128:132] == b"DICM" for name in archive.namelist())
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": "image/png"})
    assert answer.content.startswith(b"\x89PNG")
    assert not list(server.service.config.data.glob("images-*"))  # nothing is left of making the HDF5 file


def test_a_server_without_pydicom_says_so_before_it_answers(
    server: Running, http: httpx.Client, done: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    words = (
        "on the server, DICOM output needs the package pydicom, which is not installed:"
        " install the extra [dicom] or choose .h5"
    )
    for path, accept in (("images", "application/zip"), ("images/0.dcm", "*/*")):
        answer = http.get(f"/v1/scans/{done}/{path}", headers={"accept": accept})
        check_problem(answer, 501, words)
        assert answer.json()["type"] == "urn:recon-cluster:problem:package"
    said: list[str] = []
    with Client(server.http, options=Options(notice=said.append)) as client, pytest.raises(PackageError) as caught:
        client.scan(done).save(tmp_path / "dicom")
    assert (str(caught.value), said) == (words, [])  # at the first attempt
    assert not [*tmp_path.iterdir()]


def test_one_image_as_png_and_as_dicom(http: httpx.Client, done: str) -> None:
    from PIL import Image as pillow

    answer = http.get(f"/v1/scans/{done}/images/1.png")
    assert answer.headers["content-type"] == "image/png"
    with pillow.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (scans.SAMPLES, scans.LINES)
    answer = http.get(f"/v1/scans/{done}/images/1.dcm")
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.content[128:132] == b"DICM"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/x-mrd"),
        ("application/zip;q=0.5, application/x-hdf5;q=0.9, text/html", "application/x-hdf5"),
        ("image/*", "image/png"),
        ("application/x-hdf5;q=nonsense", "application/x-hdf5"),
    ],
)
def test_the_form_of_images_is_negotiated(http: httpx.Client, done: str, accept: str, chosen: str) -> None:
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, chosen)


def test_a_form_that_nobody_offers(http: httpx.Client, done: str) -> None:
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": "text/html, application/zip;q=0"})
    check_problem(answer, 406, "text/html", "application/x-mrd")


def test_no_images_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images-killed").mkdir()
    (tmp_path / "images-killed" / "scan.h5").write_bytes(b"of a patient")
    wanted = {"accept": "application/x-hdf5"}
    with running(tmp_path) as server:
        assert not list(tmp_path.glob("images-*"))
        answer = httpx.post(f"{server.http}/v1/scans", content=scans.stream(scans.frames(1)), headers=MRD)
        scan = answer.json()["scan"]
        server.service.wait(scan, 30.0)
        assert httpx.get(f"{server.http}/v1/scans/{scan}/images", headers=wanted).status_code == 200
        assert eventually(lambda: not list(tmp_path.glob("images-*")))

        def half(path: Path, images: Iterator[Image]) -> None:
            path.write_bytes(next(iter(images)).pixels.tobytes())
            raise FileError("the disk is full: free some space")

        monkeypatch.setattr("cluster.gateway.pictures.write_images", half)
        check_problem(httpx.get(f"{server.http}/v1/scans/{scan}/images", headers=wanted), 400, "the disk is full")
        assert not list(tmp_path.glob("images-*"))


# ---- events ----


def events_of(answer: httpx.Response) -> Iterator[tuple[str, dict[str, object]]]:
    """Server-sent events as they come."""
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_events_of_a_scan_end_with_it(server: Running, http: httpx.Client, done: str) -> None:
    with http.stream("GET", f"/v1/scans/{done}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert list(events_of(answer)) == [("state", {"scan": done, "state": "done", "images": 3})]


def test_events_go_on_behind_the_last_one_heard(server: Running, http: httpx.Client) -> None:
    scan = http.post("/v1/scans", content=scans.stream(scans.frames(3)), headers=MRD).json()["scan"]
    server.service.wait(scan, 30.0)
    whole = [told for told in heard_by(server, "") if told[2]["scan"] == scan]
    for number in range(len(whole) - 1):
        again = http.get(f"/v1/scans/{scan}/events", headers={"last-event-id": whole[number][0]}).text
        assert told_in(again) == whole[number + 1 :]
    assert told_in(http.get(f"/v1/scans/{scan}/events", headers={"last-event-id": whole[-1][0]}).text) == []


def heard_by(server: Running, after: str) -> list[tuple[str, str, dict[str, object]]]:
    """Id, name and values of the events that the server has kept so far."""
    subscription = server.service.events(after=after or f"{server.service._feed._run}-0")
    subscription.close()
    return [(told.id, told.name, dict(told.values)) for told in subscription]


def told_in(text: str) -> list[tuple[str, str, dict[str, object]]]:
    """The same of a stream of server-sent events."""
    found = re.findall(r"^(?:id: (\S+)\n)?event: (\w+)\ndata: (.*)$", text, re.MULTILINE)
    return [(place, name, json.loads(values)) for place, name, values in found]


def test_events_that_are_not_known_any_more_are_told_to_be_lost(http: httpx.Client, done: str) -> None:
    lost, now = told_in(http.get(f"/v1/scans/{done}/events", headers={"last-event-id": "before-7"}).text)
    # Without an id of its own: who hears no more than this asks once more, and hears the state then.
    assert lost == ("", "lost", {"after": "before-7"})
    assert now[1:] == ("state", {"scan": done, "state": "done", "images": 3})


def test_a_follower_too_slow_hears_how_many_events_it_lost(tmp_path: Path) -> None:
    async def follow() -> list[tuple[str, str, dict[str, object]]]:
        told = _events(Context(service), "", after="")
        await anext(told)
        await anyio.to_thread.run_sync(scans.run, service, scans.stream(scans.frames(5)))
        heard = "".join([(await anext(told)).decode() for _ in range(3)])
        await told.aclose()
        return told_in(heard)

    with scans.serving(tmp_path, subscription_events=2) as service:
        lost, image, state = anyio.run(follow)
    place, name, values = lost
    assert (place, name, list(values)) == ("", "lost", ["events"])
    assert values["events"] >= 5  # type: ignore[operator]  # of five images and some states, two were kept
    assert image[1] in ("image", "state")
    assert (state[1], state[2]["state"]) == ("state", "done")


def test_events_of_all_scans(server: Running, http: httpx.Client) -> None:
    with httpx.Client(base_url=server.http, timeout=30.0) as client, client.stream("GET", "/v1/events") as answer:
        stream = scans.stream(scans.frames(2))
        sender = threading.Thread(target=lambda: httpx.post(f"{server.http}/v1/scans", content=stream, headers=MRD))
        sender.start()
        seen = []
        for name, values in events_of(answer):
            seen.append((name, values["state"]))
            if seen[-1] == ("state", "done"):
                break
        sender.join()
    assert [name for name, _ in seen].count("image") == 2


# ---- the server itself ----


def test_the_server_describes_itself(server: Running, http: httpx.Client) -> None:
    assert http.get("/healthz").text == "ok\n"
    assert http.get("/readyz").status_code == 200
    cluster = http.get("/v1/cluster").json()
    assert {worker["worker"] for worker in cluster["workers"]} == {"w0", "w1"}
    assert cluster["ready"] is True
    names = {recipe["name"]: recipe for recipe in http.get("/v1/recipes").json()["recipes"]}
    assert names["simplefft"]["method"] == "fft"
    assert "recon_scans_accepted_total" in http.get("/metrics").text


def test_openapi_names_every_route(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert routes == {
        ("post", "/v1/scans"),
        ("get", "/v1/scans"),
        ("get", "/v1/scans/{scan}"),
        ("delete", "/v1/scans/{scan}"),
        ("post", "/v1/scans/{scan}/requeue"),
        ("get", "/v1/scans/{scan}/images"),
        ("get", "/v1/scans/{scan}/images/{number}.png"),
        ("get", "/v1/scans/{scan}/images/{number}.dcm"),
        ("get", "/v1/scans/{scan}/events"),
        ("get", "/v1/scans/{scan}/log"),
        ("get", "/v1/scans/{scan}/raw"),
        ("get", "/v1/events"),
        ("get", "/v1/cluster"),
        ("get", "/v1/recipes"),
        ("get", "/metrics"),
        ("get", "/healthz"),
        ("get", "/readyz"),
    }


def test_openapi_describes_bodies_and_problems(http: httpx.Client) -> None:
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            assert "4XX" in operation["responses"], (method, path)
            assert "422" not in operation["responses"], (method, path)
            assert operation["summary"]
    post = http.get("/openapi.json").json()["paths"]["/v1/scans"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/x-mrd", "application/x-hdf5"}
    assert "application/json" in post["responses"]["201"]["content"]


def test_the_record_is_as_openapi_says(http: httpx.Client, done: str) -> None:
    document = http.get("/openapi.json").json()
    answer = document["paths"]["/v1/scans/{scan}"]["get"]["responses"]["200"]
    schema = answer["content"]["application/json"]["schema"]
    record = http.get(f"/v1/scans/{done}").json()
    assert set(schema["required"]) == set(schema["properties"]) == set(record)
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
    for name, rule in schema["properties"].items():
        assert record[name] in rule["enum"] if "enum" in rule else isinstance(record[name], kinds[rule["type"]]), name


# ---- limits ----


def test_too_many_uploads_wait_their_turn(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(1))
    with running(tmp_path, max_uploads=1) as server:
        with begun(server, stream, 3000) as (connection, _):
            answer = httpx.post(f"{server.http}/v1/scans", content=stream, headers=MRD)
            check_problem(answer, 429, "1 uploads are under way")
            assert int(answer.headers["retry-after"]) > 0
            connection.sendall(stream[3000:])
            assert status(connection) == 201
        answer = httpx.post(f"{server.http}/v1/scans", content=stream, headers=MRD)
        assert answer.status_code == 201


def test_a_full_server_says_when_to_come_again(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(1), close=False)
    with running(tmp_path, max_scans_in_flight=1) as server, socket.create_connection(server.mrd) as connection:
        connection.sendall(stream)
        assert eventually(lambda: bool(server.service.scans()))
        answer = httpx.post(f"{server.http}/v1/scans", content=stream, headers=MRD)
        check_problem(answer, 429, "1 scans are in flight")
        assert int(answer.headers["retry-after"]) > 0


def test_no_disk_is_507(tmp_path: Path) -> None:
    with running(tmp_path, spool_free_bytes=1 << 46) as server:  # more than any disk has
        answer = httpx.post(f"{server.http}/v1/scans", content=scans.stream(scans.frames(1)), headers=MRD)
    check_problem(answer, 507, "bytes are free")
    assert int(answer.headers["retry-after"]) > 0


def test_a_draining_server_is_not_ready(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.service.drain(1.0)
        assert httpx.get(f"{server.http}/healthz").status_code == 200
        assert httpx.get(f"{server.http}/readyz").status_code == 503
        answer = httpx.post(f"{server.http}/v1/scans", content=scans.stream(scans.frames(1)), headers=MRD)
        check_problem(answer, 429, "shutting down")


def test_too_many_followers_come_again_later(tmp_path: Path) -> None:
    with running(tmp_path, max_followers=1) as server:
        with httpx.Client(base_url=server.http) as client, client.stream("GET", "/v1/events"):
            check_problem(httpx.get(f"{server.http}/v1/events"), 429, "1 clients follow")
        assert eventually(lambda: _follows(server.http))


def _follows(url: str) -> bool:
    with httpx.Client(base_url=url) as client, client.stream("GET", "/v1/events") as answer:
        return answer.status_code == 200


def test_a_follower_that_goes_before_the_first_byte_gives_its_place_back() -> None:
    slots = Slots(1)
    assert slots.take()

    async def content() -> AsyncIterator[bytes]:
        yield b"never asked for"

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        await anyio.sleep_forever()  # it takes nothing more

    scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
    anyio.run(Following(slots, content(), MRD_TYPE), scope, receive, send)
    assert slots.take()


def test_followers_hear_that_the_server_lives(tmp_path: Path) -> None:
    with running(tmp_path, keep_alive_s=0.1) as server, socket.create_connection(server.mrd) as connection:
        connection.sendall(scans.stream(scans.frames(1), close=False)[:-10])
        assert eventually(lambda: bool(server.service.scans()))
        scan = server.service.scans()[0].id
        with (
            httpx.Client(base_url=server.http) as client,
            client.stream("GET", f"/v1/scans/{scan}/images?follow=1") as answer,
        ):
            decoder = Decoder()
            texts = (m.text for data in answer.iter_bytes() for m in decoder.feed(data) if isinstance(m, Text))
            assert next(texts) == "the scan is receiving"


def test_silence_and_half_a_request_are_not_waited_for(tmp_path: Path) -> None:
    with running(tmp_path, header_timeout_s=0.2) as server:
        for start in (b"", b"GET /healthz HTTP/1.1\r\nhost: x\r\n"):
            with socket.create_connection(address_of(server.http), timeout=10.0) as connection:
                connection.sendall(start)
                answer = b""
                while data := connection.recv(65536):
                    answer += data
            assert answer.startswith(b"HTTP/1.1 408 ")
            problem = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert problem["type"] == "urn:recon-cluster:problem:slow"
            assert problem["detail"].startswith("no complete request came within 0.2 s")


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_stalls_is_ended(tmp_path: Path, chunked: bool) -> None:
    stream = scans.stream(scans.frames(1))
    start = head(None) + b"bb8\r\n" + stream[:3000] + b"\r\n" if chunked else head(len(stream)) + stream[:3000]
    with running(tmp_path, idle_timeout_s=0.3, linger_timeout_s=0.1) as server:
        with upload(server) as connection:
            connection.sendall(start)
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"nothing came for 0.3 s" in answer
        (record,) = server.service.scans()
        record = server.service.wait(record.id, 10.0)
    assert record.state is State.INCOMPLETE
    assert (tmp_path / "spool" / f"{record.id}.mrd").read_bytes() == stream[:3000]


def test_connections_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(1))
    with running(tmp_path, max_http_connections=2) as server:
        with upload(server), upload(server):  # they ask for nothing, and are connections all the same
            answer = httpx.get(f"{server.http}/healthz")
            check_problem(answer, 503, "2 connections are open", "max_http_connections")
            assert answer.json()["type"] == "urn:recon-cluster:problem:refused"
            assert int(answer.headers["retry-after"]) > 0
            check_problem(httpx.post(f"{server.http}/v1/scans", content=stream, headers=MRD), 503, "2 connections")
        assert eventually(lambda: httpx.get(f"{server.http}/healthz").status_code == 200)
        assert not server.service.scans()


def test_a_refused_connection_is_closed(tmp_path: Path) -> None:
    with running(tmp_path, max_http_connections=1) as server, upload(server), upload(server) as refused:
        said = b""
        while data := refused.recv(65536):
            said += data
    assert said.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


def test_as_many_clients_as_the_limit_are_served_at_once(tmp_path: Path) -> None:
    with (
        running(tmp_path, max_http_connections=2) as server,
        httpx.Client(base_url=server.http) as one,
        httpx.Client(base_url=server.http) as other,
        one.stream("GET", "/v1/events"),
    ):
        for _ in range(5):  # one connection, however many requests
            assert other.get("/healthz").status_code == 200


def test_stopping_ends_streams_and_uploads(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(1))
    with running(tmp_path) as server:
        follower, sender = upload(server), upload(server)
        follower.sendall(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        sender.sendall(head(len(stream)) + stream[:3000])
        assert eventually(lambda: bool(server.service.scans()))
        assert status(follower) == 200
        scan = server.service.scans()[0].id
    with follower, sender:
        while follower.recv(65536):
            pass
    assert (tmp_path / "spool" / f"{scan}.mrd").read_bytes() == stream[:3000]

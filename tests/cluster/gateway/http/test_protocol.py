"""Limits: uploads, followers, connections, silence, a full disk, the end."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from cluster.events import State
from cluster.gateway.http.following import Following
from cluster.gateway.limits import Slots
from cluster.sources import MRD_TYPE
from recon.mrd.wire import Decoder, Text
from tests.cluster import scans
from tests.cluster.gateway.http.conversation import (
    MRD,
    address_of,
    begun,
    check_problem,
    head,
    status,
    upload,
)
from tests.end_to_end.running import Running, eventually, running


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


@pytest.mark.parametrize("start", [b"\x02\x00garbage\r\n\r\n", b"GET / SPDY/9\r\n\r\n"])
def test_what_is_not_http_is_answered_with_a_problem(server: Running, start: bytes) -> None:
    with socket.create_connection(address_of(server.http), timeout=10.0) as connection:
        connection.sendall(start)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n")
    assert json.loads(body)["detail"] == (
        "Invalid HTTP request received, expected HTTP/1.1: send a request as RFC 9112 has it"
    )


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

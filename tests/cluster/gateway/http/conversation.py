"""Talking HTTP by hand: bodies, heads of requests, and what must be in an answer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from cluster.documents import PROBLEM_TYPE, problem_schema
from cluster.job import ScanRecord
from recon.mrd.wire import Close, Decoder, ImageMessage, Text
from recon.scan import Image
from tests.end_to_end.running import Running, eventually

MRD = {"content-type": "application/x-mrd"}
HDF5 = {"content-type": "application/x-hdf5"}


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

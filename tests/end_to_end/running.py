"""A whole server with both gateways on free ports, and hands to talk to it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster.gateway import sockets
from cluster.gateway.http.server import HttpGateway
from cluster.gateway.tcp import MrdGateway
from cluster.service import Service
from cluster.workers import Workers
from recon.mrd.wire import Close, Decoder, ImageMessage, Response, Text
from recon.scan import Image
from tests.cluster import scans


@dataclass(frozen=True)
class Running:
    """A server and where it listens."""

    service: Service
    mrd: tuple[str, int]
    http: str


@contextmanager
def running(data: Path, workers: Workers | None = None, *, http_port: int = 0, **changes: object) -> Iterator[Running]:
    """A server in this process, with worker threads unless others are given."""
    listeners = sockets.bind("127.0.0.1", 0), sockets.bind("127.0.0.1", http_port)
    with scans.serving(data, workers, **changes) as service:
        mrd, http = MrdGateway(service, listeners[0]), HttpGateway(service, listeners[1])
        places = [sockets.address(listener) for listener in listeners]
        mrd.start()
        http.start()
        try:
            host, _, port = places[0].rpartition(":")
            yield Running(service, (host, int(port)), f"http://{places[1]}")
        finally:
            mrd.stop(timeout_s=1.0)
            http.stop(timeout_s=1.0)


@dataclass
class Heard:
    """What a server said on one connection."""

    images: list[Image] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    closed: bool = False


def listen(connection: socket.socket) -> Heard:
    """Read until the server ends the connection."""
    heard, decoder = Heard(), Decoder()
    while count := connection.recv_into(decoder.get_buffer()):
        for message in decoder.received(count):
            match message:
                case ImageMessage(image=image):
                    heard.images.append(image)
                case Text(text=text):
                    heard.texts.append(text)
                case Response():
                    heard.responses.append(message)
                case Close():
                    heard.closed = True
    return heard


def converse(address: tuple[str, int], data: bytes) -> Heard:
    """Send a whole stream over MRD/TCP, then read all that comes back."""
    with socket.create_connection(address, timeout=30.0) as connection:
        connection.sendall(data)
        return listen(connection)


def eventually(condition: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    """Whether `condition` comes true in time."""
    end = time.monotonic() + within_s
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return met

"""What routes are given: the service, and the limits of one application."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, cast

import anyio
from fastapi import Depends, Path, Request

from cluster.gateway.limits import Deadlines, Slots, Timeouts
from cluster.service import Service


class Sockets:
    """Sockets that threads read from, so that they can be cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    @contextmanager
    def known(self, connection: socket.socket) -> Iterator[None]:
        """`connection` can be cut inside the block."""
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def cut(self) -> None:
        """Have all reads end."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # the client may have gone first
                    connection.shutdown(socket.SHUT_RDWR)


class Context:
    """One application's service and limits."""

    def __init__(self, service: Service) -> None:
        config = service.config
        self.service = service
        self.uploads = Slots(config.max_uploads)
        self.followers = Slots(config.max_followers)
        self.stopping = False
        self.sockets = Sockets()
        self.upload_threads = anyio.CapacityLimiter(config.max_uploads)
        self.follower_threads = anyio.CapacityLimiter(config.max_followers)

    def deadlines(self) -> Deadlines:
        """Deadlines of one upload; uvicorn has seen its request's header in time."""
        config = self.service.config
        timeouts = Timeouts(config.header_timeout_s, config.idle_timeout_s, config.total_timeout_s)
        deadlines = Deadlines(timeouts, time.monotonic)
        deadlines.heard(header=True)
        return deadlines


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def _service(request: Request) -> Service:
    return _context(request).service


ContextOf = Annotated[Context, Depends(_context)]
ServiceOf = Annotated[Service, Depends(_service)]
ScanId = Annotated[
    str, Path(description="The scan's id, as `POST /v1/scans` answered it", examples=["01KQ3V9D2M8X0Z5T7R4B6N1CFG"])
]


async def _can_open() -> None:
    """Raise OSError where no file descriptor is left: once an answer has begun it is too late to say so."""
    os.close(os.open(os.devnull, os.O_RDONLY))


OPENS = [Depends(_can_open)]

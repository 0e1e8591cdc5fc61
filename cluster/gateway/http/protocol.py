"""uvicorn's side: a bounded number of connections, and bodies that routes read from the socket themselves."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cluster.documents import PROBLEM_TYPE, problem_document
from cluster.gateway.limits import Slots
from cluster.job import SlowError
from recon.errors import InputError, RefusedError

BODY = "recon-cluster.body"  # name of our extension in an ASGI scope
_RETRY_S = 2  # a client beyond the limit of connections is told to come again after this
_REFUSAL_S = 1.0  # and has this long to read so


class Body:
    """A request's body, for a route that reads it from the socket itself."""

    def __init__(self, protocol: BodyProtocol) -> None:
        self._protocol = protocol

    @property
    def direct(self) -> bool:
        """Whether there is more to come, and in the clear."""
        protocol = self._protocol
        return protocol.cycle.more_body and protocol.transport.get_extra_info("sslcontext") is None

    def take(self) -> tuple[bytes, socket.socket | None]:
        """What came so far, and a socket with the rest; the event loop reads no more, and closes after its answer.

        No socket where the client has left already.
        """
        protocol = self._protocol
        cycle, transport = protocol.cycle, protocol.transport
        protocol.flow.pause_reading()
        cycle.keep_alive = False
        if cycle.waiting_for_100_continue:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        number = -1 if cycle.disconnected else transport.get_extra_info("socket").fileno()
        return bytes(cycle.body), None if number < 0 else socket.socket(fileno=os.dup(number))


class BodyProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a bounded number of connections, which gives bodies away as sockets.

    It does not wait for ever for a request.
    """

    def __init__(self, *args: Any, header_timeout_s: float, places: Slots, **options: Any) -> None:
        super().__init__(*args, **options)
        self._header_timeout_s = header_timeout_s
        self._places = places
        self._placed = False
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client came."""
        super().connection_made(transport)
        self._placed = self._places.take()
        if self._placed:
            self._expect_header()
        else:
            self._refuse()

    def data_received(self, data: bytes) -> None:
        """What a client without a place says is not heard."""
        if self._placed:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        self._forget_header()
        if self._placed:
            self._places.release()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._expect_header()

    def on_headers_complete(self) -> None:
        """All of a request but its body is there."""
        self._forget_header()
        super().on_headers_complete()
        self.scope["extensions"] = {BODY: cast(dict[object, object], Body(self))}

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        words = f"{msg.rstrip('.')[:200]}, expected HTTP/1.1: send a request as RFC 9112 has it"
        self._part("400 Bad Request", problem_document(InputError(words)))
        self.transport.close()

    def _expect_header(self) -> None:
        self._forget_header()
        self._late = self.loop.call_later(self._header_timeout_s, self._too_late)

    def _forget_header(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        words = f"no complete request came within {self._header_timeout_s:g} s: send its header at once"
        self._part("408 Request Timeout", problem_document(SlowError(words)))
        self.transport.close()

    def _refuse(self) -> None:
        words = f"{self._places.most} connections are open, the limit here (max_http_connections): come again later"
        document = problem_document(RefusedError(words)) | {"status": 503}
        self._part("503 Service Unavailable", document, f"retry-after: {_RETRY_S}")
        # Closed at once, a request on its way would be answered with a reset, and the answer above be lost with it.
        self._late = self.loop.call_later(_REFUSAL_S, self.transport.close)

    def _part(self, status: str, document: Mapping[str, Any], *lines: str) -> None:
        """Answer without having been asked."""
        content = json.dumps(document).encode()
        size = f"content-length: {len(content)}"
        head = [f"HTTP/1.1 {status}", f"content-type: {PROBLEM_TYPE}", size, "connection: close", *lines]
        self.transport.write("\r\n".join([*head, "\r\n"]).encode() + content)

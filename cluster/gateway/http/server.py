"""The server: uvicorn in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from functools import partial
from typing import cast

import uvicorn

from cluster.gateway import pictures
from cluster.gateway.http.app import create_app
from cluster.gateway.http.context import Context
from cluster.gateway.http.protocol import BodyProtocol
from cluster.gateway.limits import Slots
from cluster.service import Service


class HttpGateway:
    """Serves the application on `listener`, a bound socket, in a thread with an event loop of its own."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        config = service.config
        app = create_app(service)
        places = Slots(config.max_http_connections)
        protocol = partial(BodyProtocol, header_timeout_s=config.header_timeout_s, places=places)
        self._context: Context = app.state.context
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=cast(type[asyncio.Protocol], protocol),
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Listen; returns when requests are answered."""
        pictures.sweep(self._context.service.config.data)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)

    def stop(self, *, timeout_s: float) -> None:
        """Take no new request, cut uploads, end streams, and give answers under way `timeout_s`."""
        self._context.stopping = True
        self._context.sockets.cut()
        self._server.config.timeout_graceful_shutdown = math.ceil(timeout_s)
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])

"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes connections on to `target`; `up` and `down` say how many bytes of connection number n get through."""

    def __init__(
        self, target: tuple[str, int], *, up: Callable[[int], float] | None, down: Callable[[int], float] | None
    ) -> None:
        self.connections = 0
        self._target = target
        self._limits = (up or (lambda number: float("inf")), down or (lambda number: float("inf")))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Accept until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._join(client, self.connections)
                self.connections += 1

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10.0)

    def _join(self, client: socket.socket, number: int) -> None:
        server = socket.create_connection(self._target)
        ends = threading.Barrier(2, action=lambda: (client.close(), server.close()))
        up, down = (limit(number) for limit in self._limits)
        for source, sink, most in ((client, server, up), (server, client, down)):
            self._threads.append(threading.Thread(target=_pass, args=(source, sink, most, ends), daemon=True))
            self._threads[-1].start()


def _pass(source: socket.socket, sink: socket.socket, most: float, ends: threading.Barrier) -> None:
    with suppress(OSError):
        while most > 0 and (data := source.recv(int(min(65536, most)))):
            sink.sendall(data)
            most -= len(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    ends.wait()


@contextmanager
def proxy(
    url: str, *, up: Callable[[int], float] | None = None, down: Callable[[int], float] | None = None
) -> Iterator[Proxy]:
    """A proxy in front of the server at `url`."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    made = Proxy((host, int(port)), up=up, down=down)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(10.0)

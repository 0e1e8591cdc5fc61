"""What both gateways do with a client's socket: bind, keep it alive, part from it politely."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress

from cluster.config import ConfigError

_DISCARD_BYTES = 1 << 18
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, probes


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening; raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            stack.pop_all()
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}): choose another address") from error
    return listener


def address(listener: socket.socket) -> str:
    """HOST:PORT of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def prepare(connection: socket.socket) -> None:
    """Send small messages at once, and notice a dead peer within about a minute."""
    # The receive buffer keeps its automatic size: a fixed one would be capped below what the kernel grows it to.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # named differently outside Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def drain(connection: socket.socket, *, timeout_s: float, most_bytes: int) -> None:
    """Read and drop what the client still sends: closing before would make a reset out of our last words to it."""
    buffer = bytearray(_DISCARD_BYTES)
    end = time.monotonic() + timeout_s
    with suppress(OSError):
        while most_bytes > 0 and (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            count = connection.recv_into(buffer, min(len(buffer), most_bytes))
            if not count:
                return
            most_bytes -= count

"""What bounds a gateway: how many at once, how long a client may be silent, and which addresses may be served bare."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cluster.config import ConfigError


class Slots:
    """A bounded number of places; taking one never waits."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._taken = 0

    def take(self) -> bool:
        """Whether there was a place; it is the caller's until `release`."""
        with self._lock:
            free = self._taken < self.most
            self._taken += free
            return free

    def release(self) -> None:
        """Give a place back."""
        with self._lock:
            self._taken -= 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """Give back, at the end of the block, the place taken before it."""
        try:
            yield
        finally:
            self.release()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a sender may take: to a complete header, between two pieces, for the whole scan."""

    header_s: float
    idle_s: float
    total_s: float


class Deadlines:
    """Until when one sender must be heard of next."""

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self._started = self._heard = clock()
        self._header = False

    def heard(self, *, header: bool) -> None:
        """Something came; `header` says whether the scan's header is complete by now."""
        self._heard = self._clock()
        self._header = header

    def left_s(self) -> float:
        """Seconds until the nearest deadline, 0 once it has passed."""
        return max(0.0, min(self._deadlines())[0] - self._clock())

    def reason(self) -> str:
        """Which deadline is the nearest, as the sentence for who missed it."""
        return min(self._deadlines())[1]

    def _deadlines(self) -> list[tuple[float, str]]:
        limits = self._timeouts
        total = (
            self._started + limits.total_s,
            f"the scan took longer than {limits.total_s:g} s: send it faster, or raise total_timeout_s",
        )
        if not self._header:
            words = f"no complete header came within {limits.header_s:g} s: send configuration and header first"
            return [total, (self._started + limits.header_s, words)]
        words = f"nothing came for {limits.idle_s:g} s before the close message: send on, or close the scan"
        return [total, (self._heard + limits.idle_s, words)]


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[HOST]:PORT`; raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"the address is {text!r}, expected HOST:PORT with a port from 0 to 65535: correct it")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(host: str, *, allowed: bool) -> str:
    """A warning to log where `host` is served bare on purpose, "" for loopback; raises ConfigError otherwise."""
    if is_loopback(host):
        return ""
    if not allowed:
        raise ConfigError(
            f"{host} can be reached from other machines and there is no TLS and no token yet: listen on 127.0.0.1,"
            " or accept the risk with --allow-insecure"
        )
    return f"listening on {host} without TLS and tokens: everyone who reaches this address can read and send scans"

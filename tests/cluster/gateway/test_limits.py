"""Bounds: places, deadlines, addresses."""

from __future__ import annotations

import pytest

from cluster.config import ConfigError
from cluster.gateway.limits import Deadlines, Slots, Timeouts, check_exposure, is_loopback, parse_address


def test_places_are_bounded_and_given_back() -> None:
    slots = Slots(2)
    assert [slots.take() for _ in range(3)] == [True, True, False]
    with slots.held():
        assert not slots.take()
    assert [slots.take() for _ in range(2)] == [True, False]


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_nearest_deadline_counts() -> None:
    clock = Clock()
    deadlines = Deadlines(Timeouts(header_s=10.0, idle_s=3.0, total_s=20.0), clock)
    assert deadlines.left_s() == 10.0
    assert deadlines.reason().startswith("no complete header came within 10 s")
    clock.now = 104.0
    deadlines.heard(header=False)  # bytes alone do not prolong the wait for a header
    assert deadlines.left_s() == 6.0
    deadlines.heard(header=True)
    assert deadlines.left_s() == 3.0
    assert deadlines.reason().startswith("nothing came for 3 s before the close message")
    clock.now = 119.0
    deadlines.heard(header=True)
    assert deadlines.left_s() == 1.0
    assert deadlines.reason().startswith("the scan took longer than 20 s")
    clock.now = 500.0
    assert deadlines.left_s() == 0.0


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9002", ("127.0.0.1", 9002)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "9002", "host:", ":9002", "host:x", "host:65536", "host:-1", "host:٣"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT with a port from 0 to 65535"):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("scanner.example", False),
    ],
)
def test_only_loopback_is_served_bare(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if loopback:
        assert check_exposure(host, allowed=False) == ""
        return
    with pytest.raises(ConfigError, match=r"no TLS and no token yet: listen on 127\.0\.0\.1"):
        check_exposure(host, allowed=False)
    assert check_exposure(host, allowed=True).startswith(f"listening on {host} without TLS and tokens")

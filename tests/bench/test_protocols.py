"""Simulated protocols through a server of its own: every image comes back, and every row is a figure."""

from __future__ import annotations

import socket
from pathlib import Path
from threading import Thread

import pytest

from bench import player, protocols
from bench.ingest import Storage
from bench.load import Plan
from bench.report import percentiles
from bench.server import Endpoint
from recon.errors import RecipeError
from recon.simulate.scans import simulate
from tests.end_to_end.running import running


@pytest.mark.timeout(120)
def test_two_protocols_on_three_scanners(tmp_path: Path) -> None:
    plan = Plan(Storage(tmp_path, tmp_path), ray="off", seconds=0.0, rounds=1)
    rows = {row.id: row for row in protocols.measure(plan, ("brain-se", "heart-spiral"), scanners=3, repetitions=1)}
    assert len(rows) == 2 * 6
    assert len(rows["load.brain-se.3"].samples) == 2 and len(rows["load.heart-spiral.3"].samples) == 1
    for name in ("brain-se", "heart-spiral"):
        assert rows[f"load.{name}.3.images"].value >= 1
        assert rows[f"load.{name}.3"].value > 0 and rows[f"load.{name}.3.readouts"].value > 0
        latencies = [rows[f"load.{name}.3.last_readout_to_image.p{percent}"].value for percent in (50, 95, 99)]
        assert 0 <= latencies[0] <= latencies[1] <= latencies[2]


def test_a_scanner_plays_on_for_its_seconds_and_warms_up_before(tmp_path: Path) -> None:
    simulated = simulate("brain-se", repetitions=1)
    with running(tmp_path) as ours:
        endpoint = Endpoint(*ours.mrd, ours.http, 0)
        (once,) = player.run(endpoint, ["brain-se"], seconds=0.0, repetitions=1)
        assert len(ours.service.scans()) == 2  # one that is not measured, and one that is
        first = next(player.play(simulated, endpoint, seconds=0.0)).status()
        seconds = 3 * first.sending_s
        played = [scanner.status() for scanner in player.play(simulated, endpoint, seconds=seconds)]
    sending_s = [status.sending_s for status in played]
    assert sum(sending_s[:-1]) < seconds <= sum(sending_s)
    assert once["protocol"] == "brain-se"
    assert once["images"] == [len(simulated.truth)]
    assert len(once["latency_s"]) == len(simulated.truth)
    assert all(status.images == len(simulated.truth) for status in played)


def test_an_unknown_protocol_is_refused(tmp_path: Path) -> None:
    plan = Plan(Storage(tmp_path, tmp_path), ray="off", seconds=0.0, rounds=1)
    with pytest.raises(RecipeError, match="nonsense"):
        protocols.measure(plan, ["nonsense"], scanners=1)


def test_a_scanner_that_fails_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """By a server that hangs up: one that is not there would be tried for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            rude.accept()[0].close()

        Thread(target=hang_up, daemon=True).start()
        endpoint = Endpoint("127.0.0.1", rude.getsockname()[1], "", 0)
        with pytest.raises(RuntimeError, match="a scanner of the load generator failed: see its message above"):
            player.run(endpoint, ["brain-se"], seconds=0.0, repetitions=1)
    assert "brain-se: the server" in capfd.readouterr().err


def test_percentiles_are_interpolated() -> None:
    """Of 0, 1, … 100 each percentile is its own number; one value is all of its percentiles."""
    assert [(row.id, row.value, row.unit) for row in percentiles("a", [float(n) for n in range(100, -1, -1)])] == [
        ("a.p50", 50.0, "s"),
        ("a.p95", 95.0, "s"),
        ("a.p99", 99.0, "s"),
    ]
    assert [row.value for row in percentiles("a", [3.0])] == [3.0] * 3

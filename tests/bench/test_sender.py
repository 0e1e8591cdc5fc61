"""The load generator against our own server, as processes: what it reports is what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import server
from bench.sender import Load, run
from bench.server import Endpoint
from bench.traffic import FrameSize
from tests.end_to_end.running import running

SIZE = FrameSize(coils=2, lines=16, samples=32)


def test_two_senders_report_what_they_saw(tmp_path: Path) -> None:
    with running(tmp_path) as ours:
        endpoint = Endpoint(*ours.mrd, ours.http, 0)
        results = run(endpoint, Load(config="fft", frames=2, size=SIZE), scanners=2)
        records = ours.service.scans()
    assert len(results) == len(records) == 2
    for result in results:
        assert (result["frames"], result["images"], result["bytes"]) == (2, 2, 2 * SIZE.bytes)
        assert (result["texts"], result["closed"]) == ([], True)
        assert len(result["latency_s"]) == 2
        assert 0 < result["sending_s"] <= result["total_s"]
        assert all(0 < latency <= result["total_s"] for latency in result["latency_s"])
        assert result["cpu_s"] > 0
    for record in records:
        assert (record.images, record.chosen, record.readouts) == (2, "fft", 2 * SIZE.lines)


def test_a_sender_stops_after_its_seconds(tmp_path: Path) -> None:
    with running(tmp_path) as ours:
        (result,) = run(Endpoint(*ours.mrd, ours.http, 0), Load(config="null", seconds=0.0, size=SIZE))
    assert (result["frames"], result["images"], result["closed"]) == (1, 0, True)


def test_what_a_server_complains_of_is_reported(tmp_path: Path) -> None:
    with running(tmp_path) as ours:
        (result,) = run(Endpoint(*ours.mrd, ours.http, 0), Load(config="magic", frames=1, size=SIZE))
    (text,) = result["texts"]
    assert text.startswith("ERROR ")
    assert "'magic' is unknown" in text


@pytest.mark.timeout(120)
def test_our_server_as_a_process(tmp_path: Path) -> None:
    options = ("--ray", "off", "--workers", "1", "--device", "cpu")
    with server.recon_cluster(tmp_path / "data", *options) as endpoint:
        (result,) = run(endpoint, Load(config="fft", frames=2, size=SIZE))
    assert (result["frames"], result["images"], result["texts"], result["closed"]) == (2, 2, [], True)


def test_a_server_that_does_not_come_up_is_said() -> None:
    with (
        pytest.raises(RuntimeError, match="the server ended with status 2 before it was ready"),
        server.recon_cluster(Path("unused"), "--workers", "none"),
    ):
        pass

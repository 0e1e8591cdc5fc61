"""A method that can never work with the header: told at once, all raw data kept, no frame made, one reason."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cluster.client import Client
from cluster.events import State
from cluster.job import FailedError, ScanRecord, ScanRequest
from cluster.sources import encode_scan
from recon.mrd.wire import encode_config_file, encode_text
from recon.simulate import SimulatedScan, simulate
from tests.cluster import scans
from tests.end_to_end.running import Running, converse, running

GRAPPA = "the method grappa needs Cartesian k-space, the header's trajectory is goldenangle: use gridding or auto"
FIRE = encode_text('{"version": "1.0", "config": "Generic_Cartesian_Grappa.xml", "parameters": {}}')


@cache
def spokes() -> SimulatedScan:
    """A radial scan."""
    return simulate("heart-radial", matrix=16, coils=2)


def stream() -> bytes:
    """It as it comes over the wire."""
    return b"".join(bytes(piece) for piece in encode_scan(spokes().scan))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all."""
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


def check(server: Running, record: ScanRecord, reason: str, sent: bytes) -> None:
    """The end of a scan by a method that does not fit it."""
    assert (record.state, record.reason) == (State.FAILED, reason)
    assert (record.images, record.frames, record.complete) == (0, 0, True)
    assert record.warnings == (reason,)
    assert record.readouts == sum(len(run.head) for run in spokes().scan.readouts)
    assert server.service.raw_path(record.id).read_bytes() == sent
    lines = [line.text for line in server.service.log(record.id)]
    assert lines.count(f"warning: {reason}") == 1
    assert "running" not in lines
    assert lines.index(f"warning: {reason}") < [line.startswith("received ") for line in lines].index(True)


@pytest.mark.parametrize("kind", ["a configuration", "a text of FIRE"])
def test_over_tcp(server: Running, kind: str) -> None:
    plain = stream()
    if kind == "a configuration":
        sent = encode_config_file("Generic_Cartesian_Grappa.xml") + plain
    else:
        end = plain.index(b"</ismrmrdHeader>") + len(b"</ismrmrdHeader>")
        sent = plain[:end] + FIRE + plain[end:]
    heard = converse(server.mrd, sent)
    assert (heard.images, heard.closed) == ([], True)
    assert heard.texts == [f"ERROR {GRAPPA}"]
    (record,) = server.service.scans(limit=1)
    check(server, record, GRAPPA, sent)
    assert record.chosen == "grappa"


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("grappa", GRAPPA),
        (
            "slice-grappa",
            "the method slice-grappa needs slices excited together, the header's parallelImaging has no multiband: use"
            " gridding or auto",
        ),
    ],
)
def test_over_http(server: Running, method: str, reason: str) -> None:
    with Client(server.http) as client:
        scan = client.submit(stream(), method=method)
        with pytest.raises(FailedError, match=reason):
            list(scan.images())
        check(server, scan.wait(timeout_s=10.0), reason, stream())
        scan.requeue()  # from the raw data, by the same method
        assert scan.wait(timeout_s=10.0).reason == reason
        assert len(list(client.submit(scan.raw()).images())) == len(spokes().truth)


def test_it_is_told_while_the_scan_still_comes_in(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        intake = service.open_scan(ScanRequest("tcp", method="grappa"))
        sent = stream()
        scans.send(intake, sent[:-100])
        early = service.scan(intake.scan_id)
        assert (early.state, early.warnings, early.reason) == (State.RECEIVING, (GRAPPA,), "")
        scans.send(intake, sent[-100:])
        intake.finish()
        assert service.wait(intake.scan_id, 10.0).reason == GRAPPA


def test_what_contradicts_the_header_counts_all_the_same(tmp_path: Path) -> None:
    """Who sent it hears of the first thing that is wrong with the scan, not with the method."""
    with scans.serving(tmp_path) as service:
        intake = service.open_scan(ScanRequest("tcp", method="gridding"))
        readouts = scans.frames(1)
        readouts[0].head["kspace_encode_step_1"][-1] = 1000
        with pytest.raises(Exception, match="1000"):
            scans.send(intake, scans.stream(readouts))
        assert "1000" in service.wait(intake.scan_id, 10.0).reason


def test_a_noise_scan_needs_no_method(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        noise = scans.run(service, scans.stream([scans.noise()], scans.header()), method="gridding")
        assert noise.warnings == ()
        assert "gridding" not in noise.reason
        assert noise.images == 0

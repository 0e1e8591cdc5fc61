"""Open-loop scanners against our own server: what they report, and the rows of the profiles made from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import crowd, foresight, overload, process, scaling
from bench.crowd import Planned, Seen
from bench.ingest import Storage
from bench.load import Plan
from bench.picture import curves
from bench.report import row
from bench.server import Endpoint
from bench.traffic import FrameSize
from cluster.simulate import Arrival, Kind
from tests.end_to_end.running import Running, running

SIZE = FrameSize(coils=2, lines=16, samples=32)
SCAN = Kind("k", 3, 0.01, 0.0)


def place(ours: Running) -> Endpoint:
    return Endpoint(*ours.mrd, ours.http, 0)


def test_scans_begin_when_they_are_planned_and_name_their_scanner(tmp_path: Path) -> None:
    arrivals = [Arrival(0.0, "a", SCAN), Arrival(0.1, "b", SCAN)]
    with running(tmp_path) as ours:
        played = crowd.run(place(ours), arrivals, config="fft", size=SIZE)
        assert sorted(record.images for record in ours.service.scans()) == [3, 3]
    for seen, arrival in zip(played.scans, arrivals, strict=True):
        assert (seen.whole, seen.refused, seen.planned.scanner) == (True, False, arrival.scanner)
        assert min(seen.latencies_s()) > 0
        assert min(seen.arrived_s.values()) > arrival.time_s
    assert played.cpu_s > 0
    assert len(played.arrived_s()) == 6


def test_latency_counts_from_the_plan_however_late_a_frame_went_out() -> None:
    seen = Seen(Planned(1.0, "a", 2, 0.5), arrived_s={0: 1.75, 1: 4.0})
    assert seen.latencies_s() == [0.25, 2.0]


def test_what_a_full_server_refuses_is_told_apart(tmp_path: Path) -> None:
    long = Kind("k", 2, 0.5, 0.0)
    with running(tmp_path, max_scans_in_flight=1) as ours:
        played = crowd.run(place(ours), [Arrival(0.0, "a", long), Arrival(0.5, "b", SCAN)], config="fft", size=SIZE)
    assert [(scan.whole, scan.refused) for scan in played.scans] == [(True, False), (False, True)]


def test_a_scan_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with running(tmp_path) as ours, pytest.raises(RuntimeError, match=r"0 of 3 images came, .*'magic' is unknown"):
        crowd.run(place(ours), [Arrival(0.0, "a", SCAN)], config="magic", size=SIZE)


def test_a_process_is_seen_from_outside() -> None:
    before_s = process.cpu_s(os.getpid())
    with process.watched(os.getpid(), every_s=0.01) as seen:
        kept = bytearray(os.urandom(30_000_000))
        while process.cpu_s(os.getpid()) < before_s + 0.1:
            pass
    assert max(seen) - seen[0] > 0.9 * len(kept)


def test_service_times_are_read_back_from_rows() -> None:
    rows = [row("plan.service.alone", [0.1, 0.1, 0.1, 0.15, 0.1], "s"), row("plan.service.backlog", [25.0], "frames/s")]
    times = foresight.stored(rows)
    assert (times.service_s, times.around_s) == pytest.approx((0.08, 0.02))
    assert sum(times.factors) / 5 == pytest.approx(1.0)
    assert max(times.factors) / min(times.factors) == pytest.approx(1 + 0.05 / 0.08)
    alone = foresight.predicted([Arrival(0.0, "a", SCAN)], foresight.Times(0.001, 0.02, (1.0,)))
    assert alone == pytest.approx([0.021] * 15)


def test_curves_are_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    curves({"measured": [0.1, 0.2, 0.4], "predicted": [0.1, 0.3]}, tmp_path / "picture.png", title="three frames")
    with Image.open(tmp_path / "picture.png") as picture:
        assert (31, 119, 180) in {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_profiles_have_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (overload, scaling):
        monkeypatch.setattr(module, "SIZE", FrameSize(coils=2, lines=32, samples=64, acceleration=2))
    monkeypatch.setattr(foresight, "ALONE_FRAMES", 3)
    plan = Plan(Storage(tmp_path, tmp_path), ray="off", seconds=1.0, rounds=1)
    rows = {entry.id for entry in overload.measure(plan)}
    assert {f"overload.{times}.goodput" for times in overload.TIMES} < rows
    rows = {entry.id for entry in scaling.measure(plan, workers=(1, 2))}
    assert {"workers.1", "workers.2.head", "workers.2.efficiency"} < rows
    rows = {entry.id for entry in foresight.measure(plan, tmp_path / "plan.png", frames=50)}
    assert {"plan.predicted.p50", "plan.predicted.p99", "plan.measured.p99.low"} < rows
    assert (tmp_path / "plan.png").exists()

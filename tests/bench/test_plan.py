"""`recon-cluster plan`: hospitals as described, figures that repeat, and the fewest workers that do."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from bench import plan
from bench.plan import Hospital
from cluster.__main__ import main
from cluster.events import Priority
from cluster.hospital import EXAMINATIONS, HOUR_S, PAUSE_S, PER_HOUR, arrivals
from cluster.job import RequestError
from cluster.simulate import Arrival

SMALL = Hospital(scanners=2, hours=2.0, seed=3, speed=8.0)


def test_a_scanner_does_fourteen_examinations_a_day() -> None:
    """As many first scans as the rates add up to, within four standard deviations of a Poisson number."""
    scanners = 60
    scans = list(arrivals(scanners, hours=24.0, seed=1))
    mean_scans = sum(share * len(scan) for share, scan in EXAMINATIONS.values())
    wanted = scanners * sum(PER_HOUR)
    assert sum(PER_HOUR) == pytest.approx(14.0)
    assert max(PER_HOUR) == 1.8
    spread = max(len(scan) for _, scan in EXAMINATIONS.values()) / mean_scans  # of an examination's scans
    assert abs(len(scans) / mean_scans - wanted) < 4 * spread * wanted**0.5


def test_scans_come_in_order_and_those_of_one_scanner_one_after_another() -> None:
    by_scanner: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals(5, hours=12.0, seed=2):
        by_scanner[arrival.scanner].append(arrival)
    assert len(by_scanner) == 5
    for scans in by_scanner.values():
        for first, second in pairwise(scans):
            length_s = first.kind.frames * first.kind.interval_s
            assert second.time_s >= first.time_s + length_s + PAUSE_S - 1e-6


def test_rows_are_the_promised_ones_and_repeat_with_the_seed(tmp_path: Path) -> None:
    def planned(name: str) -> dict[str, float]:
        command = ["plan", "--scanners", "2", "--gpus", "3", "--hours", "2", "--seed", "3", "--speed", "8"]
        assert main([*command, "--json", str(tmp_path / name)]) == 0
        document = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        assert set(document) == {"environment", "rows"}
        return {entry["id"]: entry["value"] for entry in document["rows"]}

    first, second = planned("a"), planned("b")
    assert {"wait.routine.p99", "time_to_image.routine.p50", "utilisation", "speed", "workers"} <= set(first)
    assert first.pop("speed") > 0 and second.pop("speed") > 0
    assert first == second


def test_every_class_has_its_rows_in_a_day_of_many_scanners() -> None:
    rows = {entry.id for entry in plan.simulate(Hospital(6, 6.0, 1, 16.0), workers=8)}
    classes = [priority.name.lower() for priority in Priority]
    assert {f"{name}.{kind}.p99" for name in ("wait", "time_to_image") for kind in classes} <= rows


def test_workers_are_busy_for_what_the_frames_cost() -> None:
    """Seconds of work ÷ seconds of workers, the spread of service times being e^(σ²/2) on average."""
    rows = {entry.id: entry.value for entry in plan.simulate(SMALL, workers=4)}
    scans = list(arrivals(2, hours=2.0, seed=3, speed=8.0))
    work_s = sum(scan.kind.frames * scan.kind.frame_s for scan in scans)
    last = max(scan.time_s + scan.kind.frames * scan.kind.interval_s for scan in scans)
    # No scan ends before its last frame is sent, and here none goes on for more than a minute after it.
    assert work_s / (4 * (last + 60.0)) * 0.9 < rows["utilisation"] < work_s / (4 * last) * 1.1
    assert last > HOUR_S


def test_the_fewest_workers_reach_the_objective_and_one_less_does_not() -> None:
    tried: list[int] = []
    workers = plan.fewest(Hospital(8, 2.0, 3, 2.0), objective_s=8.0, begin=tried.append)
    assert workers > 1 and {workers, workers - 1} <= set(tried)

    def p99(count: int) -> float:
        rows = {entry.id: entry.value for entry in plan.simulate(Hospital(8, 2.0, 3, 2.0), count)}
        return rows["time_to_image.routine.p99"]

    assert p99(workers) <= 8.0 < p99(workers - 1)


def test_an_objective_below_one_frame_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST", 8)
    with pytest.raises(RequestError, match=r"8 workers do not reach 0.001 s, one frame alone takes up to .* s: choose"):
        plan.fewest(SMALL, objective_s=0.001)


@pytest.mark.parametrize("option", ["--scanners", "--gpus", "--hours", "--speed", "--objective"])
def test_numbers_that_make_no_hospital_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", option, "0"])
    assert "0, expected " in capsys.readouterr().err

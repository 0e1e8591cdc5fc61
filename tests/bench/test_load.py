"""`bench ingest` and the steady profile on small frames: their JSON has every row, its unit, and the machine."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import ingest, load, report
from bench.ingest import Storage
from bench.load import Plan
from bench.report import Row
from bench.sender import Load
from bench.traffic import FrameSize

SIZE = FrameSize(coils=4, lines=64, samples=64)  # 131 kB: 16 of them are more than what is written at once


def stored(rows: Sequence[Row], path: Path) -> dict[str, dict[str, Any]]:
    """The rows by id as they stand in the JSON file, whose form and environment are checked."""
    report.write(rows, path, about=report.environment())
    document = json.loads(path.read_text(encoding="utf-8"))
    assert set(document) == {"environment", "rows"}
    about = document["environment"]
    assert (about["cores"], about["device"]) == (os.cpu_count(), "cpu")
    assert about["date"] and about["commit"] and about["cpu"] and about["python"]
    assert about["versions"]["numpy"]
    assert len(about["load_average"]) == 3
    for entry in document["rows"]:
        assert set(entry) == {"id", "value", "unit", "baseline", "ratio", "samples"}
        assert entry["value"] == statistics.median(entry["samples"]) > 0
    assert len({entry["id"] for entry in document["rows"]}) == len(document["rows"])
    return {entry["id"]: entry for entry in document["rows"]}


def has_baseline(entry: dict[str, Any], unit: str) -> bool:
    return bool(entry["unit"] == unit and entry["baseline"] > 0 and entry["ratio"] > 0)


@pytest.mark.timeout(180)
def test_ingest(tmp_path: Path) -> None:
    small = Load(config="null", frames=16, size=SIZE)
    measured = ingest.measure(Storage(tmp_path, tmp_path), rounds=1, load=small, decoded_bytes=300_000)
    rows = stored(measured, tmp_path / "ingest.json")
    coding = [
        f"{kind}.{size}" for size in ("1x64", "8x256", "32x512") for kind in ("decode", "decode.stream", "encode")
    ]
    receiving = ["ingest.disk", "ingest.memory", "ingest.peer.keep", "ingest.peer.drop"]
    assert list(rows) == [*coding, *receiving]
    assert all(has_baseline(rows[name], "acquisitions/s") for name in coding)
    assert all(has_baseline(rows[name], "MB/s") for name in receiving)
    assert {len(entry["samples"]) for entry in rows.values()} == {1}
    assert [path.name for path in tmp_path.iterdir()] == ["ingest.json"]  # nothing of the measurement stays


@pytest.mark.timeout(180)
def test_steady(tmp_path: Path) -> None:
    plan = Plan(Storage(tmp_path, tmp_path), ray="off", seconds=0.01, rounds=1, size=SIZE)
    rows = stored(load.steady(plan, scanners=[2]), tmp_path / "load.json")
    rates = ["load.memory.2", "load.disk.2"]
    times = [f"last_readout_to_image.p{percent}" for percent in (50, 95, 99)]
    assert list(rows) == [
        name for rate in rates for name in (rate, f"{rate}.first_image", *(f"{rate}.{t}" for t in times))
    ]
    for rate in rates:
        assert has_baseline(rows[rate], "MB/s")
        assert len(rows[f"{rate}.first_image"]["samples"]) == 2  # one of each scanner
        durations = [rows[f"{rate}.{name}"] for name in times]
        assert [entry["value"] for entry in durations] == sorted(entry["value"] for entry in durations)
        assert {entry["unit"] for entry in [rows[f"{rate}.first_image"], *durations]} == {"s"}
        assert {entry["baseline"] for entry in durations} == {None}
    assert [path.name for path in tmp_path.iterdir()] == ["load.json"]

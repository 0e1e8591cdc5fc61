"""Simulated protocols through a server of its own: every image comes back, and every row is a figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import protocols
from bench.ingest import Storage
from bench.load import Plan
from recon.errors import RecipeError


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


def test_an_unknown_protocol_is_refused(tmp_path: Path) -> None:
    plan = Plan(Storage(tmp_path, tmp_path), ray="off", seconds=0.0, rounds=1)
    with pytest.raises(RecipeError, match="nonsense"):
        protocols.measure(plan, ["nonsense"], scanners=1)

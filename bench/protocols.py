"""`recon-cluster bench load --protocol`: simulated scans through a running cluster, as fast as the wire takes them.

Each scanner is a process of its own; what it sends is made before any clock starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, cycle, islice
from typing import Any

from bench import player, server
from bench.ingest import scratch
from bench.load import Plan
from bench.report import Row, percentiles, row
from recon.simulate.scans import find


def measure(plan: Plan, names: Sequence[str], *, scanners: int, repetitions: int | None = None) -> list[Row]:
    """Rows of each protocol, dealt out in turn to as many `scanners` at once; raises RecipeError on an unknown one.

    In each round each scanner plays for `plan.seconds`, one scan at least; `repetitions` shortens the scans. Over all
    rounds: rates in MB/s and readouts/s while sending, images of a scan, and percentiles of the time from an image's
    last readout to the image.
    """
    dealt = list(islice(cycle([find(name).name for name in names]), scanners))
    results = [result for _ in range(plan.rounds) for result in _round(plan, dealt, repetitions)]
    return [
        entry
        for name in dict.fromkeys(dealt)
        for entry in _rows(f"load.{name}.{scanners}", [one for one in results if one["protocol"] == name])
    ]


def _round(plan: Plan, dealt: Sequence[str], repetitions: int | None) -> list[dict[str, Any]]:
    with (
        scratch(plan.storage.memory) as folder,
        server.recon_cluster(folder / "data", "--ray", plan.ray) as endpoint,
    ):
        return player.run(endpoint, dealt, seconds=plan.seconds, repetitions=repetitions)


def _rows(known: str, results: Sequence[dict[str, Any]]) -> list[Row]:
    def every(field: str) -> list[float]:
        return list(chain.from_iterable(result[field] for result in results))

    return [
        row(known, every("mb_per_s"), "MB/s"),
        row(f"{known}.readouts", every("readouts_per_s"), "readouts/s"),
        row(f"{known}.images", every("images"), "1"),
        *percentiles(f"{known}.last_readout_to_image", every("latency_s")),
    ]

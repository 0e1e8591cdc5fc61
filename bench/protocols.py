"""`recon-cluster bench load --protocol`: simulated scans through a running cluster, as fast as the wire takes them.

The scanners are threads of this process and share its interpreter; what they send is made before any clock starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

from bench import server
from bench.ingest import MB, scratch
from bench.load import PERCENTILES, Plan
from bench.report import Row, row
from cluster.scanner import SimulatedScanner, play
from recon.simulate.scans import SimulatedScan, simulate


def measure(plan: Plan, names: Sequence[str], *, scanners: int, repetitions: int | None = None) -> list[Row]:
    """Rows of each protocol, dealt out in turn to as many `scanners` at once; raises ReconError where one fails.

    Over all rounds: rates in MB/s and readouts/s while sending, images of a scan, and percentiles of the time from an
    image's last readout to the image. `repetitions` shortens the scans.
    """
    made = {name: simulate(name, repetitions=repetitions) for name in names}
    played = [scanner for _ in range(plan.rounds) for scanner in _round(plan, made, scanners)]
    return [
        entry
        for name in made
        for entry in _rows(f"load.{name}.{scanners}", [one for one in played if one.name == name])
    ]


def _round(plan: Plan, made: Mapping[str, SimulatedScan], scanners: int) -> list[SimulatedScanner]:
    dealt = [SimulatedScanner(scan, speed=0.0) for scan in islice(cycle(made.values()), scanners)]
    with (
        scratch(plan.storage.memory) as folder,
        server.recon_cluster(folder / "data", "--ray", plan.ray) as endpoint,
    ):
        errors = play(dealt, lambda one: one.over_tcp(endpoint.host, endpoint.port), watch=lambda _: None)
    for error in errors:
        raise error
    return dealt


def _rows(known: str, played: Sequence[SimulatedScanner]) -> list[Row]:
    """Rows of one protocol; none where there were fewer scanners than protocols."""
    if not played:
        return []
    seen = [one.status() for one in played]
    latencies = sorted(value for one in played for value in one.latencies_s)
    cuts = [(percent, latencies[min(len(latencies) - 1, percent * len(latencies) // 100)]) for percent in PERCENTILES]
    return [
        row(known, [one.bytes_per_s / MB for one in seen], "MB/s"),
        row(f"{known}.readouts", [one.readouts_per_s for one in seen], "readouts/s"),
        row(f"{known}.images", [float(one.images) for one in seen], "1"),
        *(row(f"{known}.last_readout_to_image.p{percent}", [value], "s") for percent, value in cuts),
    ]

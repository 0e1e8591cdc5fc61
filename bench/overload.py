"""`bench load --profile overload`: scans come at one to ten times the rate that the server can reconstruct.

A server takes `SCANS` at once; it refuses others at their header, and none that it took loses an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from bench import crowd, process, server
from bench.crowd import Played
from bench.ingest import MB, scratch
from bench.load import WORKERS, Plan
from bench.report import Row, percentiles, row
from bench.traffic import FrameSize
from cluster.simulate import Arrival, Kind

SCANS = 12
SIZE = FrameSize(coils=8, lines=128, samples=256, acceleration=2)
CONFIG = (
    '{"method": "cg-sense", "iterations": 180}'  # much to compute and little to send: generator and head cost little
)
SCAN = Kind("k", 20, 0.1, 0.0)
SCANNERS = 8
TIMES = (1, 2, 5, 10)


def measure(plan: Plan) -> list[Row]:
    """Rows of each load: goodput beside capacity (frames/s), shares refused, latency of what was taken, memory (MB).

    Scans begin at even distances for `plan.seconds`; goodput counts images between the first fifth and the end of
    them. Capacity is what a backlog gives, before each load. The generator's CPU time, spread over the machine's cores,
    is taken off both.
    """
    return [entry for times in TIMES for entry in _load(plan, times)]


def _load(plan: Plan, times: float) -> list[Row]:
    with started(plan, scans=SCANS) as endpoint:
        capacities, goodputs, played, most = [], [], [], [0]
        for _ in range(plan.rounds):
            capacities.append(capacity(endpoint))
            arrivals = list(even_scans(times * capacities[-1], plan.seconds))
            with process.watched(endpoint.pid) as memory:
                played.append(crowd.run(endpoint, arrivals, config=CONFIG, size=SIZE))
            goodputs.append(_rate(played[-1], plan.seconds / 5, plan.seconds))
            most = max(most, [max(memory)])
    return _rows(f"overload.{times:g}", goodputs, capacities, played=played, most_bytes=most[0])


def _rows(
    name: str, goodputs: list[float], capacities: list[float], *, played: list[Played], most_bytes: int
) -> list[Row]:
    latencies = [value for one in played for scan in one.scans for value in scan.latencies_s()]
    refused = [sum(scan.refused for scan in one.scans) / len(one.scans) for one in played]
    late = [max(scan.late_s for scan in one.scans) for one in played]
    return [
        row(f"{name}.goodput", goodputs, "frames/s", capacities),
        row(f"{name}.scans_refused", refused, "1"),
        *percentiles(f"{name}.last_readout_to_image", latencies),
        row(f"{name}.head_memory", [most_bytes / MB], "MB"),
        row(f"{name}.generator_late", late, "s"),
    ]


@contextmanager
def started(plan: Plan, *, scans: int) -> Iterator[server.Endpoint]:
    """A server that takes so many scans at once, with its data in memory."""
    with scratch(plan.storage.memory) as folder:
        config = folder / "recon.toml"
        config.write_text(f"max_scans_in_flight = {scans}\n", encoding="utf-8")
        options = ("--config", str(config), "--ray", plan.ray, "--workers", str(WORKERS))
        with server.recon_cluster(folder / "data", *options) as endpoint:
            yield endpoint


def capacity(endpoint: server.Endpoint) -> float:
    """Frames a second of a backlog: of its images, those after the first tenth and before the last."""
    backlog = [Arrival(0.0, _scanner(number), replace(SCAN, interval_s=0.0)) for number in range(SCANS)]
    crowd.run(endpoint, backlog[:1], config=CONFIG, size=SIZE)  # plans are made
    played = crowd.run(endpoint, backlog, config=CONFIG, size=SIZE)
    arrived = played.arrived_s()
    return _rate(played, arrived[len(arrived) // 10], arrived[-len(arrived) // 10])


def even_scans(frames_per_s: float, until_s: float) -> Iterator[Arrival]:
    """Scans of `SCAN` at even distances, so many frames a second together, dealt to the scanners in turn."""
    for number in range(int(until_s * frames_per_s / SCAN.frames)):
        yield Arrival(number * SCAN.frames / frames_per_s, _scanner(number), SCAN)


def _scanner(number: int) -> str:
    return f"s{number % SCANNERS}"


def _rate(played: Played, begin_s: float, end_s: float) -> float:
    """Images a second between two moments, without the generator's share of the machine."""
    sending = played.cpu_s / (played.arrived_s()[-1] * (os.cpu_count() or 1))
    return sum(begin_s <= time_s < end_s for time_s in played.arrived_s()) / (end_s - begin_s) / (1 - sending)

"""`bench load --profile plan`: what the simulation of `recon-cluster plan` says of a load, beside that load measured.

Service times come first, from the same server: frames of a scanner alone say how long one takes from its last readout
to its image, a backlog how many a second the workers do. Then scans begin at random, and the simulation is given the
same scans.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

from bench import crowd, overload
from bench.crowd import Played
from bench.load import WORKERS, Plan
from bench.picture import curves
from bench.report import Row, percentiles, row
from bench.server import Endpoint
from cluster.config import ClusterConfig
from cluster.service import rules
from cluster.simulate import Arrival, Kind, Pool, Simulation

LOAD = 0.6  # of the workers
FRAMES = 2000
ALONE_FRAMES = 100
SCAN = Kind("k", 10, 0.1, 0.0)
RESAMPLED = 2000  # times, for the interval of the 99th percentile
SCANS = 1000  # at once: none is refused
SEEDS = range(5)  # of the simulated service times


@dataclass(frozen=True, slots=True)
class Times:
    """What a frame takes: a worker's `service_s`, `around_s` outside of it, and services ÷ the typical one."""

    service_s: float
    around_s: float
    factors: tuple[float, ...]


def measure(plan: Plan, picture: Path, *, frames: int = FRAMES) -> list[Row]:
    """Rows of the service times and of each percentile: predicted beside measured; draws both curves into `picture`."""
    with overload.started(plan, scans=SCANS) as endpoint:
        rows = services(endpoint)
        times = stored(rows)
        per_s = LOAD * WORKERS / times.service_s
        arrivals = list(islice(random_scans(per_s, seed=7), math.ceil(frames / SCAN.frames)))
        played = crowd.run(endpoint, arrivals, config=overload.CONFIG, size=overload.SIZE)
    measured = [value for scan in played.scans for value in scan.latencies_s()]
    said = predicted(arrivals, times)
    curves({"measured": measured, "predicted": said}, picture, title=f"{len(measured)} frames at {LOAD:.0%} load")
    return [*rows, *_compared(said, measured), *_interval(played), row("plan.load.frames", [len(measured)], "1")]


def services(endpoint: Endpoint) -> list[Row]:
    """Rows from which `stored` reads the service times: of a lone frame (s), and frames a second of a backlog."""
    apart = Arrival(0.0, "s0", Kind("k", ALONE_FRAMES, 0.3, 0.0))
    rates = [overload.capacity(endpoint) for _ in range(3)]
    alone = crowd.run(endpoint, [apart], config=overload.CONFIG, size=overload.SIZE)
    return [
        row("plan.service.alone", alone.scans[0].latencies_s(), "s"),
        row("plan.service.backlog", rates, "frames/s"),
    ]


def stored(rows: Sequence[Row]) -> Times:
    """The service times of a measured or stored result."""
    found = {entry.id: entry for entry in rows}
    alone, backlog = found["plan.service.alone"], found["plan.service.backlog"]
    service_s = WORKERS / backlog.value
    # What differs from frame to frame is the service: the way to and from it is a few messages.
    factors = tuple(max(0.1, 1 + (value - alone.value) / service_s) for value in alone.samples)
    mean = statistics.mean(factors)
    return Times(service_s, max(0.0, alone.value - service_s), tuple(factor / mean for factor in factors))


def predicted(arrivals: Sequence[Arrival], times: Times) -> list[float]:
    """Seconds from last readout to image of every frame of `arrivals`, in each of a few simulated runs."""
    pool = Pool(WORKERS, factors=times.factors)
    scans = [replace(arrival, kind=replace(arrival.kind, frame_s=times.service_s)) for arrival in arrivals]
    return [
        frame.done_s - frame.ready_s + times.around_s
        for seed in SEEDS
        for frame in Simulation(pool, rules=rules(ClusterConfig()), seed=seed).run(scans)
    ]


def random_scans(frames_per_s: float, *, seed: int) -> Iterator[Arrival]:
    """Scans of `SCAN` that begin at random, so many frames a second together, dealt to four scanners in turn."""
    draw, now = random.Random(seed), 0.0
    for number in count():
        now += draw.expovariate(frames_per_s / SCAN.frames)
        yield Arrival(now, f"s{number % 4}", SCAN)


def _compared(said: Sequence[float], measured: Sequence[float]) -> list[Row]:
    pairs = zip(percentiles("plan.predicted", said), percentiles("plan.measured", measured), strict=True)
    return [row(own.id, [own.value], "s", [other.value]) for own, other in pairs]


def _interval(played: Played) -> list[Row]:
    """The measured p99's bootstrap 95 % interval; scans are drawn, since the frames of one wait together."""
    draw, scans = random.Random(1), [scan.latencies_s() for scan in played.scans]
    found = []
    for _ in range(RESAMPLED):
        drawn = [value for scan in draw.choices(scans, k=len(scans)) for value in scan]
        found.append(statistics.quantiles(drawn, n=100, method="inclusive")[98])
    cuts = statistics.quantiles(found, n=40)
    return [row("plan.measured.p99.low", [cuts[0]], "s"), row("plan.measured.p99.high", [cuts[-1]], "s")]

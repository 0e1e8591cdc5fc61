"""`recon-cluster bench schedule`: the server's own scheduler on a virtual clock, and how long it takes to decide.

Nothing but the decisions is timed: the other rows are those of any machine, the same for the same seeds.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from pathlib import Path

from bench.report import Row, row
from cluster.events import (
    BatchDone,
    Command,
    Event,
    Extent,
    FrameImages,
    FrameReady,
    FrameRef,
    Priority,
    ScanOpened,
    StartBatch,
    WorkerReady,
)
from cluster.scheduler import Rules, Scheduler
from cluster.simulate import Arrival, Bounds, Kind, Pool, Served, Simulation
from recon.recipe import Recipe

SERVICE_S = 0.2
WORKERS = 4
SPREAD = 0.3
FRAME = Kind("k", 1, 0.0, SERVICE_S)
SCAN = Kind("k", 20, 0.1, SERVICE_S)
BOUNDS = Bounds(scans=256, frames=2000)
ALONE = Rules(max_batch_frames=1, batches_per_worker=1)
TYPICAL_S = SERVICE_S * math.exp(SPREAD**2 / 2)  # the mean of what a service takes


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is simulated: seconds of each run, seeds, worker counts, frames that wait while decisions are timed."""

    seconds: float = 1000.0
    seeds: tuple[int, ...] = (1, 2, 3)
    workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    queued: int = 10_000


def measure(scale: Scale) -> list[Row]:
    """All rows of `bench schedule`; a sample is a seed's."""
    return [
        *(entry for times in (1, 2, 5, 10) for entry in overload(times, scale)),
        *(flood(load, scale) for load in (0.2, 0.5)),
        fairness(),
        urgent(scale),
        *(scaling(workers) for workers in scale.workers),
        *decisions(scale.queued),
    ]


def overload(times: float, scale: Scale) -> list[Row]:
    """Frames done in a second ÷ what the workers can do, at `times` that load; the most that waited beside its bound.

    Scans of 20 frames come at random from 20 scanners. The first tenth, in which the queue fills, does not count.
    """
    goodput, waited, refused, lost = [], [], [], []
    for seed in scale.seeds:
        rate = times * WORKERS / TYPICAL_S / SCAN.frames / 20
        simulation = Simulation(Pool(WORKERS, spread=SPREAD), seed=seed, bounds=BOUNDS)
        streams = (_poisson(f"s{n}", SCAN, rate, scale.seconds, seed=100 * seed + n) for n in range(20))
        arrivals = list(_in_order(*streams))
        served = simulation.run(arrivals)
        counted = [f for f in served if scale.seconds / 10 <= f.done_s < scale.seconds]
        goodput.append(len(counted) * TYPICAL_S / (0.9 * scale.seconds * WORKERS))
        waited.append(float(simulation.most_waiting))
        refused.append(simulation.refused / len(arrivals))
        lost.append(float((len(arrivals) - simulation.refused) * SCAN.frames - len(served)))
    name = f"schedule.overload.{times:g}"
    bound = [float(BOUNDS.frames)] * len(waited)
    return [
        row(f"{name}.goodput", goodput, "1"),
        row(f"{name}.most_waiting", waited, "frames", bound),
        row(f"{name}.scans_refused", refused, "1"),
        row(f"{name}.frames_lost", lost, "frames"),
    ]


def flood(load: float, scale: Scale) -> Row:
    """By how many mean services a scanner that sends 5,000 frames at once raises the others' p99 wait."""
    rate, until_s = load * WORKERS / SERVICE_S / 10, 0.2 * scale.seconds
    rises = []
    for seed in scale.seeds:
        quiet = [_poisson(f"q{n}", FRAME, rate, until_s, seed=100 * seed + n) for n in range(10)]
        others = list(_in_order(*quiet))
        sent = Arrival(0.0, "flood", replace(FRAME, frames=5000, interval_s=1e-4))
        pool = Pool(WORKERS, spread=SPREAD)
        alone = Simulation(pool, rules=ALONE).run(others)
        beside = Simulation(pool, rules=ALONE).run([sent, *others])
        rise_s = _p99(f for f in beside if f.scanner != "flood") - _p99(alone)
        rises.append(rise_s / _mean_s(beside))
    return row(f"schedule.flood.{load:g}.p99_rise", rises, "mean services")


def fairness() -> Row:
    """Jain's index of the time served to ten scanners that always have frames waiting, of 1 to 10 units each."""
    kinds = {f"s{n}": Kind(f"k{n}", 400, 1e-6, 0.01 * n) for n in range(1, 11)}
    served = Simulation(Pool(WORKERS), rules=ALONE).run(Arrival(0.0, name, kind) for name, kind in kinds.items())
    first_end = min(max(f.done_s for f in served if f.scanner == name) for name in kinds)
    got = dict.fromkeys(kinds, 0.0)
    for frame in served:
        if frame.done_s <= first_end:
            got[frame.scanner] += frame.done_s - frame.start_s
    return row("schedule.fairness.jain", [sum(got.values()) ** 2 / (10 * sum(t * t for t in got.values()))], "1")


def urgent(scale: Scale) -> Row:
    """The p99 wait of `stat`, a tenth of a load of 95 %, in mean services that spread by half."""
    rate = 0.95 * WORKERS / SERVICE_S / math.exp(0.5**2 / 2)
    kind, found = replace(FRAME, priority=Priority.STAT), []
    for seed in scale.seeds:
        stat = _poisson("r", kind, 0.1 * rate, scale.seconds, seed=seed)
        routine = _poisson("r", FRAME, 0.9 * rate, scale.seconds, seed=seed + 100)
        served = Simulation(Pool(WORKERS, spread=0.5), rules=ALONE, seed=seed).run(_in_order(stat, routine))
        found.append(_p99(f for f in served if f.kind.priority is Priority.STAT) / _mean_s(served))
    return row("schedule.stat.p99_wait", found, "mean services")


def scaling(workers: int) -> Row:
    """Throughput of so many workers ÷ that of one, for each of them: what is lost where frames queue up or run out."""
    frames = 200 * workers
    kinds = [Kind(f"k{n % 8}", frames // 20, 1e-6, SERVICE_S) for n in range(20)]
    simulation = Simulation(Pool(workers, spread=SPREAD), seed=workers)
    served = simulation.run(Arrival(0.0, f"s{n}", kind) for n, kind in enumerate(kinds))
    return row(f"schedule.workers.{workers}.efficiency", [simulation.busy_s / (workers * served[-1].done_s)], "1")


def decisions(queued: int, *, scanners: int = 200) -> list[Row]:
    """CPU time of a decision, with the frames of 200 scanners waiting: as each comes, and as each batch is done."""
    desk = _Desk(Scheduler(Rules()))
    for scan in range(scanners):
        desk.tell(ScanOpened(f"s{scan}", Priority(scan % 3), "null", "tcp", 100.0 + scan, 0.0, f"scanner-{scan}"))
    for number in range(queued // scanners):
        for scan in range(scanners):
            desk.tell(_ready(f"s{scan}", number, key=scan % 20))
    coming, desk.spent_us = desk.spent_us[scanners:], []
    pending = deque(start for n in range(WORKERS) for start in desk.tell(WorkerReady(f"w{n}", "cpu", 1 << 34)))
    desk.spent_us.clear()
    while pending and len(desk.spent_us) < queued // 10:  # while about all of them still wait
        start = pending.popleft()
        results = tuple(FrameImages(frame, ()) for frame in start.batch.frames)
        pending += desk.tell(BatchDone(start.worker, start.batch.number, results, 0.01))
    return [
        Row("schedule.decision.frame_ready.p50", statistics.median(coming), "µs", samples=(statistics.median(coming),)),
        *_quantiles("schedule.decision.batch_done", desk.spent_us),
    ]


def _quantiles(name: str, values: Sequence[float]) -> list[Row]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return [Row(f"{name}.p{p}", cuts[p - 1], "µs", samples=(cuts[p - 1],)) for p in (50, 99)]


class _Desk:
    """Hands events to the scheduler and keeps what each decision took, µs."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.spent_us: list[float] = []
        self.now = 0.0

    def tell(self, event: Event) -> list[StartBatch]:
        self.now += 1e-3
        begin = time.perf_counter()
        commands: list[Command] = self.scheduler.handle(event, self.now)
        self.spent_us.append(1e6 * (time.perf_counter() - begin))
        return [command for command in commands if isinstance(command, StartBatch)]


def _ready(scan: str, number: int, *, key: int) -> FrameReady:
    extent = Extent(0, 1, 1)
    frame = FrameRef(scan, number, Path("simulated"), extent, (extent,))
    return FrameReady(frame, Recipe("null"), key, 1, 0.01)


def _poisson(scanner: str, kind: Kind, per_s: float, until_s: float, *, seed: int) -> Iterator[Arrival]:
    draw, now = random.Random(seed), 0.0
    while (now := now + draw.expovariate(per_s)) < until_s:
        yield Arrival(now, scanner, kind)


def _in_order(*streams: Iterable[Arrival]) -> Iterator[Arrival]:
    return merge(*streams, key=lambda arrival: arrival.time_s)


def _p99(served: Iterable[Served]) -> float:
    return statistics.quantiles((f.start_s - f.ready_s for f in served), n=100, method="inclusive")[98]


def _mean_s(served: Sequence[Served]) -> float:
    return statistics.mean(f.done_s - f.start_s for f in served)

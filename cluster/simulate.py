"""The scheduler on a virtual clock: scans come, workers take the time they are said to take, nothing is reconstructed.

It drives the very `Scheduler` that a server runs, event by event, so that what holds here holds there.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.admission import refusal
from cluster.events import (
    Batch,
    BatchDone,
    Command,
    DeadlinePassed,
    Event,
    Extent,
    FinishScan,
    FrameImages,
    FrameReady,
    FrameRef,
    Priority,
    ReplaceWorker,
    ScanOpened,
    ScanReceived,
    StartBatch,
    WorkerLost,
    WorkerReady,
)
from cluster.scheduler import Rules, Scheduler
from recon.recipe import Recipe

_NOWHERE = Path("simulated")
_EXTENT = Extent(0, 1, 1)
_MEMORY_BYTES = 1 << 40
_TICK_S = 0.5
_RECIPE = Recipe("null")


@dataclass(frozen=True, slots=True)
class Kind:
    """Scans of one sort: `frames` become ready every `interval_s`; a batch of n takes n · `frame_s` + `batch_s`."""

    key: Hashable
    frames: int
    interval_s: float
    frame_s: float
    batch_s: float = 0.0
    priority: Priority = Priority.ROUTINE
    deadline_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A scan that a scanner begins at `time_s`."""

    time_s: float
    scanner: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Served:
    """One frame: when it was ready, started and done (s)."""

    scanner: str
    kind: Kind
    ready_s: float
    start_s: float
    done_s: float


@dataclass(frozen=True, slots=True)
class Pool:
    """The workers: how many, the relative spread of their service times, and how often one is lost, per hour.

    `factors`, if any, are drawn instead of a spread: measured service times ÷ the typical one.
    """

    workers: int
    spread: float = 0.0
    factors: tuple[float, ...] = ()
    losses_per_hour: float = 0.0
    restart_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a server takes in: `scans` at once, further ones are refused; `frames` waiting, then scanners wait too."""

    scans: int = sys.maxsize
    frames: int = sys.maxsize


class Simulation:
    """One run; `served` holds every frame whose images came, in the order in which they did."""

    def __init__(self, pool: Pool, *, rules: Rules | None = None, seed: int = 0, bounds: Bounds | None = None) -> None:
        self.served: list[Served] = []
        self.refused = 0  # scans
        self.most_waiting = 0  # frames, at any time
        self.now = 0.0
        self.busy_s = 0.0  # of all workers together
        self._pool = pool
        self._bounds = bounds or Bounds()
        self._held_back: deque[tuple[str, int]] = deque()  # frames that their scanners could not send yet
        self._random = random.Random(seed)
        self._scheduler = Scheduler(rules or Rules())
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0
        self._coming = True  # whether a further scan will come
        self._open = 0  # scans that have begun and not ended
        self._kinds: dict[str, tuple[str, Kind]] = {}
        self._ready: dict[tuple[str, int], float] = {}
        self._held: dict[str, list[Batch]] = {}  # by worker; the first is the one that runs

    def run(self, arrivals: Iterable[Arrival]) -> list[Served]:
        """Play `arrivals`, in order of time, until all that came is done."""
        for number in range(self._pool.workers):
            self._held[f"w{number}"] = []
            self._tell(WorkerReady(f"w{number}", "cpu", _MEMORY_BYTES))
            self._plan_loss(f"w{number}")
        self._next(iter(arrivals))
        tick_s = _TICK_S
        while self._agenda and (self._coming or self._open):
            time_s, _, act = heapq.heappop(self._agenda)
            while tick_s < time_s and self._scheduler.waiting:
                self.now, tick_s = tick_s, tick_s + _TICK_S
                self._tell(DeadlinePassed())
            self.now, tick_s = time_s, max(tick_s, time_s)
            act()
        return self.served

    def _at(self, time_s: float, act: Callable[[], None]) -> None:
        self._planned += 1
        heapq.heappush(self._agenda, (time_s, self._planned, act))

    def _next(self, coming: Iterator[Arrival]) -> None:
        arrival = next(coming, None)
        self._coming = arrival is not None
        if arrival is not None:
            self._at(max(arrival.time_s, self.now), lambda: self._begin(arrival, coming))

    def _begin(self, arrival: Arrival, coming: Iterator[Arrival]) -> None:
        self._next(coming)
        if refusal(draining=False, in_flight=self._open, most_in_flight=self._bounds.scans):
            self.refused += 1
            return
        kind, scan = arrival.kind, f"s{len(self._kinds)}"
        self._kinds[scan] = arrival.scanner, kind
        self._open += 1
        self._tell(ScanOpened(scan, kind.priority, "null", "tcp", kind.deadline_s, self.now, arrival.scanner))
        self._at(self.now + kind.interval_s, lambda: self._frame(scan, 0))

    def _frame(self, scan: str, number: int) -> None:
        if self._scheduler.waiting >= self._bounds.frames:
            self._held_back.append((scan, number))
            return
        _, kind = self._kinds[scan]
        self._ready[scan, number] = self.now
        frame = FrameRef(scan, number, _NOWHERE, _EXTENT, (_EXTENT,))
        self._tell(FrameReady(frame, _RECIPE, kind.key, 1, kind.frame_s + kind.batch_s))
        if number + 1 < kind.frames:
            self._at(self.now + kind.interval_s, lambda: self._frame(scan, number + 1))
        else:
            self._tell(ScanReceived(scan, True, kind.frames))

    def _tell(self, event: Event) -> None:
        for command in self._scheduler.handle(event, self.now):
            self._obey(command)
        self.most_waiting = max(self.most_waiting, self._scheduler.waiting)

    def _obey(self, command: Command) -> None:
        if isinstance(command, StartBatch):
            self._held[command.worker].append(command.batch)
            if len(self._held[command.worker]) == 1:
                self._work(command.worker)
        elif isinstance(command, FinishScan):
            self._open -= 1
        elif isinstance(command, ReplaceWorker):
            self._at(self.now + self._pool.restart_s, lambda: self._revive(command.worker))

    def _work(self, worker: str) -> None:
        """The worker begins its next batch."""
        batch, start_s = self._held[worker][0], self.now
        _, kind = self._kinds[batch.frames[0].scan]
        typical_s = len(batch.frames) * kind.frame_s + kind.batch_s
        self._at(start_s + typical_s * self._factor(), lambda: self._end(worker, batch, start_s))

    def _factor(self) -> float:
        if self._pool.factors:
            return self._random.choice(self._pool.factors)
        return self._random.lognormvariate(0.0, self._pool.spread)

    def _end(self, worker: str, batch: Batch, start_s: float) -> None:
        held = self._held[worker]
        if not held or held[0] is not batch:
            return  # the worker was lost meanwhile
        held.pop(0)
        self.busy_s += self.now - start_s
        for frame in batch.frames:
            scanner, kind = self._kinds[frame.scan]
            ready_s = self._ready.pop((frame.scan, frame.number))
            self.served.append(Served(scanner, kind, ready_s, start_s, self.now))
        if held:
            self._work(worker)
        results = tuple(FrameImages(frame, ()) for frame in batch.frames)
        self._tell(BatchDone(worker, batch.number, results, self.now - start_s))
        while self._held_back and self._scheduler.waiting < self._bounds.frames:
            self._frame(*self._held_back.popleft())

    def _plan_loss(self, worker: str) -> None:
        if self._pool.losses_per_hour:
            pause_s = self._random.expovariate(self._pool.losses_per_hour / 3600)
            self._at(self.now + pause_s, lambda: self._lose(worker))

    def _lose(self, worker: str) -> None:
        self._held[worker] = []
        self._tell(WorkerLost(worker, "lost"))

    def _revive(self, worker: str) -> None:
        self._tell(WorkerReady(worker, "cpu", _MEMORY_BYTES))
        self._plan_loss(worker)

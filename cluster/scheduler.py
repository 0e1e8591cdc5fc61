"""Decides what runs where: events and the time go in, commands come out. No clock, no thread, no input or output.

Most urgent class first; within a class each scanner gets its share, and of scanners whose turn it is the one with the
earliest deadline. What is overdue moves up to routine. Frames of equal key that wait at the same moment share a batch,
whatever their scanner, as far as the time that such batches took says. A frame alone never waits for company.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from cluster.admission import oversize
from cluster.events import (
    Batch,
    BatchDone,
    Command,
    DeadlinePassed,
    Event,
    FinishScan,
    FrameImages,
    FrameReady,
    Heartbeat,
    MarkRunning,
    Priority,
    ReplaceWorker,
    ScanCancelled,
    ScanOpened,
    ScanReceived,
    StartBatch,
    State,
    StoreImages,
    WorkerLost,
    WorkerReady,
)
from cluster.fairness import FairShare
from cluster.latency import Latency
from cluster.waiting import Waiting, WaitingQueue

_WARM_KEYS = 64  # of a worker; its caches are bounded by bytes, this is a guess at what they hold

# When a batch counts as hung, in times of what it should take. The first of a kind makes plans; on a GPU it compiles
# kernels too. After each loss it is given longer, lest slow work that was declared too short be taken for a fault.
_HUNG, _HUNG_COLD, _AGAIN = 20.0, 100.0, 4.0
_COMPILE_S = 60.0


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers by which the scheduler decides."""

    max_batch_frames: int = 8
    batch_cost_s: float = 0.05  # a batch takes more frames only while their estimated time stays below
    batches_per_worker: int = 2
    ahead_cost_s: float = 0.1  # a busy worker is given a further batch only while what it has is estimated below
    attempts: int = 3
    heartbeat_timeout_s: float = math.inf  # simulated workers are silent
    batch_grace_s: float = 8.0
    batch_timeout_s: float = 600.0


@dataclass(slots=True, eq=False)
class _Scan:
    name: str
    priority: Priority
    deadline: float
    scanner: str
    rank: Priority  # its class as it counts now: what is overdue has moved up
    frames: int = 0
    settled: int = 0  # frames with images or an error
    failures: list[str] = field(default_factory=list)
    received: ScanReceived | None = None
    running: bool = False  # MarkRunning was given
    started: bool = False
    waiting: dict[int, Waiting[_Work]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Work:
    """One frame to do."""

    scan: _Scan
    ready: FrameReady
    order: tuple[float, ...]
    key: Hashable
    losses: int = 0


@dataclass(slots=True, eq=False)
class _Lease:
    """A batch that a worker has; `since` is when it began to run, `cost_s` how long it will take."""

    batch: Batch
    works: tuple[_Work, ...]
    since: float
    cost_s: float
    limit_s: float  # after which it counts as hung


@dataclass(slots=True, eq=False)
class _Worker:
    name: str
    device: str
    memory_bytes: int
    heard: float  # when it last gave a sign of life
    heartbeat: Heartbeat
    leases: deque[_Lease] = field(default_factory=deque)
    load: int = 0  # its place in Scheduler._by_load
    warm: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)  # keys it did last, the newest at the end

    def did(self, key: Hashable) -> None:
        """It has the plan and the calibration of `key` from now on."""
        self.warm[key] = None
        self.warm.move_to_end(key)
        if len(self.warm) > _WARM_KEYS:
            self.warm.popitem(last=False)


class Scheduler:
    """The state of all scans, frames and workers; `handle` is its only way in."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._scans: dict[str, _Scan] = {}
        self._queue: WaitingQueue[_Work] = WaitingQueue()
        # Workers by the batches they hold, so that the least loaded is found without a search; the last take no more.
        self._by_load: list[dict[str, _Worker]] = [{} for _ in range(rules.batches_per_worker + 1)]
        self._workers: dict[str, _Worker] = {}
        self._budgets: dict[str, int] = {}  # of every worker ever seen: one that restarts still counts
        self._shares = FairShare()
        self._latency = Latency()
        self._batches = 0
        self._arrivals = 0
        self._handlers: dict[type, Callable[[Any, float], list[Command]]] = {
            ScanOpened: self._opened,
            FrameReady: self._ready,
            ScanReceived: self._received,
            ScanCancelled: self._cancelled,
            WorkerReady: self._worker_ready,
            Heartbeat: self._heard,
            BatchDone: self._done,
            WorkerLost: self._lost,
            DeadlinePassed: self._passed,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do now that `event` happened at `now` (s, any monotonic clock)."""
        handler = self._handlers.get(type(event))
        if handler is None:
            return []
        return [*handler(event, now), *self._dispatch(now)]

    def abandon(self, name: str, *, reason: str) -> list[Command]:
        """End a scan of which something went wrong here."""
        scan = self._scans.get(name)
        return self._finish(scan, State.FAILED, reason=reason) if scan else [FinishScan(name, State.FAILED, reason)]

    @property
    def waiting(self) -> int:
        """Frames that wait for a worker."""
        return len(self._queue)

    def look(self, now: float) -> dict[str, Any]:
        """Queue and workers in plain values, for people."""
        queued = {priority.name.lower(): 0 for priority in Priority}
        for scan in self._scans.values():
            queued[scan.priority.name.lower()] += len(scan.waiting)
        workers = [_describe(worker, now) for worker in self._workers.values()]
        return {"scans": len(self._scans), "queue": queued, "batches": self._batches, "workers": workers}

    # --- scans and frames ---------------------------------------------------------------------------------------------

    def _opened(self, event: ScanOpened, now: float) -> list[Command]:
        scanner = event.scanner or event.scan
        self._scans.setdefault(
            event.scan, _Scan(event.scan, event.priority, now + event.deadline_s, scanner, event.priority)
        )
        return []

    def _ready(self, event: FrameReady, _now: float) -> list[Command]:
        scan = self._scans.get(event.frame.scan)
        if scan is None:
            return []
        scan.frames += 1
        if too_large := oversize(event.bytes_needed, self._budgets.values()):
            return self._finish(scan, State.FAILED, reason=too_large)
        self._arrivals += 1
        self._wait(_Work(scan, event, self._order(scan, event, self._arrivals), key=event.key))
        return []

    def _order(self, scan: _Scan, ready: FrameReady, arrival: float) -> tuple[float, ...]:
        tag = self._shares.tag(scan.rank, scan.scanner, cost_s=sum(self._line(ready)))
        return (scan.rank, tag, scan.deadline, arrival)

    def _line(self, ready: FrameReady) -> tuple[float, float]:
        """Seconds a frame and seconds a batch of its kind."""
        return self._latency.line(ready.key, declared_s=ready.cost_s)

    def _received(self, event: ScanReceived, _now: float) -> list[Command]:
        scan = self._scans.get(event.scan)
        if scan is None:
            return []
        scan.received = event
        return [*self._mark(scan), *self._settle(scan)]

    def _cancelled(self, event: ScanCancelled, _now: float) -> list[Command]:
        scan = self._scans.get(event.scan)
        return self._finish(scan, event.state, reason=event.reason) if scan else []

    def _wait(self, work: _Work) -> None:
        work.scan.waiting[work.ready.frame.number] = self._queue.push(work, order=work.order, key=work.key)

    def _mark(self, scan: _Scan) -> list[Command]:
        """A scan runs once all of it is in and its first frame has started."""
        if scan.running or not scan.started or scan.received is None:
            return []
        scan.running = True
        return [MarkRunning(scan.name)]

    def _settle(self, scan: _Scan) -> list[Command]:
        """End the scan if nothing of it is left to do."""
        if scan.received is None or scan.settled < scan.frames:
            return []
        state, reason = _outcome(scan, scan.received)
        return self._finish(scan, state, reason=reason)

    def _finish(self, scan: _Scan, state: State, *, reason: str) -> list[Command]:
        for entry in scan.waiting.values():
            self._queue.drop(entry)
        del self._scans[scan.name]
        return [FinishScan(scan.name, state, reason)]

    def _alive(self, work: _Work) -> bool:
        # Compared by identity: a scan that was run again under its old name is another one.
        return self._scans.get(work.scan.name) is work.scan

    # --- workers ------------------------------------------------------------------------------------------------------

    def _worker_ready(self, event: WorkerReady, now: float) -> list[Command]:
        again = self._release(event.worker, blame=False)
        worker = _Worker(event.worker, event.device, event.memory_bytes, now, Heartbeat(event.worker))
        self._workers[event.worker] = self._by_load[0][event.worker] = worker
        self._budgets[event.worker] = event.memory_bytes
        return again

    def _heard(self, event: Heartbeat, now: float) -> list[Command]:
        worker = self._workers.get(event.worker)
        if worker is not None:
            worker.heard, worker.heartbeat = now, event
        return []

    def _done(self, event: BatchDone, now: float) -> list[Command]:
        worker = self._workers.get(event.worker)
        if worker is None or not worker.leases or worker.leases[0].batch.number != event.batch:
            return []  # its lease was taken away: the work was given to another
        lease, worker.heard = worker.leases.popleft(), now
        if lease.batch.key in worker.warm:  # the first of a kind makes plans, which later ones do not
            self._latency.learn(lease.batch.key, len(lease.works), seconds=event.seconds)
        worker.did(lease.batch.key)
        self._weigh(worker)
        if worker.leases:
            worker.leases[0].since = now
        commands: list[Command] = []
        for work, result in zip(lease.works, event.results, strict=True):
            if self._alive(work):
                commands += self._result(work, result)
        return commands

    def _result(self, work: _Work, result: FrameImages) -> list[Command]:
        scan, ready = work.scan, work.ready
        scan.settled += 1
        if result.error:
            scan.failures.append(result.error)
            return self._settle(scan)
        store = StoreImages(scan.name, ready.frame.number, ready.recipe.method, result.images)
        return [store, *self._settle(scan)]

    def _lost(self, event: WorkerLost, _now: float) -> list[Command]:
        if event.worker not in self._workers:
            return []  # it was given up before: its replacement is under way
        reason = f"{event.worker} was lost ({event.reason})"
        return [*self._release(event.worker, blame=True, reason=reason), ReplaceWorker(event.worker, event.reason)]

    def _passed(self, event: DeadlinePassed, now: float) -> list[Command]:
        for scan in self._scans.values():
            if scan.rank is Priority.RESEARCH and now > scan.deadline:
                self._raise(scan)
        for worker in self._workers.values():
            worker.heard = min(now, worker.heard + event.late_s)
            if worker.leases:
                worker.leases[0].since = min(now, worker.leases[0].since + event.late_s)
        hung = [(worker.name, reason) for worker in self._workers.values() if (reason := self._hung(worker, now))]
        return [command for name, reason in hung for command in self._lost(WorkerLost(name, reason), now)]

    def _hung(self, worker: _Worker, now: float) -> str:
        """Why a worker counts as hung, or ""."""
        silent = self._rules.heartbeat_timeout_s
        if now - worker.heard > silent:
            return f"hung: no sign of life for {silent:g} s"
        if worker.leases and now - worker.leases[0].since > worker.leases[0].limit_s:
            return f"hung: a batch took longer than {worker.leases[0].limit_s:g} s"
        return ""

    def _raise(self, scan: _Scan) -> None:
        """An overdue scan counts as routine, so that it starts some day however much of that there is."""
        scan.rank = Priority.ROUTINE
        for entry in list(scan.waiting.values()):
            self._queue.drop(entry)
            work = entry.item
            work.order = self._order(scan, work.ready, work.order[-1])
            self._wait(work)

    def _release(self, name: str, *, blame: bool, reason: str = "") -> list[Command]:
        """Forget a worker; its frames wait again, and those it was running count a loss."""
        worker = self._workers.pop(name, None)
        if worker is None:
            return []
        del self._by_load[worker.load][name]
        commands: list[Command] = []
        for position, lease in enumerate(worker.leases):
            for work in filter(self._alive, lease.works):
                commands += self._again(work, blame=blame and position == 0, reason=reason)
        return commands

    def _again(self, work: _Work, *, blame: bool, reason: str) -> list[Command]:
        if blame:
            work.losses += 1
            # From now on alone, so that a frame that kills workers does not take others' frames along.
            work.key = ("alone", work.order[-1])
            if work.losses >= self._rules.attempts:
                number = work.ready.frame.number
                return self._finish(
                    work.scan, State.DEAD, reason=f"frame {number} lost {work.losses} workers: {reason}"
                )
        self._wait(work)
        return []

    # --- batches ------------------------------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> list[Command]:
        commands: list[Command] = []
        while entry := self._queue.first():
            work = entry.item
            if too_large := oversize(work.ready.bytes_needed, self._budgets.values()):
                commands += self._finish(work.scan, State.FAILED, reason=too_large)
                continue
            worker = self._place(work.ready)
            if worker is None:
                break
            commands += self._start(worker, self._gather(work, worker), now=now)
        return commands

    def _place(self, ready: FrameReady) -> _Worker | None:
        """The least loaded worker with enough memory and a free place; of several one that did such frames before."""
        for group in self._by_load[:-1]:
            fit = [worker for worker in group.values() if worker.memory_bytes >= ready.bytes_needed]
            if fit:
                return next((worker for worker in fit if ready.key in worker.warm), fit[0])
        return None

    def _gather(self, first: _Work, worker: _Worker) -> tuple[_Work, ...]:
        """Frames for one batch: equal key, within memory and time, and no more than this worker's share of them."""
        idle = max(1, len(self._by_load[0]))
        most = min(self._rules.max_batch_frames, math.ceil(self._queue.alike(first.key) / idle))
        frame_s, batch_s = self._line(first.ready)
        memory, count = 0, 0

        def more(work: _Work) -> bool:
            nonlocal memory, count
            memory += work.ready.bytes_needed
            count += 1
            fits = memory <= worker.memory_bytes and count * frame_s + batch_s <= self._rules.batch_cost_s
            return count == 1 or (count <= most and fits)

        return tuple(self._queue.take(first.key, more))

    def _start(self, worker: _Worker, works: tuple[_Work, ...], *, now: float) -> list[Command]:
        self._batches += 1
        frames = tuple(work.ready.frame for work in works)
        batch = Batch(self._batches, works[0].ready.key, works[0].ready.recipe, frames)
        self._shares.serve(works[0].scan.rank, works[0].order[1])
        frame_s, batch_s = self._line(works[0].ready)
        cost_s = len(works) * frame_s + batch_s
        worker.leases.append(_Lease(batch, works, now, cost_s, self._limit_s(worker, works, cost_s)))
        self._weigh(worker)
        commands: list[Command] = [StartBatch(worker.name, batch)]
        for work in works:
            del work.scan.waiting[work.ready.frame.number]
            work.scan.started = True
            commands += self._mark(work.scan)
        return commands

    def _limit_s(self, worker: _Worker, works: tuple[_Work, ...], cost_s: float) -> float:
        warm = works[0].ready.key in worker.warm
        compiling = 0.0 if warm or worker.device.startswith("cpu") else _COMPILE_S
        usual = max(self._rules.batch_grace_s + compiling, (_HUNG if warm else _HUNG_COLD) * cost_s)
        return min(usual * _AGAIN ** max(work.losses for work in works), self._rules.batch_timeout_s)

    def _weigh(self, worker: _Worker) -> None:
        cost_s = sum(lease.cost_s for lease in worker.leases)
        del self._by_load[worker.load][worker.name]
        # A frame put behind long work could not move to a worker that becomes free meanwhile.
        full = bool(worker.leases) and cost_s > self._rules.ahead_cost_s
        worker.load = self._rules.batches_per_worker if full else len(worker.leases)
        self._by_load[worker.load][worker.name] = worker


def _outcome(scan: _Scan, received: ScanReceived) -> tuple[State, str]:
    failures = f"{len(scan.failures)} of {scan.frames} frames failed: {scan.failures[0]}" if scan.failures else ""
    if received.failed:
        return State.FAILED, received.reason
    if not received.complete:
        return State.INCOMPLETE, "; ".join(filter(None, (received.reason, failures)))
    if failures:
        return State.FAILED, failures
    if not scan.frames:
        return State.FAILED, received.reason or "the scan ended without one complete frame: send all of its readouts"
    return State.DONE, ""


def _describe(worker: _Worker, now: float) -> dict[str, Any]:
    running = worker.leases[0] if worker.leases else None
    return {
        "worker": worker.name,
        "device": worker.device,
        "memory_bytes": worker.memory_bytes,
        "batches": len(worker.leases),
        "frames": sum(len(lease.works) for lease in worker.leases),
        "running_s": round(now - running.since, 3) if running else 0.0,
        "silent_s": round(now - worker.heard, 3),
        "memory": dict(worker.heartbeat.memory_bytes),
        "load": dict(worker.heartbeat.load),
    }

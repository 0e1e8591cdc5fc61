"""Every metric in one table, counted from events and commands; nothing else counts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cluster.events import (
    BatchDone,
    BytesReceived,
    Command,
    Event,
    FinishScan,
    FrameImages,
    FrameReady,
    Heartbeat,
    ImagesStored,
    ReplaceWorker,
    ScanOpened,
    ScanRefused,
    StartBatch,
    State,
    WorkerLost,
    WorkerReady,
)

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_FRAMES = (1, 2, 4, 8, 16, 32, 64, 128)
_BUSY_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: its name as scraped, what it is, its labels, the buckets of a histogram."""

    name: str
    kind: type[Counter | Gauge | Histogram]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


TABLE = (
    Row("recon_scans_accepted_total", Counter, "Scans whose header was accepted."),
    Row("recon_scans_in_flight", Gauge, "Accepted scans that have not ended."),
    Row("recon_scans_total", Counter, "Scans that have ended, by how.", ("outcome",)),
    Row("recon_frames_total", Counter, "Frames worked on, by how it ended.", ("method", "outcome")),
    Row("recon_images_total", Counter, "Images stored.", ("method",)),
    Row("recon_ingest_bytes_total", Counter, "Raw bytes received.", ("transport",)),
    Row("recon_readouts_total", Counter, "Readouts received."),
    Row("recon_queue_frames", Gauge, "Frames that wait for a worker.", ("priority",)),
    Row("recon_queue_wait_seconds", Histogram, "Wait of a frame for its worker.", ("priority",), _SECONDS),
    Row("recon_time_to_first_image_seconds", Histogram, "From a scan's first byte to its first image.", (), _SECONDS),
    Row("recon_last_readout_to_image_seconds", Histogram, "From a frame's last readout to its image.", (), _SECONDS),
    Row("recon_stage_seconds", Histogram, "Time of one stage of a frame.", ("stage",), _SECONDS),
    Row("recon_batch_frames", Histogram, "Frames that share a batch.", ("method",), _FRAMES),
    Row("recon_worker_busy_ratio", Gauge, "Part of the last minute that a worker had work.", ("worker",)),
    Row("recon_worker_memory_bytes", Gauge, "Memory of a worker.", ("worker", "kind")),
    Row("recon_worker_load_ratio", Gauge, "Part of its device that a worker used lately.", ("worker", "kind")),
    Row("recon_worker_silence_seconds", Gauge, "Since a worker's last sign of life.", ("worker",)),
    Row("recon_worker_restarts_total", Counter, "Workers replaced.", ("reason",)),
    Row("recon_late_batches_total", Counter, "Batches that came after their worker was given up, and were refused."),
    Row("recon_plan_cache_total", Counter, "Look-ups of plans and calibrations.", ("result",)),
    Row("recon_cache_lookups_total", Counter, "Look-ups of each cache of the workers.", ("cache", "result")),
    Row("recon_spool_bytes", Gauge, "Raw bytes in the spool."),
    Row("recon_refused_total", Counter, "Scans not taken.", ("reason",)),
)


@dataclass(slots=True)
class _Scan:
    """What must be remembered of a scan to time its frames."""

    priority: str
    begun_s: float
    first_image: bool = False
    ready_s: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Worker:
    """Batches that a worker has, as (number, method), and the spans in which it had any."""

    batches: deque[tuple[int, str]] = field(default_factory=deque)
    busy_since: float = 0.0
    spans: deque[tuple[float, float]] = field(default_factory=deque)
    seen_since: float = 0.0
    heard: float = 0.0


class Metrics:
    """Counts; `text` is one consistent moment: accepted = Σ outcomes + in flight."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        spool_bytes: Callable[[], int],
        queue: Callable[[], Mapping[str, int]],
    ) -> None:
        self._clock = clock
        self._spool_bytes = spool_bytes
        self._queue = queue
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {row.name: self._register(row) for row in TABLE}
        self._scans: dict[str, _Scan] = {}
        self._workers: dict[str, _Worker] = {}
        self._does: dict[type, Callable[[Any, float], None]] = {
            ScanOpened: self._opened,
            BytesReceived: self._bytes,
            FrameReady: self._ready,
            StartBatch: self._start,
            BatchDone: self._done,
            ImagesStored: self._stored,
            FinishScan: self._finish,
            WorkerReady: self._worker_ready,
            Heartbeat: self._heard,
            WorkerLost: self._worker_lost,
            ReplaceWorker: self._replaced,
            ScanRefused: self._refused,
        }
        for state in State:
            if state.final:
                self._metrics["recon_scans_total"].labels(state.value)

    def observe(self, what: Event | Command) -> None:
        """Count one event, or one command that is carried out."""
        does = self._does.get(type(what))
        if does is not None:
            with self._lock:
                does(what, self._clock())

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        queue = self._queue()
        with self._lock:
            self._metrics["recon_spool_bytes"].set(self._spool_bytes())
            for priority, frames in queue.items():
                self._metrics["recon_queue_frames"].labels(priority).set(frames)
            now = self._clock()
            for name, worker in self._workers.items():
                self._metrics["recon_worker_busy_ratio"].labels(name).set(_busy_ratio(worker, now))
                self._metrics["recon_worker_silence_seconds"].labels(name).set(now - worker.heard)
            return generate_latest(self._registry)

    def _register(self, row: Row) -> Counter | Gauge | Histogram:
        if row.kind is Histogram:
            return Histogram(row.name, row.meaning, row.labels, registry=self._registry, buckets=row.buckets)
        return row.kind(row.name, row.meaning, row.labels, registry=self._registry)

    def _opened(self, event: ScanOpened, _now: float) -> None:
        self._scans[event.scan] = _Scan(event.priority.name.lower(), event.begun_s)
        self._metrics["recon_scans_accepted_total"].inc()
        self._metrics["recon_scans_in_flight"].inc()

    def _finish(self, command: FinishScan, _now: float) -> None:
        if self._scans.pop(command.scan, None) is not None:
            self._metrics["recon_scans_total"].labels(command.state.value).inc()
            self._metrics["recon_scans_in_flight"].dec()

    def _bytes(self, event: BytesReceived, _now: float) -> None:
        self._metrics["recon_ingest_bytes_total"].labels(event.transport).inc(event.bytes)
        self._metrics["recon_readouts_total"].inc(event.readouts)

    def _ready(self, event: FrameReady, now: float) -> None:
        scan = self._scans.get(event.frame.scan)
        if scan is not None:
            scan.ready_s[event.frame.number] = now

    def _start(self, command: StartBatch, now: float) -> None:
        worker, batch = self._worker(command.worker, now), command.batch
        if not worker.batches:
            worker.busy_since = now
        worker.batches.append((batch.number, batch.recipe.method))
        self._metrics["recon_batch_frames"].labels(batch.recipe.method).observe(len(batch.frames))
        for frame in batch.frames:
            scan = self._scans.get(frame.scan)
            if scan is not None and frame.number in scan.ready_s:
                wait_s = now - scan.ready_s[frame.number]
                self._metrics["recon_queue_wait_seconds"].labels(scan.priority).observe(wait_s)

    def _done(self, event: BatchDone, now: float) -> None:
        worker = self._worker(event.worker, now)
        if not worker.batches or worker.batches[0][0] != event.batch:
            self._metrics["recon_late_batches_total"].inc()
            return  # its lease was taken away: another worker does it again and is counted
        _, method = worker.batches.popleft()
        if not worker.batches:
            _rest(worker, now)
        for result in event.results:
            self._result(result, method=method)
        for cache, found, count in event.caches:
            self._metrics["recon_cache_lookups_total"].labels(cache, found).inc(count)
            if cache == "prepared":  # plans with their weights, and calibrations
                self._metrics["recon_plan_cache_total"].labels(found).inc(count)
        worker.heard = now
        self._hold(event.worker, event.memory_bytes)

    def _hold(self, worker: str, memory_bytes: tuple[tuple[str, int], ...]) -> None:
        for kind, size in memory_bytes:
            self._metrics["recon_worker_memory_bytes"].labels(worker, kind).set(size)

    def _heard(self, event: Heartbeat, now: float) -> None:
        self._worker(event.worker, now).heard = now
        self._hold(event.worker, event.memory_bytes)
        for kind, share in event.load:
            self._metrics["recon_worker_load_ratio"].labels(event.worker, kind).set(share)

    def _result(self, result: FrameImages, *, method: str) -> None:
        outcome = "failed" if result.error else "done"
        self._metrics["recon_frames_total"].labels(method, outcome).inc()
        for stage, seconds in result.stages_s:
            self._metrics["recon_stage_seconds"].labels(stage).observe(seconds)

    def _stored(self, event: ImagesStored, now: float) -> None:
        self._metrics["recon_images_total"].labels(event.method).inc(event.images)
        scan = self._scans.get(event.scan)
        if scan is not None:
            self._image(scan, ready_s=scan.ready_s.pop(event.frame, now), now=now)

    def _image(self, scan: _Scan, *, ready_s: float, now: float) -> None:
        self._metrics["recon_last_readout_to_image_seconds"].observe(now - ready_s)
        if not scan.first_image:
            scan.first_image = True
            self._metrics["recon_time_to_first_image_seconds"].observe(now - scan.begun_s)

    def _worker_ready(self, event: WorkerReady, now: float) -> None:
        self._worker(event.worker, now).heard = now
        self._metrics["recon_worker_memory_bytes"].labels(event.worker, "budget").set(event.memory_bytes)

    def _worker_lost(self, event: WorkerLost, now: float) -> None:
        self._idle(event.worker, now)

    def _replaced(self, command: ReplaceWorker, now: float) -> None:
        self._idle(command.worker, now)
        # The word before the colon: a label must not carry what each case says.
        self._metrics["recon_worker_restarts_total"].labels(command.reason.partition(":")[0]).inc()

    def _refused(self, event: ScanRefused, _now: float) -> None:
        self._metrics["recon_refused_total"].labels(event.reason).inc()

    def _idle(self, name: str, now: float) -> None:
        worker = self._worker(name, now)
        if worker.batches:
            worker.batches.clear()
            _rest(worker, now)

    def _worker(self, name: str, now: float) -> _Worker:
        return self._workers.setdefault(name, _Worker(seen_since=now, heard=now))


def _rest(worker: _Worker, now: float) -> None:
    """The worker has nothing to do from now on."""
    worker.spans.append((worker.busy_since, now))
    while worker.spans[0][1] < now - _BUSY_WINDOW_S:
        worker.spans.popleft()


def _spans(worker: _Worker, now: float) -> Iterator[tuple[float, float]]:
    yield from worker.spans
    if worker.batches:
        yield worker.busy_since, now


def _busy_ratio(worker: _Worker, now: float) -> float:
    begin = max(worker.seen_since, now - _BUSY_WINDOW_S)
    if now <= begin:
        return 0.0
    return sum(max(0.0, end - max(start, begin)) for start, end in _spans(worker, now)) / (now - begin)

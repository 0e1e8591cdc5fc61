"""All that gateways may ask of the cluster: open a scan, look at scans, follow their images, cancel, drain."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.admission import refusal
from cluster.config import ClusterConfig
from cluster.events import (
    BatchDone,
    Command,
    Event,
    FinishScan,
    Refused,
    ReplaceWorker,
    ScanCancelled,
    ScanRefused,
    StartBatch,
    State,
)
from cluster.folder import DataFolder
from cluster.intake import Desk, Intake
from cluster.job import (
    ConflictError,
    DiskFullError,
    DuplicateError,
    LogLine,
    NotFoundError,
    ScanRecord,
    ScanRequest,
    new_scan_id,
    no_descriptor,
)
from cluster.live import Feed, LiveScan, Subscription
from cluster.loop import Loop, Stage
from cluster.metrics import Metrics
from cluster.recorder import Recorder, Storer
from cluster.rerun import Reruns
from cluster.results import ResultFile
from cluster.retention import Retention
from cluster.scheduler import Rules, Scheduler
from cluster.workers import Workers
from recon.errors import RecipeError, ReconError, RefusedError
from recon.recipe import resolve
from recon.scan import Image

_log = logging.getLogger(__name__)
_END_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """Where time and chance come from."""

    wall_s: Callable[[], float] = time.time
    steady_s: Callable[[], float] = time.monotonic
    noise: Callable[[int], bytes] = os.urandom


def rules(config: ClusterConfig) -> Rules:
    """The part of the configuration that the scheduler decides by."""
    return Rules(
        max_batch_frames=config.max_batch_frames,
        batch_cost_s=config.batch_cost_s,
        batches_per_worker=config.batches_per_worker,
        ahead_cost_s=config.ahead_cost_s,
        attempts=config.attempts,
        heartbeat_timeout_s=config.heartbeat_timeout_s,
        batch_grace_s=config.batch_grace_s,
        batch_timeout_s=config.batch_timeout_s,
    )


class Service:
    """One server's cluster: spool, ledger, results, scheduler and workers joined. `start` before use, `close` after."""

    def __init__(self, config: ClusterConfig, workers: Workers, *, clocks: Clocks = Clocks()) -> None:
        """Raises ConfigError when the data folder cannot be used, or another server uses it."""
        # Workers may run elsewhere: what they are told of a scan must not depend on where this process started.
        self.config = config = replace(config, data=config.data.absolute())
        self.workers = workers
        self._clocks = clocks
        self._lives: dict[str, LiveScan] = {}
        self._lives_lock = threading.Lock()
        self._draining = self._stopping = False
        self._data = DataFolder(config)
        self._spool, self._ledger, self._results = self._data.spool, self._data.ledger, self._data.results
        self._feed = Feed(config.subscription_events, run=f"{int(clocks.wall_s() * 1000):x}")
        self._metrics = Metrics(clocks.steady_s, spool_bytes=self._spool.used_bytes, queue=self._queue)
        self._recorder = self._make_recorder()
        self._storer = self._make_storer()
        self._loop = self._make_loop()
        self._desk = self._make_desk()
        self._reruns = Reruns(self._desk, self._data, enter=self._enter)
        self._retention = Retention(config, self._data, clock=clocks.wall_s, lock=self._lives_lock, in_use=self._in_use)
        self._stages: tuple[Stage[Any], ...] = (
            self._retention.stage,
            self._reruns.stage,
            self._loop.stage,
            self._storer.stage,
            self._recorder.stage,
        )

    def _make_recorder(self) -> Recorder:
        return Recorder(
            self.config,
            self._ledger,
            feed=self._feed,
            clock=self._clocks.wall_s,
            ended=self._ended,
            unwritable=self._unwritable,
        )

    def _make_storer(self) -> Storer:
        return Storer(
            self.config,
            self._lives,
            recorder=self._recorder,
            feed=self._feed,
            observe=self._metrics.observe,
            clock=self._clocks.wall_s,
        )

    def _make_loop(self) -> Loop:
        return Loop(
            Scheduler(rules(self.config)),
            Do(self.workers, self._storer, metrics=self._metrics),
            clock=self._clocks.steady_s,
            capacity=self.config.event_queue_events,
            tick_s=self.config.tick_s,
        )

    def _make_desk(self) -> Desk:
        return Desk(
            self.config,
            self._spool,
            self._recorder,
            post=self._loop.post,
            wait_for_room=self._wait_for_room,
            clock=self._clocks.wall_s,
            steady=self._clocks.steady_s,
            forget=self._forget,
            stopping=lambda: self._stopping,
        )

    def start(self) -> None:
        """Start threads and workers, and take up the scans that a previous server left unfinished."""
        for stage in self._stages:
            stage.start()
        self.workers.start(self._loop.post)
        self._reruns.take_up()

    @property
    def ready(self) -> bool:
        """Whether a scan sent now would be taken and reconstructed."""
        return not self.troubles

    @property
    def troubles(self) -> list[str]:
        """Why the server is not ready, a sentence each."""
        found = [
            "the server is shutting down" if self._draining else "",
            self._spool.failure,
            self._recorder.failure,
            "" if self._loop.look()["workers"] else "no worker is ready",
            *(stage.failure and f"{stage.name} stands still ({stage.failure})" for stage in self._stages),
        ]
        return list(filter(None, found))

    # --- scans --------------------------------------------------------------------------------------------------------

    def open_scan(self, request: ScanRequest) -> Intake:
        """Begin to receive a scan; raises RefusedError, DuplicateError, RecipeError before any of its bytes."""
        with self._refusals():
            resolve(request.method)
            now = self._clocks.wall_s()
            record = ScanRecord(
                new_scan_id(now, self._clocks.noise(10)),
                State.RECEIVING,
                request.transport,
                method=request.method,
                priority=request.priority,
                name=request.name,
                idempotency_key=request.idempotency_key,
                created_s=now,
            )
            with self._lives_lock:
                self._admit(request)
                live = self._enter(record, partial(self._results.create, record.id))
        return Intake(self._desk, live)

    def lookup(self, idempotency_key: str) -> ScanRecord | None:
        """The scan that was sent with this key, unless its data never came in whole: then it may be sent again."""
        for live in tuple(self._lives.values()):
            if idempotency_key and live.record.idempotency_key == idempotency_key:
                return live.record
        record = self._ledger.find(idempotency_key) if idempotency_key else None
        return record if record and record.complete else None

    def scan(self, scan_id: str) -> ScanRecord:
        """The record of a scan; raises NotFoundError."""
        live = self._lives.get(scan_id)
        record = live.record if live else self._ledger.scan(scan_id)
        if record is None:
            raise NotFoundError(f"there is no scan {scan_id[:40]!r}: list the scans to see which there are")
        return record

    def scans(self, *, state: State | None = None, limit: int = 100) -> list[ScanRecord]:
        """The newest scans, newest first."""
        live = {live.record.id: live.record for live in tuple(self._lives.values())}
        stored = {record.id: record for record in self._ledger.scans(state=state, limit=limit)}
        merged = {**stored, **live}
        wanted = [merged[scan] for scan in sorted(merged, reverse=True)]
        return [record for record in wanted if state in (None, record.state)][:limit]

    def cancel(self, scan_id: str) -> ScanRecord:
        """Stop a scan; one that has ended stays as it is."""
        self.scan(scan_id)
        live = self._lives.get(scan_id)
        if live is not None:
            self._stop(live, ScanCancelled(scan_id))
            live.ended.wait(_END_WAIT_S)
        return self.scan(scan_id)

    def requeue(self, scan_id: str) -> ScanRecord:
        """Reconstruct a scan that has ended once more from its raw data; raises ConflictError where it has not."""
        if (ending := self._lives.get(scan_id)) and ending.record.state.final:
            ending.ended.wait(_END_WAIT_S)  # its last words are being said
        with self._lives_lock:  # of two who ask at once, the second finds the scan alive again
            old = self.scan(scan_id)
            if scan_id in self._lives or not old.state.final:
                raise _not_ended(old)
            self._reruns.check(old)
            self._admit(None)
            live = self._reruns.reopen(old)
        self._reruns.begin(live, old, line="requeued")
        return live.record

    def log(self, scan_id: str) -> list[LogLine]:
        """What happened to a scan, oldest first."""
        self.scan(scan_id)
        return self._ledger.log(scan_id)

    def raw_path(self, scan_id: str) -> Path:
        """The file of a scan's raw data, exactly as received."""
        return self._spool.raw(scan_id, file=bool(self.scan(scan_id).group))

    def images(self, scan_id: str) -> Iterator[Image]:
        """The images stored so far."""
        self.scan(scan_id)
        return self._results.images(scan_id)

    def follow(self, scan_id: str, *, start: int = 0, timeout_s: float | None = None) -> Iterator[bytes]:
        """Encoded image messages from number `start` on, as they are made; ends when the scan has ended.

        Ends as well after `timeout_s` without a new image. Those of a scan that runs again come when all are there.
        """
        self.scan(scan_id)
        live = self._lives.get(scan_id)
        if live is None:
            return self._results.encoded(scan_id, start=start)
        return live.results.follow(start=start, timeout_s=timeout_s)

    def stored(self, scan_id: str, *, start: int = 0) -> Iterator[bytes]:
        """Encoded image messages from number `start` on that can be read now; while a scan runs again, the earlier."""
        self.scan(scan_id)
        live = self._lives.get(scan_id)
        if live is None or live.results.hidden:
            return self._results.encoded(scan_id, start=start)
        return live.results.follow(start=start, timeout_s=0.0)

    def events(self, scan_id: str | None = None, *, after: str = "") -> Subscription:
        """What happens to one scan or to all: from now on, or behind the event with the id `after`."""
        if scan_id is not None:
            self.scan(scan_id)
        return self._feed.subscribe(scan_id, after=after)

    def wait(self, scan_id: str, timeout_s: float | None = None) -> ScanRecord:
        """The record once the scan has ended, or after `timeout_s`."""
        live = self._lives.get(scan_id)
        if live is not None:
            live.ended.wait(timeout_s)
        return self.scan(scan_id)

    # --- the server ---------------------------------------------------------------------------------------------------

    def refused(self, word: Refused) -> None:
        """Have a scan counted that a gateway did not take, and why."""
        self._loop.post(ScanRefused(word))

    def cluster(self) -> dict[str, Any]:
        """Workers, queue and batches, in plain values."""
        state = self._loop.look()
        state["defects"] = {stage.name: stage.error for stage in self._stages if stage.error}
        return {
            **state,
            "ready": self.ready,
            "troubles": self.troubles,
            "draining": self._draining,
            "scans_in_flight": len(self._lives),
        }

    def metrics_text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return self._metrics.text()

    def drain(self, timeout_s: float) -> bool:
        """Take no new scan and wait for those in flight; whether all ended within `timeout_s`."""
        self._draining = True
        end = self._clocks.steady_s() + timeout_s
        for live in tuple(self._lives.values()):
            live.ended.wait(max(0.0, end - self._clocks.steady_s()))
        return not self._lives

    def close(self) -> None:
        """Stop. Scans in flight are taken up by the next server with the same data folder."""
        self._draining = self._stopping = True
        self.workers.stop()
        for stage in self._stages:
            stage.close()
        self._feed.close()
        for live in tuple(self._lives.values()):
            live.close()
        self._data.close()

    # --- inside -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Have scans counted that the block does not let in for another reason than those counted where they arise."""
        try:
            yield
        except RecipeError:
            self.refused(Refused.RECIPE)
            raise
        except ReconError:
            raise
        except Exception:
            # A defect of ours: who asked hears of it elsewhere.
            self.refused(Refused.FAULT)
            raise

    def _admit(self, request: ScanRequest | None) -> None:
        """Raise RefusedError if no scan may come in now; called with the lock held."""
        if request and (record := self.lookup(request.idempotency_key)):
            raise DuplicateError(record)
        refused = refusal(
            draining=self._draining, in_flight=len(self._lives), most_in_flight=self.config.max_scans_in_flight
        )
        if refused is not None:
            self.refused(refused.word)
            raise RefusedError(refused.sentence, retry_after_s=refused.retry_after_s)
        try:
            self._spool.check()
        except RefusedError:
            self.refused(Refused.DISK)
            raise

    def _enter(self, record: ScanRecord, results: Callable[[], ResultFile]) -> LiveScan:
        """The scan among those in flight; raises RefusedError when there can be no file for its images."""
        try:
            live = LiveScan(record, results())
        except OSError as error:
            _log.exception("the images of scan %s cannot be kept", record.id)
            busy = no_descriptor(error, "keep the images of a scan")
            self.refused(Refused.FULL if busy else Refused.DISK)
            if busy:
                raise busy from error
            # Not the error itself, which names a path of the server's.
            words = f"the images of the scan cannot be kept ({error.strerror}): check the server's disk, send it again"
            raise DiskFullError(words, retry_after_s=60.0) from error
        self._lives[record.id] = live
        return live

    def _stop(self, live: LiveScan, event: ScanCancelled) -> None:
        """Have a scan end before its time, whether or not the scheduler knows it yet."""
        with live.gate:
            live.cancelled = True
            opened = live.opened
        if opened:
            self._loop.post(event)
        else:
            self._recorder.end(live, event.state, reason=event.reason)

    def _unwritable(self, live: LiveScan, reason: str) -> None:
        """End a scan whose record the ledger cannot hold."""
        event = ScanCancelled(live.record.id, State.FAILED, reason)
        # A thread of its own: the recorder calls this, and must not wait for the scheduler, which may wait for it.
        threading.Thread(target=self._stop, args=(live, event), name="unwritable", daemon=True).start()

    def _ended(self, live: LiveScan, record: ScanRecord) -> None:
        if live.opened:
            self._metrics.observe(FinishScan(record.id, record.state, record.reason))
        self._trim(live)
        self._forget(live)

    def _trim(self, live: LiveScan) -> None:
        """Of a scan that was sent as a file, keep the file: its stream can be made again."""
        try:
            self._spool.trim(live.record.id, live.lasting_bytes)
        except OSError as error:
            _log.warning("scan %s: the stream made of its file stays (%s)", live.record.id, error.strerror)

    def _forget(self, live: LiveScan) -> None:
        self._lives.pop(live.record.id, None)

    def _in_use(self) -> set[str]:
        """Scans whose files somebody needs: those in flight, and those whose noise they are whitened with."""
        lives = tuple(self._lives.values())
        return {live.record.id for live in lives} | {live.lender for live in lives}

    def _queue(self) -> dict[str, int]:
        queue: dict[str, int] = self._loop.look()["queue"]
        return queue

    def _wait_for_room(self) -> bool:
        return self._loop.wait_for_room(self.config.max_frames_queued, timeout_s=self.config.tick_s)


class Do:
    """Carries out the scheduler's commands; nothing here waits for a worker or a disk."""

    def __init__(self, workers: Workers, storer: Storer, *, metrics: Metrics) -> None:
        self._workers = workers
        self._storer = storer
        self._metrics = metrics

    def observe(self, event: Event) -> None:
        """Count an event, and log the defects that a worker met."""
        self._metrics.observe(event)
        if isinstance(event, BatchDone):
            for result in event.results:
                if result.trace:
                    frame = result.frame
                    words = "worker %s met a defect in frame %d of scan %s\n%s"
                    _log.error(words, event.worker, frame.number, frame.scan, result.trace)

    def do(self, command: Command) -> None:
        """Carry out a command."""
        if isinstance(command, StartBatch):
            self._metrics.observe(command)
            self._workers.submit(command.worker, command.batch)
        elif isinstance(command, ReplaceWorker):
            self._metrics.observe(command)
            self._workers.replace(command.worker)
        else:
            self._storer.put(command)


def _not_ended(record: ScanRecord) -> ConflictError:
    """Why a scan that is still in flight cannot run again."""
    said = f"scan {record.id} is {record.state.value}"
    if record.state.final:  # its last lines wait for the ledger, or it has just been asked for once more
        return ConflictError(f"{said}, but its record is still being written: ask again in a moment", retry_after_s=1.0)
    return ConflictError(f"{said}, only one that has ended can run again: wait for it, or cancel it")

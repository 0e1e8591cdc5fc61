"""Writes down what happens to scans: images in the store, states and log lines in the ledger, many at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.config import ClusterConfig
from cluster.events import FinishScan, ImagesStored, MarkRunning, State, StoreImages
from cluster.job import DiskFullError, LedgerError, LogLine, ScanRecord, outcome
from cluster.ledger import Ledger
from cluster.live import Feed, LiveScan
from cluster.loop import Stage, defect
from cluster.results import Replacement
from recon.errors import ReconError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Note:
    """Something to write into the ledger: the record as it is now, a log line, perhaps the end."""

    live: LiveScan
    line: str = ""
    end: tuple[State, str] | None = None
    written: Future[None] | None = None  # resolved when it is on disk


@dataclass(slots=True)
class _Pending:
    """What notes of one scan leave to be written."""

    live: LiveScan
    record: ScanRecord | None = None
    lines: list[LogLine] = field(default_factory=list)
    ended: bool = False
    written: list[Future[None]] = field(default_factory=list)


class Recorder:
    """One thread that commits notes in groups; followers hear of a state when it is on disk."""

    def __init__(
        self,
        config: ClusterConfig,
        ledger: Ledger,
        *,
        feed: Feed,
        clock: Callable[[], float],
        ended: Callable[[LiveScan, ScanRecord], None],
        unwritable: Callable[[LiveScan, str], None],
    ) -> None:
        """`unwritable` has a scan end whose record the ledger cannot hold; it is called once for each."""
        self.failure = ""  # why the ledger cannot be written now, a sentence
        self._config = config
        self._ledger = ledger
        self._feed = feed
        self._clock = clock
        self._ended = ended
        self._unwritable = unwritable
        self._pending: dict[str, _Pending] = {}
        self.stage: Stage[Note] = Stage(
            "recorder",
            self._collect,
            after=self._commit,
            settle=self._settle,
            capacity=config.store_queue_commands,
            tick_s=config.tick_s,
        )
        self.put = self.stage.put

    def write(self, live: LiveScan, line: str = "") -> None:
        """Write the record down, soon."""
        self.put(Note(live, line))

    def write_through(self, live: LiveScan, line: str = "") -> None:
        """Write the record down and return when it is on disk.

        Raises RefusedError when it cannot be now, ReconError when it never can.
        """
        written: Future[None] = Future()
        self.put(Note(live, line, written=written))
        written.result()

    def end(self, live: LiveScan, state: State, *, reason: str) -> None:
        """Write down the end of a scan."""
        self.put(Note(live, end=(state, reason)))

    def _collect(self, note: Note) -> None:
        live, record = note.live, note.live.record
        pending = self._pending.setdefault(record.id, _Pending(live))
        pending.live = live  # the scan may run again
        if not (pending.ended or record.state.final):
            if note.end is not None:
                state, reason = note.end
                record = self._closed(live, state, reason=reason)
                pending.ended = True
            pending.record = record
        if note.written is not None and live.unwritable:
            note.written.set_exception(ReconError(live.unwritable))
        elif note.written is not None:
            pending.written.append(note.written)
        self._line(pending, note.line or (outcome(record) if note.end else ""))

    def _line(self, pending: _Pending, text: str) -> None:
        live = pending.live
        if text and live.lines < self._config.log_lines_per_scan:
            live.lines += 1
            pending.lines.append(LogLine(live.record.id, self._clock(), text[: self._config.log_line_chars]))

    def _closed(self, live: LiveScan, state: State, *, reason: str) -> ScanRecord:
        """The final record; the images are on disk before it says so."""
        if live.record.images or live.results.made:
            self._keep(live)
        if isinstance(live.results, Replacement) and live.results.hidden:
            _settle(live, live.results, state)
        if live.broken and state is not State.CANCELLED:
            state, reason = State.FAILED, f"its images cannot be kept ({live.broken}): free space and requeue it"
        if live.unwritable:
            state, reason = State.FAILED, live.unwritable
        images = live.results.count
        if live.results.hidden and images:
            reason = f"{reason}; its images ({images}) are those of the run before"
        reason = reason[: self._config.log_line_chars]
        return replace(live.record, state=state, reason=reason, images=images, finished_s=self._clock())

    def _keep(self, live: LiveScan) -> None:
        """Have the images so far on the disk, or remember why not."""
        try:
            live.results.sync()
        except OSError as error:
            live.broken = live.broken or str(error)

    def _secure(self, pending: _Pending) -> None:
        """No record counts an image that is not on the disk: a server on a restarted machine keeps what is counted."""
        live, record = pending.live, pending.record
        if record is not None and record.images > live.results.synced and not live.broken:
            self._keep(live)
        if record is not None and record.images > live.results.synced:
            pending.record = replace(record, images=live.results.synced)

    def _commit(self) -> None:
        if not self._pending:
            return
        for pending in self._pending.values():
            self._secure(pending)
        try:
            self._write(*self._pending.values())
        except Exception as error:
            # Whatever it was, who waits must hear of it, and nobody may believe that this is on disk.
            if self._ledger.lasting(error):
                self._commit_apart()
            else:
                self._refuse(error)
            return
        done, self._pending = self._pending, {}
        self._written(*done.values())

    def _commit_apart(self) -> None:
        """Commit what is pending scan by scan: one that never can be written must not stop the others."""
        for name, pending in tuple(self._pending.items()):
            try:
                self._write(pending)
            except Exception as error:
                if not self._ledger.lasting(error):
                    return self._refuse(error)
                del self._pending[name]
                self._drop(pending, error)
            else:
                del self._pending[name]
                self._written(pending)
        return None

    def _write(self, *group: _Pending) -> None:
        self._ledger.commit(
            (pending.record for pending in group if pending.record is not None),
            (line for pending in group for line in pending.lines),
        )

    def _drop(self, pending: _Pending, error: Exception) -> None:
        """End a scan of which something was to be written that the ledger cannot hold."""
        live, again = pending.live, bool(pending.live.unwritable)
        live.unwritable = f"the ledger cannot hold its record ({type(error).__name__}): report it with the server's log"
        _log.error("scan %s: %s", live.record.id, live.unwritable, exc_info=error)
        for written in pending.written:
            written.set_exception(ReconError(live.unwritable))
        live.update(**self._ledger.corrections(live.record))
        if again:  # not even without the values at fault: it ends in memory, and is taken up after a restart
            self._abandon(live, live.unwritable)
        elif pending.ended:  # the scheduler is through with it
            self._collect(Note(live, end=(State.FAILED, live.unwritable)))
        else:
            self._unwritable(live, live.unwritable)

    def _abandon(self, live: LiveScan, reason: str) -> None:
        record = live.update(state=State.FAILED, reason=reason, finished_s=self._clock())
        self._publish(_Pending(live, record, ended=True))

    def _settle(self, note: Note, error: Exception) -> None:
        """End what waits for a note that met a defect; after a restart its scan is taken up again."""
        if note.written is not None:
            note.written.set_exception(ReconError(defect(error)))
        if note.end is not None:
            self._abandon(note.live, defect(error))

    def _refuse(self, error: Exception) -> None:
        # Nothing of it is lost: what could not be committed stays pending and is tried again at the next tick.
        known = isinstance(error, LedgerError)
        self.failure = str(error) if known else f"the ledger cannot be written ({error}): check the disk"
        for pending in self._pending.values():
            waiting, pending.written = pending.written, []
            for written in waiting:
                words = f"{self.failure} and send the scan again"
                written.set_exception(LedgerError(words, retry_after_s=5.0) if known else DiskFullError(words))

    def _written(self, *group: _Pending) -> None:
        self.failure = ""
        for pending in group:
            for written in pending.written:
                written.set_result(None)
        for pending in group:
            self._publish(pending)

    def _publish(self, pending: _Pending) -> None:
        if pending.record is None:
            return
        if pending.ended:
            self._finish(pending.live, pending.record)
        self._feed.publish("state", pending.record, reason=pending.record.reason)

    def _finish(self, live: LiveScan, record: ScanRecord) -> None:
        live.update(state=record.state, reason=record.reason, images=record.images, finished_s=record.finished_s)
        try:
            self._ended(live, record)
        finally:
            live.close()


def _settle(live: LiveScan, results: Replacement, state: State) -> None:
    """Have the images of a run replace the earlier ones if it is as good, or gave more of them."""
    # An incomplete scan can end in no better way.
    good = state is State.DONE or results.made + (state is State.INCOMPLETE) > results.count
    if live.broken or live.unwritable or not good:
        results.drop()
        return
    try:
        results.place()
    except OSError as error:
        live.broken = str(error)
        if results.hidden:
            results.drop()


class Storer:
    """One thread that keeps images and passes on what becomes of scans, in the scheduler's order."""

    def __init__(
        self,
        config: ClusterConfig,
        lives: Mapping[str, LiveScan],
        *,
        recorder: Recorder,
        feed: Feed,
        observe: Callable[[ImagesStored], None],
        clock: Callable[[], float],
    ) -> None:
        self._lives = lives
        self._observe = observe
        self._counted: dict[str, LiveScan] = {}  # scans with images that the ledger does not count yet
        self._tick_s = config.tick_s
        self._ticked = clock()
        self._recorder = recorder
        self._feed = feed
        self._clock = clock
        self._does: Mapping[type, Callable[[LiveScan, Any], None]] = {
            StoreImages: self._store,
            MarkRunning: self._running,
            FinishScan: self._finish,
        }
        self.stage: Stage[StoreImages | MarkRunning | FinishScan] = Stage(
            "storer",
            self._do,
            after=self._tick,
            settle=self._settle,
            capacity=config.store_queue_commands,
            tick_s=config.tick_s,
        )
        self.put = self.stage.put

    def _do(self, command: StoreImages | MarkRunning | FinishScan) -> None:
        live = self._lives.get(command.scan)
        if live is not None:
            self._does[type(command)](live, command)

    def _settle(self, command: StoreImages | MarkRunning | FinishScan, error: Exception) -> None:
        """A scan of which something was not stored must not end as done."""
        if live := self._lives.get(command.scan):
            live.broken = live.broken or defect(error)
            self._recorder.end(live, State.FAILED, reason=defect(error))

    def _store(self, live: LiveScan, command: StoreImages) -> None:
        if live.broken or not command.images:
            return
        try:
            stored = live.results.append(command.images)
        except OSError as error:
            live.broken = str(error)
            return
        first_image_s = live.record.first_image_s or self._clock()
        record = live.update(images=live.results.count, first_image_s=first_image_s)
        if not live.results.hidden:
            self._feed.publish("image", record)
        if stored:  # counted last: no scrape may tell of an image that nobody can read yet
            self._observe(ImagesStored(command.scan, command.frame, command.method, stored))
            self._counted[command.scan] = live
        for comment in dict.fromkeys(text for image in command.images for text in image.comments):
            if live.warn(comment):
                self._recorder.write(live, f"warning: {comment}")

    def _tick(self) -> None:
        """Have the ledger count new images: no more than those of a tick may be made again on a restarted machine."""
        now = self._clock()
        if abs(now - self._ticked) >= self._tick_s:  # the clock may be set back
            self._ticked = now
            lives, self._counted = self._counted, {}
            for live in lives.values():
                self._recorder.write(live)

    def _running(self, live: LiveScan, _command: MarkRunning) -> None:
        live.update(state=State.RUNNING)
        self._recorder.write(live, "running")

    def _finish(self, live: LiveScan, command: FinishScan) -> None:
        self._recorder.end(live, command.state, reason=command.reason)

"""Scans that run from raw data on disk: what a server left unfinished, and what somebody asks for once more."""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

from cluster.events import ScanReceived, State
from cluster.folder import DataFolder
from cluster.intake import Desk, Reception
from cluster.job import DiskFullError, LedgerError, LogLine, ScanRecord, outcome
from cluster.live import LiveScan
from cluster.loop import Stage, defect
from cluster.replay import replay, reread
from cluster.results import ResultFile
from recon.errors import FileError, ReconError, RefusedError

_log = logging.getLogger(__name__)
_CUT = "the server stopped while the scan was coming in"
Enter = Callable[[ScanRecord, Callable[[], ResultFile]], LiveScan]


class Reruns:
    """One thread that puts raw data through assembly again; `enter` has a scan among those in flight."""

    def __init__(self, desk: Desk, data: DataFolder, *, enter: Enter) -> None:
        self._desk = desk
        self._data = data
        self._enter = enter
        self.stage: Stage[tuple[LiveScan, ScanRecord]] = Stage(
            "replay",
            self._run,
            settle=self._give_up,
            capacity=desk.config.max_scans_in_flight,
            tick_s=desk.config.tick_s,
        )

    def take_up(self) -> None:
        """Go on with what a previous server left unfinished, and remove what it left of runs that never began."""
        unfinished = {record.id: record for record in [*self._data.ledger.unfinished(), *self._orphans()]}
        for scan in self._data.results.sweep(unfinished):
            _log.info("scan %s: the empty file of a run that never began is removed", scan)
        for name in self._data.spool.sweep():
            _log.info("spool: %s, left by a server that stopped, is removed", name)
        for old in unfinished.values():
            self._take_up(old)
        self._data.taken_up()

    def _take_up(self, old: ScanRecord) -> None:
        """Go on with a scan; one whose images have no place ends, so that it keeps no other waiting."""
        try:
            live = self._enter(_fresh(old), lambda: self._images(old))
        except RefusedError as error:
            now = self._desk.clock()
            ended = replace(old, state=State.FAILED, reason=str(error), finished_s=now)
            self._data.ledger.commit([ended], [LogLine(old.id, now, outcome(ended))])
        else:
            self.begin(live, old, line="taken up after a restart")

    def check(self, record: ScanRecord) -> None:
        """Raise FileError where there are no raw data to run from."""
        spool, scan = self._data.spool, record.id
        if spool.upload(scan).exists() or (not record.group and spool.path(scan).exists()):
            return
        if spool.upload_part(scan).exists():
            raise FileError(f"only a part of the file of scan {scan} came, which nobody can read: send it again")
        raise FileError(f"the raw data of scan {scan} are gone: send it again")

    def reopen(self, old: ScanRecord) -> LiveScan:
        """A scan that has ended, in flight again; its images stay until others replace them.

        Raises RefusedError and then leaves it as it was.
        """
        # The file for its images first: by it the next server knows that those there are not of this run.
        live = self._enter(_fresh(old), lambda: self._data.results.replace(old.id, earlier=old.images))
        try:
            self._data.ledger.commit([live.record])
        except (sqlite3.Error, LedgerError) as error:
            self._desk.forget(live)
            live.results.remove()
            if isinstance(error, LedgerError):
                raise
            words = f"the ledger cannot be written ({error}): check the server's disk, then requeue the scan"
            raise DiskFullError(words, retry_after_s=60.0) from error
        return live

    def begin(self, live: LiveScan, old: ScanRecord, *, line: str) -> None:
        """Have it run, soon."""
        self._desk.recorder.write(live, line)
        self.stage.put((live, old))

    def _images(self, old: ScanRecord) -> ResultFile:
        """Where the images of a scan go whose server stopped."""
        results = self._data.results
        if results.replacing(old.id):
            return results.replace(old.id, earlier=old.images)
        # After a restart of the machine those that the ledger counts: they were on the disk before it did.
        return results.resume(old.id, most=sys.maxsize if self._data.intact else old.images)

    def _orphans(self) -> Iterable[ScanRecord]:
        """Raw data without a record."""
        known = self._data.ledger.ids()
        for path in sorted(self._data.spool.folder.iterdir()):
            scan = path.name.partition(".")[0]
            if path.suffix in (".mrd", ".h5") and scan not in known:
                yield ScanRecord(scan, State.ACCEPTED, self._door(scan), created_s=path.stat().st_mtime)

    def _door(self, scan: str) -> str:
        """The transport over which data came; only files are known to come over HTTP."""
        spool = self._data.spool
        return "http" if spool.upload(scan).exists() or spool.upload_part(scan).exists() else "tcp"

    def _run(self, item: tuple[LiveScan, ScanRecord]) -> None:
        live, old = item
        spool, reason = self._data.spool, old.reason or _CUT
        upload = spool.upload(old.id)
        if upload.exists():
            reread(self._desk, live, upload)
        elif spool.upload_part(old.id).exists():
            _end_unread(Reception(self._desk, live), reason)
        else:
            replay(Reception(self._desk, live), complete=old.complete, reason=reason)

    def _give_up(self, item: tuple[LiveScan, ScanRecord], error: Exception) -> None:
        """End a scan that met a defect on its way into the scheduler."""
        live = item[0]
        reason = str(error) if isinstance(error, ReconError) else defect(error)
        if live.opened:
            self._desk.post(ScanReceived(live.record.id, False, live.record.frames, reason, failed=True))
        else:
            self._desk.recorder.end(live, State.FAILED, reason=reason)


def _end_unread(reception: Reception, reason: str) -> None:
    """Of a file that never came in whole nothing can be reconstructed."""
    reception.begin()
    try:
        reception.end(complete=False, reason=reason)
    except RefusedError as error:
        reception.fail(error)


def _fresh(old: ScanRecord) -> ScanRecord:
    """The record of a scan that runs again: all there will ever be of its data is here."""
    return replace(old, state=State.ACCEPTED, first_image_s=0.0, finished_s=0.0, frames=0, reason="", warnings=())

"""Removes raw data and images of scans that ended long ago, or that are the oldest where there are too many bytes."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.folder import DataFolder
from cluster.job import LedgerError, LogLine, ScanRecord
from cluster.loop import Stage

_log = logging.getLogger(__name__)
GONE = "its raw data and images are removed: they were kept as long as this server keeps them"


def due(
    ended: Iterable[tuple[str, float]], sizes: Mapping[str, int], *, now: float, keep_s: float, keep_bytes: int
) -> Iterator[str]:
    """Scans to remove of those that `ended`, given with the times and the first to end first; 0 keeps for ever.

    `sizes` are the bytes of all scans on the disk: those of scans that have not ended count too, and stay.
    """
    total = sum(sizes.values())
    for scan, finished_s in ended:
        late = keep_s and finished_s + keep_s <= now
        if scan in sizes and (late or (keep_bytes and total > keep_bytes)):
            total -= sizes[scan]
            yield scan


class Retention:
    """A thread that looks every `retention_tick_s`; records and logs stay, and say what was removed."""

    def __init__(
        self,
        config: ClusterConfig,
        data: DataFolder,
        *,
        clock: Callable[[], float],
        lock: threading.Lock,
        in_use: Callable[[], Container[str]],
    ) -> None:
        """No scan runs again while `lock` is held; of scans `in_use` nothing is removed."""
        self._config = config
        self._data = data
        self._clock = clock
        self._lock = lock
        self._in_use = in_use
        self.stage: Stage[None] = Stage(
            "retention", lambda _: None, after=self._look, capacity=1, tick_s=config.retention_tick_s
        )

    def _look(self) -> None:
        if not (self._config.keep_s or self._config.keep_bytes):
            return
        try:
            self._remove_due()
        except (OSError, sqlite3.Error, LedgerError) as error:
            _log.warning("retention: %s; what is due is removed later", error)

    def _remove_due(self) -> None:
        config, now = self._config, self._clock()
        sizes = _sizes(self._data.spool.folder, self._data.results.folder)
        ended = self._data.ledger.ended()
        for scan in due(ended, sizes, now=now, keep_s=config.keep_s, keep_bytes=config.keep_bytes):
            with self._lock:
                record = self._data.ledger.scan(scan)
                if record is not None and record.state.final and scan not in self._in_use():
                    self._remove(record, now)

    def _remove(self, record: ScanRecord, now: float) -> None:
        """First the words, then the files: those that a stop in between leaves are found again by the next look."""
        if GONE not in record.warnings:
            fresh = replace(record, images=0, warnings=(*record.warnings, GONE))
            self._data.ledger.commit([fresh], [LogLine(record.id, now, GONE)])
        self._data.results.discard(record.id)
        self._data.spool.discard(record.id)


def _sizes(*folders: Path) -> Counter[str]:
    """Bytes of each scan's files, whose names begin with its id."""
    sizes = Counter[str]()
    for path in (path for folder in folders for path in folder.iterdir()):
        with suppress(FileNotFoundError):  # it went meanwhile
            sizes[path.name.partition(".")[0]] += path.stat().st_size
    return sizes

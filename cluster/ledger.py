"""The states of all scans in one SQLite file: WAL, every commit on disk before it returns."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from cluster.events import Priority, State
from cluster.job import LogLine, ScanRecord

_COLUMNS = tuple(item.name for item in fields(ScanRecord))
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)  # SQL has words of its own
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS scan ({_NAMES}, PRIMARY KEY (id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS scan_state ON scan (state, id);
CREATE INDEX IF NOT EXISTS scan_key ON scan (idempotency_key) WHERE idempotency_key <> '';
CREATE TABLE IF NOT EXISTS log (scan, time_s, text);
CREATE INDEX IF NOT EXISTS log_scan ON log (scan);
"""
_SELECT = f"SELECT {_NAMES} FROM scan"
_UPSERT = f"INSERT OR REPLACE INTO scan ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_FINAL = tuple(state.value for state in State if state.final)


def lasting(error: Exception) -> bool:
    """Whether a commit that ended with `error` would always end so: the fault lies in its values, not in the file."""
    of_the_file = sqlite3.OperationalError | sqlite3.InternalError | OSError | MemoryError
    return not isinstance(error, of_the_file) and type(error) is not sqlite3.DatabaseError  # "malformed" is its base


class Ledger:
    """Scan records and log lines; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        # One connection under one lock: transactions are short, and readers never see half of one.
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(_SCHEMA)
        self._widen()

    def commit(self, records: Iterable[ScanRecord], lines: Iterable[LogLine] = ()) -> None:
        """Write `records` and `lines` in one transaction that is on disk when this returns."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(_UPSERT, map(_row, records))
                self._connection.executemany(
                    "INSERT INTO log VALUES (?, ?, ?)", ((line.scan, line.time_s, _clean(line.text)) for line in lines)
                )
                self._connection.execute("COMMIT")
            except BaseException:
                # Whatever it was: a transaction left open would refuse all that follow.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _widen(self) -> None:
        """Give the table of an older version the columns that it lacks."""
        there = {row[1] for row in self._connection.execute("PRAGMA table_info(scan)")}
        defaults = _row(ScanRecord("", State.ACCEPTED, ""))
        for name, default in zip(_COLUMNS, defaults, strict=True):
            if name not in there:
                value = "''" if default == "" else default
                self._connection.execute(f'ALTER TABLE scan ADD COLUMN "{name}" DEFAULT {value}')

    def corrections(self, record: ScanRecord) -> dict[str, Any]:
        """The defaults of those fields of `record` whose values SQLite cannot hold."""
        default = ScanRecord(record.id, record.state, "")
        return {name: getattr(default, name) for name in _COLUMNS if not self._holds(record, name, default=default)}

    def _holds(self, record: ScanRecord, name: str, *, default: ScanRecord) -> bool:
        try:
            row = _row(replace(default, **{name: getattr(record, name)}))
            with self._lock:
                self._connection.execute(f"SELECT {', '.join('?' * len(row))}", row)
        except Exception as error:
            # Whatever it finds fault with is not to be written.
            if not lasting(error):
                raise
            return False
        return True

    def scan(self, scan: str) -> ScanRecord | None:
        """The record of `scan`, if there is one."""
        return next(iter(self._records(f"{_SELECT} WHERE id = ?", scan)), None)

    def find(self, idempotency_key: str) -> ScanRecord | None:
        """The latest scan sent with this key."""
        query = f"{_SELECT} WHERE idempotency_key = ? AND idempotency_key <> '' ORDER BY id DESC LIMIT 1"
        return next(iter(self._records(query, idempotency_key)), None)

    def scans(self, *, state: State | None = None, limit: int = 100) -> list[ScanRecord]:
        """The newest `limit` scans, newest first."""
        if state is None:
            return self._records(f"{_SELECT} ORDER BY id DESC LIMIT ?", limit)
        return self._records(f"{_SELECT} WHERE state = ? ORDER BY id DESC LIMIT ?", state.value, limit)

    def unfinished(self) -> list[ScanRecord]:
        """Scans that have not ended, oldest first."""
        holes = ", ".join("?" * len(_FINAL))
        return self._records(f"{_SELECT} WHERE state NOT IN ({holes}) ORDER BY id", *_FINAL)

    def ids(self) -> set[str]:
        """All scans that have a record."""
        with self._lock:
            return {row[0] for row in self._connection.execute("SELECT id FROM scan")}

    def log(self, scan: str) -> list[LogLine]:
        """The log of `scan`, oldest line first."""
        with self._lock:
            rows = self._connection.execute("SELECT * FROM log WHERE scan = ? ORDER BY rowid", (scan,)).fetchall()
        return [LogLine(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _records(self, query: str, *values: object) -> list[ScanRecord]:
        with self._lock:
            rows = self._connection.execute(query, [_clean(v) if isinstance(v, str) else v for v in values]).fetchall()
        return [_record(row) for row in rows]


def _row(record: ScanRecord) -> list[object]:
    values = {name: getattr(record, name) for name in _COLUMNS}
    values["state"] = record.state.value
    values["priority"] = int(record.priority)
    values["warnings"] = json.dumps(record.warnings)
    return [_clean(value) if isinstance(value, str) else value for value in values.values()]


def _clean(text: str) -> str:
    """`text` with what UTF-8 cannot say (half of a surrogate pair) written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _record(row: tuple[object, ...]) -> ScanRecord:
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    values["state"] = State(values["state"])
    values["priority"] = Priority(values["priority"])
    values["complete"] = bool(values["complete"])
    values["warnings"] = tuple(json.loads(values["warnings"]))
    return ScanRecord(**values)

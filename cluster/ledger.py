"""The states of all scans in a database: an SQLite file or PostgreSQL; a commit is on the disk before it returns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from cluster.database import Database, SqliteDatabase, Transaction
from cluster.events import Priority, State
from cluster.job import LedgerError, LogLine, ScanRecord
from recon.errors import PackageError

VERSION = 1  # of the tables: raised when an older server could no longer use them
_COLUMNS = tuple(item.name for item in fields(ScanRecord))
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)  # SQL has words of its own
_CHANGES = ", ".join(f'"{name}" = excluded."{name}"' for name in _COLUMNS if name != "id")
_SELECT = f"SELECT {_NAMES} FROM scan"
_UPSERT = (
    f"INSERT INTO scan ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (id) DO UPDATE SET {_CHANGES}"
)
_FINAL = tuple(state.value for state in State if state.final)


def open_database(place: Path | str) -> Database:
    """The SQLite file at a path, or the PostgreSQL database of a URL; raises OSError, sqlite3.Error, LedgerError."""
    if isinstance(place, Path):
        return SqliteDatabase(place)
    try:
        from cluster.postgres import PostgresDatabase
    except ImportError as error:
        words = "a ledger in PostgreSQL needs the package psycopg: pip install 'recon-cluster[postgres]'"
        raise PackageError(words) from error
    return PostgresDatabase(place)


class Ledger:
    """Scan records and log lines; safe to use from several threads."""

    def __init__(self, place: Path | str) -> None:
        """Raises what `open_database` raises, and LedgerError for tables of a newer version."""
        self._database = open_database(place)
        self._epoch: int | None = None
        try:
            self._make_tables()
        except BaseException:
            self._database.close()
            raise

    def claim(self) -> None:
        """Commit from now on as the one server that may: what earlier ones still try to commit is refused.

        Raises LedgerError where another server holds the database.
        """
        self._database.hold()
        with self._database.transaction() as transaction:
            transaction.execute("UPDATE ledger SET epoch = epoch + 1")
            self._epoch = transaction.execute("SELECT epoch FROM ledger")[0][0]

    def commit(self, records: Iterable[ScanRecord], lines: Iterable[LogLine] = ()) -> None:
        """Write `records` and `lines` in one transaction that is on disk when this returns.

        Raises LedgerError when another server has claimed the ledger since, and what the database raises.
        """
        rows = [_row(record) for record in records]
        texts = [(line.scan, line.time_s, _clean(line.text)) for line in lines]
        with self._database.transaction() as transaction:
            self._check(transaction)
            if rows:
                transaction.repeat(_UPSERT, rows)
            if texts:
                transaction.repeat("INSERT INTO log (scan, time_s, text) VALUES (?, ?, ?)", texts)

    def _check(self, transaction: Transaction) -> None:
        """Fence off a server that another has followed: it may have been silent for long."""
        if self._epoch is None:
            return
        ((epoch,),) = transaction.execute(f"SELECT epoch FROM ledger{self._database.locked}")
        if epoch != self._epoch:
            raise LedgerError(
                f"another server, the {epoch}th, has taken over from this one, the {self._epoch}th: stop one"
            )

    def _make_tables(self) -> None:
        database = self._database
        described = ", ".join(f'"{name}" {self._type(name)}' for name in _COLUMNS)
        there = database.columns("scan")
        with database.transaction() as transaction:
            transaction.execute(
                f"CREATE TABLE IF NOT EXISTS ledger (version {database.number}, epoch {database.number})"
            )
            if not (found := transaction.execute("SELECT version FROM ledger")):
                transaction.execute("INSERT INTO ledger (version, epoch) VALUES (?, 0)", [VERSION])
            elif found[0][0] > VERSION:
                words = f"the ledger is of version {found[0][0]}, this server knows {VERSION}: start a newer server"
                raise LedgerError(words)
            transaction.execute(f"CREATE TABLE IF NOT EXISTS scan ({described}, PRIMARY KEY (id))")
            transaction.execute(
                f"CREATE TABLE IF NOT EXISTS log ({database.serial}"
                f"scan {database.text}, time_s {database.real}, text {database.text})"
            )
            if there:
                self._widen(transaction, there)
            transaction.execute("CREATE INDEX IF NOT EXISTS scan_state ON scan (state, id)")
            keyed = "ON scan (idempotency_key) WHERE idempotency_key <> ''"
            transaction.execute(f"CREATE INDEX IF NOT EXISTS scan_key {keyed}")
            transaction.execute("CREATE INDEX IF NOT EXISTS log_scan ON log (scan)")

    def _widen(self, transaction: Transaction, there: set[str]) -> None:
        """Give the table of an older version the columns that it lacks."""
        for name, default in _DEFAULTS.items():
            if name not in there:
                value = f"'{default}'" if isinstance(default, str) else default
                transaction.execute(f'ALTER TABLE scan ADD COLUMN "{name}" {self._type(name)} DEFAULT {value}')

    def _type(self, name: str) -> str:
        database = self._database
        return {str: database.text, int: database.number, float: database.real}[type(_DEFAULTS[name])]

    def lasting(self, error: Exception) -> bool:
        """Whether a commit that ended with `error` would always end so: the fault lies in its values."""
        return self._database.lasting(error)

    def corrections(self, record: ScanRecord) -> dict[str, Any]:
        """The defaults of those fields of `record` whose values the database cannot hold."""
        default = ScanRecord(record.id, record.state, "")
        return {name: getattr(default, name) for name in _COLUMNS if not self._holds(record, name, default=default)}

    def _holds(self, record: ScanRecord, name: str, *, default: ScanRecord) -> bool:
        kind = self._type(name).partition(" COLLATE")[0]
        try:
            row = _row(replace(default, **{name: getattr(record, name)}))
            self._database.select(f"SELECT CAST(? AS {kind})" if kind else "SELECT ?", [row[_COLUMNS.index(name)]])
        except Exception as error:
            # Whatever it finds fault with is not to be written.
            if not self.lasting(error):
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

    def ended(self) -> list[tuple[str, float]]:
        """Scans that have ended, and when: the first one first."""
        holes = ", ".join("?" * len(_FINAL))
        query = f"SELECT id, finished_s FROM scan WHERE state IN ({holes}) ORDER BY finished_s, id"
        return [(scan, finished_s) for scan, finished_s in self._database.select(query, _FINAL)]

    def ids(self) -> set[str]:
        """All scans that have a record."""
        return {row[0] for row in self._database.select("SELECT id FROM scan")}

    def log(self, scan: str) -> list[LogLine]:
        """The log of `scan`, oldest line first."""
        query = f"SELECT scan, time_s, text FROM log WHERE scan = ? ORDER BY {self._database.count}"
        return [LogLine(*row) for row in self._database.select(query, [scan])]

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _records(self, query: str, *values: object) -> list[ScanRecord]:
        rows = self._database.select(query, [_clean(v) if isinstance(v, str) else v for v in values])
        return [_record(row) for row in rows]


def _row(record: ScanRecord) -> list[object]:
    values = {name: getattr(record, name) for name in _COLUMNS}
    values["state"] = record.state.value
    values["priority"] = int(record.priority)
    values["warnings"] = json.dumps(record.warnings)
    values["complete"] = int(record.complete)
    return [_clean(value) if isinstance(value, str) else value for value in values.values()]


def _clean(text: str) -> str:
    """`text` with what UTF-8 cannot say (half of a surrogate pair), or PostgreSQL not hold, written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _record(row: tuple[object, ...]) -> ScanRecord:
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    values["state"] = State(values["state"])
    values["priority"] = Priority(values["priority"])
    values["complete"] = bool(values["complete"])
    values["warnings"] = tuple(json.loads(values["warnings"]))
    return ScanRecord(**values)


_DEFAULTS = dict(zip(_COLUMNS, _row(ScanRecord("", State.ACCEPTED, "")), strict=True))

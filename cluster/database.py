"""What the ledger asks of a database, and SQLite as one: WAL, every commit on the disk before it returns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from cluster.job import LedgerError

Rows = list[tuple[Any, ...]]


class Database(Protocol):
    """Safe to use from several threads. Statements have `?` for each value."""

    text: str  # type of a column of text that sorts by its bytes
    number: str  # of a column of 64-bit integers
    real: str  # of a column of 64-bit floating-point numbers
    serial: str  # declaration of a column `number` that counts the lines of a table, or ""
    count: str  # name of the column that does
    locked: str  # what a query ends with whose row is to stay as it is until the transaction ends

    def transaction(self) -> AbstractContextManager[Transaction]:
        """All or nothing of what the block executes; on the disk when it ends."""
        ...

    def select(self, query: str, values: Sequence[object] = ()) -> Rows:
        """What the query finds."""
        ...

    def columns(self, table: str) -> set[str]:
        """The names of a table's columns; none where there is no such table."""
        ...

    def hold(self) -> None:
        """Keep other servers from holding it; raises LedgerError where one does."""
        ...

    def lasting(self, error: Exception) -> bool:
        """Whether a transaction that ended with `error` would always end so: the fault lies in its values."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Transaction(Protocol):
    """Executes statements one after the other."""

    def execute(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """What it finds, if it is a query."""
        ...

    def repeat(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Once for each of `rows`."""
        ...


class SqliteDatabase:
    """One file, which belongs to the server that has locked the data folder."""

    text = number = real = serial = locked = ""
    count = "rowid"

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        # One connection under one lock: transactions are short, and readers never see half of one.
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All or nothing of what the block executes; on the disk when it ends. Raises sqlite3.Error."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteTransaction(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                # Whatever it was: a transaction left open would refuse all that follow.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def select(self, query: str, values: Sequence[object] = ()) -> Rows:
        """What the query finds; raises sqlite3.Error."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def columns(self, table: str) -> set[str]:
        """The names of a table's columns."""
        return {row[1] for row in self.select(f"PRAGMA table_info({table})")}

    def hold(self) -> None:
        """The lock of the data folder does."""

    def lasting(self, error: Exception) -> bool:
        """Whether the fault lies in the values, not in the file."""
        of_the_file = sqlite3.OperationalError | sqlite3.InternalError | OSError | MemoryError | LedgerError
        return (
            not isinstance(error, of_the_file) and type(error) is not sqlite3.DatabaseError
        )  # "malformed" is its base

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[object] = ()) -> Rows:
        return self._connection.execute(statement, values).fetchall()

    def repeat(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        self._connection.executemany(statement, rows)

"""PostgreSQL as the ledger's database: one connection, made again when it was lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from cluster.database import Rows, Transaction
from cluster.job import LedgerError

_KEY = 0x7265636F6E  # of the advisory lock that one server holds as long as its connection lives
_RETRY_S = 5.0
# A database that is gone without a word must not hold up the server for longer.
_LIMITS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
    "application_name": "recon-cluster",
    "options": "-c synchronous_commit=on -c statement_timeout=10s -c lock_timeout=10s",
}


class PostgresDatabase:
    """A database named by its URL. What cannot be done now is a LedgerError, and nothing of it was done or will be."""

    text = 'text COLLATE "C"'
    number = "bigint"
    real = "double precision"
    serial = "number bigint GENERATED ALWAYS AS IDENTITY, "
    count = "number"
    locked = " FOR SHARE"

    def __init__(self, url: str) -> None:
        """Raises LedgerError when it cannot be reached."""
        self._url = url
        self._lock = threading.Lock()
        self._held = False
        self._open: psycopg.Connection[tuple[Any, ...]] | None = None
        with self._lock, self._typed():
            self._connection()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All or nothing of what the block executes; on the database's disk when it ends.

        Raises LedgerError. Where the connection broke in the commit itself, it may have been done all the same.
        """
        with self._lock, self._typed():
            connection = self._connection()
            with connection.transaction(), connection.cursor() as cursor:
                yield _PostgresTransaction(cursor)

    def select(self, query: str, values: Sequence[object] = ()) -> Rows:
        """What the query finds; raises LedgerError."""
        try:
            return self._select(query, values)
        except LedgerError:
            if self._open is not None:
                raise
            return self._select(query, values)  # the connection was lost since the last use: once more with a new one

    def columns(self, table: str) -> set[str]:
        """The names of a table's columns."""
        query = (
            "SELECT column_name FROM information_schema.columns WHERE table_name = ? AND table_schema = current_schema"
        )
        return {row[0] for row in self.select(query, [table])}

    def hold(self) -> None:
        """Keep other servers from holding it, also after a lost connection; raises LedgerError where one does."""
        with self._lock, self._typed():
            self._take(self._connection())
            self._held = True

    def lasting(self, error: Exception) -> bool:
        """Whether the fault lies in the values, not in the database."""
        of_the_database = psycopg.OperationalError | psycopg.InterfaceError | psycopg.InternalError
        return not isinstance(error, of_the_database | LedgerError | OSError | MemoryError)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _select(self, query: str, values: Sequence[object]) -> Rows:
        with self._lock, self._typed(), self._connection().cursor() as cursor:
            return _PostgresTransaction(cursor).execute(query, values)

    def _connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._open is None:
            opened = psycopg.connect(self._url, autocommit=True, **_LIMITS)
            try:
                if self._held:
                    self._take(opened)
            except BaseException:
                opened.close()
                raise
            self._open = opened
        return self._open

    @staticmethod
    def _take(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_KEY]).fetchone()
        if row != (True,):
            words = "another server uses the ledger's database: stop it, or give this one a database of its own"
            raise LedgerError(words, retry_after_s=_RETRY_S)

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
            if self._open is not None and (self._open.closed or self._open.broken):
                self._drop()
            said = str(error).strip().partition("\n")[0]
            words = f"the ledger's database does not answer ({said}): check PostgreSQL, or try again later"
            raise LedgerError(words, retry_after_s=_RETRY_S) from error

    def _drop(self) -> None:
        if self._open is not None:
            with suppress(psycopg.Error):
                self._open.close()
            self._open = None


class _PostgresTransaction:
    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        self._cursor = cursor

    def execute(self, statement: str, values: Sequence[object] = ()) -> Rows:
        self._cursor.execute(_translated(statement), values)
        return self._cursor.fetchall() if self._cursor.description else []

    def repeat(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        self._cursor.executemany(_translated(statement), rows)


def _translated(statement: str) -> bytes:
    """With PostgreSQL's placeholders; none of our statements has a question mark or a percent sign of its own."""
    return statement.replace("?", "%s").encode()

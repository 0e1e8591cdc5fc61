"""The ledger: what was committed is there after a kill, and nothing else; in SQLite and in a real PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import psycopg
import pytest

from cluster.events import Priority, State
from cluster.job import LedgerError, LogLine, ScanRecord
from cluster.ledger import VERSION, Ledger
from tests.cluster.conftest import Postgres

FULL = ScanRecord(
    "01A",
    State.DONE,
    "http",
    method="cg-sense",
    chosen="cg-sense",
    priority=Priority.STAT,
    name="knee",
    idempotency_key="k1",
    group="dataset",
    created_s=1.5,
    header_s=2.5,
    received_s=3.5,
    first_image_s=4.5,
    finished_s=5.5,
    bytes=1 << 40,
    readouts=7,
    frames=3,
    images=2,
    complete=True,
    reason="a reason",
    warnings=("one", "two"),
)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a new ledger goes."""
    if request.param == "sqlite":
        return tmp_path / "ledger.sqlite"
    url: str = request.getfixturevalue("postgres").database()
    return url


@pytest.fixture
def ledger(place: Path | str) -> Iterator[Ledger]:
    made = Ledger(place)
    yield made
    made.close()


def alter(ledger: Ledger, statement: str) -> None:
    """Change it as no server does."""
    with ledger._database.transaction() as transaction:
        transaction.execute(statement)


def test_a_ledger_that_lacks_a_column_is_widened(place: Path | str) -> None:
    old = Ledger(place)
    old.commit([FULL])
    alter(old, 'ALTER TABLE scan DROP COLUMN "group"')
    alter(old, 'ALTER TABLE scan DROP COLUMN "bytes"')
    old.close()
    for _ in range(2):  # the second finds it done
        ledger = Ledger(place)
        assert ledger.scan("01A") == replace(FULL, group="", bytes=0)
        ledger.close()


def test_a_ledger_of_a_newer_version_is_refused(place: Path | str) -> None:
    newer = Ledger(place)
    newer.commit([FULL])
    alter(newer, f"UPDATE ledger SET version = {VERSION + 1}")
    newer.close()
    words = f"the ledger is of version {VERSION + 1}, this server knows {VERSION}: start a newer server"
    with pytest.raises(LedgerError, match=words):
        Ledger(place)


def test_a_server_that_another_has_followed_commits_nothing(place: Path | str) -> None:
    first, second = Ledger(place), Ledger(place)
    first.claim()
    first.commit([FULL])
    if not isinstance(place, Path):  # of SQLite's file the data folder's lock is the keeper
        with pytest.raises(LedgerError, match="another server uses the ledger's database: stop it, or give this one"):
            second.claim()
        lose_connection(place, first)
    second.claim()
    if not isinstance(place, Path):
        with pytest.raises(LedgerError, match="does not answer"):  # its connection is gone
            first.commit([replace(FULL, id="02")])
        with pytest.raises(LedgerError, match="another server uses the ledger's database"):
            first.commit([replace(FULL, id="02")])
    second.commit([replace(FULL, id="03")])
    assert first.ids() == {"01A", "03"} if isinstance(place, Path) else second.ids() == {"01A", "03"}
    second.close()
    with pytest.raises(LedgerError, match="another server, the 2th, has taken over from this one, the 1th: stop one"):
        first.commit([replace(FULL, id="02")])
    assert first.ids() == {"01A", "03"}
    first.close()


def lose_connection(url: str, ledger: Ledger) -> None:
    """As where the network is gone; returns when the database has noticed."""
    ((number,),) = ledger._database.select("SELECT pg_backend_pid()")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [number])


def test_a_lost_connection_is_made_again(postgres: Postgres) -> None:
    url = postgres.database()
    ledger = Ledger(url)
    ledger.claim()
    ledger.commit([FULL])
    lose_connection(url, ledger)
    assert ledger.scan("01A") == FULL  # who reads notices nothing
    lose_connection(url, ledger)
    with pytest.raises(
        LedgerError, match=r"the ledger's database does not answer \(.*\): check PostgreSQL, or try again"
    ):
        ledger.commit([replace(FULL, id="02")])
    ledger.commit([replace(FULL, id="02")])
    assert ledger.ids() == {"01A", "02"}
    ledger.close()


def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        LedgerError, match=r"does not answer \(.*No such file.*\): check PostgreSQL, or try again later"
    ) as told:
        Ledger(f"postgresql://recon:secret@/none?host={tmp_path}")
    assert "secret" not in str(told.value)


def test_record_comes_back_as_it_was(ledger: Ledger) -> None:
    default = {item.name: item.default for item in fields(ScanRecord)}
    assert all(getattr(FULL, name) != value for name, value in default.items()), "the example leaves out a field"
    ledger.commit([FULL])
    assert ledger.scan("01A") == FULL
    assert ledger.scan("01B") is None


def test_the_file_of_an_older_version_is_widened(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "ledger.sqlite")
    names = [item.name for item in fields(ScanRecord) if item.name != "group"]
    old.execute(f"CREATE TABLE scan ({', '.join(names)}, PRIMARY KEY (id)) WITHOUT ROWID")
    values = {"id": "01A", "state": "done", "transport": "http", "priority": 1, "warnings": "[]"}
    old.execute(f"INSERT INTO scan ({', '.join(values)}) VALUES (?, ?, ?, ?, ?)", tuple(values.values()))
    old.commit()
    old.close()
    for _ in range(2):  # the second finds it done
        ledger = Ledger(tmp_path / "ledger.sqlite")
        found = ledger.scan("01A")
        assert found is not None and (found.state, found.group) == (State.DONE, "")
        ledger.commit([FULL])
        assert ledger.scan("01A") == FULL
        ledger.commit([replace(FULL, state=State.DONE, group="")])
        ledger.close()


def test_later_record_replaces_the_earlier(ledger: Ledger) -> None:
    ledger.commit([replace(FULL, state=State.RECEIVING)])
    ledger.commit([FULL])
    assert ledger.scans() == [FULL]


def test_lists_newest_first_by_state(ledger: Ledger) -> None:
    records = [replace(FULL, id=f"0{n}", state=State.DONE if n % 2 else State.RUNNING) for n in range(6)]
    ledger.commit(records)
    assert [record.id for record in ledger.scans(limit=3)] == ["05", "04", "03"]
    assert [record.id for record in ledger.scans(state=State.RUNNING)] == ["04", "02", "00"]
    assert [record.id for record in ledger.unfinished()] == ["00", "02", "04"]
    assert ledger.ids() == {record.id for record in records}


def test_finds_the_latest_scan_of_a_key(ledger: Ledger) -> None:
    ledger.commit([replace(FULL, id="01"), replace(FULL, id="02"), replace(FULL, id="03", idempotency_key="")])
    found = ledger.find("k1")
    assert found is not None
    assert found.id == "02"
    assert ledger.find("") is None
    assert ledger.find("k2") is None


def test_log_keeps_the_order(ledger: Ledger) -> None:
    lines = [LogLine("01", float(n), f"line {n}") for n in range(5)]
    ledger.commit([], [*lines, LogLine("02", 0.0, "other")])
    assert ledger.log("01") == lines


def test_failed_transaction_leaves_nothing(ledger: Ledger) -> None:
    broken = replace(FULL, id="02", name=object())  # type: ignore[arg-type]  # nothing that SQLite can hold
    with pytest.raises((sqlite3.Error, psycopg.Error)) as told:
        ledger.commit([FULL, broken])
    assert ledger.lasting(told.value)
    assert ledger.scans() == []
    ledger.commit([FULL])


def test_text_that_a_database_cannot_hold_is_escaped(ledger: Ledger) -> None:
    odd = replace(FULL, name="half \ud83d", group="no\0thing", reason="\udc80 came", idempotency_key="\ud800")
    ledger.commit([odd], [LogLine(odd.id, 1.0, "read \udfff")])
    stored = ledger.find("\ud800")
    assert stored is not None
    assert (stored.name, stored.group, stored.reason) == ("half \\ud83d", "no\\x00thing", "\\udc80 came")
    assert [line.text for line in ledger.log(odd.id)] == ["read \\udfff"]


def test_a_record_that_no_database_can_hold_does_not_block_the_next(ledger: Ledger) -> None:
    large = replace(FULL, bytes=1 << 63)
    with pytest.raises((OverflowError, psycopg.DataError)) as told:
        ledger.commit([large])
    assert ledger.lasting(told.value)
    assert ledger.corrections(large) == {"bytes": 0}
    ledger.commit([FULL])
    assert ledger.scan(FULL.id) == FULL


def test_threads_share_it(ledger: Ledger) -> None:
    def work(number: int) -> None:
        for step in range(20):
            ledger.commit([replace(FULL, id=f"{number}-{step}")])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.scans(limit=1000)) == 80


def test_commits_survive_a_kill(place: Path | str) -> None:
    """A process commits, says so, and is killed; what it said is there, what it had only begun is not."""
    program = """
import os, signal, sys
from pathlib import Path
from dataclasses import replace
from cluster.ledger import Ledger
from tests.cluster.test_ledger import FULL
ledger = Ledger(sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1]))
for number in range(5):
    ledger.commit([replace(FULL, id=str(number))])
print("committed", flush=True)
with ledger._database.transaction() as transaction:
    transaction.execute("DELETE FROM scan")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", program, str(place)], capture_output=True, text=True, env=environment, check=False
    )
    assert (child.stdout, child.returncode) == ("committed\n", -9), child.stderr
    ledger = Ledger(place)
    assert ledger.ids() == {"0", "1", "2", "3", "4"}
    ledger.close()


def test_sqlite_is_synchronous_and_write_ahead(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    pragma = lambda name: ledger._database._connection.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)
    ledger.close()


def test_postgres_commits_to_its_disk(postgres: Postgres) -> None:
    ledger = Ledger(postgres.database())
    settings = [ledger._database.select(f"SHOW {name}")[0][0] for name in ("fsync", "synchronous_commit")]
    assert settings == ["on", "on"]
    ledger.close()

"""The ledger: what was committed is there after a kill, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cluster.events import Priority, State
from cluster.job import LogLine, ScanRecord
from cluster.ledger import Ledger

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


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


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
    with pytest.raises(sqlite3.Error):
        ledger.commit([FULL, broken])
    assert ledger.scans() == []
    ledger.commit([FULL])


def test_text_that_utf8_cannot_say_is_escaped(ledger: Ledger) -> None:
    odd = replace(FULL, name="half \ud83d", reason="\udc80 came", idempotency_key="\ud800")
    ledger.commit([odd], [LogLine(odd.id, 1.0, "read \udfff")])
    stored = ledger.find("\ud800")
    assert stored is not None
    assert (stored.name, stored.reason) == ("half \\ud83d", "\\udc80 came")
    assert [line.text for line in ledger.log(odd.id)] == ["read \\udfff"]


def test_a_record_that_sqlite_cannot_hold_does_not_block_the_next(ledger: Ledger) -> None:
    with pytest.raises(OverflowError):
        ledger.commit([replace(FULL, bytes=1 << 63)])
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


def test_commits_survive_a_kill(tmp_path: Path) -> None:
    """A process commits, says so, and is killed; what it said is there, what it had only begun is not."""
    program = """
import os, signal, sys
from pathlib import Path
from dataclasses import replace
from cluster.ledger import Ledger
from tests.cluster.test_ledger import FULL
ledger = Ledger(Path(sys.argv[1]))
for number in range(5):
    ledger.commit([replace(FULL, id=str(number))])
print("committed", flush=True)
ledger._connection.execute("BEGIN IMMEDIATE")
ledger._connection.execute("DELETE FROM scan")
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "ledger.sqlite"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, env=environment, check=False
    )
    assert (child.stdout, child.returncode) == ("committed\n", -9), child.stderr
    ledger = Ledger(path)
    assert ledger.ids() == {"0", "1", "2", "3", "4"}
    ledger.close()


def test_is_synchronous_and_write_ahead(ledger: Ledger) -> None:
    pragma = lambda name: ledger._connection.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)

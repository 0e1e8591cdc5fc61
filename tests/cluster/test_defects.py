"""Defects inside the server: the scan that meets one ends with a reason, nobody waits for ever, and it is seen."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.config import ClusterConfig
from cluster.events import Batch, BatchDone, FrameImages, State, WorkerReady
from cluster.job import DiskFullError, ScanRecord, ScanRequest
from cluster.ledger import Ledger
from cluster.workers import Post
from recon.errors import ReconError, RefusedError
from tests.cluster import scans
from tests.cluster.test_metrics import law_holds
from tests.cluster.test_service import NoWorkers, log_of, wait_until


class Odd(NoWorkers):
    """A worker that answers batches with what `answer` makes of them, once; later ones with reasons."""

    def __init__(self, answer: Callable[[Batch], tuple[Any, ...]]) -> None:
        self._answer = answer
        self._post: Post | None = None

    def start(self, post: Post) -> None:
        """Be there."""
        self._post = post
        post(WorkerReady("w0", "cpu", 1 << 30))

    def submit(self, worker: str, batch: Batch) -> None:
        """Answer at once."""
        assert self._post is not None
        answer, self._answer = self._answer, lambda batch: tuple(FrameImages(f, (), "odd") for f in batch.frames)
        self._post(BatchDone(worker, batch.number, answer(batch), 0.1))


def no_images(batch: Batch) -> tuple[Any, ...]:
    """Results whose images are none."""
    return tuple(FrameImages(frame, ("no image",), "") for frame in batch.frames)  # type: ignore[arg-type]


def too_many(batch: Batch) -> tuple[Any, ...]:
    """More results than frames."""
    return (*no_images(batch)[:1], *no_images(batch))


@pytest.mark.parametrize(
    ("answer", "stage", "kind"), [(no_images, "storer", "AttributeError"), (too_many, "scheduler", "ValueError")]
)
def test_a_defect_ends_the_scan_that_meets_it(tmp_path: Path, answer: Any, stage: str, kind: str) -> None:
    with scans.serving(tmp_path, Odd(answer)) as service:
        record = scans.run(service, scans.stream(scans.frames(1)))
        assert record.state is State.FAILED
        assert f"internal error {kind}: report it with the server's log" in record.reason
        assert list(service.cluster()["defects"]) == [stage]
        assert service.ready  # it is settled: other scans are as safe as before
        assert "odd" in scans.run(service, scans.stream(scans.frames(1))).reason


def test_a_defect_met_by_a_worker_is_in_the_servers_log_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def defective(batch: Batch) -> tuple[Any, ...]:
        return tuple(FrameImages(frame, (), "internal error", (), "Traceback\nIndexError: 7") for frame in batch.frames)

    with scans.serving(tmp_path, Odd(defective)) as service:
        record = scans.run(service, scans.stream(scans.frames(1)))
    words = f"worker w0 met a defect in frame 0 of scan {record.id}\nTraceback\nIndexError: 7"
    assert caplog.text.count(words) == 1


def test_a_defect_that_nothing_settles_is_seen(tmp_path: Path) -> None:
    """An answer without results names no scan that could be ended."""
    with scans.serving(tmp_path, Odd(lambda batch: ())) as service:
        wait_until(lambda: service.ready)
        intake = service.open_scan(ScanRequest("tcp"))
        intake.feed(scans.stream(scans.frames(1)))
        wait_until(lambda: not service.ready)
        assert service.cluster()["ready"] is False
        assert "scheduler" in service.cluster()["defects"]


UNWRITABLE = "the ledger cannot hold its record (OverflowError): report it with the server's log"


def test_a_record_that_can_never_be_written_ends_its_scan(tmp_path: Path) -> None:
    """SQLite takes no integer of more than 64 bits; what it raises is no error of SQLite's."""
    with scans.serving(tmp_path) as service:
        other = service.open_scan(ScanRequest("tcp"))
        other.feed(scans.stream(scans.frames(1)))
        intake = service.open_scan(ScanRequest("http", idempotency_key="k", name=1 << 63))  # type: ignore[arg-type]
        with pytest.raises(ReconError, match=r"has ended|the ledger cannot hold its record") as told:
            intake.feed(scans.stream(scans.frames(1)))
            intake.finish()
        assert not isinstance(told.value, RefusedError)  # to send it again would not help
        record = service.wait(intake.scan_id, 30.0)
        assert (record.state, record.reason, record.name) == (State.FAILED, UNWRITABLE, "")
        assert f"failed: {UNWRITABLE}" in log_of(service, intake.scan_id)
        other.finish()  # notes of the two may share a transaction
        assert service.wait(other.scan_id, 30.0).state is State.DONE
        assert scans.run(service, scans.stream(scans.frames(1))).state is State.DONE
        assert service.ready
        assert law_holds(service.metrics_text())
        wait_until(lambda: service.cluster()["scans"] == 0)  # the scheduler has let go of it too
        kept = {record.id: record for record in service.scans()}
    with scans.serving(tmp_path, NoWorkers()) as service:
        assert {record.id: record for record in service.scans()} == kept


def test_an_end_that_can_never_be_written_ends_its_scan(tmp_path: Path) -> None:
    """All went well but for a number that comes with its image."""
    with scans.serving(tmp_path) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        live = service._lives[intake.scan_id]
        update = live.update

        def spoil(**changes: Any) -> ScanRecord:
            return update(**{**changes, "frames": 1 << 63} if changes.get("images") else changes)

        live.update = spoil  # type: ignore[method-assign]
        intake.feed(scans.stream(scans.frames(1)))
        wait_until(lambda: live.record.frames > 1 or live.ended.is_set())
        with suppress(ReconError):
            intake.finish()
        assert service.wait(intake.scan_id, 30.0).reason == UNWRITABLE
        assert service.scan(intake.scan_id).state is State.FAILED


def test_a_record_too_long_for_the_ledger_ends_its_scan(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        service._ledger._database._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5000)
        intake = service.open_scan(ScanRequest("tcp", name="n" * 10_000))
        with pytest.raises(ReconError, match=r"has ended|the ledger cannot hold its record"):
            intake.feed(scans.stream(scans.frames(1)))
            intake.finish()
        record = service.wait(intake.scan_id, 30.0)
        assert (record.state, record.name) == (State.FAILED, "")
        assert "(DataError)" in record.reason
        assert scans.run(service, scans.stream(scans.frames(1))).state is State.DONE


def test_a_scan_of_which_nothing_can_be_written_ends_until_the_next_server(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        live = service._lives[intake.scan_id]
        service._ledger._database._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 20)  # less than an id
        with pytest.raises(ReconError, match=r"has ended|the ledger cannot hold its record"):
            intake.feed(scans.stream(scans.frames(1)))
            intake.finish()
        assert live.ended.wait(30.0)
        assert live.record.state is State.FAILED
        service._ledger._database._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
        assert scans.run(service, scans.stream(scans.frames(1))).state is State.DONE
    with scans.serving(tmp_path) as service:
        assert service.wait(intake.scan_id, 30.0).state is State.DONE


def test_a_ledger_that_cannot_be_written_now_is_tried_again(tmp_path: Path) -> None:
    """Another process holds the file: nobody is told that a scan is kept, and when it lets go all is written."""
    with scans.serving(tmp_path) as service:
        service._ledger._database._connection.execute("PRAGMA busy_timeout = 10")
        intake = service.open_scan(ScanRequest("tcp"))
        holder = sqlite3.connect(ClusterConfig(data=tmp_path).ledger_path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        intake.feed(scans.stream(scans.frames(1)))
        with pytest.raises(DiskFullError, match="the ledger cannot be written"):
            intake.finish()
        assert not service.ready
        assert not service.scan(intake.scan_id).state.final
        holder.execute("ROLLBACK")
        holder.close()
        record = service.wait(intake.scan_id, 30.0)
        assert record.state is State.FAILED  # its sender was told that it was not kept
        assert "the ledger cannot be written" in record.reason
        assert service.ready
        assert Ledger(ClusterConfig(data=tmp_path).ledger_path).scan(record.id) == record


def test_a_scan_whose_method_has_gone_ends_after_a_restart(tmp_path: Path) -> None:
    with scans.serving(tmp_path, NoWorkers()) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        intake.feed(scans.stream(scans.frames(1)))
        intake.finish()
    ledger = sqlite3.connect(ClusterConfig(data=tmp_path).ledger_path, isolation_level=None)
    ledger.execute("UPDATE scan SET method = 'of-yesterday'")
    ledger.close()
    with scans.serving(tmp_path) as service:
        record = service.wait(intake.scan_id, 10.0)
    assert record.state is State.FAILED
    assert "'of-yesterday' is unknown" in record.reason

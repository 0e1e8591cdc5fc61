"""Defects inside the server: the scan that meets one ends with a reason, nobody waits for ever, and it is seen."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.config import ClusterConfig
from cluster.events import Batch, BatchDone, FrameImages, State, WorkerReady
from cluster.job import DiskFullError, ScanRequest
from cluster.workers import Post
from tests.cluster import scans
from tests.cluster.test_service import NoWorkers, wait_until


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


def test_a_defect_that_nothing_settles_is_seen(tmp_path: Path) -> None:
    """An answer without results names no scan that could be ended."""
    with scans.serving(tmp_path, Odd(lambda batch: ())) as service:
        wait_until(lambda: service.ready)
        intake = service.open_scan(ScanRequest("tcp"))
        intake.feed(scans.stream(scans.frames(1)))
        wait_until(lambda: not service.ready)
        assert service.cluster()["ready"] is False
        assert "scheduler" in service.cluster()["defects"]


def test_a_record_that_cannot_be_written_keeps_nobody_waiting(tmp_path: Path) -> None:
    """SQLite takes no integer of more than 64 bits; what it raises is no error of SQLite's."""
    with scans.serving(tmp_path) as service:
        intake = service.open_scan(ScanRequest("http", name=1 << 63))  # type: ignore[arg-type]
        intake.feed(scans.stream(scans.frames(1)))
        with pytest.raises(DiskFullError, match="the ledger cannot be written"):
            intake.finish()
        assert not service.ready


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

"""The same trial for every kind of worker that is a process: killed in the middle of a batch."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

from cluster.events import State
from cluster.job import ScanRequest
from cluster.workers import Workers
from tests.cluster import scans


class Mortal(Workers, Protocol):
    """Workers whose processes can be found."""

    def pid(self, worker: str) -> int: ...


def wait_for(condition: object, timeout_s: float = 30.0) -> None:
    """Wait until `condition()` holds."""
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def killed_in_a_batch(workers: Mortal, data: Path) -> None:
    """Stop the only worker, give it work, kill it: another does the work, and each image comes once."""
    sent = scans.frames(3)
    with scans.serving(data, workers) as service:
        wait_for(lambda: service.ready, 60.0)
        first = workers.pid("w0")
        os.kill(first, signal.SIGSTOP)  # it takes work and cannot finish it
        intake = service.open_scan(ScanRequest("tcp"))
        scans.send(intake, scans.stream(sent))
        intake.finish()
        wait_for(lambda: any(worker["batches"] for worker in service.cluster()["workers"]))
        os.kill(first, signal.SIGKILL)
        record = service.wait(intake.scan_id, 60.0)
        images = list(service.images(record.id))
        assert workers.pid("w0") != first
        text = service.metrics_text().decode()
    assert (record.state, record.images) == (State.DONE, 3), record
    assert Counter(image.counters.repetition for image in images) == {0: 1, 1: 1, 2: 1}
    assert 'recon_worker_restarts_total{reason="died"} 1.0' in text

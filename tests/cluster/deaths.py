"""The same trial for every kind of worker that is a process: killed, and stopped, in the middle of a batch."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cluster.events import Event, Heartbeat, State
from cluster.job import ScanRecord, ScanRequest
from cluster.service import Service
from cluster.workers import Workers
from tests.cluster import scans


class Mortal(Workers, Protocol):
    """Workers whose processes can be found."""

    def pid(self, worker: str) -> int: ...


def without_heartbeats(post: Callable[[Event], None]) -> Callable[[Event], None]:
    """`post` for all but signs of life, which come whenever they like."""
    return lambda event: None if isinstance(event, Heartbeat) else post(event)


def wait_for(condition: object, timeout_s: float = 30.0) -> None:
    """Wait until `condition()` holds."""
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def killed_and_stopped_in_a_batch(workers: Mortal, data: Path) -> None:
    """The only worker is killed in a batch, the next one stopped: others do the work, and each image comes once."""
    with scans.serving(data, workers, heartbeat_s=0.1, heartbeat_timeout_s=2.0) as service:
        wait_for(lambda: service.ready, 60.0)
        first = workers.pid("w0")
        os.kill(first, signal.SIGSTOP)  # it takes work and cannot finish it
        record = work_of(service, lambda: os.kill(first, signal.SIGKILL))
        wait_for(lambda: "resident" in service.cluster()["workers"][0]["memory"])
        second = workers.pid("w0")
        os.kill(second, signal.SIGSTOP)  # its silence is noticed
        again = work_of(service, lambda: None)
        assert len({first, second, workers.pid("w0")}) == 3 and not is_alive(second)
        images = [*service.images(record.id), *service.images(again.id)]
        text = service.metrics_text().decode()
    assert (record.state, record.images, again.state, again.images) == (State.DONE, 3, State.DONE, 3)
    assert Counter(image.counters.repetition for image in images) == {0: 2, 1: 2, 2: 2}
    for reason in ("died", "hung"):
        assert f'recon_worker_restarts_total{{reason="{reason}"}} 1.0' in text


def work_of(service: Service, under_way: Callable[[], None]) -> ScanRecord:
    """A scan of three frames at its end; `under_way` is called once a worker has some of it."""
    intake = service.open_scan(ScanRequest("tcp"))
    scans.send(intake, scans.stream(scans.frames(3)))
    intake.finish()
    wait_for(lambda: any(worker["batches"] for worker in service.cluster()["workers"]))
    under_way()
    return service.wait(intake.scan_id, 60.0)


def is_alive(pid: int) -> bool:
    """Whether a process runs, or is stopped, and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"

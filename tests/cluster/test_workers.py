"""Workers in processes and threads: replaced when they die or hang, without losing or doubling work."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections import Counter
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import worker as worker_module
from cluster.channel import receive, send
from cluster.config import ClusterConfig
from cluster.events import Batch, BatchDone, Event, Heartbeat, State, WorkerLost, WorkerReady
from cluster.job import ScanRequest
from cluster.stream import ScanStream
from cluster.worker import WorkerSettings
from cluster.workers import ProcessWorkers, ThreadWorkers, Workers, child_environment
from recon.batch import Made
from recon.errors import DeviceError
from tests.cluster import deaths, scans
from tests.cluster.test_results import image

FRAMES = scans.frames(3)


def batches(folder: Path, count: int = 1) -> list[Batch]:
    """The same three frames, several times."""
    data = scans.stream(FRAMES)
    path = folder / "s.mrd"
    path.write_bytes(data)
    ready = ScanStream("s", path, config=ClusterConfig(), method="auto").feed(memoryview(data)).frames
    frames = tuple(frame.frame for frame in ready)
    return [Batch(number, "k", ready[0].recipe, frames) for number in range(count)]


def make(kind: type[Workers]) -> Workers:
    return kind(["w0"], scans.settings())  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [ThreadWorkers, ProcessWorkers])
def test_batches_come_back_in_order(tmp_path: Path, kind: type[Workers]) -> None:
    events: queue.Queue[Event] = queue.Queue()
    workers = make(kind)
    workers.start(deaths.without_heartbeats(events.put))
    assert events.get(timeout=30.0) == WorkerReady("w0", "cpu", 1 << 30)
    for batch in batches(tmp_path, 5):
        workers.submit("w0", batch)
    done = [events.get(timeout=30.0) for _ in range(5)]
    workers.stop()
    assert [event.batch for event in done if isinstance(event, BatchDone)] == [0, 1, 2, 3, 4]
    for event in done:
        assert isinstance(event, BatchDone)
        for result, readouts in zip(event.results, FRAMES, strict=True):
            scans.assert_true(result.images[0].pixels[0, 0], readouts)
    assert events.empty()


def test_killed_or_stopped_process_is_replaced_and_its_work_done_once(tmp_path: Path) -> None:
    deaths.killed_and_stopped_in_a_batch(ProcessWorkers(["w0"], scans.settings(heartbeat_s=0.1)), tmp_path)


# What a worker's process reads as it starts: the first frame with repetition 1 that it is given never ends.
ENDLESS = """
import os
import sys

if "cluster.child" in sys.orig_argv:
    import cluster.worker

    made = cluster.worker.reconstruct_batch

    def endless(frames, *rest):
        known = any(material.counters.repetition == 1 for _, material in frames)
        if known and not os.path.exists({met!r}):
            open({met!r}, "w").close()
            while True:
                pass
        return made(frames, *rest)

    cluster.worker.reconstruct_batch = endless
"""


def test_endless_loop_in_a_method_is_found_and_its_work_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process goes on giving signs of life: the batch takes too long."""
    folder, met = tmp_path / "site", tmp_path / "met"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(ENDLESS.format(met=str(met)), encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    workers = ProcessWorkers(["w0"], scans.settings(heartbeat_s=0.1))
    with scans.serving(tmp_path, workers, batch_grace_s=2.0) as service:
        deaths.wait_for(lambda: service.ready)
        first = workers.pid("w0")
        record = scans.run(service, scans.stream(FRAMES))
        assert met.exists() and not deaths.is_alive(first)
        assert (record.state, record.images) == (State.DONE, 3)
        assert Counter(made.counters.repetition for made in service.images(record.id)) == {0: 1, 1: 1, 2: 1}
        text = service.metrics_text().decode()
    assert 'recon_worker_restarts_total{reason="hung"} 1.0' in text


def test_thread_that_never_ends_is_replaced_and_not_listened_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, begun = threading.Event(), threading.Event()
    made = worker_module.reconstruct_batch

    def endless(*arguments: Any) -> list[Made]:
        if not begun.is_set():
            begun.set()
            going.wait()
        return made(*arguments)

    monkeypatch.setattr(worker_module, "reconstruct_batch", endless)
    with scans.serving(tmp_path, ThreadWorkers(["w0"], scans.settings()), batch_grace_s=1.0) as service:
        record = scans.run(service, scans.stream(FRAMES))
        going.set()
        time.sleep(0.1)  # the first thread's answer would come now
        assert (record.state, record.images) == (State.DONE, 3)
        assert len(list(service.images(record.id))) == 3


def test_scan_that_kills_three_workers_is_dead_and_others_go_on(tmp_path: Path) -> None:
    """Raw data that hang whoever opens them (a pipe in the file's place), and a worker killed for it three times."""
    workers = ProcessWorkers(["w0"], scans.settings())
    with scans.serving(tmp_path, workers) as service:
        deaths.wait_for(lambda: service.ready)
        os.kill(workers.pid("w0"), signal.SIGSTOP)  # it takes no work before all is prepared
        poison, healthy = (service.open_scan(ScanRequest("tcp")) for _ in range(2))
        for intake in (poison, healthy):
            scans.send(intake, scans.stream(FRAMES))
            intake.finish()
        raw = service.raw_path(poison.scan_id)
        raw.unlink()
        os.mkfifo(raw)
        for _ in range(3):
            deaths.wait_for(lambda: [worker for worker in service.cluster()["workers"] if worker["batches"]])
            pid = workers.pid("w0")
            os.kill(pid, signal.SIGKILL)
            deaths.wait_for(lambda before=pid: workers.pid("w0") not in (0, before))
        record = service.wait(poison.scan_id, 30.0)
        assert (record.state, record.images) == (State.DEAD, 0)
        assert record.reason == "frame 0 lost 3 workers: w0 was lost (died: its process ended with status -9)"
        other = service.wait(healthy.scan_id, 30.0)
        assert (other.state, other.images) == (State.DONE, 3)


def test_worker_that_cannot_start_is_tried_again_with_pauses(caplog: pytest.LogCaptureFixture) -> None:
    events: queue.Queue[Event] = queue.Queue()
    workers = ProcessWorkers(["w0"], scans.settings(device="cuda:99"), start_timeout_s=30.0)
    workers.start(deaths.without_heartbeats(events.put))
    deaths.wait_for(lambda: len(caplog.records) >= 2)
    workers.stop()
    assert events.empty()
    assert all("worker w0 did not start: " in record.getMessage() for record in caplog.records)
    assert "cuda" in caplog.text.lower()


def test_worker_that_dies_idle_is_told_of_and_waits_to_be_replaced(tmp_path: Path) -> None:
    events: queue.Queue[Event] = queue.Queue()
    workers = ProcessWorkers(["w0"], scans.settings())
    workers.start(deaths.without_heartbeats(events.put))
    ready = events.get(timeout=30.0)
    pid = workers.pid("w0")
    os.kill(pid, signal.SIGKILL)
    assert events.get(timeout=30.0) == WorkerLost("w0", "died: its process ended with status -9")
    workers.submit("w0", batches(tmp_path)[0])  # given to the dead: the scheduler gives it again
    time.sleep(0.2)
    assert events.empty()
    workers.replace("w0")
    assert events.get(timeout=30.0) == ready
    time.sleep(0.2)
    assert events.empty()
    workers.stop()
    assert not deaths.is_alive(workers.pid("w0") or pid)


def test_replaced_thread_is_not_listened_to(tmp_path: Path) -> None:
    events: queue.Queue[Event] = queue.Queue()
    begun, going = threading.Event(), threading.Event()

    def post(event: Event) -> None:
        if isinstance(event, Heartbeat):
            return
        events.put(event)
        if isinstance(event, BatchDone):
            begun.set()
            going.wait()

    workers = ThreadWorkers(["w0"], scans.settings())
    workers.start(post)
    first, second = batches(tmp_path, 2)
    workers.submit("w0", first)
    workers.submit("w0", second)
    assert begun.wait(30.0)
    workers.replace("w0")
    going.set()
    workers.stop()
    kinds = Counter(type(event) for event in list(events.queue))
    assert kinds == {WorkerReady: 2, BatchDone: 1}


def test_threads_refuse_a_device_that_is_not_there() -> None:
    workers = ThreadWorkers(["w0"], scans.settings(device="cuda:99"))
    with pytest.raises(DeviceError):
        workers.start(lambda event: None)


def test_processes_end_with_their_server() -> None:
    events: queue.Queue[Event] = queue.Queue()
    workers = ProcessWorkers(["w0", "w1"], scans.settings())
    workers.start(deaths.without_heartbeats(events.put))
    for _ in range(2):
        events.get(timeout=30.0)
    pids = [workers.pid("w0"), workers.pid("w1")]
    assert all(deaths.is_alive(pid) for pid in pids)
    os.kill(pids[0], signal.SIGINT)  # Ctrl-C reaches all processes; only the server acts on it
    time.sleep(0.1)
    assert deaths.is_alive(pids[0])
    workers.stop()
    assert not any(deaths.is_alive(pid) for pid in pids)


def test_environment_gives_libraries_the_workers_threads_and_blas_one() -> None:
    made = child_environment(WorkerSettings(threads=3), {"HOME": "/h", "OMP_NUM_THREADS": "9"}, search_path=["", "/a"])
    assert made == {
        "HOME": "/h",
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": f"{Path.cwd()}:/a",
    }


def test_channel_carries_arrays_beside_the_pickle() -> None:
    here, there = Pipe()
    sent = [image(3), np.arange(100_000.0), "text"]
    thread = threading.Thread(target=send, args=(here, sent))
    thread.start()
    got = receive(there)
    thread.join()
    assert isinstance(got, list)
    assert np.array_equal(got[0].pixels, sent[0].pixels)  # type: ignore[union-attr]
    assert np.array_equal(got[1], sent[1])  # type: ignore[arg-type]
    assert got[2] == "text"
    here.close()
    with pytest.raises(EOFError):
        receive(there)
    there.close()

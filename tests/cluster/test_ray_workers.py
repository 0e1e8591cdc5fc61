"""Ray actors as workers: real ones, few, reachable from this machine only."""

from __future__ import annotations

import os
import queue
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.events import BatchDone, Event, WorkerReady
from cluster.ray_workers import Actor, RayWorkers, actor_options
from recon.errors import DeviceError
from tests.cluster import deaths, scans
from tests.cluster.test_workers import FRAMES, batches

STORE_BYTES = 100 << 20
pytestmark = pytest.mark.timeout(110)


def listening() -> Iterator[str]:
    """Addresses, as the kernel writes them, of listening sockets that belong to processes of our user session's Ray."""
    inodes = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes[fields[9]] = fields[1].rpartition(":")[0]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray" not in (process / "cmdline").read_bytes():
                continue
            links = [link.readlink().name for link in (process / "fd").iterdir()]
        except OSError:
            continue  # it ended meanwhile
        yield from (inodes[link[8:-1]] for link in links if link.startswith("socket:") and link[8:-1] in inodes)


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_actors_work_and_nobody_else_can_reach_them(tmp_path: Path) -> None:
    events: queue.Queue[Event] = queue.Queue()
    workers = RayWorkers(["w0", "w1"], scans.settings(), store_bytes=STORE_BYTES)
    workers.start(deaths.without_heartbeats(events.put))
    ready = sorted((events.get(timeout=60.0) for _ in range(2)), key=str)
    assert ready == [WorkerReady("w0", "cpu", 1 << 30), WorkerReady("w1", "cpu", 1 << 30)]
    assert len({workers.pid("w0"), workers.pid("w1"), os.getpid()}) == 3
    for batch in batches(tmp_path, 4):
        workers.submit("w0", batch)
    done = [events.get(timeout=60.0) for _ in range(4)]
    assert [event.batch for event in done if isinstance(event, BatchDone)] == [0, 1, 2, 3]
    for event in done:
        assert isinstance(event, BatchDone)
        for result, sent in zip(event.results, FRAMES, strict=True):
            scans.assert_true(result.images[0].pixels[0, 0], sent)
    (broken,) = batches(tmp_path)
    astray = tuple(replace(frame, header=frame.readouts[0]) for frame in broken.frames)
    workers.submit("w0", replace(broken, frames=astray))
    met = events.get(timeout=60.0)
    assert isinstance(met, BatchDone)
    for result in met.results:  # Ray passes on nothing that an actor logs
        assert result.trace.startswith("Traceback") and result.trace.endswith("AssertionError")
        assert "report it with the server's log" in result.error
    addresses = set(listening())
    assert addresses
    assert addresses <= LOOPBACK
    workers.stop()


def test_killed_or_stopped_actor_is_replaced_and_its_work_done_once(tmp_path: Path) -> None:
    workers = RayWorkers(["w0"], scans.settings(heartbeat_s=0.1), store_bytes=STORE_BYTES)
    deaths.killed_and_stopped_in_a_batch(workers, tmp_path)


@pytest.mark.long
def test_ray_puts_actors_that_share_a_gpu_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two slices of GPUs that Ray is told of, four actors of half a one each; a fifth finds no place."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    import ray

    about = {"include_dashboard": False, "log_to_driver": False, "logging_level": "warning"}
    ray.init(num_cpus=5, num_gpus=2, object_store_memory=STORE_BYTES, **about)
    try:
        half = ray.remote(**actor_options(scans.settings(device="cuda", gpus=0.5)))(Actor)
        actors = [half.remote() for _ in range(5)]
        placed, waiting = ray.wait([actor.place.remote() for actor in actors], num_returns=4, timeout=60.0)
        assert Counter(seen for _, _, seen in ray.get(placed)) == {"MIG-a": 2, "MIG-b": 2}
        assert ray.wait(waiting, timeout=0.5)[0] == []
    finally:
        ray.shutdown()


def test_ray_that_is_not_there_is_said_to_be_missing() -> None:
    workers = RayWorkers(["w0"], scans.settings(), address="127.0.0.1:1")
    with pytest.raises(DeviceError, match=r"Ray at '127.0.0.1:1' cannot be used \(.*\): start it, or use --ray off"):
        workers.start(lambda event: None)

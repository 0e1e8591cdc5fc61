"""Workers as Ray actors: one per GPU, or one per share of the CPUs."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from cluster.events import Batch, BatchDone, Heartbeat, WorkerReady
from cluster.placement import VISIBLE, gpus_for
from cluster.worker import Worker, WorkerSettings
from cluster.workers import ChildLostError, Lanes, Post
from recon.errors import DeviceError, ReconError

_log = logging.getLogger(__name__)
LOCAL = "local"
_LOST = "lost"
_CONNECT_S = 5.0


class Actor:
    """What runs inside a Ray actor; batches one after the other, `watch` and `beat` beside them."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def announce(self, name: str, settings: WorkerSettings) -> WorkerReady | str:
        """Become a worker; a text says why that is not possible."""
        try:
            self._worker = Worker(name, settings, processor=time.process_time)
        except ReconError as error:
            return str(error)
        return self._worker.ready()

    def run(self, batch: Batch) -> BatchDone:
        """Carry out a batch."""
        assert self._worker is not None
        return self._worker.run(batch)

    def place(self) -> tuple[str, int, str]:
        """Ray's name of this node, this process, and the GPUs that it sees."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid(), os.environ.get(VISIBLE, "")

    def beat(self) -> Heartbeat:
        """The next sign of life, when it is time for it."""
        assert self._worker is not None
        time.sleep(self._worker.settings.heartbeat_s)
        return self._worker.heartbeat()

    def watch(self) -> None:
        """Never return: the caller learns at once when this process is gone."""
        threading.Event().wait()


def actor_options(settings: WorkerSettings) -> dict[str, Any]:
    """What Ray is told of an actor; it puts several that take parts of a GPU on one, and shows each its own."""
    gpus = settings.gpus if settings.device.startswith("cuda") else 0
    # Ray never restarts it: after a restart it would replay queued calls out of order. The lane starts another.
    return {
        "num_cpus": settings.threads,
        "num_gpus": gpus,
        "max_restarts": 0,
        "concurrency_groups": {"watch": 3},
    }


class RayChild:
    """One actor."""

    def __init__(self, ray: Any, name: str, *, settings: WorkerSettings) -> None:
        self._ray = ray
        self._name = name
        self._settings = settings
        self._actor = ray.remote(**actor_options(settings))(Actor).remote()
        self._pending: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.pid = 0
        self._process: int | None = None  # a handle of the actor's process, where it runs on this node

    def announce(self, timeout_s: float) -> WorkerReady:
        """See Child."""
        ready = self._get(self._actor.announce.remote(self._name, self._settings), timeout_s)
        if not isinstance(ready, WorkerReady):
            raise ChildLostError(str(ready))
        node, self.pid, _ = self._get(self._actor.place.remote(), timeout_s)
        if node == self._ray.get_runtime_context().get_node_id():
            self._process = self._handle(self.pid)
        threading.Thread(target=self._watch, name=f"watch-{self._name}", daemon=True).start()
        return ready

    def send(self, batch: Batch) -> None:
        """See Child."""
        try:
            self._pending.put(self._actor.run.remote(batch))
        except self._ray.exceptions.RayError as error:
            raise ChildLostError(f"its actor ended ({type(error).__name__})") from error

    def receive(self) -> BatchDone:
        """See Child."""
        reference = self._pending.get()
        if reference is _LOST:
            raise ChildLostError("its actor ended")
        done = self._get(reference, None)
        assert isinstance(done, BatchDone)
        return done

    def hear(self) -> Heartbeat:
        """See Child."""
        heartbeat = self._get(self._actor.beat.options(concurrency_group="watch").remote(), None)
        assert isinstance(heartbeat, Heartbeat)
        return heartbeat

    def kill(self) -> None:
        """See Child."""
        if self._process is not None:  # Ray takes five seconds to end one that is stopped (measured)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self._ray.kill(self._actor)

    def close(self) -> None:
        """See Child."""
        if self._process is not None:
            os.close(self._process)

    @staticmethod
    def _handle(pid: int) -> int | None:
        """What a signal can be sent to although another process may get this number once this one has ended."""
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None  # it has ended, or in a container of its own: Ray ends it

    def _watch(self) -> None:
        try:
            self._ray.get(self._actor.watch.options(concurrency_group="watch").remote())
        except self._ray.exceptions.RayError:
            self._pending.put(_LOST)

    def _get(self, reference: Any, timeout_s: float | None) -> Any:
        try:
            return self._ray.get(reference, timeout=timeout_s)
        except self._ray.exceptions.GetTimeoutError as error:
            raise ChildLostError(f"it was not ready within {timeout_s:g} s") from error
        except self._ray.exceptions.RayError as error:
            raise ChildLostError(f"its actor ended ({type(error).__name__})") from error


class RayWorkers(Lanes):
    """Workers in Ray actors, of a Ray that is started here ("local") or that runs already ("auto", or its address)."""

    def __init__(
        self,
        names: Sequence[str],
        settings: WorkerSettings,
        *,
        address: str = LOCAL,
        gpus: Sequence[str] = (),
        store_bytes: int = 1 << 30,
        start_timeout_s: float = 120.0,
    ) -> None:
        super().__init__(names, start_timeout_s=start_timeout_s)
        self._settings = settings
        self._address = address
        self._gpus = tuple(gpus)  # of this machine, for a Ray that is started here
        self._store_bytes = store_bytes
        self._ray: Any = None

    def start(self, post: Post) -> None:
        """See Workers; raises DeviceError where Ray cannot be reached."""
        # Without it Ray listens on all interfaces; it is read when ray is imported, and inherited by its processes.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Ray gives workers the lowest priority but one: beside a busy gateway, images waited seconds instead of 70 ms.
        os.environ.setdefault("RAY_worker_niceness", "0")
        if self._address == LOCAL and "ray" not in sys.modules:
            # What Ray does anyway for a cluster of its own; asked for by name, it does so without a warning.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        if self._gpus:
            os.environ[VISIBLE] = ",".join(self._gpus)  # Ray deals out what it finds named here, MIG slices too
        import ray

        self._ray = ray
        try:
            _reach(self._address)
            ray.init(**self._arguments())
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise DeviceError(
                f"Ray at {self._address!r} cannot be used ({error}): start it, or use --ray off"
            ) from error
        _log.info("%d workers are actors of Ray (%s)", len(self.names), self._address)
        super().start(post)

    def spawn(self, name: str) -> RayChild:
        """Start an actor for `name`."""
        try:
            return RayChild(self._ray, name, settings=self._settings)
        except self._ray.exceptions.RayError as error:
            raise ChildLostError(f"no actor could be started ({error})") from error

    def stop(self) -> None:
        """See Workers."""
        super().stop()
        if self._ray is not None:
            self._ray.shutdown()

    def pid(self, worker: str) -> int:
        """The process of a worker, for operators and tests."""
        child = self._lanes[worker].child
        return child.pid if isinstance(child, RayChild) else 0

    def _arguments(self) -> dict[str, Any]:
        common: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "warning"}
        if self._address != LOCAL:
            return {**common, "address": self._address}
        count = len(self.names)
        gpus = gpus_for(count, self._settings.gpus) if self._settings.device.startswith("cuda") else 0
        cpus = count * self._settings.threads
        return {**common, "num_cpus": cpus, "num_gpus": gpus, "object_store_memory": self._store_bytes}


def _reach(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT: Ray itself would try for two minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()

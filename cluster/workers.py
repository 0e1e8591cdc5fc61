"""Who carries out batches: threads of this process, or processes that are replaced when they die."""

from __future__ import annotations

import logging
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from cluster.channel import receive, send
from cluster.events import Batch, BatchDone, Event, Heartbeat, WorkerLost, WorkerReady
from cluster.placement import VISIBLE
from cluster.worker import Worker, WorkerSettings

_log = logging.getLogger(__name__)
Post = Callable[[Event], None]
_LONGEST_PAUSE_S = 30.0


class Workers(Protocol):
    """A set of workers, each of which carries out its batches in the order in which they were given."""

    def start(self, post: Post) -> None:
        """Start all; each posts WorkerReady when it can take batches, then BatchDone, and WorkerLost if it dies.

        From WorkerReady on it posts a Heartbeat from time to time, also while a batch runs.
        """
        ...

    def submit(self, worker: str, batch: Batch) -> None:
        """Hand a batch over without waiting."""
        ...

    def replace(self, worker: str) -> None:
        """Stop a worker, whatever it does, and start another under its name, without waiting."""
        ...

    def stop(self) -> None:
        """Stop all; nothing is posted after this returns."""
        ...


class ChildLostError(Exception):
    """The process behind a worker is gone; the text says how."""


class Child(Protocol):
    """One life of a worker that can die."""

    def announce(self, timeout_s: float) -> WorkerReady:
        """What it is, once it is ready; raises ChildLostError."""
        ...

    def send(self, batch: Batch) -> None:
        """Hand a batch over; may wait. Raises ChildLostError."""
        ...

    def receive(self) -> BatchDone:
        """The next finished batch; waits. Raises ChildLostError."""
        ...

    def hear(self) -> Heartbeat:
        """The next sign of life; waits. Raises ChildLostError."""
        ...

    def kill(self) -> None:
        """End it at once; wakes who waits in `receive`, `hear` or `send`."""
        ...

    def close(self) -> None:
        """Let go of what is left of it; nobody uses it any more."""
        ...


class Lane:
    """Keeps one worker alive: starts it, passes batches and results, starts another when it is gone.

    A death is posted as WorkerLost, and the next life begins when the scheduler asks for it, so that what the dead one
    held is given back before the new one is announced. One that dies before it was ready is started again here.
    """

    def __init__(self, name: str, spawn: Callable[[str], Child], *, post: Post, start_timeout_s: float) -> None:
        self.name = name
        self._spawn = spawn
        self._post = post
        self._start_timeout_s = start_timeout_s
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._replace = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"worker-{name}", daemon=True)

    @property
    def child(self) -> Child | None:
        """The life under way."""
        return self._child

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Queue a batch for the worker."""
        self._inbox.put(batch)

    def replace(self) -> None:
        """End this life, if it has not ended, and begin the next."""
        with self._lock:
            self._replace.set()
            self._kill()

    def stop(self) -> None:
        """End the worker for good."""
        with self._lock:
            self._stop.set()
            self._replace.set()
            self._kill()
        self._inbox.put(None)
        self._thread.join()

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            lived = self._life()
            failures = 0 if lived else failures + 1
            if failures:
                self._stop.wait(min(_LONGEST_PAUSE_S, 0.25 * 2**failures))

    def _life(self) -> bool:
        """One life from start to end; whether it became ready."""
        self._replace.clear()
        self._inbox = queue.SimpleQueue()
        try:
            child = self._born()
            ready = child.announce(self._start_timeout_s)
        except ChildLostError as error:
            if not self._stop.is_set():
                _log.error("worker %s did not start: %s", self.name, error)
            self._buried()
            return False
        self._post(ready)
        sender = threading.Thread(target=self._send, args=(child, self._inbox), name=f"to-{self.name}", daemon=True)
        hearer = threading.Thread(target=self._hear, args=(child,), name=f"alive-{self.name}", daemon=True)
        for thread in (sender, hearer):
            thread.start()
        reason = self._receive(child)
        self._inbox.put(None)
        child.kill()
        for thread in (sender, hearer):
            thread.join()
        self._mourn(reason)
        return True

    def _born(self) -> Child:
        child = self._spawn(self.name)
        with self._lock:
            self._child = child
            if self._stop.is_set():
                child.kill()
        return child

    def _receive(self, child: Child) -> str:
        """Pass results on until the child is gone; says how it went."""
        try:
            while True:
                self._post(child.receive())
        except ChildLostError as error:
            return str(error)

    def _hear(self, child: Child) -> None:
        """The same with its signs of life, which must not wait behind images."""
        with suppress(ChildLostError):  # `receive` sees the same death and tells of it
            while True:
                self._post(child.hear())

    def _mourn(self, reason: str) -> None:
        """Tell of a death that nobody asked for, and wait for the order to begin again."""
        with self._lock:
            wanted = self._replace.is_set()
        self._buried()
        if not wanted:
            _log.warning("worker %s died: %s", self.name, reason)
            self._post(WorkerLost(self.name, f"died: {reason}"))
            self._replace.wait()

    def _buried(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.close()

    @staticmethod
    def _send(child: Child, inbox: queue.SimpleQueue[Batch | None]) -> None:
        while (batch := inbox.get()) is not None:
            try:
                child.send(batch)
            except ChildLostError:
                return  # `receive` sees the same death and tells of it


class Lanes:
    """Workers with a life of their own, one lane each."""

    def __init__(self, names: Sequence[str], *, start_timeout_s: float) -> None:
        self.names = tuple(names)
        self._start_timeout_s = start_timeout_s
        self._lanes: dict[str, Lane] = {}

    def spawn(self, name: str) -> Child:
        """Begin one life of a worker; raises ChildLostError where that is not possible now."""
        raise NotImplementedError

    def start(self, post: Post) -> None:
        """See Workers."""
        self._lanes = {
            name: Lane(name, self.spawn, post=post, start_timeout_s=self._start_timeout_s) for name in self.names
        }
        for lane in self._lanes.values():
            lane.start()

    def submit(self, worker: str, batch: Batch) -> None:
        """See Workers."""
        self._lanes[worker].submit(batch)

    def replace(self, worker: str) -> None:
        """See Workers."""
        self._lanes[worker].replace()

    def stop(self) -> None:
        """See Workers."""
        for lane in self._lanes.values():
            lane.stop()


class ProcessChild:
    """A Python process of ours at the other end of a socket pair."""

    def __init__(self, name: str, settings: WorkerSettings, *, environment: Mapping[str, str]) -> None:
        work, theirs = socket.socketpair()
        alive, beating = socket.socketpair()
        descriptors = [theirs.fileno(), beating.fileno()]
        with theirs, beating:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cluster.child", *map(str, descriptors)],
                pass_fds=descriptors,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
            )
        self._connection, self._alive = Connection(work.detach()), Connection(alive.detach())
        self._first: tuple[str, WorkerSettings] = (name, settings)

    def announce(self, timeout_s: float) -> WorkerReady:
        """See Child."""
        try:
            send(self._connection, self._first)
            if not self._connection.poll(timeout_s):
                raise ChildLostError(f"it was not ready within {timeout_s:g} s")
            ready = receive(self._connection)
        except (EOFError, OSError) as error:
            raise ChildLostError(self._how(error)) from error
        if isinstance(ready, WorkerReady):
            return ready
        raise ChildLostError(str(ready))

    def send(self, batch: Batch) -> None:
        """See Child."""
        try:
            send(self._connection, batch)
        except OSError as error:
            raise ChildLostError(self._how(error)) from error

    def receive(self) -> BatchDone:
        """See Child."""
        done = self._next(self._connection)
        assert isinstance(done, BatchDone)
        return done

    def hear(self) -> Heartbeat:
        """See Child."""
        heartbeat = self._next(self._alive)
        assert isinstance(heartbeat, Heartbeat)
        return heartbeat

    def _next(self, connection: Connection) -> object:
        try:
            return receive(connection)
        except (EOFError, OSError) as error:
            raise ChildLostError(self._how(error)) from error

    def kill(self) -> None:
        """See Child."""
        self.process.kill()  # and no wait: the scheduler calls this, and one that a driver or a disk holds dies late

    def close(self) -> None:
        """See Child."""
        self.process.wait()
        self._connection.close()
        self._alive.close()

    def _how(self, error: Exception) -> str:
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return f"its connection broke ({error})"
        return f"its process ended with status {status}"


class ProcessWorkers(Lanes):
    """Workers in plain processes; `gpus` says which GPU each of them sees, where that is not all."""

    def __init__(
        self,
        names: Sequence[str],
        settings: WorkerSettings,
        *,
        gpus: Mapping[str, str] | None = None,
        start_timeout_s: float = 120.0,
    ) -> None:
        super().__init__(names, start_timeout_s=start_timeout_s)
        self._settings = settings
        self._gpus = gpus or {}

    def spawn(self, name: str) -> ProcessChild:
        """Start a process for `name`."""
        environment = child_environment(self._settings, os.environ, search_path=sys.path)
        if name in self._gpus:
            environment[VISIBLE] = self._gpus[name]
        try:
            return ProcessChild(name, self._settings, environment=environment)
        except OSError as error:
            raise ChildLostError(f"no process could be started ({error})") from error

    def pid(self, worker: str) -> int:
        """The process of a worker, for operators and tests."""
        child = self._lanes[worker].child
        return child.process.pid if isinstance(child, ProcessChild) else 0


def child_environment(
    settings: WorkerSettings, environment: Mapping[str, str], *, search_path: Sequence[str]
) -> dict[str, str]:
    """The environment of a worker's process: as many threads as it was given, and modules found where we find them.

    Numerical libraries read the number of threads once, when they are loaded. BLAS has one: see `cluster.__main__`.
    """
    threads = {"OMP_NUM_THREADS": str(settings.threads), "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    path = os.pathsep.join(str(Path(entry or ".").resolve()) for entry in search_path)
    return {**environment, **threads, "PYTHONPATH": path}


class ThreadWorkers:
    """Workers in threads of this process: for tests, and for one scan without a server.

    A thread cannot be stopped from outside: one that is replaced goes on until its batch ends, and nobody listens.
    """

    def __init__(self, names: Sequence[str], settings: WorkerSettings) -> None:
        self.names = tuple(names)
        self._settings = settings
        self._post: Post = lambda event: None
        self._lanes: dict[str, ThreadLane] = {}

    def start(self, post: Post) -> None:
        """See Workers."""
        self._post = post
        for name in self.names:
            self._begin(name)

    def submit(self, worker: str, batch: Batch) -> None:
        """See Workers."""
        self._lanes[worker].submit(batch)

    def replace(self, worker: str) -> None:
        """See Workers."""
        self._lanes[worker].leave()
        self._begin(worker)

    def stop(self) -> None:
        """See Workers."""
        for lane in self._lanes.values():
            lane.leave()
            lane.join()

    def _begin(self, name: str) -> None:
        self._lanes[name] = ThreadLane(Worker(name, self._settings), self._post)


class ThreadLane:
    """One thread with one worker."""

    def __init__(self, worker: Worker, post: Post) -> None:
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._left = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(worker, post), name=f"worker-{worker.name}", daemon=True
        )
        self._alive = threading.Thread(target=self._beat, args=(worker, post), name=f"alive-{worker.name}", daemon=True)
        self._thread.start()
        self._alive.start()

    def submit(self, batch: Batch) -> None:
        """Queue a batch."""
        self._inbox.put(batch)

    def leave(self) -> None:
        """End after the running batch, without a word."""
        self._left.set()
        self._inbox.put(None)

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()
        self._alive.join()

    def _beat(self, worker: Worker, post: Post) -> None:
        while not self._left.wait(worker.settings.heartbeat_s):
            post(worker.heartbeat())

    def _run(self, worker: Worker, post: Post) -> None:
        post(worker.ready())
        while (batch := self._inbox.get()) is not None and not self._left.is_set():
            done = worker.run(batch)
            if not self._left.is_set():
                post(done)

"""Threads with bounded queues, and the one that drives the scheduler: take an event, decide, do, observe."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from cluster.events import (
    BatchDone,
    BytesReceived,
    Command,
    DeadlinePassed,
    Event,
    FrameReady,
    ScanCancelled,
    ScanOpened,
    ScanReceived,
)
from cluster.scheduler import Scheduler
from recon.errors import RefusedError

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MOST_AT_ONCE = 256


class Stage(Generic[T]):
    """A thread with a bounded queue: `each` gets every item, `after` follows when none waits, and every `tick_s`.

    `settle` gets an item by which `each` met a defect, to end what waits for it.
    """

    def __init__(
        self,
        name: str,
        each: Callable[[T], None],
        *,
        after: Callable[[], None] = lambda: None,
        settle: Callable[[T, Exception], None] | None = None,
        capacity: int,
        tick_s: float,
    ) -> None:
        self.name = name
        self.error = ""  # the last defect met
        self.failure = ""  # the last one that nothing settled: somebody may wait for ever
        self._each = each
        self._after = after
        self._settle = settle
        self._queue: queue.Queue[T | None] = queue.Queue(capacity)
        self._tick_s = tick_s
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue `item`; waits while the queue is full. Raises RefusedError once the stage was closed."""
        if self._closed:
            raise RefusedError("the server has stopped: try again when it runs")
        self._queue.put(item)

    def close(self) -> None:
        """Handle what waits, then stop the thread."""
        self._closed = True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            items = self._take()
            going = None not in items
            for item in items:
                if item is not None:
                    self._handle(item)
            try:
                self._after()
            except Exception as error:
                self._met(error, settled=False)  # as with an item, the stage goes on

    def _handle(self, item: T) -> None:
        try:
            self._each(item)
        except Exception as error:
            # A defect met by one item must not stop all scans: it is reported, and the stage goes on with the next.
            self._met(error, settled=self._settle is not None)
            if self._settle is not None:
                self._end(item, error)

    def _end(self, item: T, defect: Exception) -> None:
        assert self._settle is not None
        try:
            self._settle(item, defect)
        except Exception as error:
            self._met(error, settled=False)  # the defect that was met is in the log already

    def _met(self, error: Exception, *, settled: bool) -> None:
        self.error = f"{type(error).__name__}: {error}"
        self.failure = self.failure if settled else self.error
        _log.error("the %s stage met a defect", self.name, exc_info=error)

    def _take(self) -> list[T | None]:
        try:
            items = [self._queue.get(timeout=self._tick_s)]
        except queue.Empty:
            return []
        while len(items) < _MOST_AT_ONCE and items[-1] is not None:
            try:
                items.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return items


def defect(error: Exception) -> str:
    """The reason that a scan ends with when we met an error that nobody foresaw."""
    return f"internal error {type(error).__name__}: report it with the server's log"


class Effects(Protocol):
    """Does what the scheduler decides, and counts what happened."""

    def do(self, command: Command) -> None:
        """Carry out one command without waiting for workers."""
        ...

    def observe(self, event: Event) -> None:
        """Count one event."""
        ...


class Loop:
    """The only thread that touches the scheduler."""

    def __init__(
        self, scheduler: Scheduler, effects: Effects, *, clock: Callable[[], float], capacity: int, tick_s: float
    ) -> None:
        self._scheduler = scheduler
        self._effects = effects
        self._clock = clock
        self._tick_s = tick_s
        self._ticked = clock()
        self._changed = threading.Condition()  # also guards the scheduler against who looks at it
        self._coming = 0  # frames posted that the scheduler has not seen yet
        self.stage: Stage[Event] = Stage(
            "scheduler", self._step, after=self._tick, settle=self._abandon, capacity=capacity, tick_s=tick_s
        )

    def post(self, event: Event) -> None:
        """Tell the scheduler what happened; waits while its queue is full."""
        self._count(event, 1)
        try:
            self.stage.put(event)
        except RefusedError:
            self._count(event, -1)
            raise

    def _count(self, event: Event, change: int) -> None:
        if isinstance(event, FrameReady):
            with self._changed:
                self._coming += change

    def look(self) -> dict[str, Any]:
        """What waits and runs now, for people."""
        with self._changed:
            return self._scheduler.look(self._clock())

    def wait_for_room(self, frames: int, *, timeout_s: float) -> bool:
        """Whether fewer than `frames` wait, within `timeout_s`: the way a full queue slows down who sends."""
        with self._changed:
            return self._changed.wait_for(lambda: self._scheduler.waiting + self._coming < frames, timeout_s)

    def _tick(self) -> None:
        now = self._clock()
        passed_s = now - self._ticked
        if passed_s >= self._tick_s:
            self._ticked = now
            # An idle stage wakes after one tick, so that a second may pass: beyond, this thread stood still itself.
            self._step(DeadlinePassed(late_s=max(0.0, passed_s - 2 * self._tick_s)))

    def _step(self, event: Event) -> None:
        with self._changed:
            self._count(event, -1)
            commands = self._scheduler.handle(event, self._clock())
            self._changed.notify_all()
        self._effects.observe(event)
        for command in commands:
            self._effects.do(command)

    def _abandon(self, event: Event, error: Exception) -> None:
        """End the scans of an event that met a defect: nothing else would."""
        scans = _scans_of(event)
        if not scans:
            raise error
        for scan in scans:
            with self._changed:
                commands = self._scheduler.abandon(scan, reason=defect(error))
                self._changed.notify_all()
            for command in commands:
                self._effects.do(command)


def _scans_of(event: Event) -> tuple[str, ...]:
    if isinstance(event, BatchDone):
        return tuple(dict.fromkeys(result.frame.scan for result in event.results))
    if isinstance(event, FrameReady):
        return (event.frame.scan,)
    return (event.scan,) if isinstance(event, ScanOpened | BytesReceived | ScanReceived | ScanCancelled) else ()

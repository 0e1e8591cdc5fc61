"""Scans that have not ended, as the server holds them in memory, and who listens to them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.job import ScanRecord
from cluster.results import ResultFile

_WARNINGS = 50  # kept of one scan: frames that are each odd in their own way must not make it grow without end


class LiveScan:
    """One scan in flight: its record, its images so far. Safe to use from several threads."""

    def __init__(self, record: ScanRecord, results: ResultFile) -> None:
        """The images of the scan go to `results`."""
        self.lock = threading.RLock()
        self.gate = threading.Lock()  # held while the scheduler is told of the scan, or of its end before that
        self.opened = False  # the scheduler knows it
        self.cancelled = False
        self.lines = 0  # log lines written
        self.broken = ""  # why its images cannot be kept
        self.lasting_bytes = 0  # of its stream, what is needed when it has ended; 0 while that is not known
        self.lender = ""  # the scan whose noise readouts its frames are whitened with
        self.unwritable = ""  # why the ledger could not hold its record
        self.ended = threading.Event()  # its final record is in the ledger
        self.results = results
        self._record = replace(record, images=results.count)

    @property
    def record(self) -> ScanRecord:
        """The record as of now."""
        return self._record

    def update(self, **changes: Any) -> ScanRecord:
        """Change fields of the record; what has ended stays as it is."""
        with self.lock:
            if not self._record.state.final:
                self._record = replace(self._record, **changes)
            return self._record

    def warn(self, text: str) -> bool:
        """Add a warning to the record; whether it is a new one, and among the first ones."""
        with self.lock:
            known = self._record.warnings
            if text in known or len(known) >= _WARNINGS:
                return False
            self.update(warnings=(*known, text))
            return True

    def close(self) -> None:
        """No more images come: followers stop after the last."""
        self.results.close()
        self.ended.set()


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened to a scan; who has heard it can go on behind its `id`."""

    id: str
    name: str
    values: Mapping[str, Any]


class Subscription:
    """Events for one follower, bounded: one too slow loses the oldest and is told how many.

    `whole` is False where it was to go on behind an event that is not known any more: some may be missing.
    """

    def __init__(self, feed: Feed, scan: str | None, *, capacity: int) -> None:
        self.scan = scan
        self.lost = 0
        self.whole = True
        self.start = ""  # id of the event that came before all of these
        self._feed = feed
        self._queue: queue.Queue[Told | None] = queue.Queue(capacity)

    def get(self, timeout_s: float | None = None) -> Told | None:
        """The next event; None after `timeout_s` without one or at the end."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def __iter__(self) -> Iterator[Told]:
        while (event := self._queue.get()) is not None:
            yield event

    def put(self, event: Told | None) -> None:
        """Add an event, dropping the oldest when full."""
        while True:
            try:
                self._queue.put_nowait(event)
            except queue.Full:
                self._drop()
            else:
                return

    def close(self) -> None:
        """Stop listening."""
        self._feed.remove(self)
        self.put(None)

    def _drop(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return
        self.lost += 1


class Feed:
    """What happened to scans, for everyone who listens; the last events are kept for who comes back.

    `run` tells the events of this server from those of the one before it, whose numbers began at 1 too.
    """

    def __init__(self, capacity: int, *, run: str = "") -> None:
        self._capacity = capacity
        self._run = run
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._count = 0
        self._kept: deque[tuple[int, str, Told]] = deque(maxlen=capacity)  # number, scan, event

    def subscribe(self, scan: str | None = None, *, after: str = "") -> Subscription:
        """Events of one scan, or of all: from now on, or behind the one with the id `after`."""
        room = self._capacity if not after else 2 * self._capacity  # what is kept must not push out what comes
        subscription = Subscription(self, scan, capacity=room)
        with self._lock:  # between what is kept and what comes no event may be missing, or come twice
            subscription.start = self._id(self._count)
            if after:
                self._replay(subscription, self._number(after))
            self._subscriptions = (*self._subscriptions, subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        with self._lock:
            self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)

    def publish(self, name: str, record: ScanRecord, **values: Any) -> None:
        """Tell everyone who listens to this scan."""
        event = {"scan": record.id, "state": record.state.value, "images": record.images, **values}
        with self._lock:
            self._count += 1
            told = Told(self._id(self._count), name, event)
            self._kept.append((self._count, record.id, told))
            for subscription in self._subscriptions:
                if subscription.scan in (None, record.id):
                    subscription.put(told)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            subscription.close()

    def _replay(self, subscription: Subscription, number: int | None) -> None:
        oldest = self._kept[0][0] if self._kept else self._count + 1
        if number is None or not oldest - 1 <= number <= self._count:
            subscription.whole = False
            return
        for kept, scan, told in self._kept:
            if kept > number and subscription.scan in (None, scan):
                subscription.put(told)

    def _id(self, number: int) -> str:
        return f"{self._run}-{number}"

    def _number(self, name: str) -> int | None:
        """The number in an id of this run's; None for any other text, which a client may send."""
        run, _, digits = name.rpartition("-")
        known = run == self._run and digits.isascii() and digits.isdigit() and len(digits) < 20
        return int(digits) if known else None

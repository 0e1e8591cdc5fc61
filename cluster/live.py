"""Scans that have not ended, as the server holds them in memory, and who listens to them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cluster.job import ScanRecord
from cluster.results import ResultStore

_WARNINGS = 50  # kept of one scan: frames that are each odd in their own way must not make it grow without end


class LiveScan:
    """One scan in flight: its record, its images so far. Safe to use from several threads."""

    def __init__(self, record: ScanRecord, store: ResultStore, *, resumed: bool = False) -> None:
        """A `resumed` scan goes on with the images it has, any other begins without."""
        self.lock = threading.RLock()
        self.gate = threading.Lock()  # held while the scheduler is told of the scan, or of its end before that
        self.opened = False  # the scheduler knows it
        self.cancelled = False
        self.lines = 0  # log lines written
        self.broken = ""  # why its images cannot be kept
        self.unwritable = ""  # why the ledger could not hold its record
        self.ended = threading.Event()  # its final record is in the ledger
        self.results = store.resume(record.id) if resumed else store.create(record.id)
        self._record = replace(record, images=self.results.count)

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


class Subscription:
    """Events for one follower, bounded: one too slow loses the oldest and is told how many."""

    def __init__(self, feed: Feed, scan: str | None, *, capacity: int) -> None:
        self.scan = scan
        self.lost = 0
        self._feed = feed
        self._queue: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(capacity)

    def get(self, timeout_s: float | None = None) -> tuple[str, dict[str, Any]] | None:
        """The next (event name, values); None after `timeout_s` without one or at the end."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        while (event := self._queue.get()) is not None:
            yield event

    def put(self, event: tuple[str, dict[str, Any]] | None) -> None:
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
    """What happened to scans, for everyone who listens."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()

    def subscribe(self, scan: str | None = None) -> Subscription:
        """Events of one scan, or of all."""
        subscription = Subscription(self, scan, capacity=self._capacity)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        with self._lock:
            self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)

    def publish(self, name: str, record: ScanRecord, **values: Any) -> None:
        """Tell everyone who listens to this scan."""
        event = {"scan": record.id, "state": record.state.value, "images": record.images, **values}
        for subscription in self._subscriptions:
            if subscription.scan in (None, record.id):
                subscription.put((name, event))

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            subscription.close()

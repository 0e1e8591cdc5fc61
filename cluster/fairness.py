"""Whose turn it is among scanners of one class: start-time fair queueing.

Each frame gets a tag when it comes: the later of the class's own time, less a small credit, and the end of its
scanner's last frame. Smallest tag first, a burst waits behind its own frames instead of in front of others'.
Source: Goyal, Vin, Cheng (1997), doi:10.1109/90.649569.
"""

from __future__ import annotations

from cluster.events import Priority

# What a scanner that was silent may have at once, s of service: without it, the second of two frames that come together
# would wait for a flood's next one (simulated at half load: 99 % of waits grew by 1.5 services, with it by 0.7).
_CREDIT_S = 1.0
_LEAST_COST_S = 1e-4  # nothing is free: frames of an unknown cost would all have the same tag
_FORGET_EVERY = 1024


class FairShare:
    """Tags in seconds of service; every operation costs O(1), now and then O(scanners)."""

    def __init__(self) -> None:
        self._time = dict.fromkeys(Priority, 0.0)
        self._ends: dict[tuple[Priority, str], float] = {}
        self._given = 0

    def tag(self, priority: Priority, scanner: str, *, cost_s: float) -> float:
        """The place of a scanner's next frame, whose service takes about `cost_s`."""
        self._given += 1
        if self._given % _FORGET_EVERY == 0:
            self._forget()
        start = max(self._time[priority] - _CREDIT_S, self._ends.get((priority, scanner), 0.0))
        self._ends[priority, scanner] = start + max(cost_s, _LEAST_COST_S)
        return start

    def serve(self, priority: Priority, tag: float) -> None:
        """A frame with this tag starts: who was silent until now comes after it."""
        self._time[priority] = max(self._time[priority], tag)

    def _forget(self) -> None:
        """Scanners whose last frame's end lies that far behind are as good as new ones."""
        self._ends = {key: end for key, end in self._ends.items() if end > self._time[key[0]] - _CREDIT_S}

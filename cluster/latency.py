"""How long a batch will take, learnt from those before it: `a` seconds a frame and `b` seconds a batch, per key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

_KEEP = 0.9  # weight of the past at each batch: the last ten or so count
_KEYS = 1024
_ALIKE = 1e-6  # relative spread of batch sizes below which they cannot tell a frame's share from a batch's


@dataclass(slots=True)
class _Sums:
    """Weighted sums over batches of n frames and t seconds."""

    weight: float = 0.0
    n: float = 0.0
    nn: float = 0.0
    t: float = 0.0
    nt: float = 0.0

    def add(self, n: int, t: float) -> None:
        self.weight = _KEEP * self.weight + 1
        self.n = _KEEP * self.n + n
        self.nn = _KEEP * self.nn + n * n
        self.t = _KEEP * self.t + t
        self.nt = _KEEP * self.nt + n * t

    def line(self) -> tuple[float, float]:
        """`a` and `b` ≥ 0 by least squares; where all batches had one size, `b` is 0."""
        spread = self.weight * self.nn - self.n * self.n
        if spread <= _ALIKE * self.n * self.n:
            return self.t / self.n, 0.0
        slope = (self.weight * self.nt - self.n * self.t) / spread
        a = min(max(slope, 0.0), self.t / self.n)
        return a, (self.t - a * self.n) / self.weight


class Latency:
    """The fitted line of every key seen lately."""

    def __init__(self) -> None:
        self._sums: OrderedDict[Hashable, _Sums] = OrderedDict()

    def learn(self, key: Hashable, frames: int, *, seconds: float) -> None:
        """A batch of `frames` (≥ 1) took `seconds`."""
        self._sums.setdefault(key, _Sums()).add(frames, seconds)
        self._sums.move_to_end(key)
        if len(self._sums) > _KEYS:
            self._sums.popitem(last=False)

    def line(self, key: Hashable, *, declared_s: float) -> tuple[float, float]:
        """Seconds a frame and seconds a batch; before any batch what the method declared."""
        sums = self._sums.get(key)
        return sums.line() if sums else (declared_s, 0.0)

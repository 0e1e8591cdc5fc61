"""What a worker could do at most is measured by processes that really reconstruct."""

from __future__ import annotations

from bench import inmemory
from bench.sender import Load
from bench.traffic import FrameSize


def test_each_process_has_a_rate() -> None:
    size = FrameSize(coils=2, lines=16, samples=32)
    rates = inmemory.run(Load(config="fft", seconds=0.05, size=size), processes=2)
    assert len(rates) == 2
    assert all(rate > 0 for rate in rates)

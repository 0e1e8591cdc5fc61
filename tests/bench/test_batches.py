"""Frames a second by size of batch: every method that batches, each size beside one frame at a time."""

from __future__ import annotations

import kernels
from bench.batches import measure


def test_every_size_stands_beside_single_frames() -> None:
    rows = measure(kernels.on("cpu"), rounds=2, matrix=16, sizes=(1, 3))
    assert [row.id for row in rows] == [
        f"batches.{method}.{size}" for method in ("fft", "gridding", "cg-sense") for size in (1, 3)
    ]
    for row in rows:
        assert row.unit == "frames/s" and row.value > 0 and len(row.samples) == 2
        assert row.ratio == 1.0 or row.id.endswith(".3")

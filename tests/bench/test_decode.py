"""The decode benchmark measures what it says: every row has both sides, and as many samples as rounds."""

from __future__ import annotations

from bench import decode


def test_every_row_has_both_sides() -> None:
    rows = decode.measure(rounds=2, stream_bytes=300_000)
    kinds = ("decode", "decode.stream", "encode")
    assert [r.id for r in rows] == [f"{kind}.{size}" for size in ("1x64", "8x256", "32x512") for kind in kinds]
    for entry in rows:
        assert entry.unit == "acquisitions/s"
        assert len(entry.samples) == 2
        assert entry.value > 0
        assert entry.baseline is not None
        assert entry.baseline > 0
        assert entry.ratio is not None

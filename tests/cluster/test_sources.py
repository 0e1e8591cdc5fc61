"""A scan in memory becomes the same stream however its readouts are cut into chunks."""

from __future__ import annotations

import tracemalloc

import pytest

from cluster.sources import CHUNK_BYTES, encode_scan
from recon.mrd import wire
from recon.mrd.header import parse_header, write_header
from recon.scan import Scan
from tests.cluster import scans
from tests.recon.mrd.builders import readouts, waveform

HEADER = parse_header(write_header(scans.header()))


@pytest.mark.parametrize(
    "size",
    [(5, 2, 8, 0), (2500, 4, 64, 3), (3, 5, CHUNK_BYTES // 32, 0), (0, 2, 8, 2)],
    ids=["less than a chunk", "several chunks", "each more than a chunk", "nothing"],
)
def test_chunks_are_the_stream(size: tuple[int, int, int, int]) -> None:
    count, coils, samples, axes = size
    runs = (readouts(3, 1, 4, axes=1), readouts(count, coils, samples, axes=axes))
    chunks = list(encode_scan(Scan(HEADER, runs, (waveform(3, 7),))))
    encoded = [wire.encode_header(HEADER.xml), wire.encode_waveform(waveform(3, 7))]
    encoded += [wire.encode_readouts(run).tobytes() for run in runs]
    assert b"".join(chunks) == b"".join([*encoded, wire.encode_close()])
    assert max(map(len, chunks)) <= CHUNK_BYTES


def test_a_scan_is_not_held_a_second_time() -> None:
    run = readouts(512, 8, 1024)
    assert run.samples.nbytes == 32 * CHUNK_BYTES
    scan = Scan(HEADER, (run,))
    tracemalloc.start()
    try:
        assert sum(map(len, encode_scan(scan))) > run.samples.nbytes
        assert tracemalloc.get_traced_memory()[1] < 4 * CHUNK_BYTES  # the memory written to, a chunk and the one before
    finally:
        tracemalloc.stop()

"""`recon-cluster bench ingest`: bytes from a socket to a durable spool, beside the bare disk and a simple peer."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import decode, sender, server
from bench.report import Row, row
from bench.sender import Load
from bench.traffic import FrameSize

MB = 1e6
MEMORY = Path("/dev/shm")
BLOCK = 1 << 20
FRAMES = 16  # of 33.5 MB each: 537 MB a run


def measure(*, rounds: int = 10, disk: Path | None = None) -> list[Row]:
    """All rows of `bench ingest`; `disk` is a folder on the disk to be measured (default: the current one)."""
    load = Load(config="null", frames=FRAMES)
    total = FRAMES * FrameSize().bytes
    return [
        *decode.measure(),
        *_spool_rows(
            "ingest.disk", load, Path.cwd() if disk is None else disk, rounds, lambda folder: write_rate(folder, total)
        ),
        *_peer_rows("ingest.memory", load, rounds),
    ]


def write_rate(folder: Path, total: int) -> float:
    """Fsynced sequential write rate of the disk under `folder`, MB/s."""
    block = os.urandom(BLOCK)
    path = folder / "sequential"
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(total // BLOCK):
            file.write(block)
        os.fdatasync(file.fileno())
    elapsed = time.perf_counter() - start
    path.unlink()
    return total / MB / elapsed


def receive_rate(endpoint: server.Endpoint, load: Load) -> float:
    """Rate from the first byte sent to the server's CLOSE (which our server sends after fsync), MB/s."""
    (result,) = sender.run(endpoint, load)
    if not result["closed"] or result["texts"]:
        raise RuntimeError(f"the server did not take the scan, it said {result['texts']}: look at its log")
    return float(result["bytes"] / MB / result["total_s"])


def touch(folder: Path, total: int) -> None:
    """Write and remove `total` bytes, so that a virtual machine's memory is there before the clock starts.

    On a host that hands out memory page by page, a first touch costs some ten times what the write itself does.
    """
    write_rate(folder, total)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder under `parent`, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="recon-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _spool_rows(name: str, load: Load, parent: Path, rounds: int, baseline: Callable[[Path], float]) -> list[Row]:
    ours, theirs = [], []
    with scratch(parent) as folder, server.recon_cluster(folder / "data", "--ray", "off", "--workers", "1") as endpoint:
        receive_rate(endpoint, load)  # warm-up
        for _ in range(rounds):
            theirs.append(baseline(folder))
            ours.append(receive_rate(endpoint, load))
            _forget(folder)
    return [row(name, ours, "MB/s", theirs)]


def _peer_rows(name: str, load: Load, rounds: int) -> list[Row]:
    def drop(folder: Path) -> float:
        touch(folder, FRAMES * FrameSize().bytes)
        return receive_rate(other, load)

    with server.peer("drop") as other:
        return _spool_rows(name, load, MEMORY, rounds, drop)


def _forget(folder: Path) -> None:
    """Remove spooled scans, so that many rounds fit into memory-backed storage."""
    for path in (folder / "data" / "spool").iterdir():
        path.unlink()

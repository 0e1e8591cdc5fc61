"""`recon-cluster bench ingest`: bytes from a socket to a durable spool, beside the bare disk and a simple peer."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import decode, sender, server
from bench.report import Row, row
from bench.sender import Load

MB = 1e6
BLOCK = 1 << 20
LOAD = Load(config="null", frames=16)  # of 33.5 MB each


@dataclass(frozen=True, slots=True)
class Storage:
    """Folders on the disk and on the memory-backed storage to measure."""

    disk: Path
    memory: Path


def measure(
    storage: Storage, *, rounds: int = 10, load: Load = LOAD, decoded_bytes: int = decode.STREAM_BYTES
) -> list[Row]:
    """All rows of `bench ingest`: decoding of `decoded_bytes` at a time, then `load` into our server and others."""
    return [
        *decode.measure(rounds=rounds, stream_bytes=decoded_bytes),
        *_beside_storage("ingest.disk", storage.disk, rounds=rounds, load=load),
        *_beside_storage("ingest.memory", storage.memory, rounds=rounds, load=load),
        *_beside_peer("ingest.peer.keep", storage.memory, rounds=rounds, load=load),
        *_beside_peer("ingest.peer.drop", storage.memory, rounds=rounds, load=load),
    ]


def _total(load: Load) -> int:
    return load.frames * load.size.bytes


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


def _beside_storage(name: str, parent: Path, *, rounds: int, load: Load) -> list[Row]:
    """Our ingest beside plain fsynced writes of as many bytes to the same storage."""
    return _rows(name, parent, rounds=rounds, load=load, baseline=lambda folder: write_rate(folder, _total(load)))


def _beside_peer(name: str, memory: Path, *, rounds: int, load: Load) -> list[Row]:
    """Our ingest beside a per-acquisition server; one that keeps does so on the same memory-backed storage."""
    with scratch(memory) as kept, server.peer(name.rpartition(".")[2], kept / "scan") as other:

        def beside(folder: Path) -> float:
            touch(folder, _total(load))
            rate = receive_rate(other, load)
            (kept / "scan").unlink(missing_ok=True)
            touch(folder, _total(load))
            return rate

        return _rows(name, memory, rounds=rounds, load=load, baseline=beside)


def _rows(name: str, parent: Path, *, rounds: int, load: Load, baseline: Callable[[Path], float]) -> list[Row]:
    ours, theirs = [], []
    with scratch(parent) as folder, server.recon_cluster(folder / "data", "--ray", "off", "--workers", "1") as endpoint:
        receive_rate(endpoint, load)  # warm-up
        for _ in range(rounds):
            theirs.append(baseline(folder))
            ours.append(receive_rate(endpoint, load))
            _forget(folder)
    return [row(name, ours, "MB/s", theirs)]


def _forget(folder: Path) -> None:
    """Remove spooled scans, so that many rounds fit into memory-backed storage."""
    for path in (folder / "data" / "spool").iterdir():
        path.unlink()

"""`recon-cluster bench load`: whole frames through a running cluster, from the scanner's socket and back to it."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import inmemory, sender, server
from bench.ingest import MB, MEMORY, scratch, touch, write_rate
from bench.report import Row, row
from bench.sender import Load
from bench.traffic import FrameSize

PERCENTILES = (50, 95, 99)
FASTEST = 1.2e9  # bytes per second that no run here exceeds: what must be touched before it


def steady(
    *, scanners: Sequence[int] = (1, 4), seconds: float = 3.0, rounds: int = 5, disk: Path | None = None
) -> list[Row]:
    """End-to-end `fft` of equal frames at full speed with the spool in memory and on disk, beside the peers."""
    return [
        *[entry for count in scanners for entry in _in_memory(count, seconds, rounds)],
        *_on_disk(seconds, rounds, Path.cwd() if disk is None else disk),
    ]


def frame_rate(endpoint: server.Endpoint, load: Load, *, scanners: int) -> tuple[float, list[dict[str, Any]]]:
    """MB/s of k-space reconstructed (every image back) over all scanners, and what each scanner saw."""
    results = sender.run(endpoint, load, scanners=scanners)
    for result in results:
        if result["images"] != result["frames"] or result["texts"]:
            raise RuntimeError(f"{result['images']} images of {result['frames']} frames came back, {result['texts']}")
    return sum(r["bytes"] for r in results) / MB / max(r["total_s"] for r in results), results


def overhead(*, workers: int = 2, seconds: float = 3.0, rounds: int = 3) -> list[Row]:
    """1 − (frames/s of the cluster ÷ frames/s of as many processes reconstructing frames in memory), per method.

    The spool is in memory. The senders' CPU time, spread over the machine's cores, is taken off the cluster's time.
    """
    loads = {
        "fft": Load(config="fft", seconds=seconds),
        "cg-sense": Load(config="cg-sense", seconds=seconds, size=FrameSize(coils=8, acceleration=2)),
    }
    return [_overhead_row(f"overhead.{name}", load, workers, rounds) for name, load in loads.items()]


def _overhead_row(name: str, load: Load, workers: int, rounds: int) -> Row:
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(sum(inmemory.run(load, processes=workers)))
        _, results = _fresh_run(MEMORY, load, workers, "--workers", str(workers))
        ours.append(_frames_per_second(results))
    losses = [1 - own / other for own, other in zip(ours, bare, strict=True)]
    return Row(name, statistics.median(losses), "1", statistics.median(bare), None, tuple(losses))


def _frames_per_second(results: Sequence[dict[str, Any]]) -> float:
    sending_s = sum(result["cpu_s"] for result in results) / (os.cpu_count() or 1)
    return float(sum(result["frames"] for result in results) / (max(r["total_s"] for r in results) - sending_s))


def latencies(name: str, results: Sequence[dict[str, Any]]) -> list[Row]:
    """Rows of the time from a frame's last readout to its image: first frame of each scan, and percentiles over all."""
    first = [result["latency_s"][0] for result in results]
    every = sorted(value for result in results for value in result["latency_s"])
    cuts = statistics.quantiles(every, n=100, method="inclusive")
    rows = [Row(f"{name}.last_readout_to_image.p{p}", cuts[p - 1], "s", samples=(cuts[p - 1],)) for p in PERCENTILES]
    return [row(f"{name}.first_image", first, "s"), *rows]


def _in_memory(scanners: int, seconds: float, rounds: int) -> list[Row]:
    name, load = f"load.memory.{scanners}", Load(seconds=seconds)
    ours, theirs, seen = [], [], []
    with server.peer("fft") as other:
        for _ in range(rounds):
            theirs.append(frame_rate(other, Load(frames=20), scanners=1)[0])
            rate, results = _fresh_run(MEMORY, load, scanners)
            ours.append(rate)
            seen += results
    return [row(name, ours, "MB/s", theirs), *latencies(name, seen)]


def _on_disk(seconds: float, rounds: int, disk: Path) -> list[Row]:
    name, load = "load.disk.1", Load(seconds=seconds)
    ours, theirs, seen = [], [], []
    for _ in range(rounds):
        with scratch(disk) as folder:
            theirs.append(write_rate(folder, 16 * FrameSize().bytes))
        rate, results = _fresh_run(disk, load, 1)
        ours.append(rate)
        seen += results
    return [row(name, ours, "MB/s", theirs), *latencies(name, seen)]


def _fresh_run(parent: Path, load: Load, scanners: int, *options: str) -> tuple[float, list[dict[str, Any]]]:
    """One run on a new server, so that the spool of one round never fills the next one's storage."""
    with scratch(parent) as folder, server.recon_cluster(folder / "data", *options) as endpoint:
        if parent == MEMORY:
            touch(folder, int(load.seconds * FASTEST))
        frame_rate(endpoint, replace(load, frames=4), scanners=1)  # plans are warm, as on a server that has been up
        return frame_rate(endpoint, load, scanners=scanners)

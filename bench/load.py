"""`recon-cluster bench load`: whole frames through a running cluster, from the scanner's socket and back to it.

Every round starts a new server on empty storage and alternates with its baseline.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import inmemory, sender, server
from bench.ingest import MB, Storage, scratch, touch, write_rate
from bench.report import Row, percentiles, row
from bench.sender import Load
from bench.traffic import FrameSize

FASTEST = 1.2e9  # bytes per second that no run here exceeds: what must be touched before it
WORKERS = 2
BASELINE_FRAMES = 16  # written to the disk on their own
Results = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: where, with which Ray, how long each run sends, how many rounds, frames of which size."""

    storage: Storage
    ray: str
    seconds: float
    rounds: int
    size: FrameSize = field(default_factory=FrameSize)


def steady(plan: Plan, *, scanners: Sequence[int] = (1, 4)) -> list[Row]:
    """End-to-end `fft` of equal frames at full speed with the spool in memory and on disk, beside peer and disk."""
    return [entry for measure in (_in_memory, _on_disk) for count in scanners for entry in measure(plan, count)]


def overhead(plan: Plan) -> list[Row]:
    """What of the workers' own rate is lost in the cluster, per method, with the spool in memory.

    `overhead.<method>` is 1 − ratio of the rate's row: frames/s of the cluster ÷ frames/s of as many processes that
    reconstruct frames in memory. The senders' CPU time, spread over the machine's cores, is taken off the cluster's.
    """
    loads = {
        "fft": Load(config="fft", seconds=plan.seconds),
        "cg-sense": Load(config="cg-sense", seconds=plan.seconds, size=FrameSize(coils=8, acceleration=2)),
    }
    return [entry for name, load in loads.items() for entry in _overhead(name, load, plan)]


def _overhead(name: str, load: Load, plan: Plan) -> list[Row]:
    workers = ("--workers", str(WORKERS))
    ours, bare = [], []
    for _ in range(plan.rounds):
        bare.append(sum(inmemory.run(load, processes=WORKERS)))
        _, results = _fresh_run(plan, plan.storage.memory, load=load, scanners=WORKERS, options=workers)
        ours.append(frames_per_second(results))
    losses = [1 - own / other for own, other in zip(ours, bare, strict=True)]
    return [row(f"rate.{name}", ours, "frames/s", bare), row(f"overhead.{name}", losses, "1")]


def frames_per_second(results: Results) -> float:
    sending_s = sum(result["cpu_s"] for result in results) / (os.cpu_count() or 1)
    return float(sum(result["frames"] for result in results) / (max(r["total_s"] for r in results) - sending_s))


def _in_memory(plan: Plan, scanners: int) -> list[Row]:
    with server.peer("fft") as other:

        def beside() -> float:
            return frame_rate(other, Load(frames=20, size=plan.size), scanners=1)[0]

        return _rows(f"load.memory.{scanners}", plan, scanners, folder=plan.storage.memory, baseline=beside)


def _on_disk(plan: Plan, scanners: int) -> list[Row]:
    def sequential() -> float:
        with scratch(plan.storage.disk) as folder:
            return write_rate(folder, BASELINE_FRAMES * plan.size.bytes)

    return _rows(f"load.disk.{scanners}", plan, scanners, folder=plan.storage.disk, baseline=sequential)


def _rows(name: str, plan: Plan, scanners: int, *, folder: Path, baseline: Callable[[], float]) -> list[Row]:
    load = Load(seconds=plan.seconds, size=plan.size)
    ours, theirs, seen = [], [], []
    for _ in range(plan.rounds):
        theirs.append(baseline())
        rate, results = _fresh_run(plan, folder, load=load, scanners=scanners)
        ours.append(rate)
        seen += results
    return [row(name, ours, "MB/s", theirs), *latencies(name, seen)]


def _fresh_run(
    plan: Plan, parent: Path, *, load: Load, scanners: int, options: Sequence[str] = ()
) -> tuple[float, Results]:
    with (
        scratch(parent) as folder,
        server.recon_cluster(folder / "data", "--ray", plan.ray, *options) as endpoint,
    ):
        frame_rate(endpoint, replace(load, frames=4), scanners=1)  # plans are warm, as on a server that has been up
        # Not before the server starts: a virtual machine gives free memory back to its host within seconds.
        with scratch(plan.storage.memory) as once:
            touch(once, int(plan.seconds * FASTEST))
        return frame_rate(endpoint, load, scanners=scanners)


def frame_rate(endpoint: server.Endpoint, load: Load, *, scanners: int) -> tuple[float, Results]:
    """MB/s of k-space reconstructed (every image back) over all scanners, and what each scanner saw."""
    results = sender.run(endpoint, load, scanners=scanners)
    for result in results:
        if result["images"] != result["frames"] or result["texts"]:
            raise RuntimeError(f"{result['images']} images of {result['frames']} frames came back, {result['texts']}")
    return sum(r["bytes"] for r in results) / MB / max(r["total_s"] for r in results), results


def latencies(name: str, results: Results) -> list[Row]:
    """Rows of the time from a frame's last readout to its image: first frame of each scan, and percentiles over all."""
    first = [result["latency_s"][0] for result in results]
    every = [value for result in results for value in result["latency_s"]]
    return [row(f"{name}.first_image", first, "s"), *percentiles(f"{name}.last_readout_to_image", every)]

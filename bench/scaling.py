"""`bench load --profile workers`: what each further worker adds, a thread each, and what the head itself takes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from bench import inmemory, process, sender, server
from bench.ingest import scratch
from bench.load import Plan, frames_per_second
from bench.report import Row, row
from bench.sender import Load
from bench.traffic import FrameSize

CONFIG = "cg-sense"
SCANNERS = 2  # for each worker
SIZE = FrameSize(coils=8, lines=128, samples=256, acceleration=2)


def measure(plan: Plan, *, workers: Sequence[int] = ()) -> list[Row]:
    """Frames/s of each number of workers, beside as many processes without a cluster; efficiency; the head's CPU time.

    The efficiency of N is frames/s of N ÷ N times frames/s of one in the same round; beside it that of the bare
    processes, which is what the machine gives. `head` is in cores.
    """
    counts = tuple(workers) or tuple(range(1, (os.cpu_count() or 1) + 1))
    alone = Load(config=CONFIG, seconds=plan.seconds, size=SIZE)
    ours: dict[int, list[float]] = {count: [] for count in counts}
    bare: dict[int, list[float]] = {count: [] for count in counts}
    heads: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(plan.rounds):
        for count in counts:
            bare[count].append(sum(inmemory.run(alone, processes=count)))
            # What is sent is taken at once and waits: so many frames that they take as long as the bare processes ran.
            frames = math.ceil(bare[count][-1] * plan.seconds / (SCANNERS * count))
            rate, head = _cluster(plan, Load(config=CONFIG, frames=frames, size=SIZE), count)
            ours[count].append(rate)
            heads[count].append(head)
    rows = [row(f"workers.{count}", ours[count], "frames/s", bare[count]) for count in counts]
    rows += [row(f"workers.{count}.head", heads[count], "cores") for count in counts]
    for count in counts[1:]:
        rows.append(row(f"workers.{count}.efficiency", _each(ours, count), "1", _each(bare, count)))
    return rows


def _cluster(plan: Plan, load: Load, workers: int) -> tuple[float, float]:
    """Frames/s, without the senders' own CPU time, and the cores that the head took."""
    options = ("--ray", plan.ray, "--workers", str(workers))
    with scratch(plan.storage.memory) as folder, server.recon_cluster(folder / "data", *options) as endpoint:
        sender.run(endpoint, Load(config=CONFIG, frames=2, size=SIZE), scanners=workers)
        before_s = process.cpu_s(endpoint.pid)
        results = sender.run(endpoint, load, scanners=SCANNERS * workers)
        spent_s = process.cpu_s(endpoint.pid) - before_s
    return frames_per_second(results), spent_s / max(result["total_s"] for result in results)


def _each(rates: dict[int, list[float]], count: int) -> list[float]:
    return [many / (count * one) for many, one in zip(rates[count], rates[1], strict=True)]

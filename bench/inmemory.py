"""What a worker could do if it did nothing else: a process reconstructs one frame in memory again and again.

python -m bench.inmemory CONFIG SECONDS COILS LINES SAMPLES ACCELERATION      prints frames per second
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import kernels
from bench.sender import Load
from bench.traffic import FrameSize, frame_header, frame_readouts
from cluster.worker import WorkerSettings
from cluster.workers import child_environment
from recon.cache import Cache
from recon.mrd.header import parse_header
from recon.pipeline import reconstruct_frame
from recon.recipe import resolve


def run(load: Load, *, processes: int) -> list[float]:
    """Frames per second of each of `processes` processes working at the same time."""
    size = load.size
    words = (load.config, load.seconds, size.coils, size.lines, size.samples, size.acceleration)
    command = [sys.executable, "-m", "bench.inmemory", *map(str, words)]
    # As many threads as the cluster's workers: with the libraries' own choice, processes fight over the cores.
    environment = child_environment(WorkerSettings(), os.environ, search_path=sys.path)
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)]
    return [float(process.communicate()[0]) for process in running]


def main() -> None:
    """Reconstruct for a while and print the rate."""
    config, seconds, *size = sys.argv[1:]
    shape = FrameSize(*map(int, size))
    header, readouts = parse_header(frame_header(shape)), frame_readouts(shape, seed=0)
    recipe, device, cache = resolve(config), kernels.on("cpu", threads=1), Cache()
    reconstruct_frame(header, [readouts], [], recipe, device, cache)  # plans are made here
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < float(seconds):
        reconstruct_frame(header, [readouts], [], recipe, device, cache)
        count += 1
    print(count / (time.perf_counter() - start))


if __name__ == "__main__":
    main()

"""`recon-cluster plan`: how many workers a hospital needs, by days simulated with the server's own scheduler."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import report
from bench.report import Row, percentiles, row
from cluster.events import Priority
from cluster.hospital import arrivals
from cluster.job import RequestError
from cluster.scheduler import Rules
from cluster.simulate import Arrival, Pool, Served, Simulation

SPREAD = 0.2  # of service times around what a method declares
NOTE = (
    "Frames take what their methods declare for a CPU core, divided by --speed; no GPU has been measured yet.\n"
    "time_to_image is from the moment a frame's last readout is in."
)
MOST = 4096


@dataclass(frozen=True, slots=True)
class Hospital:
    """What is planned for: scanners, hours from opening on, and how many CPU cores one worker is worth."""

    scanners: int
    hours: float
    seed: int
    speed: float


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Declare the subcommand and its arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plan", help="how many GPUs a hospital needs, by simulation", epilog=NOTE
    )
    parser.add_argument("--scanners", type=_count, default=4, metavar="N", help="scanners (default: %(default)s)")
    parser.add_argument(
        "--gpus", type=_count, default=None, metavar="G", help="workers (default: as few as reach the objective)"
    )
    parser.add_argument("--hours", type=_positive, default=24.0, metavar="H", help="from 7 o'clock on (default: 24)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed gives the same days")
    parser.add_argument(
        "--speed", type=_positive, default=1.0, metavar="X", help="CPU cores that one worker is worth (default: 1)"
    )
    parser.add_argument(
        "--objective",
        type=_positive,
        default=30.0,
        metavar="SECONDS",
        help="99 %% of routine images within this time (default: 30)",
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Simulate, print the table, write the JSON if asked to."""
    hospital = Hospital(args.scanners, args.hours, args.seed, args.speed)
    workers = args.gpus or fewest(hospital, objective_s=args.objective, begin=_say)
    rows = simulate(hospital, workers)
    report.show(rows, title=f"{args.scanners} scanners, {workers} workers, {args.hours:g} h")
    print(NOTE)
    if args.json:
        report.write(rows, args.json, about=report.environment())
    return 0


def simulate(hospital: Hospital, workers: int) -> list[Row]:
    """Rows of waits and times to image by class (s), utilisation, workers, frames, and simulated ÷ wall seconds."""
    start_s = time.perf_counter()
    simulation = Simulation(Pool(workers, spread=SPREAD), rules=Rules(), seed=hospital.seed)
    served = simulation.run(_arrivals(hospital))
    wall_s = time.perf_counter() - start_s
    end_s = max(simulation.now, 1e-9)
    return [
        row("workers", [workers], "1"),
        row("frames", [len(served)], "1"),
        *_rows("wait", served, lambda frame: frame.start_s - frame.ready_s),
        *_rows("time_to_image", served, lambda frame: frame.done_s - frame.ready_s),
        row("utilisation", [simulation.busy_s / (workers * end_s)], "1"),
        row("speed", [end_s / wall_s], "1"),
    ]


def fewest(hospital: Hospital, *, objective_s: float, begin: Callable[[int], None] = lambda workers: None) -> int:
    """The smallest number of workers with 99 % of routine images within `objective_s`; raises RequestError if none is.

    `begin` is told each number before it is tried.
    """
    longest = max((arrival.kind.frame_s for arrival in _arrivals(hospital)), default=0.0)

    def enough(workers: int) -> bool:
        begin(workers)
        rows = {entry.id: entry.value for entry in simulate(hospital, workers)}
        return rows.get("time_to_image.routine.p99", 0.0) <= objective_s

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            raise RequestError(
                f"{MOST} workers do not reach {objective_s:g} s, one frame alone takes up to {longest:.3g} s:"
                " choose a longer --objective or a larger --speed"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _arrivals(hospital: Hospital) -> Iterator[Arrival]:
    return arrivals(hospital.scanners, hours=hospital.hours, seed=hospital.seed, speed=hospital.speed)


def _rows(name: str, served: Sequence[Served], measure: Callable[[Served], float]) -> list[Row]:
    """Percentiles of every class that had frames."""
    rows = []
    for priority in Priority:
        seconds = [measure(frame) for frame in served if frame.kind.priority is priority]
        rows += percentiles(f"{name}.{priority.name.lower()}", seconds) if seconds else []
    return rows


def _say(workers: int) -> None:
    if sys.stderr.isatty():
        print(f"simulating {workers} workers", file=sys.stderr)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected 1 or more: correct it")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}, expected more than 0: correct it")
    return number

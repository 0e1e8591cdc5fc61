"""The CUDA NUFFT beside its floor and its prediction: `python -m bench.cuda`, on a GPU; `--predict` needs none.

Times are those of a CUDA graph, so that the host's launches are not what is measured; planning is not in them. Inputs
are random, and several take turns, so that the second-level cache does not hold them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import report
from kernels.cuda import CudaKernels, nufft_steps
from kernels.cuda._load import open_runtime
from kernels.cuda.toeplitz import CudaToeplitz
from kernels.plan import POINTS_PER_BLOCK, TILE_EDGE, spreading

# One H100 SXM. Bandwidths are what is reached at best, not the data sheet's.
HBM = 3.0e12  # bytes a second
SHARED = 29.7e12  # bytes a second: 132 multiprocessors, 128 bytes a clock
ISSUE = 132 * 4 * 1.755e9  # instructions of a warp a second
# Guesses, to be replaced by measurements: the share of a ceiling that such a kernel keeps up.
STREAM_SHARE, ISSUE_SHARE = 0.85, 0.6
# Of a thread, for each value of a line that passes.cu transforms: three stages of radix 8, counted by hand.
PASS_INSTRUCTIONS = 45
# Of a thread, for each point that it interpolates, beside taps and weights: start, loop, place and store, by hand.
POINT_INSTRUCTIONS = 20
# Of `spread`, by hand: a lane that looks whether its warp meets an entry of the list, a warp that adds one, beside its
# cells; a thread that fetches a value, or four weights of an entry along an axis, for all of them.
LOOK_INSTRUCTIONS = {2: 25, 3: 35}
ENTRY_INSTRUCTIONS, VALUE_INSTRUCTIONS, QUAD_INSTRUCTIONS = 16, 20, 45
EPS = 1e-4
REPEATS, BUFFERS = 50, 3


@dataclass(frozen=True, slots=True)
class Case:
    """A trajectory of `points` random points on a grid of `shape` with `coils` coils."""

    name: str
    shape: tuple[int, ...]
    coils: int
    points: int

    @property
    def width(self) -> int:
        """Cells that a point touches along an axis."""
        return spreading(EPS, sigma=2.0, shape=self.shape).width

    @property
    def image_bytes(self) -> int:
        """Of all coils."""
        return 8 * self.coils * prod(self.shape)

    @property
    def point_bytes(self) -> int:
        """Weights, starts and order, once, and k-space of all coils."""
        axes = len(self.shape)
        return self.points * (4 * axes * (self.width + 1) + 4 + 8 * self.coils)


CASES = (
    Case("2d-256-8", (256, 256), 8, 65_536),
    Case("2d-320-16", (320, 320), 16, 257_000),
    Case("2d-256-32", (256, 256), 32, 655_360),
    Case("3d-256-4", (256, 256, 256), 4, 256**3),
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of one transform of all coils: what it cannot beat, and what its steps are expected to take."""

    floor: float
    passes: float  # of the FFT, which pad and crop
    points: float  # interpolating or spreading

    @property
    def expected(self) -> float:
        """The steps one after another."""
        return self.passes + self.points


def pass_bytes(case: Case) -> list[int]:
    """What each pass moves, along x, y and z in turn: an axis is read as it is and written twice as long."""
    return [case.image_bytes * 2**axis * 3 for axis in range(len(case.shape))]


def pass_seconds(moved: float, values: float) -> float:
    """A pass that moves so many bytes and transforms lines of so many values in all."""
    return max(moved / (HBM * STREAM_SHARE), values * PASS_INSTRUCTIONS / 32 / (ISSUE * ISSUE_SHARE))


def predict(case: Case, *, adjoint: bool) -> Prediction:
    """Type 2, or with `adjoint` type 1."""
    fine = case.image_bytes * 2 ** len(case.shape)
    moved = pass_bytes(case)
    floor = (sum(moved) + fine + case.point_bytes) / HBM
    passes = sum(pass_seconds(part, part / 12) for part in moved)  # a third is read, two thirds are the lines
    memory = (fine + case.point_bytes) / (HBM * STREAM_SHARE)
    inner = spread_seconds(case) if adjoint else interpolate_seconds(case)
    return Prediction(floor, passes, max(memory, inner / ISSUE_SHARE))


def interpolate_seconds(case: Case) -> float:
    """What shared memory needs for taps and footprints, or the schedulers for the sums, whichever is more."""
    axes, lanes, width = len(case.shape), lanes_of(case), case.width
    padded = -(-case.coils // lanes) * lanes
    blocks = max(tile_count(case), case.points / POINTS_PER_BLOCK)
    read = moved_share(case, blocks) * case.points * padded * width**axes
    filled = blocks * padded / lanes * nufft_steps.footprint_bytes(axes, width, lanes)
    shared = (8 * read * nufft_steps.LANES[axes][lanes] + filled) / SHARED
    # Two additions for each tap and each row, a weight for each row, and what a point takes besides.
    per_point = 2 * width**axes + 3 * width ** (axes - 1) + axes * width + POINT_INSTRUCTIONS
    return float(max(shared, (case.points * padded * per_point + read) / 32 / ISSUE))


def moved_share(case: Case, blocks: float) -> float:
    """Of how many points a thread reads the cells anew: in 2-D those whose first cell the one before does not share.

    Points fall where they like: of those per cell, the share that are a cell's first, and the first of each thread.
    """
    if len(case.shape) != 2:
        return 1.0
    per_cell = case.points / (2 ** len(case.shape) * prod(case.shape))
    firsts = blocks * nufft_steps.interpolate_threads(2) / lanes_of(case) / case.points
    return float(min(1.0, (1 - exp(-per_cell)) / per_cell + firsts))


def spread_seconds(case: Case) -> float:
    """What the schedulers need for each entry of a tile's list: warps whose cells it touches, and all that look."""
    axes, lanes, width = len(case.shape), lanes_of(case), case.width
    edge, turns, threads = TILE_EDGE[axes], -(-case.coils // lanes), nufft_steps.spread_threads(axes, lanes)
    entries = case.points * ((edge + width - 1) / edge) ** axes
    cells = nufft_steps.tile_cells(axes) * lanes // threads
    touched = prod(min(1.0, (size + width - 1) / (edge + width - 1)) for size in warp_cells(axes, lanes, cells))
    # For each cell two additions and a quarter of a read; weights, the value and the loop besides.
    added = touched * (2 * cells + cells / 4 + ENTRY_INSTRUCTIONS)
    staged = (lanes * VALUE_INSTRUCTIONS + axes * edge / 4 * QUAD_INSTRUCTIONS) / 32
    return float(entries * turns * (threads / 32 * (LOOK_INSTRUCTIONS[axes] / 32 + added) + staged) / ISSUE)


def warp_cells(axes: int, lanes: int, cells: int) -> tuple[int, ...]:
    """The sizes of what a warp of `spread` owns of a tile, whose threads own `cells` cells along x: see nufft.cu."""
    units = 32 // lanes
    if axes == 2:
        return min(units, 16), cells * max(1, units // 16)
    z = 1 if units < 8 else 2 if units < 32 else 4
    return z, units // z, cells


def lanes_of(case: Case) -> int:
    """Coils of a block, as `nufft_steps.Lists` chooses them."""
    turn = min(case.coils, max(nufft_steps.LANES[len(case.shape)]))
    return nufft_steps.choose_lanes(len(case.shape), turn)


def tile_count(case: Case) -> int:
    """Tiles of the fine grid."""
    return prod(-(-2 * n // TILE_EDGE[len(case.shape)]) for n in case.shape)


def predict_toeplitz(case: Case) -> tuple[float, float]:
    """(floor, expected) seconds of one application of the convolution to all coils, with maps."""
    fine, image = case.image_bytes * 2 ** len(case.shape), case.image_bytes
    *outer, deepest = pass_bytes(case)
    spectrum = 4 * 2 ** len(case.shape) * prod(case.shape)
    # Two passes along each axis but the deepest, which multiplies and returns at once; maps are read twice.
    floor = (2 * sum(outer) + 2 * (deepest - fine) + spectrum + image) / HBM
    passes = sum(2 * pass_seconds(part, part / 12) for part in outer)
    middle = pass_seconds(fine + spectrum, 2 * fine / 8)
    return floor, passes + middle + 2 * image / case.coils / (HBM * STREAM_SHARE)


def table() -> str:
    """The predictions as a Markdown table."""
    lines = [
        "| case | transform | floor | predicted | share of the floor | most of it goes to |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        for name, adjoint in (("type 2", False), ("type 1", True)):
            found = predict(case, adjoint=adjoint)
            steps = {"FFT passes": found.passes, "points": found.points}
            most = max(steps, key=steps.__getitem__)
            lines.append(line(case.name, name, found.floor, found.expected, f"{most}, {microseconds(steps[most])}"))
        if len(case.shape) == 2:
            floor, expected = predict_toeplitz(case)
            lines.append(line(case.name, "Toeplitz normal", floor, expected, "FFT passes"))
    return "\n".join(lines)


def line(case: str, name: str, floor: float, expected: float, most: str) -> str:
    """One row of `table`."""
    share = f"{floor / expected:.0%}"
    return f"| {case} | {name} | {microseconds(floor)} | {microseconds(expected)} | {share} | {most} |"


def microseconds(seconds: float) -> str:
    """Three figures."""
    return f"{seconds * 1e6:,.3g} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.3g} ms"


Timer = Callable[[Callable[[int], Any]], list[float]]  # seconds of each run of work(turn)


def device_timer(runtime: Any) -> Timer:
    """Times `work(turn)` by events around a CUDA graph of it."""
    cuda = runtime.xp.cuda

    def measure(work: Callable[[int], Any]) -> list[float]:
        graphs = [record(cuda, lambda turn=turn: work(turn)) for turn in range(BUFFERS)]  # type: ignore[misc]
        return [timed(cuda, graphs[repeat % BUFFERS]) for repeat in range(REPEATS)]

    return measure


def record(cuda: Any, work: Callable[[], Any]) -> tuple[Any, Any, Any]:
    """`work` as a CUDA graph with its stream and its memory, after a rehearsal that compiles and plans."""
    stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
    with cuda.using_allocator(pool.malloc), stream:
        for _ in range(2):
            work()
        stream.synchronize()
        stream.begin_capture()
        work()
        return stream.end_capture(), stream, pool


def timed(cuda: Any, recorded: tuple[Any, Any, Any]) -> float:
    """Seconds of one launch of a graph."""
    graph, stream, _ = recorded
    begin, end = cuda.Event(), cuda.Event()
    with stream:
        begin.record()
        graph.launch()
        end.record()
    end.synchronize()
    return float(cuda.get_elapsed_time(begin, end)) * 1e-3


def measure(kernels: CudaKernels, runtime: Any, cases: Sequence[Case], timer: Timer) -> list[report.Row]:
    """Rows `cuda.<case>.forward|adjoint|toeplitz`, beside the seconds predicted for an H100."""
    rows = []
    for case in cases:
        rng = np.random.default_rng(1)
        points = rng.uniform(-np.pi, np.pi, (case.points, len(case.shape))).astype(np.float32)
        plan = kernels.nufft(points, case.shape, eps=EPS)
        x = [runtime.put(noise(rng, case.coils, *case.shape)) for _ in range(BUFFERS)]
        y = [runtime.put(noise(rng, case.coils, case.points)) for _ in range(BUFFERS)]
        for name, apply, inputs in (("forward", plan.forward, x), ("adjoint", plan.adjoint, y)):
            predicted = predict(case, adjoint=name == "adjoint").expected
            samples = timer(partial(_apply, apply, inputs))
            rows.append(report.row(f"cuda.{case.name}.{name}", samples, "s", [predicted] * len(samples)))
        if len(case.shape) == 2:
            operator = CudaToeplitz(runtime, points, shape=case.shape)
            samples = timer(partial(_convolve, operator, x))
            predicted = predict_toeplitz(case)[1]
            rows.append(report.row(f"cuda.{case.name}.toeplitz", samples, "s", [predicted] * len(samples)))
    return rows


def _apply(transform: Callable[[Any], Any], inputs: Sequence[Any], turn: int) -> Any:
    return transform(inputs[turn])


def _convolve(operator: CudaToeplitz, images: Sequence[Any], turn: int) -> Any:
    """The normal operator of one coil's image, with the images of all as maps."""
    return operator(images[turn][0], maps=images[turn])


def noise(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    """Complex normal numbers."""
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def main(arguments: Sequence[str]) -> int:
    """Print the predictions, or measure and store `bench/results/<date>-<device>-<commit>-cuda.json`."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--predict", action="store_true", help="only print the table of predictions")
    if parser.parse_args(arguments).predict:
        print(table())
        return 0
    from bench.gpu import find_device, result_path

    runtime = open_runtime(0)
    rows = measure(CudaKernels(runtime), runtime, CASES, device_timer(runtime))
    for entry in rows:
        print(f"{entry.id:28} {entry.value * 1e6:10.1f} µs, predicted {(entry.baseline or 0) * 1e6:10.1f} µs")
    device = find_device() or runtime.device
    about = report.environment() | {"device": device}
    path = result_path(device, str(about["commit"]))
    report.write(rows, path.with_name(path.name.replace("-gpu.json", "-cuda.json")), about=about)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

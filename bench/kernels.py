"""`recon-cluster bench kernels`: the CPU kernels beside other packages, at matched error, in alternated runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from bench import calibration, cg_sense, nufft_sides
from bench.nufft_sides import MissingError, Problem, Side, koosh_ball, radial, spiral, stack_of_stars
from bench.report import Row, row
from kernels.contract import Complex
from kernels.cpu.tuning import convolution_ns, nufft_ns

SLACK = 1.02  # a baseline may have this much more error than ours: two runs of one setting differ in rounding
MARGIN = 0.25  # of eps that FINUFFT is asked for, see kernels.cpu.nufft


def problems() -> list[Problem]:
    """What is measured: 2-D radial and spiral, stack of stars, koosh-ball."""
    few, many = radial(64, 512), radial(256, 512)
    return [
        Problem("radial 256² × 1", few, (256, 256), 1),
        Problem("radial 256² × 8", few, (256, 256), 8),
        Problem("radial 256² × 32", few, (256, 256), 32),
        Problem("dense radial 256² × 8", many, (256, 256), 8),
        Problem("spiral 320² × 16", spiral(32, 4000, 8), (320, 320), 16),
        Problem("stack of stars 32 × 128² × 4", stack_of_stars(32, 48, 256), (32, 128, 128), 4),
        Problem("koosh-ball 64³ × 4", koosh_ball(2000, 128), (64, 64, 64), 4),
    ]


def measure(*, rounds: int = 10, threads: int = 2) -> tuple[list[Row], list[str]]:
    """All rows of `bench kernels`, and what could not be measured because it is not installed."""
    rows: list[Row] = []
    missing: set[str] = set()
    for problem in problems():
        found, absent = measure_problem(problem, rounds, threads)
        rows += found
        missing |= set(absent)
    found, absent = cg_sense.measure(rounds=rounds, threads=threads)
    rows += [*found, *calibration.measure(rounds=rounds), *crossover(rounds)]
    return rows, sorted(missing | set(absent))


def measure_problem(problem: Problem, rounds: int, threads: int) -> tuple[list[Row], list[str]]:
    """Ours beside each other side, for one trajectory."""
    rng = np.random.default_rng(0)
    x = nufft_sides.noise(rng, problem.coils, *problem.shape)
    y = nufft_sides.noise(rng, problem.coils, len(problem.points))
    truth, ours = nufft_sides.exact(problem, x), nufft_sides.ours(problem, threads)
    error = nufft_sides.distance(ours.forward(x), truth)
    best = nufft_sides.finufft_best(problem, threads, x=x, truth=truth, error=SLACK * error)
    rows = [row(f"{problem.name}: error", [error], "1"), *compared(problem, ours, best, rounds, x=x, y=y)]
    sides, missing = available(problem, threads)
    for side in sides:
        rows.append(row(f"{problem.name}: error {side.name}", [nufft_sides.distance(side.forward(x), truth)], "1"))
        rows += compared(problem, ours, side, rounds, x=x, y=y)
    return rows, missing


def available(problem: Problem, threads: int) -> tuple[list[Side], list[str]]:
    """The other packages' sides, for 2-D and the usual coils (3-D takes them minutes), and what is missing."""
    sides = [nufft_sides.finufft_plain(problem, threads)]
    missing: list[str] = []
    if problem.coils in (1, 32) or len(problem.shape) == 3:
        return sides, missing
    for name, make in nufft_sides.others(problem):
        try:
            sides.append(make())
        except MissingError:
            missing.append(f"{name} is not installed")
    return sides, missing


def compared(problem: Problem, ours: Side, other: Side, rounds: int, *, x: Complex, y: Complex) -> list[Row]:
    """Times of planning, forward, adjoint and normal, ours over theirs."""
    works: dict[str, Callable[[Side], Callable[[], object]]] = {
        "plan": lambda side: side.make,
        "forward": lambda side: lambda: side.forward(x),
        "adjoint": lambda side: lambda: side.adjoint(y),
        "normal": lambda side: lambda: side.normal(x),
    }
    rows = []
    for name, work in works.items():
        mine, theirs = nufft_sides.alternated(work(ours), work(other), rounds)
        rows.append(row(f"{problem.name}: {name} vs {other.name}", mine, "ms", theirs))
    return rows


def crossover(rounds: int) -> list[Row]:
    """One coil's normal operator as a convolution beside the pair, for more and more points, on one thread.

    `cost` rows hold what kernels/cpu/tuning.py expects of both, to be compared with the row before.
    """
    rng, rows = np.random.default_rng(0), []
    for shape, spokes in (((256, 256), (4, 16, 64)), ((48, 48, 48), (40, 200, 1000))):
        for count in spokes:
            points = radial(count, 512) if len(shape) == 2 else koosh_ball(count, 96)
            problem = Problem(f"crossover {shape} × {len(points)}", points, shape, 1)
            convolution, pair = (normal_of(problem, convolves=how) for how in (True, False))
            x = nufft_sides.noise(rng, *shape)
            ours, theirs = nufft_sides.alternated(partial(convolution, x), partial(pair, x), rounds)
            expected = [convolution_ns(shape) / 1e6], [2 * nufft_ns(len(points), shape, eps=MARGIN * 1e-4) / 1e6]
            rows += [
                row(f"{problem.name}: convolution vs pair", ours, "ms", theirs),
                row(f"{problem.name}: cost", *expected[:1], "ms", expected[1]),
            ]
    return rows


def normal_of(problem: Problem, *, convolves: bool) -> Callable[[Complex], Complex]:
    """The normal operator by the way that is asked for."""
    from kernels.cpu.nufft import CpuNufft

    plan = CpuNufft(problem.points, problem.shape, eps=problem.eps)
    plan.convolves = convolves
    return plan.normal

"""`recon-cluster bench kernels`: the CPU kernels beside other packages, at matched error, in alternated runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bench import calibration, cg_sense, nufft_sides, peak
from bench.nufft_sides import Problem, Side, koosh_ball, radial, spiral, stack_of_stars
from bench.report import Row, row
from bench.rivals import Rival, matched, open_rivals, remote_solver
from kernels.contract import Complex
from kernels.cpu.tuning import convolution_ns, nufft_ns

SLACK = 1.02  # a baseline may have this much more error than ours: two runs of one setting differ in rounding
MARGIN = 0.25  # of eps that FINUFFT is asked for, see kernels.cpu.nufft


def problems() -> list[Problem]:
    """What is measured: 2-D radial and spiral, stack of stars, koosh-ball; first those beside all other packages."""
    few, many = radial(64, 512), radial(256, 512)
    stars, ball = stack_of_stars(32, 48, 256), koosh_ball(2000, 128)
    return [
        Problem("radial 256² × 8", few, (256, 256), 8),
        Problem("spiral 320² × 16", spiral(32, 4000, 8), (320, 320), 16),
        Problem("stack of stars 32 × 128² × 1", stars, (32, 128, 128), 1),
        Problem("koosh-ball 64³ × 1", ball, (64, 64, 64), 1),
        Problem("radial 256² × 1", few, (256, 256), 1),
        Problem("radial 256² × 32", few, (256, 256), 32),
        Problem("dense radial 256² × 8", many, (256, 256), 8),
        Problem("koosh-ball 64³ × 4", ball, (64, 64, 64), 4),
        Problem("stack of stars 32 × 128² × 4", stars, (32, 128, 128), 4),
    ]


# One coil in 3-D, and not 32 in 2-D: the others take minutes for more.
RIVALED = ("radial 256² × 8", "spiral 320² × 16", "stack of stars 32 × 128² × 1", "koosh-ball 64³ × 1")
LIMIT_S = 480  # after which no other step begins: a run ends within nine minutes
QUICK = "radial 256² × 8"


@dataclass(frozen=True)
class Plan:
    """What is measured, and where: `pythons` by package, for those that live in an environment of their own."""

    rounds: int = 10
    threads: int = 2
    quick: bool = False
    pythons: Mapping[str, str] = field(default_factory=dict)


Step = Callable[[], tuple[list[Row], list[str]]]


def steps(plan: Plan, rivals: Mapping[str, Rival]) -> Iterator[tuple[str, Step]]:
    """What is measured, by name, in order: each returns its rows, and what was missing for others."""
    yield "cg-sense", partial(measure_cg_sense, plan, rivals)
    yield "espirit and grappa", lambda: (calibration.measure(rounds=plan.rounds), [])
    yield "peak memory", lambda: (peak.measure(), [])
    for problem in problems():
        if not plan.quick or problem.name == QUICK:
            yield problem.name, partial(measure_problem, problem, plan, rivals)
    if not plan.quick:
        yield "convolution or pair", lambda: (crossover(plan.rounds), [])


def measure(plan: Plan, *, begin: Callable[[str], None] = lambda _: None) -> tuple[list[Row], list[str]]:
    """All rows of `bench kernels`, and what could not be measured; `begin` is told the name of each step."""
    rows: list[Row] = []
    missing: list[str] = []
    start = time.monotonic()
    with open_rivals(plan.pythons, {**nufft_sides.MAKERS, **cg_sense.SOLVERS}, plan.threads) as rivals:
        for name, step in steps(plan, rivals):
            if time.monotonic() - start > LIMIT_S:
                missing.append(f"{name}: {LIMIT_S} s were over before it began")
                continue
            begin(name)
            found, absent = step()
            rows += found
            missing += absent
    return rows, sorted(set(missing))


def measure_problem(problem: Problem, plan: Plan, rivals: Mapping[str, Rival]) -> tuple[list[Row], list[str]]:
    """Ours beside each other side, for one trajectory."""
    rng = np.random.default_rng(0)
    x = nufft_sides.noise(rng, problem.coils, *problem.shape)
    y = nufft_sides.noise(rng, problem.coils, len(problem.points))
    truth, ours = nufft_sides.exact(problem, x), nufft_sides.ours(problem, plan.threads)
    error = SLACK * nufft_sides.distance(ours.forward(x), truth)
    best = nufft_sides.finufft_best(problem, plan.threads, x=x, truth=truth, error=error)
    sides, missing = [best, nufft_sides.finufft_plain(problem, plan.threads)], []
    rows = [row(f"{problem.name}: error", [error / SLACK], "1")]
    for name in nufft_sides.MAKERS if problem.name in RIVALED else ():
        try:
            sides.append(matched(rivals[name], problem, x=x, truth=truth, error=error))
        except RuntimeError as reason:  # not installed, or its process failed
            missing.append(f"{problem.name}: {reason}")
    for side in sides:
        found = nufft_sides.distance(side.forward(x), truth) if side.error is None else side.error
        rows.append(row(f"{problem.name}: error {side.name}", [found], "1"))
        rows += compared(problem, ours, side, plan.rounds, x=x, y=y)
    return rows, missing


def compared(problem: Problem, ours: Side, other: Side, rounds: int, *, x: Complex, y: Complex) -> list[Row]:
    """Times of planning, forward, adjoint and normal, ours over theirs.

    The pair of a side that takes longer than BUDGET_S for one of them is left out.
    """
    rows, slow = [], 0.0
    for what, values in {"make": x, "forward": x, "adjoint": y, "normal": x}.items():
        if (what == "make" and other.make is None) or (what == "normal" and slow > nufft_sides.BUDGET_S):
            continue
        first, second = (nufft_sides.clock(side, what, values) for side in (ours, other))
        mine, theirs = nufft_sides.alternated(first, second, rounds)
        slow = theirs[-1] / 1e3
        name = "plan" if what == "make" else what
        rows.append(row(f"{problem.name}: {name} vs {other.name}", mine, "ms", theirs))
    return rows


def measure_cg_sense(plan: Plan, rivals: Mapping[str, Rival]) -> tuple[list[Row], list[str]]:
    """The warm solver beside others, and as a whole process beside BART's."""
    frame, missing = cg_sense.make_frame(), []
    mine = cg_sense.solve_ours(frame, plan.threads)
    rows = [row("cg-sense.nrmse.ours", [nufft_sides.distance(mine(), frame.truth)], "1")]
    name, solve = cg_sense.plain(frame, plan.threads)
    rows += cg_sense.solver_rows(frame, mine, name, solve, partial(nufft_sides.seconds, solve), plan.rounds)
    for name in cg_sense.SOLVERS:
        try:
            solve, clock = remote_solver(rivals[name], frame)
            rows += cg_sense.solver_rows(frame, mine, name, solve, clock, plan.rounds)
        except RuntimeError as reason:
            missing.append(f"cg-sense: {reason}")
    if shutil.which("bart") is None:
        return rows, [*missing, "cg-sense as a whole process: bart is not on PATH"]
    return rows + cg_sense.process_rows(frame, plan.rounds, plan.threads), missing


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
            first, second = (partial(nufft_sides.seconds, partial(way, x)) for way in (convolution, pair))
            ours, theirs = nufft_sides.alternated(first, second, rounds)
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

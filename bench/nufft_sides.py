"""Those who compute a NUFFT, behind one face: ours, FINUFFT at its best and as called plainly, and other packages.

Nothing is installed here: `MissingError` names the package that a side needs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from kernels.contract import Complex, Real

Apply = Callable[[Complex], Complex]
Clock = Callable[[], float]  # does its work once and returns the seconds that it took
TOLERANCES = (1e-2, 3e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2.5e-5, 1e-5, 5e-6, 2e-6, 1e-6)
SIGMAS = (1.25, 1.625, 2.0)  # FINUFFT's own choice is 1.25 or 2; ours in a volume lies between
BUDGET_S, BRIEF_S = 2.0, 0.3  # of the other side's time: that a comparison may take, and that one may always take
MOST_ROUNDS = 50
LOOSEST = 10.0  # times the error: FINUFFT's own is at least a quarter of what it is asked for (measured, every grid)
SETTLE_S = 0.005  # before each run: OpenMP's threads of the one before go on spinning for a while
TRIALS = 3, 9  # of each setting, at least and at most, to find FINUFFT's fastest


class MissingError(RuntimeError):
    """A package that a side of the comparison needs is not there; the message names it."""


@dataclass(frozen=True)
class Problem:
    """One trajectory `points` [sample, axis], radians per voxel, on a grid of `shape` for `coils` coils."""

    name: str
    points: Real
    shape: tuple[int, ...]
    coils: int
    eps: float = 1e-4


@dataclass(frozen=True)
class Side:
    """One way to compute: x [coil, *shape] → y [coil, sample] and back, with its plan made; `make` makes it again.

    A side that computes elsewhere has a `clock` for "make", "forward", … of given values, timed where it computes, and
    the `error` of one coil forward that it was chosen by.
    """

    name: str
    forward: Apply
    adjoint: Apply
    normal: Apply
    make: Callable[[], object] | None  # None where every call plans again
    clock: Callable[[str, Complex], Clock] | None = None
    error: float | None = None


def clock(side: Side, what: str, values: Complex) -> Clock:
    """The clock of "make", "forward", "adjoint" or "normal" of `values`."""
    if side.clock is not None:
        return side.clock(what, values)
    return partial(seconds, side.make if side.make and what == "make" else partial(getattr(side, what), values))


def ours(problem: Problem, threads: int) -> Side:
    """This project's kernels."""
    plan = kernels.on("cpu", threads=threads).nufft(problem.points, problem.shape, eps=problem.eps)

    def make() -> object:
        return kernels.on("cpu", threads=threads).nufft(problem.points, problem.shape, eps=problem.eps)

    return Side("ours", plan.forward, plan.adjoint, plan.normal, make)


@dataclass(frozen=True)
class Setting:
    """How FINUFFT is called: accuracy, grid, one batch of all coils or coil by coil, its own threads."""

    tolerance: float
    sigma: float
    batch: bool
    threads: int


def finufft_with(problem: Problem, setting: Setting) -> Side:
    """FINUFFT's plans in single precision, made once for both directions."""
    import finufft

    coils = problem.coils if setting.batch else 1
    axes = [np.ascontiguousarray(problem.points[:, i], np.float32) for i in range(len(problem.shape))]

    def make() -> Any:
        plan = finufft.Plan(
            2,
            problem.shape,
            coils,
            setting.tolerance,
            -1,
            dtype="complex64",
            upsampfac=setting.sigma,
            nthreads=setting.threads,
            showwarn=0,  # that single precision ends the smaller grid's accuracy: what it reaches is measured
        )
        plan.setpts(*axes)
        return plan

    plan = make()

    def forward(x: Complex) -> Complex:
        return through(plan.execute, x, coils, (len(problem.points),))

    def adjoint(y: Complex) -> Complex:
        return through(plan.execute_adjoint, y, coils, problem.shape)

    name = f"finufft σ={setting.sigma:g} tol={setting.tolerance:g} {'batch' if setting.batch else 'one by one'}"
    return Side(name, forward, adjoint, lambda x: adjoint(forward(x)), make)


def through(execute: Callable[..., Any], values: Complex, coils: int, last: tuple[int, ...]) -> Complex:
    """FINUFFT over all coils of `values`, `coils` at a time."""
    out = np.empty((len(values), *last), np.complex64)
    for start in range(0, len(values), coils):
        part = slice(start, start + coils) if coils > 1 else start
        execute(values[part], out[part])
    return out


def finufft_plain(problem: Problem, threads: int) -> Side:
    """FINUFFT as its front page calls it: one function call a transform, which plans again, default grid."""
    import finufft

    axes = [np.ascontiguousarray(problem.points[:, i], np.float32) for i in range(len(problem.shape))]
    names = ("nufft1d", "nufft2d", "nufft3d")
    type_2, type_1 = (getattr(finufft, names[len(problem.shape) - 1] + kind) for kind in "21")
    options = {"eps": problem.eps, "nthreads": threads}

    def forward(x: Complex) -> Complex:
        y: Complex = type_2(*axes, x, isign=-1, **options)
        return y

    def adjoint(y: Complex) -> Complex:
        x: Complex = type_1(*axes, y, n_modes=problem.shape, isign=1, **options)
        return x

    return Side("finufft plain", forward, adjoint, lambda x: adjoint(forward(x)), None)


def finufft_best(problem: Problem, threads: int, *, x: Complex, truth: Complex, error: float) -> Side:
    """FINUFFT at its fastest setting with a measured error of at most `error`."""
    sides = []
    for sigma, count in product(SIGMAS, sorted({1, threads})):
        tolerance = loosest(problem, Setting(0.0, sigma, False, count), x=x, truth=truth, error=error)
        if tolerance is not None:
            batches = (False, True) if problem.coils > 1 else (False,)
            sides += [finufft_with(problem, Setting(tolerance, sigma, batch, count)) for batch in batches]
    return fastest(sides, x)


def loosest(problem: Problem, setting: Setting, *, x: Complex, truth: Complex, error: float) -> float | None:
    """The largest tolerance with which one coil's error is at most `error`, or None where none is.

    Found for each number of threads: FINUFFT's error in single precision depends on it (2.4e-5 on one thread, 4.1e-5 on
    two, at best, for 256² on the smaller grid; measured), and does not on batches.
    """
    for tolerance in (t for t in TOLERANCES if t <= LOOSEST * error):
        side = finufft_with(problem, replace(setting, tolerance=tolerance))
        if distance(side.forward(x[:1]), truth[:1]) <= error:
            return tolerance
    return None


def fastest(sides: Sequence[Side], x: Complex) -> Side:
    """The side with the least median time of some pairs in turn, after two of each that do not count.

    Those whose best of two took half as long again as the least are not tried further.
    """
    works = [partial(seconds, partial(side.normal, x)) for side in sides]
    first = [min(work(), work()) for work in works]
    near = [number for number, taken in enumerate(first) if taken <= 1.5 * min(first)]
    rounds = min(max(TRIALS[0], int(BUDGET_S / sum(first[number] for number in near))), TRIALS[1])
    times = [[works[number]() for number in near] for _ in range(rounds)]
    medians = [statistics.median(taken) for taken in zip(*times, strict=True)]
    return sides[near[medians.index(min(medians))]]


def seconds(work: Callable[[], object]) -> float:
    """The time of one call, s."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternated(first: Clock, second: Clock, rounds: int) -> tuple[list[float], ...]:
    """Milliseconds of each of two, in turn, after a run that does not count.

    There are fewer rounds, down to three, where they would take more than BUDGET_S, one without a run before where a
    single one does, and more where they take less than BRIEF_S.
    """
    first()
    slow = max(second(), 1e-6)
    if slow > BUDGET_S:
        return [1e3 * first()], [1e3 * slow]
    samples: tuple[list[float], ...] = [], []
    for _ in range(min(max(rounds, int(BRIEF_S / slow)), max(3, int(BUDGET_S / slow)), MOST_ROUNDS)):
        for work, times in zip((first, second), samples, strict=True):
            time.sleep(SETTLE_S)
            times.append(1e3 * work())
    return samples


def needed(package: str) -> Any:
    """`package`, imported; raises MissingError where it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingError(f"{package} is not installed") from error


def sigpy(problem: Problem, width: float) -> Side:
    """SigPy on a doubled grid (coordinates in cycles per field of view)."""
    package = needed("sigpy")
    coordinates = problem.points * (np.array(problem.shape) / (2 * np.pi)).astype(np.float32)
    options = {"oversamp": 2.0, "width": width}

    def forward(x: Complex) -> Complex:
        y: Complex = package.nufft(x, coordinates, **options)
        return y

    def adjoint(y: Complex) -> Complex:
        x: Complex = package.nufft_adjoint(y, coordinates, (len(y), *problem.shape), **options)
        return x

    return Side(f"sigpy width {width:g}", forward, adjoint, lambda x: adjoint(forward(x)), None)


def torchkbnufft(problem: Problem, width: float) -> Side:
    """torchkbnufft on the CPU, which brings torch with it; with its usual table of 2¹⁰ its error ends at 7e-4."""
    package = needed("torchkbnufft")
    torch = sys.modules["torch"]
    places = torch.from_numpy(np.ascontiguousarray(problem.points.T))

    def make() -> tuple[Any, Any]:
        options = {"im_size": problem.shape, "numpoints": int(width), "table_oversamp": 1 << 16}
        return package.KbNufft(**options), package.KbNufftAdjoint(**options)

    there, back = make()

    def forward(x: Complex) -> Complex:
        y: Complex = there(torch.from_numpy(x[np.newaxis]), places)[0].numpy()
        return y

    def adjoint(y: Complex) -> Complex:
        x: Complex = back(torch.from_numpy(y[np.newaxis]), places)[0].numpy()
        return x

    return Side(f"torchkbnufft width {width:g}", forward, adjoint, lambda x: adjoint(forward(x)), make)


def mri_nufft(problem: Problem, eps: float) -> Side:
    """mri-nufft over FINUFFT (coordinates within ±π)."""
    package = needed("mrinufft")

    def make_for(coils: int) -> Any:
        return package.get_operator("finufft")(problem.points, problem.shape, n_coils=coils, density=False, eps=eps)

    def make() -> Any:
        return make_for(problem.coils)

    plan = make()

    def forward(x: Complex) -> Complex:
        operator = plan if len(x) == problem.coils else make_for(len(x))
        y: Complex = operator.op(x)
        return y.reshape(len(x), -1)

    return Side(f"mri-nufft eps {eps:g}", forward, plan.adj_op, lambda x: plan.adj_op(plan.op(x)), make)


MAKERS: dict[str, Callable[[Problem, float], Side]] = {
    "sigpy": sigpy,
    "torchkbnufft": torchkbnufft,
    "mri-nufft": mri_nufft,
}
SETTINGS: dict[str, tuple[float, ...]] = {  # from fast to accurate: widths of a kernel on a doubled grid, or eps
    "sigpy": (5, 6, 7),
    "torchkbnufft": (5, 6, 7),
    "mri-nufft": (1e-4, 5e-5, 2e-5, 1e-5, 5e-6),
}


def exact(problem: Problem, x: Complex) -> Complex:
    """y in double precision at 1e-12, which tests hold to the direct sum."""
    import finufft

    places = problem.points.astype(np.float64)
    plan = finufft.Plan(2, problem.shape, 1, 1e-12, -1, dtype="complex128")
    plan.setpts(*(np.ascontiguousarray(places[:, i]) for i in range(len(problem.shape))))
    return np.stack([plan.execute(image.astype(np.complex128)) for image in x])


def distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Relative L2 error up to a common factor: packages scale their transforms as they like."""
    factor = np.vdot(found, expected) / np.vdot(found, found)
    return float(np.linalg.norm(factor * found - expected) / np.linalg.norm(expected))


def radial(spokes: int, samples: int) -> Real:
    """Golden-angle spokes through the centre [sample, 2]."""
    angle = np.arange(spokes) * np.pi * (np.sqrt(5) - 1) / 2
    radius = 2 * np.pi * (np.arange(samples) - samples // 2) / samples
    return flat([np.outer(np.sin(angle), radius), np.outer(np.cos(angle), radius)])


def spiral(shots: int, samples: int, turns: int) -> Real:
    """Archimedean arms [sample, 2]."""
    time_along = np.sqrt(np.linspace(0, 1, samples))
    angle = 2 * np.pi * (turns * time_along + np.arange(shots)[:, np.newaxis] / shots)
    return flat([np.pi * time_along * np.sin(angle), np.pi * time_along * np.cos(angle)])


def stack_of_stars(partitions: int, spokes: int, samples: int) -> Real:
    """Spokes in Cartesian partitions [sample, 3]."""
    plane = radial(spokes, samples)
    height = 2 * np.pi * (np.arange(partitions) - partitions // 2) / partitions
    return flat([np.repeat(height, len(plane)), np.tile(plane[:, 0], partitions), np.tile(plane[:, 1], partitions)])


def koosh_ball(spokes: int, samples: int) -> Real:
    """Spokes through the centre in all directions, along a spherical spiral [sample, 3]."""
    height = (2 * np.arange(spokes) + 1) / spokes - 1
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(spokes)
    flank = np.sqrt(1 - height**2)
    radius = 2 * np.pi * (np.arange(samples) - samples // 2) / samples
    return flat([np.outer(way, radius) for way in (height, flank * np.sin(turn), flank * np.cos(turn))])


def flat(axes: Sequence[NDArray[np.float64]]) -> Real:
    """[sample, axis] in float32 from one array per axis."""
    return np.stack([axis.ravel() for axis in axes], axis=-1).astype(np.float32)


def noise(rng: np.random.Generator, *shape: int) -> Complex:
    """Complex normal numbers."""
    values = rng.standard_normal(2 * prod(shape), np.float32)
    return values.view(np.complex64).reshape(shape)

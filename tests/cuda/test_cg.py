"""The recorded conjugate gradients: the same iterates as the plain solver, on the shim and, marked gpu, as a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kernels.contract import Complex, Equations
from kernels.cuda import cg, graph
from kernels.cuda._load import Runtime, open_runtime
from recon import solve
from tests import tolerances
from tests.cases import noise, open_device
from tests.cuda.shim import ShimRuntime, find_compiler
from tests.laws import assert_near, assert_repeatable

SHAPE = (6, 7)
SIZE = 42
# Powers and curvatures are exact to 1e-7; a step repeats what float32 rounds off x and the residual. In `iterations`
# steps on a matrix of condition κ two such solvers differ by at most about κ · iterations roundings.
CONDITION = 40.0


@dataclass(frozen=True)
class Bench:
    """A runtime, and how arrays get there."""

    runtime: Runtime
    put: Callable[[Any], Any]


@pytest.fixture(params=["cuda-shim", pytest.param("cuda", marks=pytest.mark.gpu)])
def bench(request: pytest.FixtureRequest) -> Bench:
    """On the shim, where there are no graphs, work that is recorded runs each time it is started."""
    if request.param == "cuda":
        open_device("cuda")  # skips with the reason
        runtime = open_runtime(0)
        return Bench(runtime, runtime.put)
    if find_compiler() is None:
        pytest.skip("g++ is not installed: the CUDA kernels are not executed on the CPU")
    return Bench(ShimRuntime(cg.NAMES, seed=1), np.asarray)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def matrix(rng: np.random.Generator) -> Complex:
    """Hermitian, positive definite, eigenvalues from 1 to CONDITION."""
    basis = np.linalg.qr(noise(rng, SIZE, SIZE).astype(np.complex128))[0]
    made: Complex = ((basis * np.linspace(1, CONDITION, SIZE)) @ basis.conj().T).astype(np.complex64)
    return made


def normal_of(matrix: Any) -> Callable[[Any], Any]:
    """The product by sums: CuPy refuses to record cuBLAS."""
    return lambda x: (matrix * x.reshape(-1)).sum(axis=1).reshape(x.shape)


def alone(normal: Callable[[Any], Any]) -> Equations:
    """Equations without operands."""
    return Equations(normal, (), None)


def solver(bench: Bench, matrix: Complex, *, iterations: int, tolerance: float = 0.0) -> Callable[[Complex], Complex]:
    made = cg.CudaCg(
        bench.runtime, alone(normal_of(bench.put(matrix))), shape=SHAPE, iterations=iterations, tolerance=tolerance
    )
    return lambda rhs: bench.runtime.get(made.solve(bench.put(rhs)))


def error(iterations: int) -> float:
    return CONDITION * iterations * tolerances.sum_of(SIZE)


@pytest.mark.parametrize("iterations", [1, 2, 5, 12])
def test_iterates_are_those_of_the_plain_solver(
    bench: Bench, rng: np.random.Generator, matrix: Complex, iterations: int
) -> None:
    solve_recorded = solver(bench, matrix, iterations=iterations)
    for rhs in (noise(rng, *SHAPE), noise(rng, *SHAPE)):  # one recording serves both
        expected = solve.cg(normal_of(matrix.astype(np.complex128)), rhs.astype(np.complex128), iterations=iterations)
        assert_near(solve_recorded(rhs), expected, error(iterations))
    assert_repeatable(solve_recorded, noise(rng, *SHAPE))


def test_solves_the_equations(bench: Bench, rng: np.random.Generator, matrix: Complex) -> None:
    """After n steps the energy norm of the error is at most 2 ((√κ − 1)/(√κ + 1))ⁿ of the solution's."""
    rhs, iterations = noise(rng, *SHAPE), 40
    exact = np.linalg.solve(matrix.astype(np.complex128), rhs.reshape(-1)).reshape(SHAPE)
    ratio = (np.sqrt(CONDITION) - 1) / (np.sqrt(CONDITION) + 1)
    bound = 2 * ratio**iterations * np.sqrt(CONDITION)  # from the energy norm to the plain one
    assert_near(solver(bench, matrix, iterations=iterations)(rhs), exact, bound + error(iterations))


def test_stops_moving_where_the_plain_solver_stops(bench: Bench, rng: np.random.Generator, matrix: Complex) -> None:
    rhs, history = noise(rng, *SHAPE), [1.0]
    expected = solve.cg(
        normal_of(matrix), rhs, iterations=30, tolerance=0.05, observe=lambda _i, _x, left: history.append(left)
    )
    made = cg.CudaCg(bench.runtime, alone(normal_of(bench.put(matrix))), shape=SHAPE, iterations=30, tolerance=0.05)
    found = bench.runtime.get(made.solve(bench.put(rhs)))
    assert 2 < len(history) < 31
    assert_near(found, expected, error(len(history)))
    assert_near(made.residuals(), np.array(history), error(len(history)))


def test_nothing_to_solve_is_zero(bench: Bench, matrix: Complex) -> None:
    made = cg.CudaCg(
        bench.runtime, alone(normal_of(bench.put(matrix))), shape=SHAPE, iterations=3
    )  # fmt: skip
    assert not bench.runtime.get(made.solve(bench.put(np.zeros(SHAPE, np.complex64)))).any()
    assert made.residuals().tolist() == [0.0]


def test_stays_where_the_curvature_is_not_positive(bench: Bench, rng: np.random.Generator) -> None:
    """A right-hand side in the null space has nothing to gain."""
    found = solver(bench, np.zeros((SIZE, SIZE), np.complex64), iterations=4)(noise(rng, *SHAPE))
    assert not found.any()


def test_hides_no_nan(bench: Bench, rng: np.random.Generator, matrix: Complex) -> None:
    rhs = noise(rng, *SHAPE)
    rhs[0, 0] = np.nan
    assert np.isnan(solver(bench, matrix, iterations=2)(rhs)).any()


def test_more_values_than_the_grid_has_threads(bench: Bench, rng: np.random.Generator) -> None:
    count = cg.MOST_BLOCKS * cg.THREADS + 77
    weights = bench.put(rng.uniform(1, 2, count).astype(np.float32))
    made = cg.CudaCg(bench.runtime, alone(lambda x: x * weights), shape=(count,), iterations=2)
    rhs = noise(rng, count)
    expected = solve.cg(lambda x: x * bench.runtime.get(weights), rhs.astype(np.complex128), iterations=2)
    assert_near(bench.runtime.get(made.solve(bench.put(rhs))), expected, 2 * 2 * tolerances.sum_of(8))


def test_refuses_what_it_was_not_recorded_for(bench: Bench, rng: np.random.Generator, matrix: Complex) -> None:
    made = cg.CudaCg(bench.runtime, alone(normal_of(bench.put(matrix))), shape=SHAPE, iterations=1)
    with pytest.raises(ValueError, match=r"rhs has shape \(6,\), expected \(6, 7\): reshape it"):
        made.solve(bench.put(noise(rng, 6)))
    with pytest.raises(TypeError, match="rhs has dtype complex128, expected complex64: convert it first"):
        made.solve(bench.put(noise(rng, *SHAPE).astype(np.complex128)))
    with pytest.raises(ValueError, match="iterations is 0, expected at least 1: ask for one or more"):
        cg.CudaCg(bench.runtime, alone(normal_of(matrix)), shape=SHAPE, iterations=0)


class FakeCuda:
    """CuPy's calls that recording uses, written down in order: no machine of the project has a GPU to record on."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.cuda = self

    def note(self, name: str) -> None:
        self.calls.append(name)

    def get_current_stream(self) -> FakeCuda:
        return self

    def synchronize(self) -> None:
        self.note("synchronize")

    @contextmanager
    def Device(self, number: int) -> Iterator[None]:
        self.note(f"device {number}")
        yield

    @contextmanager
    def using_allocator(self, malloc: str) -> Iterator[None]:
        self.note(f"take memory from {malloc}")
        yield
        self.note("take memory as before")

    def Event(self) -> Any:
        return SimpleNamespace(record=lambda: self.note("event"), synchronize=lambda: self.note("wait"))

    def get_elapsed_time(self, begin: Any, end: Any) -> float:
        assert begin is not end
        return 1.5  # ms

    def MemoryPool(self) -> Any:
        return SimpleNamespace(malloc="the graph's pool")

    def Stream(self, *, non_blocking: bool) -> Any:
        assert non_blocking  # the default stream would wait for one that blocks, which ends a recording
        fake = self

        class Stream:
            synchronize = fake.synchronize

            def __enter__(self) -> None:
                fake.note("enter stream")

            def __exit__(self, *_: object) -> None:
                fake.note("leave stream")

            def begin_capture(self) -> None:
                fake.note("begin")

            def end_capture(self) -> Any:
                fake.note("end")
                return SimpleNamespace(launch=lambda: fake.note("launch"))

        return Stream()


def test_work_is_rehearsed_then_recorded_once_in_memory_of_its_own() -> None:
    fake = FakeCuda()
    start = graph.record_graph(SimpleNamespace(xp=fake, number=3), lambda: fake.note("work"))
    assert fake.calls == [
        *("device 3", "synchronize", "take memory from the graph's pool", "enter stream"),
        *("work", "work", "synchronize", "begin", "work", "end"),
        *("leave stream", "take memory as before"),
    ]
    fake.calls.clear()
    start()
    start()
    assert fake.calls == ["launch", "launch"]


def test_seconds_are_the_mean_of_runs_after_one_that_compiles() -> None:
    fake = FakeCuda()
    seconds = graph.seconds_of(SimpleNamespace(xp=fake, number=3), lambda: fake.note("work"))
    assert fake.calls == ["device 3", "work", "event", *["work"] * graph.TIMED, "event", "wait"]
    assert seconds == pytest.approx(1.5e-3 / graph.TIMED)


def test_large_operands_are_neither_recorded_nor_copied(
    bench: Bench, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cg, "RECORDED_BYTES", 4 * SIZE - 1)
    monkeypatch.setattr(type(bench.runtime), "record", None)
    solvers = cg.Solvers(bench.runtime)
    for _ in range(2):
        weights, rhs = rng.uniform(1, 3, SHAPE).astype(np.float32), noise(rng, *SHAPE)
        seen: list[Any] = []
        equations = Equations(lambda x, w, seen=seen: (seen.append(w), x * w)[1], (bench.put(weights),), "large")
        found = solvers.solve(equations, bench.put(rhs), iterations=3, tolerance=0.0)
        exact = solve.cg(lambda x, w=weights: x * w, rhs.astype(np.complex128), iterations=3)
        assert_near(bench.runtime.get(found), exact, error(3))
        assert all(w is equations.operands[0] for w in seen)

"""The sides that `bench kernels` compares: they compute the same thing, and a missing one is named."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import cg_sense, kernels, nufft_sides, peak
from bench.nufft_sides import MissingError, Problem, koosh_ball, radial, spiral, stack_of_stars
from bench.rivals import Desk, Rival, matched, open_rivals, serve
from cluster.__main__ import main
from tests import tolerances
from tests.cases import noise

SMALL = Problem("small", radial(20, 40), (24, 20), 2, 1e-3)


@pytest.mark.parametrize(
    ("points", "shape"),
    [
        (radial(20, 40), (24, 20)),
        (spiral(4, 200, 3), (20, 20)),
        (stack_of_stars(6, 10, 20), (6, 10, 10)),
        (koosh_ball(40, 24), (12, 10, 14)),
    ],
)
def test_every_way_to_call_finufft_computes_what_ours_does(points: np.ndarray, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    problem = Problem("small", points, shape, 2, 1e-3)
    x, y = noise(rng, 2, *shape), noise(rng, 2, len(points))
    truth, ours = nufft_sides.exact(problem, x), nufft_sides.ours(problem, 1)
    error = nufft_sides.distance(ours.forward(x), truth)
    best = nufft_sides.finufft_best(problem, 1, x=x, truth=truth, error=1.02 * error)
    for side in (ours, best, nufft_sides.finufft_plain(problem, 1)):
        assert nufft_sides.distance(side.forward(x), truth) <= 2e-3
        assert nufft_sides.distance(side.adjoint(y), ours.adjoint(y)) <= 2e-3
        assert nufft_sides.distance(side.normal(x), ours.normal(x)) <= 4e-3
    # One coil holds it to the error; both together, as a batch, round otherwise.
    held = 1.02 * error + tolerances.fft(4 * np.prod(shape))
    assert nufft_sides.distance(best.forward(x)[:1], truth[:1]) <= held


def test_finufft_is_held_to_the_error_on_any_number_of_threads() -> None:
    problem = Problem("radial", radial(64, 512), (256, 256), 2)
    x = noise(np.random.default_rng(3), 2, 256, 256)
    truth, error = nufft_sides.exact(problem, x), 3e-5
    found = 0
    for sigma, threads in ((1.25, 1), (1.25, 2), (2.0, 1), (2.0, 2)):
        one_by_one = nufft_sides.Setting(0.0, sigma, False, threads)
        tolerance = nufft_sides.loosest(problem, one_by_one, x=x, truth=truth, error=error)
        for batch in (False, True) if tolerance is not None else ():
            found += 1
            side = nufft_sides.finufft_with(problem, nufft_sides.Setting(tolerance, sigma, batch, threads))
            # Both coils are of the same noise, so that one's error is the other's to a few percent.
            assert nufft_sides.distance(side.forward(x), truth) <= 1.1 * error
    assert found >= 4
    best = nufft_sides.finufft_best(problem, 2, x=x, truth=truth, error=error)
    assert nufft_sides.distance(best.forward(x), truth) <= 1.1 * error
    unreachable = nufft_sides.Setting(0.0, 2.0, False, 1)
    assert nufft_sides.loosest(problem, unreachable, x=x, truth=truth, error=1e-9) is None


def test_the_fastest_of_several_is_so_in_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    steady, lucky, late = [1.0] * 2 + [1.0, 1.0, 1.0], [1.1] * 2 + [0.5, 1.2, 1.3], [1.4] * 2 + [0.9, 5.0, 0.9]
    taken = {"steady": steady, "lucky": lucky, "late": late, "slow": [1.6] * 2}
    works = {name: lambda x, name=name: x for name in taken}
    sides = [nufft_sides.Side(name, np.copy, np.copy, work, None) for name, work in works.items()]
    whose = {works[name]: iter(times) for name, times in taken.items()}
    monkeypatch.setattr(nufft_sides, "seconds", lambda work: next(whose[work.func]))
    assert nufft_sides.fastest(sides, np.zeros(1, np.complex64)).name == "late"
    assert not any(list(left) for left in whose.values())  # two of each, and three of all but the slow one


def test_a_package_that_is_not_there_is_missing_and_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "RIVALED", ("small",))
    monkeypatch.setattr(nufft_sides, "BRIEF_S", 0.0)
    with open_rivals({}, ["sigpy"], 1) as rivals:
        monkeypatch.setattr(nufft_sides, "MAKERS", {"sigpy": None})
        rows, missing = kernels.measure_problem(SMALL, kernels.Plan(3, 1), rivals)
    if find_spec("sigpy") is None:
        assert missing == ["small: sigpy is not installed"]
    plain = [row for row in rows if row.id.endswith("vs finufft plain")]
    assert [row.id.split()[1] for row in plain] == ["forward", "adjoint", "normal"]  # it plans with every call
    assert sum(": plan vs finufft σ" in row.id for row in rows) == 1
    assert all(row.unit == "ms" and row.ratio is not None and len(row.samples) == 3 for row in plain)


def answers(*requests: tuple[Any, ...]) -> list[Any]:
    """What a rival's process answers, one by one."""
    asked, told = io.BytesIO(b"".join(pickle.dumps(request) for request in requests)), io.BytesIO()
    serve(asked, told)
    told.seek(0)
    return [pickle.load(told) for _ in requests]


def test_a_process_computes_and_times_what_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nufft_sides.MAKERS, "plain", lambda problem, setting: nufft_sides.finufft_plain(problem, 1))
    monkeypatch.setitem(cg_sense.SOLVERS, "zero", lambda frame: lambda: 0 * frame.truth)
    x = noise(np.random.default_rng(5), 2, 24, 20)
    frame = cg_sense.make_frame(size=16, spokes=8, samples=32)
    found = answers(
        ("nufft", SMALL, "plain", 5.0),
        ("name",),
        ("run", "forward", x),
        ("hold", x),
        ("time", "forward"),
        ("cg-sense", frame, "zero"),
        ("solve",),
        ("time", "solve"),
        ("nufft", SMALL, "nobody", 5.0),
    )
    assert found[1] == ("finufft plain", False)
    assert np.array_equal(found[2], nufft_sides.finufft_plain(SMALL, 1).forward(x))
    assert all(0 <= found[i] < 10 for i in (4, 7))
    assert found[6].shape == (16, 16)
    assert isinstance(found[8], RuntimeError)
    assert str(found[8]) == "nufft failed: 'nobody'"


def test_a_process_that_ends_is_told() -> None:
    with open_rivals({"mrpro": sys.executable}, ["mrpro"], 1) as rivals:
        rivals["mrpro"].process.kill()
        rivals["mrpro"].process.wait()
        with pytest.raises(RuntimeError, match="the process of mrpro ended when asked for name"):
            rivals["mrpro"].ask("name")


def test_the_cheapest_setting_that_is_accurate_enough_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nufft_sides.SETTINGS, "ladder", (1e-2, 1e-4, 1e-6))
    tried: list[float] = []

    def make(problem: Problem, tolerance: float) -> nufft_sides.Side:
        tried.append(tolerance)
        return nufft_sides.finufft_with(problem, nufft_sides.Setting(tolerance, 2.0, False, 1))

    monkeypatch.setitem(nufft_sides.MAKERS, "ladder", make)
    x = noise(np.random.default_rng(5), 2, 24, 20)
    truth = nufft_sides.exact(SMALL, x)
    for error, last in ((1e-3, 1e-4), (1e-9, 1e-6)):
        side = matched(LocalRival("ladder"), SMALL, x=x, truth=truth, error=error)
        assert side.name.startswith(f"finufft σ=2 tol={last:g}")
        assert side.error == nufft_sides.distance(side.forward(x[:1]), truth[:1])
    assert tried == [1e-2, 1e-4, 1e-2, 1e-4, 1e-6, 1e-6]


class LocalRival(Rival):
    """The desk of a rival's process, in this one."""

    def __init__(self, name: str) -> None:
        super().__init__(name, process=None)  # type: ignore[arg-type]
        object.__setattr__(self, "desk", Desk())

    def ask(self, *request: Any) -> Any:
        """What the desk answers."""
        return self.desk.answer(*request)  # type: ignore[attr-defined]


def test_a_quick_run_measures_one_trajectory() -> None:
    quick, whole = ([name for name, _ in kernels.steps(kernels.Plan(quick=how), {})] for how in (True, False))
    assert quick == ["cg-sense", "espirit and grappa", "peak memory", "radial 256² × 8"]
    assert set(quick) < set(whole)
    assert set(kernels.RIVALED) < set(whole)


def test_a_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LIMIT_S", -1)
    rows, missing = kernels.measure(kernels.Plan(quick=True))
    assert rows == []
    assert "cg-sense: -1 s were over before it began" in missing
    assert len(missing) == 4


def test_slow_comparisons_have_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nufft_sides, "BUDGET_S", 1.0)
    monkeypatch.setattr(nufft_sides, "SETTLE_S", 0.0)
    for slow, rounds in ((0.001, 50), (0.01, 30), (0.05, 10), (0.6, 3), (5.0, 1)):
        first, second = nufft_sides.alternated(lambda: 0.1, lambda slow=slow: slow, 10)
        assert (first, second) == ([100.0] * rounds, [1e3 * slow] * rounds)


@pytest.mark.parametrize("wrong", ["sigpy", "sigpy=/no/such/python", "numpy=python3"])
def test_environments_are_named_by_package_and_python(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "kernels", "--env", wrong])
    assert ended.value.code == 2
    assert "expected one of sigpy, torchkbnufft, mri-nufft, mrpro, '=' and a Python" in capsys.readouterr().err


def test_peak_memory_counts_what_a_library_takes() -> None:
    held: list[np.ndarray] = []
    found = peak.peak_of(peak.Work(lambda: held.append(np.ones(30_000_000, np.uint8)), 0))
    batch = 32 * 4096 * (os.cpu_count() or 1)  # Linux counts pages for each CPU, and adds them up 32 or more at a time
    assert 30e6 - 2 * batch <= found <= 32e6 + 2 * batch  # pages of the interpreter come with them


def test_every_work_says_the_least_that_it_needs() -> None:
    for small, _ in peak.WORKS.values():
        work = small()
        work.run()
        assert work.least_bytes > 0


@pytest.mark.long
@pytest.mark.skipif(not peak.FORGET.exists(), reason="only Linux counts the peak of a process's pages")
def test_peak_memory_is_at_most_half_above_the_minimum() -> None:
    ratios = {row.id: row.ratio for row in peak.measure()}
    assert len(ratios) == len(peak.WORKS)
    assert all(ratio is not None and ratio <= 1.5 for ratio in ratios.values()), ratios


def test_a_missing_package_is_named() -> None:
    with pytest.raises(MissingError, match="no_such_package is not installed"):
        nufft_sides.needed("no_such_package")


def test_solvers_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": 32, "SPOKES": 16, "SAMPLES": 64}.items():
        monkeypatch.setattr(cg_sense, name, value)
    frame = cg_sense.make_frame(size=32, spokes=16, samples=64)
    ours = cg_sense.solve_ours(frame, 1)()
    side = nufft_sides.finufft_plain(frame.problem, 1)
    assert nufft_sides.distance(cg_sense.solve_with(frame, side)(), ours) <= 1e-2
    assert nufft_sides.distance(ours, frame.truth) <= 0.5


def test_bart_solves_the_same_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("bart") is None:
        pytest.skip("bart is not installed: apt-get install bart")
    for name, value in {"SIZE": 32, "SPOKES": 16, "SAMPLES": 64}.items():
        monkeypatch.setattr(cg_sense, name, value)
    rows = cg_sense.process_rows(cg_sense.make_frame(size=32, spokes=16, samples=64), rounds=1, threads=1)
    wall, peak, error = rows
    assert (wall.unit, peak.unit) == ("s", "MB")
    assert peak.value < 400
    # Both stop after ten iterations of the same normal equations; BART scales k-space, which shifts its regularisation.
    assert error.ratio == pytest.approx(1, rel=0.05)


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"bench.cg_sense_process .* ended with 1: (.|\n)*points.npy"):
        cg_sense.finish([sys.executable, "-m", "bench.cg_sense_process", str(tmp_path), "1", "10"], {})

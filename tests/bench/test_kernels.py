"""The sides that `bench kernels` compares: they compute the same thing, and a missing one is named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import cg_sense, kernels, nufft_sides
from bench.nufft_sides import MissingError, Problem, koosh_ball, radial, spiral, stack_of_stars
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
    assert nufft_sides.distance(best.forward(x), truth) <= 1.02 * error


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


def test_rows_of_one_trajectory_name_both_sides_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("sigpy", "torchkbnufft", "mrinufft"):
        monkeypatch.setitem(sys.modules, package, None)
    rows, missing = kernels.measure_problem(SMALL, rounds=3, threads=1)
    assert missing == ["sigpy is not installed", "torchkbnufft is not installed", "mri-nufft is not installed"]
    plain = [row for row in rows if row.id.endswith("vs finufft plain")]
    assert [row.id.split()[1] for row in plain] == ["plan", "forward", "adjoint", "normal"]
    assert all(row.unit == "ms" and row.ratio is not None and len(row.samples) == 3 for row in plain)


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

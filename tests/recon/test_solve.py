"""Conjugate gradients are exact in as many steps as there are unknowns, FISTA finds what a prior allows; both stop."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from kernels.contract import Complex
from recon.solve import BOUND, Composite, Prox, cg, fista, largest_eigenvalue
from tests import tolerances
from tests.laws import assert_near
from tests.recon.builders import noise

RNG = np.random.default_rng(4)
CPU = kernels.on("cpu")


def positive(size: int, *, condition: float) -> Complex:
    """A Hermitian matrix with eigenvalues from 1 to `condition`."""
    basis = np.linalg.qr(noise(RNG, (size, size)))[0]
    return ((basis * np.geomspace(1, condition, size)) @ basis.conj().T).astype(np.complex64)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_solves_in_as_many_steps_as_unknowns(size: int) -> None:
    matrix, truth = positive(size, condition=10), noise(RNG, (size,))
    found = cg(lambda x: matrix @ x, matrix @ truth, iterations=size)
    assert found.dtype == np.complex64
    # Rounding is amplified by the condition number, in each of the steps.
    assert_near(found, truth, 10 * size * tolerances.sum_of(size + 3))


def test_stops_at_the_tolerance_and_says_how_far_it_came() -> None:
    matrix = positive(40, condition=100)
    rhs = noise(RNG, (40,))
    seen: list[tuple[int, float]] = []
    found = cg(
        lambda x: matrix @ x,
        rhs,
        iterations=100,
        tolerance=1e-3,
        observe=lambda iteration, _, residual: seen.append((iteration, residual)),
    )
    assert [iteration for iteration, _ in seen] == list(range(1, len(seen) + 1))
    assert len(seen) < 100
    assert seen[-1][1] <= 1e-3 < min(residual for _, residual in seen[:-1])
    assert np.linalg.norm(rhs - matrix @ found) <= 1.01 * 1e-3 * np.linalg.norm(rhs)


def test_the_observer_sees_each_iterate() -> None:
    matrix, rhs = positive(6, condition=5), noise(RNG, (6,))
    seen: list[Complex] = []
    found = cg(lambda x: matrix @ x, rhs, iterations=4, observe=lambda _, x, __: seen.append(x))
    assert len(seen) == 4
    assert np.array_equal(seen[-1], found)
    assert not np.array_equal(seen[0], seen[1])


def test_shapes_and_inputs_are_kept() -> None:
    rhs = noise(RNG, (2, 3, 4))
    before = rhs.copy()
    assert_near(cg(lambda x: x * np.float32(4), rhs, iterations=3), rhs / 4, tolerances.sum_of(3))
    assert np.array_equal(rhs, before)


def test_nothing_to_solve_gives_zero() -> None:
    found = cg(lambda x: 2 * x, np.zeros((3, 3), np.complex64), iterations=5)
    assert np.array_equal(found, np.zeros((3, 3)))
    assert np.array_equal(cg(lambda x: 0 * x, noise(RNG, (4,)), iterations=5), np.zeros(4))


def test_no_iterations_give_zero() -> None:
    assert np.array_equal(cg(lambda x: x, noise(RNG, (4,)), iterations=0), np.zeros(4))


# --- FISTA ------------------------------------------------------------------------------------------------------------


def sparse(strength: float) -> Prox:
    """The prior strength · ‖x‖₁."""
    return lambda x, step, _: CPU.shrink(x, step * strength)


def without(x: Complex, _: float, __: int) -> Complex:
    """No prior at all."""
    return x


def test_fista_without_a_prior_solves_the_normal_equations() -> None:
    matrix, truth = positive(12, condition=10), noise(RNG, (12,))
    problem = Composite(lambda x: matrix @ x, matrix @ truth, without)
    # Proximal gradients shrink every part of the error by 1 − 1/condition a step at least: 0.9^200 = 1e-9.
    found = fista(problem, step=1 / 10, iterations=200)
    assert found.dtype == np.complex64
    assert_near(found, truth, 10 * 12 * tolerances.sum_of(12 + 3))


def test_fista_with_the_identity_is_soft_thresholding_in_one_step() -> None:
    rhs = noise(RNG, (50,))
    found = fista(Composite(lambda x: x, rhs, sparse(0.7)), step=1.0, iterations=1)
    assert_near(found, CPU.shrink(rhs, 0.7), tolerances.sum_of(3))


def test_fista_meets_the_conditions_of_the_least_absolute_shrinkage() -> None:
    """At the minimum |Aᴴ(Ax − y)| ≤ λ, with equality and the opposite phase wherever x is not zero."""
    matrix, strength = positive(30, condition=8), 0.5
    rhs = noise(RNG, (30,))
    found = fista(Composite(lambda x: matrix @ x, rhs, sparse(strength)), step=1 / 8, iterations=400, tolerance=1e-7)
    slope = matrix @ found - rhs
    error = 8 * 30 * tolerances.sum_of(33) * float(np.linalg.norm(rhs))
    assert (np.abs(slope) <= strength + error).all()
    some = np.abs(found) > 0.01
    assert 0 < some.sum() < 30
    assert_near(slope[some], -strength * found[some] / np.abs(found[some]), 100 * error)


def test_fista_stops_where_little_changes_and_says_how_much() -> None:
    matrix, rhs = positive(20, condition=20), noise(RNG, (20,))
    seen: list[tuple[int, Complex, float]] = []
    problem = Composite(lambda x: matrix @ x, rhs, sparse(0.1))
    found = fista(problem, step=1 / 20, iterations=500, tolerance=1e-3, observe=lambda *given: seen.append(given))
    assert [iteration for iteration, *_ in seen] == list(range(1, len(seen) + 1))
    assert len(seen) < 500
    assert seen[-1][2] <= 1e-3 < min(change for *_, change in seen[:-1])
    assert np.array_equal(seen[-1][1], found)
    before, last = seen[-2][1], seen[-1][1]
    assert seen[-1][2] == pytest.approx(np.linalg.norm(last - before) / np.linalg.norm(last), rel=1e-4)


def test_fista_from_the_solution_stays_there() -> None:
    matrix, rhs = positive(10, condition=3), noise(RNG, (10,))
    problem = Composite(lambda x: matrix @ x, rhs, sparse(0.2))
    solution = fista(problem, step=1 / 3, iterations=300)
    before = solution.copy()
    steps: list[int] = []
    again = fista(
        problem, step=1 / 3, iterations=50, tolerance=1e-5, start=solution, observe=lambda i, *_: steps.append(i)
    )
    assert steps == [1]
    assert_near(again, solution, 1e-5)
    assert np.array_equal(solution, before)


def test_momentum_is_faster_than_none_and_never_lost() -> None:
    """With restarts the objective of a badly conditioned problem falls far quicker than plain gradients let it."""
    matrix, truth = positive(40, condition=200), noise(RNG, (40,))
    problem = Composite(lambda x: matrix @ x, matrix @ truth, without)
    plain = np.zeros(40, np.complex64)
    for _ in range(150):
        plain = plain - (matrix @ plain - problem.rhs) / np.float32(200)
    found = fista(problem, step=1 / 200, iterations=150)
    assert np.linalg.norm(found - truth) < 0.1 * np.linalg.norm(plain - truth)


def test_each_iteration_has_its_number() -> None:
    seen: list[int] = []

    def prox(x: Complex, _: float, iteration: int) -> Complex:
        seen.append(iteration)
        return x

    fista(Composite(lambda x: x, noise(RNG, (3,)), prox), step=0.5, iterations=4)
    assert seen == [0, 1, 2, 3]


def test_fista_of_nothing_is_zero() -> None:
    zeros = np.zeros((3, 3), np.complex64)
    assert np.array_equal(fista(Composite(lambda x: 2 * x, zeros, sparse(1.0)), step=0.5, iterations=5), zeros)


def test_the_largest_eigenvalue_is_bounded_from_above_but_closely() -> None:
    matrix = positive(25, condition=9)
    found = largest_eigenvalue(lambda x: matrix @ x, noise(RNG, (25,)), iterations=30)
    assert 9 <= found <= 9 * BOUND * (1 + 1e-4)
    assert largest_eigenvalue(lambda x: x, np.zeros(4, np.complex64)) == 0

"""Conjugate gradients: exact in as many steps as there are unknowns, and it stops when told to."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.contract import Complex
from recon.solve import cg
from tests import tolerances
from tests.laws import assert_near
from tests.recon.builders import noise

RNG = np.random.default_rng(4)


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

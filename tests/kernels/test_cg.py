"""Conjugate gradients on every device: the plain loop's iterates, whatever a device has recorded before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.contract import Complex, Equations, Real
from kernels.solve import cg
from tests import tolerances
from tests.cases import Device, noise, spokes
from tests.laws import assert_near

SHAPE = (9, 14)
CONDITION = 20.0


def weighting(rng: np.random.Generator) -> Real:
    return rng.uniform(1, CONDITION, SHAPE).astype(np.float32)


def weighted(x: Complex, weights: Real) -> Complex:
    return x * weights


def diagonal(device: Device, weights: Real) -> Equations:
    return Equations(weighted, (device.put(weights),), "a diagonal")


def error(iterations: int) -> float:
    """Steps repeat what single precision rounds; see tests/cuda/test_cg.py."""
    return CONDITION * iterations * tolerances.sum_of(SHAPE[0] * SHAPE[1])


@pytest.mark.parametrize("iterations", [1, 4, 9])
def test_iterates_are_those_in_double_precision(device: Device, rng: np.random.Generator, iterations: int) -> None:
    """The second and third solve of a kind have other operands and right sides; nothing of the first may be left."""
    for _ in range(3):
        weights, rhs = weighting(rng), noise(rng, *SHAPE)
        found = device.kernels.cg(diagonal(device, weights), device.put(rhs), iterations=iterations)
        exact = cg(lambda x, w=weights: x * w, rhs.astype(np.complex128), iterations=iterations)
        assert_near(device.get(found), exact, error(iterations))


def test_two_kinds_take_turns(device: Device, rng: np.random.Generator) -> None:
    weights, rhs = weighting(rng), noise(rng, *SHAPE)
    twice = Equations(lambda x, w: 2 * x * w, (device.put(weights),), "twice the diagonal")
    for _ in range(2):
        one = device.get(device.kernels.cg(diagonal(device, weights), device.put(rhs), iterations=30))
        two = device.get(device.kernels.cg(twice, device.put(rhs), iterations=30))
        assert_near(one, rhs / weights, error(30))
        assert_near(2 * two, one, error(30))


def test_stops_at_the_tolerance(device: Device, rng: np.random.Generator) -> None:
    weights, rhs, history = weighting(rng), noise(rng, *SHAPE), [0.0]
    cg(lambda x: x * weights, rhs, iterations=40, tolerance=1e-2, observe=lambda i, _x, _r: history.append(i))
    expected = cg(lambda x: x * weights, rhs.astype(np.complex128), iterations=len(history) - 1)
    found = device.kernels.cg(diagonal(device, weights), device.put(rhs), iterations=40, tolerance=1e-2)
    assert 3 < len(history) < 40
    assert_near(device.get(found), expected, error(len(history)))


def test_nothing_to_solve_is_zero(device: Device, rng: np.random.Generator) -> None:
    nothing = device.put(np.zeros(SHAPE, np.complex64))
    assert not device.get(device.kernels.cg(diagonal(device, weighting(rng)), nothing, iterations=3)).any()


@pytest.mark.parametrize("weighted_points", [False, True])
def test_through_a_plans_operator(device: Device, rng: np.random.Generator, weighted_points: bool) -> None:
    """The pair the first time and whatever is faster later: neither the way nor its memory is seen."""
    points, shape, coils = spokes(12, 16).reshape(-1, 2), (12, 11), 3
    plan = device.kernels.nufft(device.put(points), shape, eps=1e-5)
    weights = device.put(rng.uniform(0.5, 1, len(points)).astype(np.float32)) if weighted_points else None
    for _ in range(3):
        maps, rhs = noise(rng, coils, *shape), noise(rng, *shape)
        operator = plan.operator(weights)

        def normal(x: Any, maps: Any, operator: Any = operator) -> Any:
            return operator(x, maps=maps) + 200 * x

        def exact(x: Any, maps: Any = maps) -> Any:
            return device.get(plan.normal(device.put(x), weights=weights, maps=device.put(maps))) + 200 * x

        equations = Equations(normal, (device.put(maps),), ("operator", operator))
        found = device.kernels.cg(equations, device.put(rhs), iterations=5)
        assert_near(device.get(found), cg(exact, rhs, iterations=5), 50 * tolerances.NORMAL)

"""The laws of linear maps and of plans, as functions for any device; `tests/tolerances.py` says how well they hold."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Apply = Callable[[Array], Array]


def distance(found: Array, expected: Array) -> float:
    """‖found − expected‖ / ‖expected‖."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def assert_near(found: Array, expected: Array, tolerance: float, *, norm: float | None = None) -> None:
    """Same shape, and ‖found − expected‖ within `tolerance` of `norm`, which is ‖expected‖ unless given."""
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= tolerance * (np.linalg.norm(expected) if norm is None else norm)


def assert_adjoint(forward: Apply, adjoint: Apply, x: Array, y: Array, tolerance: float) -> None:
    """⟨Ax, y⟩ = ⟨x, Aᴴy⟩, relative to ‖Ax‖ ‖y‖; inner products in double precision."""
    image, back = forward(x).astype(np.complex128), adjoint(y).astype(np.complex128)
    difference = abs(np.vdot(y.astype(np.complex128), image) - np.vdot(back, x.astype(np.complex128)))
    assert difference <= tolerance * np.linalg.norm(image) * np.linalg.norm(y)


def assert_linear(apply: Apply, x: Array, y: Array, tolerance: float) -> None:
    """A(ax + by) = aAx + bAy, relative to ‖aAx‖ + ‖bAy‖."""
    a, b = np.complex64(0.6 - 0.8j), np.complex64(-1.7 + 0.3j)
    first, second = a * apply(x), b * apply(y)
    difference = np.linalg.norm(apply(a * x + b * y) - (first + second))
    assert difference <= tolerance * (np.linalg.norm(first) + np.linalg.norm(second))


def assert_normal(normal: Apply, forward: Apply, adjoint: Apply, x: Array, tolerance: float) -> None:
    """normal = adjoint∘forward, Hermitian and positive."""
    image = normal(x)
    assert_near(image, adjoint(forward(x)), tolerance)
    power = np.vdot(x.astype(np.complex128), image)
    assert power.real > 0
    assert abs(power.imag) <= tolerance * abs(power)


def assert_repeatable(apply: Apply, x: Array) -> None:
    """The same input gives the same bits, and is not changed."""
    before = x.copy()
    first = apply(x).copy()
    assert np.array_equal(first, apply(x))
    assert np.array_equal(before, x)


def assert_pickles(plan: Any, apply: Callable[[Any, Array], Array], x: Array) -> None:
    """A plan that was pickled computes the same bits."""
    assert np.array_equal(apply(pickle.loads(pickle.dumps(plan)), x), apply(plan, x))

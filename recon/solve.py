"""Solvers: they take callables and arrays of any device, and know nothing of either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from kernels.contract import Complex
from kernels.solve import Apply, Observe, cg, inner

__all__ = ["BOUND", "Apply", "Composite", "Observe", "Prox", "cg", "fista", "largest_eigenvalue"]

Prox = Callable[[Complex, float, int], Complex]

BOUND = 1.05  # a few power iterations come this near to the largest eigenvalue, from below


@dataclass(frozen=True, slots=True)
class Composite:
    """Minimise ½⟨x, normal(x)⟩ − Re⟨rhs, x⟩ + g(x): least squares with `normal` = AᴴA and `rhs` = Aᴴy, and a prior g.

    `prox(z, step, iteration)` is the x with the least ½‖x − z‖² + step · g(x); iterations count from 0, so that a prior
    that depends on an origin can move it each time.
    """

    normal: Apply
    rhs: Complex
    prox: Prox


def fista(
    problem: Composite,
    *,
    step: float,
    iterations: int,
    tolerance: float = 0.0,
    start: Complex | None = None,
    observe: Observe | None = None,
) -> Complex:
    """Proximal gradients with Nesterov's momentum from `start` (0), dropped wherever it points uphill.

    `step` is at most 1 / the largest eigenvalue of `normal`. Stops after `iterations`, or where the relative change
    ‖x − x'‖ ≤ tolerance · ‖x‖. `observe(iteration, x, relative change)` is called after each iteration, counted from 1,
    and must not change x; doi:10.1137/080716542, doi:10.1007/s10208-013-9150-3 (adaptive restart).
    """
    x = problem.rhs * 0 if start is None else start
    ahead, momentum = x, 1.0
    for iteration in range(1, iterations + 1):
        slope = problem.normal(ahead) - problem.rhs
        new = problem.prox(ahead - step * slope, step, iteration - 1)
        change = new - x
        if inner(ahead - new, change) > 0:
            momentum = 1.0
        following = (1 + sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = new + ((momentum - 1) / following) * change
        x, momentum = new, following
        relative = _ratio(change, new)
        if observe is not None:
            observe(iteration, x, relative)
        if relative <= tolerance:
            break
    return x


def largest_eigenvalue(normal: Apply, start: Complex, *, iterations: int = 12) -> float:
    """A bound BOUND above the largest eigenvalue of Hermitian `normal`, by power iterations from `start`."""
    x, value = start, 0.0
    for _ in range(iterations):
        norm = sqrt(float(inner(x, x)))
        if norm == 0:
            break
        unit = x * (1 / norm)
        x = normal(unit)
        value = float(inner(unit, x))
    return BOUND * value


def _ratio(change: Complex, total: Complex) -> float:
    """‖change‖ / ‖total‖; 0 where nothing changed."""
    moved = float(inner(change, change))
    return sqrt(moved / max(float(inner(total, total)), 1e-30 * moved)) if moved else 0.0

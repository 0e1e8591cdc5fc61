"""Conjugate gradients for arrays of any device: what devices without a recorded form of their own run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.contract import Complex, Equations

Apply = Callable[[Complex], Complex]
Observe = Callable[[int, Complex, float], None]


def cg(
    normal: Apply,
    rhs: Complex,
    *,
    iterations: int,
    tolerance: float = 0.0,
    observe: Observe | None = None,
) -> Complex:
    """Solve normal(x) = rhs by conjugate gradients from x = 0; `normal` is Hermitian and positive semidefinite.

    Stops after `iterations`, or where ‖rhs − normal(x)‖ ≤ tolerance · ‖rhs‖. `observe(iteration, x, relative residual)`
    is called after each iteration, counted from 1, and must not change x.
    """
    x, residual = rhs * 0, rhs.copy()
    direction = residual
    power = start = inner(residual, residual)
    for iteration in range(1, iterations + 1):
        image = normal(direction)
        curvature = inner(direction, image)
        if curvature <= 0:  # the residual is zero, or in the null space where nothing is left to gain
            break
        step = power / curvature
        x = x + step * direction
        residual = residual - step * image
        previous, power = power, inner(residual, residual)
        relative = float(np.sqrt(power / start))
        if observe is not None:
            observe(iteration, x, relative)
        if relative <= tolerance:
            break
        direction = residual + (power / previous) * direction
    return x


def solve(equations: Equations, rhs: Complex, *, iterations: int, tolerance: float = 0.0) -> Complex:
    """See `Kernels.cg`."""
    return cg(lambda x: equations.normal(x, *equations.operands), rhs, iterations=iterations, tolerance=tolerance)


def inner(a: Complex, b: Complex) -> Any:
    """Re⟨a, b⟩ as a scalar of the arrays' own device, which need not wait for it."""
    return np.vdot(a, b).real

"""What NumPy's functions do not do, or not alike, for arrays of any device.

`np.ascontiguousarray` takes another device's array to the host, and CuPy's functions know no `where=`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.contract import Array, Complex, Real

TINY = np.finfo(np.float32).tiny  # below, a quotient overflows


def contiguous(array: Array) -> Array:
    """`array` itself, or a copy that is C-contiguous."""
    return np.ascontiguousarray(array, like=array)  # type: ignore[return-value]  # NumPy's types forget `like`


def divided(total: Any, part: Real, *, otherwise: Any) -> Any:
    """total / part, and `otherwise` where `part` is not above TINY."""
    safe = part > TINY
    return np.where(safe, total / np.where(safe, part, 1), otherwise)


def phase_of(values: Complex) -> Complex:
    """exp(iφ) of `values` of phase φ, 1 where they are 0."""
    phase: Complex = divided(values, np.abs(values), otherwise=1)
    return phase

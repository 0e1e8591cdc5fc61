"""Fourier sums of a few samples at many places: cheaper than the FFT of an array that is nearly all zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.contract import Complex


def waves(count: int, size: int, places: Any, *, like: Complex) -> Complex:
    """exp(+2πi r d / size) [r, d] for `places` r and the `count` distances d = −⌊count/2⌋ … ⌈count/2⌉−1.

    An array of the device of `like`; `places` are few and on the host.
    """
    turns = np.outer(places, np.arange(count) - count // 2) / size
    return np.asarray(np.exp(2j * np.pi * turns).astype(np.complex64), like=like)

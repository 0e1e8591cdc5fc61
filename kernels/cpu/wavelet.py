"""The orthogonal wavelet transform on the CPU: one pass of four taps per axis and level."""

from __future__ import annotations

from math import sqrt

import numpy as np

from kernels.contract import Complex, Real

LOW = tuple((a + b * sqrt(3)) / (4 * sqrt(2)) for a, b in ((1, 1), (3, 1), (3, -1), (1, -1)))
HIGH = (LOW[3], -LOW[2], LOW[1], -LOW[0])
Grid = tuple[int, ...]
Values = Complex | Real


def forward(x: Complex, levels: Grid, shift: Grid) -> Complex:
    """See `kernels.contract.Kernels.wavelet`; `shift` is reduced modulo the grid."""
    axes = tuple(range(-len(levels), 0))
    out = np.roll(np.ascontiguousarray(x), [-s for s in shift], axes) if any(shift) else x.copy()
    for level in range(max(levels)):
        part = corner(out.shape, levels, level)
        values = out[part]
        for axis in splitting(levels, level):
            values = analyse(values, axis)
        out[part] = values
    return out


def inverse(x: Complex, levels: Grid, shift: Grid) -> Complex:
    """See `kernels.contract.Kernels.iwavelet`."""
    out = x.copy()
    for level in reversed(range(max(levels))):
        part = corner(out.shape, levels, level)
        values = out[part]
        for axis in splitting(levels, level):
            values = synthesise(values, axis)
        out[part] = values
    return np.roll(out, shift, tuple(range(-len(levels), 0))) if any(shift) else out


def corner(shape: Grid, levels: Grid, level: int) -> tuple[slice, ...]:
    """Where the low corner lies that is split at `level`, in every array of the batch."""
    grid = shape[len(shape) - len(levels) :]
    low = (slice(0, n >> min(level, most)) for n, most in zip(grid, levels, strict=True))
    return (*(slice(None) for _ in shape[: len(shape) - len(levels)]), *low)


def splitting(levels: Grid, level: int) -> list[int]:
    """The axes, counted from the end, that `level` splits."""
    return [axis for axis in range(-len(levels), 0) if levels[axis] > level]


def analyse(x: Complex, axis: int) -> Complex:
    """One level along `axis`: output k of either half sums four taps at inputs 2k − 1 … 2k + 2, modulo the length."""
    out = np.empty(x.shape, np.complex64)
    source, target = along_first(x, axis), along_first(out, axis)
    even, odd = source[0::2], source[1::2]
    half = len(even)
    for band, taps in ((target[:half], LOW), (target[half:], HIGH)):
        np.multiply(even, taps[1], out=band)
        np.add(band, taps[2] * odd, out=band)
        add_rolled(band, taps[0] * odd, 1)
        add_rolled(band, taps[3] * even, -1)
    return out


def synthesise(x: Complex, axis: int) -> Complex:
    """The transpose of `analyse`."""
    out = np.empty(x.shape, np.complex64)
    source, target = along_first(x, axis), along_first(out, axis)
    half = len(source) // 2
    low, high = source[:half], source[half:]
    for samples, own, other, step in ((target[0::2], 1, 3, 1), (target[1::2], 2, 0, -1)):
        np.multiply(low, LOW[own], out=samples)
        np.add(samples, HIGH[own] * high, out=samples)
        add_rolled(samples, LOW[other] * low + HIGH[other] * high, step)
    return out


def along_first(x: Complex, axis: int) -> Values:
    """`x` with `axis` first, as real numbers where that axis is not the last: a tap is real, and half the products."""
    return np.moveaxis(x if axis == -1 else x.view(np.float32), axis, 0)


def add_rolled(total: Values, values: Values, step: int) -> None:
    """total += values rolled by `step` of 1 or −1 along the first axis."""
    if step == 1:
        total[1:] += values[:-1]
        total[:1] += values[-1:]
    else:
        total[:-1] += values[1:]
        total[-1:] += values[:1]

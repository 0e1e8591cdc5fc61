"""Centred orthonormal FFTs on the CPU, one axis at a time through a cache-sized buffer.

Shifts cost nothing: each line is copied into and out of the buffer in two parts, already in FFT order, which is exact
for odd sizes too; cropping copies fewer values out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from kernels.contract import Complex
from kernels.cpu.engine import TILE, Engine, Execute, Pool, buffer, even_parts

IDLE_TILES = 8  # a 3-D transform uses three at a time
Pair = tuple[Complex, Complex]


@dataclass(frozen=True)
class TileKey:
    """`lines` lines of `length` values; `rows`: each line is contiguous, else neighbouring lines are."""

    length: int
    lines: int
    rows: bool
    forward: bool


@dataclass(frozen=True)
class Tile:
    """Buffers [length, lines] and the plan from `source` to `target` along their first axis."""

    source: Complex
    target: Complex
    execute: Execute


def wrapped(length: int, kept: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the `kept` central samples of an axis of `length` stand: two pairs (centred slice, FFT-order slice)."""
    negative, positive = kept // 2, kept - kept // 2
    return (slice(negative, kept), slice(0, positive)), (slice(0, negative), slice(length - negative, length))


def planes(x: Complex, axis: int, out: Complex) -> Iterator[Pair]:
    """Pairs [length, lines] of views of `x` and of the contiguous `out`, as few as x allows without a copy."""
    if axis < x.ndim - 1:
        flat = (-1, x.shape[axis], prod(x.shape[axis + 1 :]))
        yield from zip(x.reshape(flat), out.reshape(-1, out.shape[axis], flat[2]), strict=True)
    elif x.ndim == 1 or x.flags.c_contiguous:
        yield x.reshape(-1, x.shape[-1]).T, out.reshape(-1, out.shape[-1]).T
    else:
        yield from ((x[index].T, out[index].T) for index in np.ndindex(x.shape[:-2]))


class CentredFft:
    """Centred orthonormal transforms with one FFT library."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tiles = Pool(self._make, idle=IDLE_TILES)

    def _make(self, key: TileKey) -> Tile:
        shape = (key.lines, key.length) if key.rows else (key.length, key.lines)
        source, target = (buffer(*shape)[:, : shape[1]] for _ in range(2))
        execute = self._engine.plan(source, target, axis=int(key.rows), forward=key.forward)
        return Tile(source.T, target.T, execute) if key.rows else Tile(source, target, execute)

    def transform(self, x: Complex, crop: tuple[int, ...], *, forward: bool) -> Complex:
        """x [*batch, *grid], transformed over the grid's axes, of which the central `crop` is kept: [*batch, *crop]."""
        first = x.ndim - len(crop)
        scale = 1 / sqrt(prod(x.shape[first:]))  # all of it with the last axis, which is done first
        for axis in reversed(range(first, x.ndim)):
            x = self._along(x, axis, crop[axis - first], forward=forward, scale=scale)
            scale = 1.0
        return x

    def _along(self, x: Complex, axis: int, kept: int, *, forward: bool, scale: float) -> Complex:
        length = x.shape[axis]
        last = axis == x.ndim - 1
        in_place = not last and kept == length  # the last axis was done first, so that x is no longer the caller's
        out = x if in_place else np.empty((*x.shape[:axis], kept, *x.shape[axis + 1 :]), np.complex64)
        for source, target in planes(x, axis, out):
            parts = even_parts(source.shape[1], max(1, TILE // length))
            key = TileKey(length, parts[0].stop, last, forward)
            with self._tiles.borrow(key) as tile:
                for part in parts:
                    through(tile, source[:, part], target[:, part], scale)
        return out


def through(tile: Tile, source: Complex, target: Complex, scale: float) -> None:
    """Transform `source` [length, line] through the tile and put its central part, times `scale`, into `target`."""
    length, lines = source.shape
    for centred, order in wrapped(length, length):
        tile.source[order, :lines] = source[centred]
    tile.execute()
    for centred, order in wrapped(length, len(target)):
        if scale == 1.0:
            target[centred] = tile.target[order, :lines]
        else:
            np.multiply(tile.target[order, :lines], np.float32(scale), out=target[centred])

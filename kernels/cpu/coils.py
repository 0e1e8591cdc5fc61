"""Coil operations on the CPU, a cache-sized piece at a time so that no product of all coils is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.contract import Complex, Real
from kernels.cpu.engine import TILE, even_parts
from kernels.cpu.team import Team


def rss(images: Complex) -> Real:
    """Root-sum-of-squares: images [coil, *grid] → float32 [*grid]."""
    flat = images.reshape(len(images), -1)  # a view of what the other kernels return
    out = np.empty(flat.shape[1], np.float32)
    for part in even_parts(len(out), TILE):
        total = np.zeros(2 * (part.stop - part.start), np.float32)  # re² and im² apart: contiguous loops
        for values in flat[:, part]:
            floats = np.ascontiguousarray(values).view(np.float32)
            total += floats * floats
        np.sqrt(total.reshape(-1, 2).sum(axis=1), out=out[part])
    return out.reshape(images.shape[1:])


def combine(images: Complex, maps: Complex, team: Team) -> Complex:
    """Σ_c conj(maps_c) · images_c: [coil, *grid] → [*grid]."""
    flat, flat_maps = images.reshape(len(images), -1), maps.reshape(len(maps), -1)
    out = np.empty(flat.shape[1], np.complex64)

    def some(parts: Sequence[slice]) -> None:
        scratch = np.empty(TILE, np.complex64)
        for part in parts:
            accumulate(out[part], flat[:, part], flat_maps[:, part], scratch[: part.stop - part.start])

    team.share(some, even_parts(len(out), TILE))
    return out.reshape(images.shape[1:])


def accumulate(total: Complex, images: Complex, maps: Complex, product: Complex) -> None:
    """total = Σ_c conj(maps_c) · images_c over values [coil, value] that stay in the cache; `product` is scratch."""
    np.conjugate(maps[0], out=total)
    total *= images[0]
    for values, sensitivity in zip(images[1:], maps[1:], strict=True):
        np.conjugate(sensitivity, out=product)
        np.multiply(product, values, out=product)
        total += product


def expand(image: Complex, maps: Complex, team: Team) -> Complex:
    """maps_c · image: [*grid] → [coil, *grid]."""
    out = np.empty(maps.shape, np.complex64)

    def some(coils: Sequence[int]) -> None:
        for coil in coils:
            np.multiply(maps[coil], image, out=out[coil])

    team.share(some, range(len(maps)))
    return out


def whiten(whitening: Complex, samples: Complex) -> Complex:
    """whitening [coil, coil] applied to samples [..., coil, sample] along the coil axis, one readout at a time.

    Each readout is copied into an aligned buffer first: samples of an MRD stream stand on 2-byte boundaries, where
    BLAS cannot read them and NumPy would copy the whole run.
    """
    out = np.empty((*samples.shape[:-2], len(whitening), samples.shape[-1]), np.complex64)
    aligned = np.empty(samples.shape[-2:], np.complex64)
    for index in np.ndindex(samples.shape[:-2]):
        copy_samples(aligned, samples[index])
        np.matmul(whitening, aligned, out=out[index])
    return out


def rotate(x: Complex, phase: Real) -> Complex:
    """x · exp(i · phase): x [*batch, *phase.shape]."""
    turn = np.empty(phase.shape, np.complex64)
    np.cos(phase, out=turn.real)
    np.sin(phase, out=turn.imag)
    return np.multiply(x, turn)


def copy_samples(target: Complex, source: Complex) -> None:
    """target[...] = source, as bytes where samples are adjacent: NumPy copies unaligned complex values far slower."""
    if source.strides[-1] == source.itemsize:
        target.view(np.uint8)[...] = source.view(np.uint8)
    else:
        target[...] = source

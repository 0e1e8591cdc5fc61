"""The cases that the laws are tried on: sizes even, odd and unequal on purpose, and the points that go wrong first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kernels
from kernels.contract import Complex, Kernels, Real
from kernels.reference import ReferenceKernels

COILS = (1, 3, 8, 12, 32)
NUFFT_SHAPES = ((16,), (15,), (1,), (16, 16), (13, 18), (9, 1), (8, 7, 6), (5, 8, 11))
GRIDS = ((1, 8, 8), (1, 7, 9), (1, 1, 5), (4, 6, 10), (3, 5, 7), (5, 4, 1), (2, 33, 130))  # [z, y, x]


@dataclass(frozen=True)
class Device:
    """Kernels under test, and how arrays get there and back."""

    kernels: Kernels
    put: Callable[[NDArray[Any]], Any]
    get: Callable[[Any], NDArray[Any]]


# "cuda-shim" is CUDA's own source and wrappers, executed on the CPU; its threads run in a shuffled order.
DEVICES = ("reference", "cpu", "cpu:scipy", "cuda-shim", pytest.param("cuda", marks=pytest.mark.gpu))


def open_device(name: str) -> Device:
    """The device `name`; skips the test with the reason where CUDA cannot be used."""
    if name == "reference":
        return Device(ReferenceKernels(), np.asarray, np.asarray)
    if name.startswith("cpu"):
        return Device(kernels.on(name), np.asarray, np.asarray)
    if name == "cuda-shim":
        from tests.cuda.shim import open_shim

        return Device(open_shim(seed=1), np.asarray, np.asarray)
    try:
        opened = kernels.on(name)
    except kernels.DeviceError as error:
        pytest.skip(str(error))
    cupy = pytest.importorskip("cupy")
    return Device(opened, cupy.asarray, cupy.asnumpy)


def noise(rng: np.random.Generator, *shape: int) -> Complex:
    """Complex normal numbers with σ = 1 in each part."""
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def uniform(rng: np.random.Generator, count: int, axes: int) -> Real:
    """Points everywhere in [−π, π)."""
    return rng.uniform(-np.pi, np.pi, (count, axes)).astype(np.float32)


def cluster(rng: np.random.Generator, count: int, axes: int) -> Real:
    """All points in one tile: the rest of the tiles are empty."""
    return (1.3 + 0.01 * rng.standard_normal((count, axes))).astype(np.float32)


def corners(_: np.random.Generator, count: int, axes: int) -> Real:
    """Points exactly at −π, 0 and π on each axis, many times over."""
    place = np.stack([(np.arange(count) // 3**axis) % 3 - 1 for axis in range(axes)], axis=-1)
    return (np.float32(np.pi) * place).astype(np.float32)


POINTS = {"uniform": uniform, "cluster": cluster, "corners": corners}


def cartesian(shape: tuple[int, ...]) -> Real:
    """The points of the DFT: [*shape, axis], centred like the grid."""
    axes = [2 * np.pi * (np.arange(n) - n // 2) / n for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


def spokes(count: int, samples: int, *, offset: float = 0.0) -> Real:
    """Golden-angle radial points [shot, sample, 2], the centre `offset` samples beside a sample."""
    angle = np.arange(count) * np.pi * (np.sqrt(5) - 1) / 2
    radius = 2 * np.pi * (np.arange(samples) - samples // 2 + offset) / samples
    return np.stack([np.outer(np.sin(angle), radius), np.outer(np.cos(angle), radius)], axis=-1).astype(np.float32)


def spiral(shots: int, samples: int, turns: int) -> Real:
    """Archimedean interleaves [shot, sample, 2] that reach π."""
    time = np.sqrt(np.linspace(0, 1, samples))
    angle = 2 * np.pi * (turns * time + np.arange(shots)[:, np.newaxis] / shots)
    return (np.pi * time[:, np.newaxis] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)).astype(np.float32)


def as_on_the_wire(kspace: Complex) -> Complex:
    """The same k-space [coil, z, y, x] as a view of readouts in a stream: strided, on 2-byte boundaries."""
    coils, z, y, x = kspace.shape
    stride = 342 + 8 * coils * x
    stream = np.zeros(z * y * stride + 344, np.uint8)
    start = 342 if (stream.ctypes.data + 342) % 4 else 344
    strides = (8 * x, y * stride, stride, 8)
    view: Complex = np.ndarray(kspace.shape, np.complex64, stream.data, start, strides)
    view[...] = kspace
    return view

"""What every device offers: arrays in, arrays out, with shapes, units and laws.

Implementations live in `cpu`, `cuda` and `reference`. The types here say NumPy's arrays; a GPU's are CuPy's, which
answer to the same functions of NumPy (NEP 13 and 18).

All transforms use complex64. Grids are indexed r = −⌊N/2⌋ … ⌈N/2⌉−1 along each axis ("centred").
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = TypeVar("Array", bound=NDArray[Any])
Complex = NDArray[np.complex64]
Real = NDArray[np.float32]


class DeviceError(RuntimeError):
    """The device asked for is not there or cannot be used; the message says why."""


class BudgetError(RuntimeError):
    """What is asked for needs more memory than it may have; the message says how much of each."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a device holds, in bytes by kind, and how busy it is; nothing where the host's own figures say it all."""

    memory_bytes: tuple[tuple[str, int], ...] = ()
    busy: tuple[tuple[str, float], ...] = ()  # (what, share of the last moment)


class Normal(Protocol):
    """adjoint(weights · forward(x)) of one plan and its weights; with maps as `NufftPlan.normal`."""

    def __call__(self, x: Complex, *, maps: Complex | None = None) -> Complex:
        """x [*batch, *shape], or [*shape] with maps [coil, *shape]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Equations:
    """normal(x, *operands) = rhs, where `normal` is Hermitian and positive semidefinite in x.

    Equal `key`s promise the same `normal` and whatever it keeps itself: a device may keep what it has made of the first
    and use it with the operands of the next. It may be run as a CUDA graph: it only queues work for the device.
    """

    normal: Callable[..., Complex]
    operands: tuple[NDArray[Any], ...]
    key: Hashable


class NufftPlan(Protocol):
    """Non-uniform FFT for one set of `points`; forward y_j = Σ_r x_r exp(−i k_j·r).

    The adjoint is its exact adjoint: no weights, no 1/N.
    """

    shape: tuple[int, ...]
    samples: tuple[int, ...]

    def forward(self, x: Complex) -> Complex:
        """x [*batch, *shape] → [*batch, *samples]."""
        ...

    def adjoint(self, y: Complex) -> Complex:
        """y [*batch, *samples] → [*batch, *shape]."""
        ...

    def normal(self, x: Complex, *, weights: Real | None = None, maps: Complex | None = None) -> Complex:
        """adjoint(weights · forward(x)), with `maps` Σ_c conj(S_c) adjoint(weights · forward(S_c x)).

        x [*batch, *shape], or [*shape] with maps [coil, *shape]; weights [*samples].
        """
        ...

    def operator(self, weights: Real | None = None) -> Normal:
        """`normal` with these weights, which do not change, for a solver: faster where it is asked for again."""
        ...


class Kernels(Protocol):
    """One device's kernels; arrays are the device's own unless a method says more."""

    device: str

    def load(self) -> Load:
        """What the device holds and does now; any thread may ask."""
        ...

    def caches(self) -> tuple[tuple[str, int, int, int], ...]:
        """Which caches the kernels themselves keep: name, hits and misses so far, bytes held."""
        ...

    def to_device(self, array: Array) -> Array:
        """`array` as one of this device; one that is there already is returned as it is. Waits for the copy.

        Arrays that the calling thread makes by NumPy's functions from now on are made there too.
        """
        ...

    def to_host(self, array: Array) -> Array:
        """`array` as NumPy's; one that is NumPy's already is returned as it is. Waits for the copy."""
        ...

    def nufft(self, points: Real, shape: tuple[int, ...], *, eps: float = 1e-4) -> NufftPlan:
        """Plan for `points` [*samples, axis] in radians per voxel, axes ([z,] y, x) as in `shape`.

        Planning is the host's: `points` may be NumPy's.
        """
        ...

    def fft(self, x: Complex, *, axes: int) -> Complex:
        """Centred orthonormal DFT, exp(−i), over the last `axes` axes."""
        ...

    def ifft(self, x: Complex, *, axes: int, crop: tuple[int, ...] | None = None) -> Complex:
        """Centred orthonormal inverse DFT, exp(+i), over the last `axes` axes; `crop` keeps the centre of each."""
        ...

    def ifft_rss(self, kspace: Complex, *, crop: tuple[int, int, int], whitening: Complex | None = None) -> Real:
        """Root-sum-of-squares over coils of the centred orthonormal inverse DFT: [coil, z, y, x] → [z, y, x] cropped.

        Fused so that no coil image is kept; `kspace` may be any strided view. `whitening` [coil, coil] mixes the coils
        first, at half the cost of whitening all samples where `crop` removes readout oversampling.
        """
        ...

    def ifft_rss_each(
        self, kspace: Sequence[Complex], *, crop: tuple[int, int, int], whitening: Sequence[Complex | None]
    ) -> list[Real]:
        """`ifft_rss` of each frame of `kspace`, all of one shape and each with its own `whitening`, at once."""
        ...

    def rss(self, images: Complex) -> Real:
        """Root-sum-of-squares: images [coil, *grid] → [*grid]."""
        ...

    def combine(self, images: Complex, maps: Complex) -> Complex:
        """Σ_c conj(maps_c) · images_c: [coil, *grid] → [*grid]."""
        ...

    def expand(self, image: Complex, maps: Complex) -> Complex:
        """maps_c · image: [*grid] → [coil, *grid]."""
        ...

    def whiten(self, whitening: Complex, samples: Complex) -> Complex:
        """whitening [coil, coil] applied to samples [..., coil, sample] along the coil axis."""
        ...

    def shrink(self, x: Complex, threshold: float) -> Complex:
        """x with every magnitude less `threshold`, none below zero, and the same phase: the prox of threshold · ‖x‖₁.

        Any shape; doi:10.1002/cpa.20042.
        """
        ...

    def wavelet(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """Orthogonal wavelet transform of the last len(levels) axes (one to three): Daubechies, 4 taps, periodic edges.

        x [*batch, *grid] → coefficients of the same shape. Level l splits every axis with levels[axis] > l of what is
        left in the low corner into its low half, then its high half, so a size must be divisible by 2^levels. `shift`
        [axis] moves the origin of the transform, modulo the grid; doi:10.1002/cpa.3160410705.
        """
        ...

    def iwavelet(self, x: Complex, *, levels: tuple[int, ...], shift: tuple[int, ...] | None = None) -> Complex:
        """The inverse, and adjoint, of `wavelet` with the same `levels` and `shift`."""
        ...

    def low_rank(
        self, x: Complex, threshold: float, *, block: tuple[int, ...], shift: tuple[int, ...] | None = None
    ) -> Complex:
        """x [frame, *grid] with the singular values of each block less `threshold`, none below zero (locally low rank).

        Every block [frame, voxel] of `block` [axis] voxels (one to three axes) is a matrix of its own: the prox of
        threshold times the sum of nuclear norms. `shift` moves the first block's origin; blocks wrap round the edges,
        and the last of an axis is smaller where `block` does not divide it; doi:10.1002/mrm.25161.
        """
        ...

    def rotate(self, x: Complex, phase: Real) -> Complex:
        """x · exp(i · phase): x [*batch, *phase.shape], phase in radians, |phase| ≤ 1e4 (phase correction)."""
        ...

    def cg(self, equations: Equations, rhs: Complex, *, iterations: int, tolerance: float = 0.0) -> Complex:
        """Conjugate gradients from 0 for `equations` = rhs, any shape.

        Stops after `iterations`, or where the residual is at most tolerance · ‖rhs‖, or nothing is left to gain.
        """
        ...

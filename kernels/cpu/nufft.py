"""Non-uniform FFT on the CPU by FINUFFT (doi:10.1137/18M120885X)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.checks import check_last, check_normal
from kernels.contract import Complex, Normal, Real
from kernels.cpu.engine import Pool
from kernels.cpu.toeplitz import Convolver, layout_of, open_convolver, response_of
from kernels.cpu.tuning import LARGE_GRID, SMALL_GRID, crowded, gains_from_parts, prefers_toeplitz, upsampling
from kernels.geometry import fold

FINEST_EPS, COARSEST_EPS = 1e-5, 1e-2
# FINUFFT's estimate is for many points on a large grid; a quarter of it, one more tap, also holds for few and small.
MARGIN = 0.25
# Measured: single precision reaches 6e-8 relative error per voxel of the longest axis, whatever accuracy is asked for.
SINGLE_ERROR_PER_VOXEL = 1e-7
SPREAD_EPS = 1e-6  # of the point spread function, and so of the convolution: well below any eps
# What FINUFFT is asked for at least on a grid less than twice as fine: below, single precision spoils it.
FINEST_SMALL_GRID_EPS = 2.4e-5


@dataclass(frozen=True, slots=True)
class Share:
    """The points from `start` to `stop`, and how many of FINUFFT's threads transform them."""

    start: int
    stop: int
    threads: int

    @property
    def points(self) -> slice:
        """Where they lie among all."""
        return slice(self.start, self.stop)


class CpuNufft:
    """NUFFT plan for `points` [*samples, axis] on a grid of `shape` ([z,] y, x); see `kernels.contract.NufftPlan`.

    Used for both directions, any number of coils and frames, by several threads at once. Coils are dealt out to the
    threads of the team, each with FINUFFT to itself: the same bits every time, and the error of one thread. FINUFFT's
    own batch on two threads may be faster, but in single precision its error is larger on the smaller grid (4.1e-5
    where this has 2.4e-5; 256², measured). Of a lone image each thread takes a part of the points, with a grid of its
    own, where `tuning` says that this is faster; only forward in three dimensions takes FINUFFT's own threads, whose
    adjoint has other bits in every run.
    The normal operator is a convolution where `tuning` says that it is faster: its point spread function is made with
    the first call and kept for the weights used last. A pickled plan is made again from its points.
    """

    def __init__(
        self, points: Real, shape: tuple[int, ...], *, eps: float = 1e-4, convolver: Convolver | None = None
    ) -> None:
        """`convolver` names the FFT library and the threads; without it one thread and FFTW."""
        if not FINEST_EPS <= eps <= COARSEST_EPS:
            raise ValueError(f"eps is {eps:g}, expected {FINEST_EPS:g} to {COARSEST_EPS:g}: choose one in between")
        self.shape = tuple(shape)
        self.samples = points.shape[:-1]
        self.eps = eps
        self._convolver = open_convolver("fftw", 1) if convolver is None else convolver
        self.threads = self._convolver.team.threads
        self._points = fold(points, self.shape)
        count = prod(self.samples)
        self._all = Share(0, count, 1)
        finest = FINEST_SMALL_GRID_EPS / MARGIN if crowded(count, self.shape) else 0.0
        single = eps >= max(SINGLE_ERROR_PER_VOXEL * max(self.shape), finest)
        self._dtype = np.dtype(np.complex64 if single else np.complex128)
        self._shares = shares(count, self.threads) if gains_from_parts(count, self.shape, eps=MARGIN * eps) else []
        self._plans: Pool[Share, Any] = Pool(self._build, idle=2 * self.threads)
        with self._plans.borrow(self._all):
            pass  # made now, so that the first transform takes no longer than the next
        self._lock = threading.Lock()
        self._layout = layout_of(self.shape)
        self.convolves = prefers_toeplitz(count, self.shape, eps=MARGIN * eps)
        self._response: tuple[Real | None, Real] | None = None

    def _build(self, share: Share) -> Any:
        import finufft

        options = {"nthreads": share.threads, "upsampfac": self._upsampling()}
        plan = finufft.Plan(2, self.shape, 1, MARGIN * self.eps, -1, dtype=self._dtype.name, **options)
        plan.setpts(*self._axes(np.empty(0, self._dtype).real.dtype, share.points))
        return plan

    def _upsampling(self) -> float:
        if self._dtype == np.complex128:
            return SMALL_GRID
        return LARGE_GRID if MARGIN * self.eps < FINEST_SMALL_GRID_EPS else upsampling(prod(self.samples), self.shape)

    def _axes(self, dtype: np.dtype[Any], points: slice) -> list[NDArray[Any]]:
        flat = self._points.reshape(-1, len(self.shape))[points]
        return [np.ascontiguousarray(flat[:, axis], dtype) for axis in range(len(self.shape))]

    def forward(self, x: Complex) -> Complex:
        """x [*batch, *shape] → [*batch, *samples]."""
        check_last(x, "x", self.shape)
        batch = x.shape[: x.ndim - len(self.shape)]
        images, y = x.reshape(-1, *self.shape), np.empty((prod(batch), prod(self.samples)), np.complex64)
        if len(images) == 1 and self._shares:
            self._forward_alone(images[0], y[0])
        else:
            self._each("execute", images, y)
        return y.reshape(*batch, *self.samples)

    def adjoint(self, y: Complex) -> Complex:
        """y [*batch, *samples] → [*batch, *shape]."""
        check_last(y, "y", self.samples)
        batch = y.shape[: y.ndim - len(self.samples)]
        values = y.reshape(-1, prod(self.samples))
        if len(values) == 1 and self._shares:
            return self._adjoint_alone(values[0]).reshape(*batch, *self.shape)
        x = np.empty((prod(batch), *self.shape), np.complex64)
        self._each("execute_adjoint", values, x)
        return x.reshape(*batch, *self.shape)

    def _each(self, name: str, sources: Complex, targets: Complex) -> None:
        """One transform per coil: a batch would fix the number of coils and saves a few percent on one thread."""

        def some(numbers: Sequence[int]) -> None:
            with self._plans.borrow(self._all) as plan:
                for number in numbers:
                    self._run(getattr(plan, name), sources[number], targets[number])

        self._convolver.team.share(some, range(len(sources)))

    def _forward_alone(self, x: Complex, y: Complex) -> None:
        def some(taken: Sequence[Share]) -> None:
            for share in taken:
                with self._plans.borrow(share) as plan:
                    self._run(plan.execute, x, y[share.points])

        if len(self.shape) == 3:
            some([replace(self._all, threads=self.threads)])
        else:
            self._convolver.team.share(some, self._shares)

    def _adjoint_alone(self, y: Complex) -> Complex:
        def part(numbers: Sequence[int]) -> Complex:
            (share,) = (self._shares[number] for number in numbers)
            x = np.empty(self.shape, np.complex64)
            with self._plans.borrow(share) as plan:
                self._run(plan.execute_adjoint, y[share.points], x)
            return x

        return self._convolver.team.total(part, len(self._shares))

    def _run(self, execute: Callable[..., NDArray[Any]], source: Complex, target: Complex) -> None:
        values = np.ascontiguousarray(source, self._dtype)
        if self._dtype == np.complex64:
            execute(values, target)
        else:
            target[...] = execute(values)

    def normal(self, x: Complex, *, weights: Real | None = None, maps: Complex | None = None) -> Complex:
        """See `NufftPlan.normal`."""
        check_normal(self, x, weights, maps)
        if not self.convolves:
            return self._pair(x, weights, maps)
        response = self._response_for(weights)
        if maps is None:
            return self._convolver.images(x, self._layout, response)
        return self._convolver.coils(x, maps, self._layout, response)

    def operator(self, weights: Real | None = None) -> Normal:
        """See `NufftPlan.operator`."""
        return partial(self.normal, weights=weights)

    def _pair(self, x: Complex, weights: Real | None, maps: Complex | None) -> Complex:
        if maps is None:
            y = self.forward(x)
            return self.adjoint(y if weights is None else np.multiply(y, weights, out=y))
        coils = maps.reshape(-1, *self.shape)
        return self._convolver.team.total(partial(self._pair_of_coils, x, weights, coils), len(coils))

    def _pair_of_coils(self, x: Complex, weights: Real | None, maps: Complex, coils: Sequence[int]) -> Complex:
        """Σ conj(S_c) adjoint(weights · forward(S_c x)) of some coils."""
        total, image = np.zeros_like(x), np.empty(self.shape, np.complex64)
        y = np.empty(prod(self.samples), np.complex64)
        with self._plans.borrow(self._all) as plan:
            for coil in coils:
                self._run(plan.execute, np.multiply(maps[coil], x, out=image), y)
                if weights is not None:
                    y *= weights.reshape(-1)
                self._run(plan.execute_adjoint, y, image)
                image *= maps[coil].conj()
                total += image
        return total

    def _response_for(self, weights: Real | None) -> Real:
        """What convolution multiplies the image's transform by, from the last call or made now."""
        with self._lock:
            if self._response is None or not same(self._response[0], weights):
                kept = None if weights is None else weights.copy()
                self._response = kept, response_of(self._spread(weights), self._layout)
            return self._response[1]

    def _spread(self, weights: Real | None) -> Complex:
        """The point spread function on the layout's grid, in FFT order; in double precision, then rounded once."""
        import finufft

        lengths = self._layout.lengths[3 - len(self.shape) :]
        options = {"nthreads": self.threads, "upsampfac": SMALL_GRID, "modeord": 1}
        plan = finufft.Plan(1, lengths, 1, SPREAD_EPS, 1, dtype="complex128", **options)
        plan.setpts(*self._axes(np.dtype(np.float64), slice(None)))
        values = np.ones(self.samples, np.complex128) if weights is None else weights.astype(np.complex128)
        spread: Complex = plan.execute(values.ravel()).astype(np.complex64)
        return spread.reshape(self._layout.lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        # FINUFFT's plan is a C pointer.
        return _rebuild, (self._points, self.shape, self.eps, self.threads, self._convolver.engine.name)


def shares(points: int, threads: int) -> list[Share]:
    """All points in one share for each thread, as equal as they can be; none where one thread has them all."""
    bounds = [points * number // threads for number in range(threads + 1)]
    return [Share(start, stop, 1) for start, stop in pairwise(bounds)] if threads > 1 else []


def size_bytes(points: int, shape: tuple[int, ...], *, threads: int = 1) -> int:
    """About what a team's plan holds: a copy of the points for each thread, and the response where there is one.

    A grid comes with each transform and goes with it: one is counted, for the caller's own.
    """
    convolves = prefers_toeplitz(points, shape, eps=MARGIN * FINEST_EPS)
    copies = (threads - 1) * points * (4 * len(shape) + 8)
    return plan_bytes(points, shape) + copies + convolves * 4 * prod(2 * n for n in shape)


def plan_bytes(points: int, shape: tuple[int, ...]) -> int:
    """What forward and adjoint need beside their arrays, on one thread.

    Coordinates in double precision, FINUFFT's copy in single precision with its order, and its grid. Each thread more
    has a copy and a grid of its own.
    """
    axes = len(shape)
    return int(points * (8 * axes + 4 * axes + 8) + prod(shape) * 8 * upsampling(points, shape) ** axes)


def response_bytes(points: int, shape: tuple[int, ...]) -> int:
    """What making the response of the normal operator needs, in double precision.

    Coordinates with their order, values, the doubled grid and one 1.25 times as fine.
    """
    axes = len(shape)
    return int(points * (8 * axes + 8 + 16) + prod(2 * n for n in shape) * 16 * (1 + 1.25**axes))


def same(first: Real | None, second: Real | None) -> bool:
    """Whether both are None or hold equal numbers."""
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)


def _rebuild(points: Real, shape: tuple[int, ...], eps: float, threads: int, engine: str) -> CpuNufft:
    return CpuNufft(points, shape, eps=eps, convolver=open_convolver(engine, threads))

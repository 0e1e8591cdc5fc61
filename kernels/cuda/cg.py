"""Conjugate gradients on a GPU: the whole loop is one CUDA graph, which the host starts once and waits for nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.checks import check_shape
from kernels.contract import Complex
from kernels.cuda._load import Runtime, blocks_of, check_here
from kernels.cuda.coils import THREADS

SOURCE = "cg.cu"
MOST_BLOCKS = 512  # partial sums of a dot product, which every block adds up again
REHEARSALS = 2  # before recording: the first compiles and plans, the second finds its memory where the third will
NAMES = {SOURCE: ("begin", "measure", "advance", "turn")}

Apply = Callable[[Complex], Complex]
Work = Callable[[], None]
Record = Callable[[Runtime, Work], Work]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A CUDA graph, and its memory and stream, which must live as long."""

    graph: Any
    pool: Any
    stream: Any

    def start(self) -> None:
        """Queue the graph on the current stream."""
        self.graph.launch()


def record_graph(runtime: Any, work: Work) -> Work:
    """`work`, which may only queue work for the device, recorded as a CUDA graph: a function that starts it.

    CuPy records its own kernels and cuFFT but raises for cuBLAS, cuSOLVER and copies to the host (CuPy 14).
    Memory that `work` takes comes from a pool that belongs to the graph, so that nothing else is there when it is
    started again; the stream stays too, because the FFT's plans are kept by stream. The caller keeps the arrays that
    `work` closes over. Waits for the device.
    """
    cupy = runtime.xp
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.Device(runtime.number):
        cupy.cuda.get_current_stream().synchronize()
        stream = cupy.cuda.Stream(non_blocking=True)
        with cupy.cuda.using_allocator(pool.malloc), stream:
            for _ in range(REHEARSALS):
                work()
            stream.synchronize()
            stream.begin_capture()
            work()
            graph = stream.end_capture()
    return Recorded(graph, pool, stream).start


class CudaCg:
    """normal(x) = rhs for any number of rhs [*shape]; see `recon.solve.cg`, of which this is the recorded form.

    `normal` is Hermitian and positive semidefinite, and is called while recording only: it may queue work for the
    device but not wait for it, and reads its own arrays (maps, weights) where they lay then, whatever they hold at the
    time of a solve. Solves belong to one stream at a time. Holds four arrays of `shape` and what `normal` takes.
    """

    def __init__(
        self,
        runtime: Runtime,
        normal: Apply,
        *,
        shape: tuple[int, ...],
        iterations: int,
        tolerance: float = 0.0,
        record: Record = record_graph,
    ) -> None:
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}, expected at least 1: ask for one or more")
        xp, count = runtime.xp, prod(shape)
        self.shape = tuple(shape)
        self.iterations = iterations
        self._runtime = runtime
        self._normal = normal
        self._tolerance = float(tolerance)
        self._blocks = min(blocks_of(count, THREADS), MOST_BLOCKS)
        self._rhs, self._x, self._residual, self._direction = (xp.zeros(self.shape, np.complex64) for _ in range(4))
        self._partial = tuple(xp.empty(self._blocks, np.float64) for _ in range(3))  # two powers and the curvature
        self._powers = xp.zeros(iterations + 1, np.float64)
        self._stopped = xp.zeros(iterations + 1, np.int32)
        self._start = record(runtime, self._queue)

    def solve(self, rhs: Complex) -> Complex:
        """x [*shape] for `rhs`, queued on the current stream."""
        check_here(self._runtime, rhs=rhs)
        check_shape(rhs, "rhs", self.shape)
        self._rhs[...] = rhs
        self._start()
        return self._x.copy()  # type: ignore[no-any-return]

    def residuals(self) -> NDArray[np.float64]:
        """‖rhs − normal(x)‖ / ‖rhs‖ before the first and after each iteration of the last solve; waits for it.

        Ends where the loop stopped moving.
        """
        powers, stopped = self._runtime.get(self._powers), self._runtime.get(self._stopped)
        moved = 1 + int((stopped[1:] == 0).sum())
        return np.sqrt(powers[:moved] / (powers[0] or 1.0))

    def _queue(self) -> None:
        """The whole loop."""
        power, spare, curvature = self._partial
        vectors = (self._x, self._residual, self._direction)
        self._launch("begin", self._rhs, *vectors, power, self._stopped)
        for iteration in range(self.iterations):
            image = self._runtime.xp.ascontiguousarray(self._normal(self._direction))
            self._launch("measure", self._direction, image, curvature)
            sums = (power, curvature, spare, self._powers, self._stopped)
            self._launch("advance", *vectors, image, *sums, self._tolerance, iteration)
            self._launch("turn", self._residual, self._direction, spare, self._powers, self._stopped, iteration)
            power, spare = spare, power

    def _launch(self, name: str, *args: Any) -> None:
        self._runtime.launch((SOURCE, name), (self._blocks,), (THREADS,), *args, prod(self.shape))

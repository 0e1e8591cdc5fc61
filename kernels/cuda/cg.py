"""Conjugate gradients on a GPU: the whole loop is one CUDA graph, which the host starts once and waits for nowhere."""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.checks import check_shape
from kernels.contract import Complex, Equations
from kernels.cuda._load import Recent, Runtime, blocks_of, check_here
from kernels.cuda.coils import THREADS

SOURCE = "cg.cu"
MOST_BLOCKS = 512  # partial sums of a dot product, which every block adds up again
MOST_SOLVERS = 4  # recorded loops that are kept, each with its memory
RECORDED_BYTES = 256 << 20  # of operands; above, launches are cheap beside the work, and copies of operands are not
NAMES = {SOURCE: ("begin", "measure", "advance", "turn")}


class CudaCg:
    """The loop for `equations` and any number of right-hand sides [*shape] of the same kind.

    The equations' `normal` is called while recording only: it may queue work for the device but not wait for it. Solves
    belong to one stream at a time. Holds the operands, four arrays of `shape`, and what `normal` takes; with operands
    of more than RECORDED_BYTES it records nothing and holds none of theirs.
    """

    def __init__(
        self,
        runtime: Runtime,
        equations: Equations,
        *,
        shape: tuple[int, ...],
        iterations: int,
        tolerance: float = 0.0,
    ) -> None:
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}, expected at least 1: ask for one or more")
        xp, count = runtime.xp, prod(shape)
        self.shape = tuple(shape)
        self.iterations = iterations
        self._runtime = runtime
        self._normal = equations.normal
        self._tolerance = float(tolerance)
        self._blocks = min(blocks_of(count, THREADS), MOST_BLOCKS)
        self._rhs, self._x, self._residual, self._direction = (xp.zeros(self.shape, np.complex64) for _ in range(4))
        self._partial = tuple(xp.empty(self._blocks, np.float64) for _ in range(3))  # two powers and the curvature
        self._powers = xp.zeros(iterations + 1, np.float64)
        self._stopped = xp.zeros(iterations + 1, np.int32)
        self._recorded = is_recorded(equations)
        self._operands = tuple(o.copy() for o in equations.operands) if self._recorded else ()
        self._start = runtime.record(self._queue) if self._recorded else self._queue

    def solve(self, rhs: Complex, operands: tuple[Any, ...] = ()) -> Complex:
        """x [*shape] for `rhs` and operands like those it was made with, queued on the current stream."""
        check_here(self._runtime, rhs=rhs, **{f"operand {i}": operand for i, operand in enumerate(operands)})
        check_shape(rhs, "rhs", self.shape)
        if self._recorded:
            for mine, operand in zip(self._operands, operands, strict=True):
                mine[...] = operand
        else:
            self._operands = operands
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
            image = self._runtime.xp.ascontiguousarray(self._normal(self._direction, *self._operands))
            self._launch("measure", self._direction, image, curvature)
            sums = (power, curvature, spare, self._powers, self._stopped)
            self._launch("advance", *vectors, image, *sums, self._tolerance, iteration)
            self._launch("turn", self._residual, self._direction, spare, self._powers, self._stopped, iteration)
            power, spare = spare, power

    def _launch(self, name: str, *args: Any) -> None:
        self._runtime.launch((SOURCE, name), (self._blocks,), (THREADS,), *args, prod(self.shape))


class Solvers:
    """The loops recorded last; see `Kernels.cg`. For one stream at a time."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._kept = Recent(MOST_SOLVERS)
        self._lock = threading.Lock()

    def solve(self, equations: Equations, rhs: Complex, *, iterations: int, tolerance: float) -> Complex:
        """See `Kernels.cg`."""
        check_here(self._runtime, rhs=rhs)

        def make() -> CudaCg:
            return CudaCg(self._runtime, equations, shape=rhs.shape, iterations=iterations, tolerance=tolerance)

        if not is_recorded(equations):
            return make().solve(rhs, equations.operands)
        sizes = tuple((operand.shape, operand.dtype.str) for operand in equations.operands)
        with self._lock:
            solver: CudaCg = self._kept.get((equations.key, sizes, rhs.shape, iterations, tolerance), make)
            return solver.solve(rhs, equations.operands)


def is_recorded(equations: Equations) -> bool:
    """Whether a loop for `equations` is worth a graph and copies of the operands."""
    return sum(operand.nbytes for operand in equations.operands) <= RECORDED_BYTES

"""Proximal steps on a GPU; nothing here waits for the device."""

from __future__ import annotations

from math import prod

import numpy as np

from kernels.checks import check_low_rank, check_threshold
from kernels.contract import Complex
from kernels.cuda._load import Runtime, blocks_of, check_here
from kernels.cuda.coils import MOST_BLOCKS_YZ, THREADS, count

WARP = 32
SHARED_BYTES = 160 << 10  # of one block's matrix: what an A100 has
NAMES = {"prox.cu": ("shrink", "low_rank")}


class CudaProx:
    """Proximal steps of one device; each takes memory for its result only."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def shrink(self, x: Complex, threshold: float) -> Complex:
        """See `Kernels.shrink`."""
        check_here(self._runtime, x=x)
        check_threshold(x, threshold)
        source = self._runtime.xp.ascontiguousarray(x)
        out = self._runtime.xp.empty(x.shape, np.complex64)
        grid = (blocks_of(count(x), THREADS),)
        self._runtime.launch(("prox.cu", "shrink"), grid, (THREADS,), source, out, float(threshold), count(x))
        return out  # type: ignore[no-any-return]

    def low_rank(
        self, x: Complex, threshold: float, *, block: tuple[int, ...], shift: tuple[int, ...] | None = None
    ) -> Complex:
        """See `Kernels.low_rank`; magnitudes from 1e-18 to 1e18. Raises ValueError where a block is too large."""
        check_here(self._runtime, x=x)
        moved = solid(check_low_rank(x, threshold, block, shift), 0)
        sizes = solid(x.shape[1:], 1)
        edges = tuple(min(b, n) for b, n in zip(solid(block, 1), sizes, strict=True))
        shared = matrix_bytes(len(x), prod(edges))
        if shared > SHARED_BYTES:
            raise ValueError(
                f"block {block} of {len(x)} frames needs {shared} bytes of shared memory, expected at most"
                f" {SHARED_BYTES}: use smaller blocks"
            )
        grid = tuple(blocks_of(n, b) for n, b in zip(sizes, edges, strict=True))[::-1]
        if max(grid[1:]) > MOST_BLOCKS_YZ:
            raise ValueError(f"{max(grid[1:])} blocks along y or z, expected at most {MOST_BLOCKS_YZ}: use larger ones")
        source = self._runtime.xp.ascontiguousarray(x)
        out = self._runtime.xp.empty(x.shape, np.complex64)
        arguments = (source, out, float(threshold), len(x), *sizes, *edges, *moved)
        threads = (matrix_threads(len(x), prod(edges)),)
        self._runtime.launch(("prox.cu", "low_rank"), grid, threads, *arguments, shared_bytes=shared)
        return out  # type: ignore[no-any-return]


def matrix_bytes(frames: int, voxels: int) -> int:
    """Shared memory of one block: its vectors, the rotations behind them, and a factor for each."""
    vectors, length = min(frames, voxels), max(frames, voxels)
    return 8 * vectors * (length + vectors) + 8 * blocks_of(vectors, 2)


def matrix_threads(frames: int, voxels: int) -> int:
    """A warp for each pair of vectors, as many as fit a block."""
    return min(THREADS, WARP * blocks_of(min(frames, voxels), 2))


def solid(sizes: tuple[int, ...], fill: int) -> tuple[int, int, int]:
    """One to three axes as (z, y, x)."""
    z, y, x = (fill,) * (3 - len(sizes)) + sizes
    return z, y, x

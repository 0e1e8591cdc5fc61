"""The host shim does what it says: it must fail where a kernel is wrong, or its proofs are worth nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda.sanitized import run_sanitized
from tests.cuda.shim import ShimRuntime, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="g++ is not installed: no CUDA source is executed here")

SOURCE = """
#include "common.cuh"

__global__ void reverse(const float* in, float* out) {
    SHARED(float, held, 64);
    held[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * 64 + threadIdx.x] = held[63 - threadIdx.x];
}

__global__ void reverse_without_barrier(const float* in, float* out) {
    SHARED(float, held, 64);
    held[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
    out[blockIdx.x * 64 + threadIdx.x] = held[63 - threadIdx.x];
}

__global__ void half_waits(float* out) {
    if (threadIdx.x < 32) __syncthreads();
    out[threadIdx.x] = 1.f;
}

__global__ void add_in_warps(const float* in, float* out) {
    float sum = in[threadIdx.x];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0) out[threadIdx.x / 32] = sum;
}

__global__ void count(int* total) { atomicAdd(total, 1); }

__global__ void widened(const unsigned short* in, float* out) { out[threadIdx.x] = widen(in[threadIdx.x]); }

__global__ void beyond(float* out, int where) {
    DYNAMIC_SHARED(float, held);
    held[threadIdx.x] = 1.f;
    __syncthreads();
    out[threadIdx.x + where] = held[threadIdx.x];
}

__global__ void beyond_shared(float* out, int where) {
    DYNAMIC_SHARED(float, held);
    held[threadIdx.x + where] = 1.f;
    __syncthreads();
    out[threadIdx.x] = 0.f;
}
"""
NAMES = (
    "reverse",
    "reverse_without_barrier",
    "half_waits",
    "add_in_warps",
    "count",
    "widened",
    "beyond",
    "beyond_shared",
)


class Launcher:
    """The kernels of SOURCE."""

    def __init__(self, folder: Path) -> None:
        self.file = str(folder / "own.cu")
        Path(self.file).write_text(SOURCE, encoding="utf-8")

    def __call__(self, name: str, blocks: int, threads: int, *args: Any, seed: int = 0) -> None:
        ShimRuntime({self.file: NAMES}, seed=seed).launch((self.file, name), (blocks,), (threads,), *args)


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    return Launcher(tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_barriers_hold_all_threads_of_a_block(launch: Launcher, seed: int) -> None:
    values, out = np.arange(128, dtype=np.float32), np.empty(128, np.float32)
    launch("reverse", 2, 64, values, out, seed=seed)
    assert np.array_equal(out.reshape(2, 64), values.reshape(2, 64)[:, ::-1])


def test_a_missing_barrier_reads_what_was_never_written(launch: Launcher) -> None:
    values, out = np.arange(64, dtype=np.float32), np.empty(64, np.float32)
    launch("reverse_without_barrier", 1, 64, values, out)
    assert np.isnan(out).any()


def test_a_barrier_that_some_threads_miss_is_an_error(launch: Launcher) -> None:
    with pytest.raises(RuntimeError, match=r"half_waits: thread \d+ waits at a barrier that others never reach"):
        launch("half_waits", 1, 64, np.empty(64, np.float32))


def test_shuffles_exchange_values_within_a_warp(launch: Launcher) -> None:
    values, out = np.arange(64, dtype=np.float32), np.empty(2, np.float32)
    launch("add_in_warps", 1, 64, values, out, seed=3)
    assert np.array_equal(out, values.reshape(2, 32).sum(axis=1))


def test_atomics_and_the_whole_grid(launch: Launcher) -> None:
    total = np.zeros(1, np.int32)
    launch("count", 7, 33, total)
    assert total[0] == 7 * 33


def test_half_precision_is_numpys(launch: Launcher) -> None:
    halves = np.array([0.1, -2.5, 6e-8, 65504], np.float16)
    out = np.empty(4, np.float32)
    launch("widened", 1, 4, halves.view(np.uint16), out)
    assert np.array_equal(out, halves.astype(np.float32))


@pytest.mark.parametrize("name", ["beyond", "beyond_shared"])
def test_the_address_sanitizer_sees_one_step_out_of_bounds(launch: Launcher, name: str) -> None:
    code = f"""
        runtime = ShimRuntime({{{launch.file!r}: {NAMES!r}}}, sanitize=True)
        out = np.empty(1000, np.float32)
        def go(where, size):
            kernel = ({launch.file!r}, {name!r})
            runtime.launch(kernel, (1,), (40,), out[1000 - size:], where, shared_bytes=160)
        go(0, 40)
        print("still here", flush=True)
        go(1, 40)
    """
    done = run_sanitized(code)
    assert done.stdout == "still here\n"
    assert "heap-buffer-overflow" in done.stderr
    assert "own.cu" in done.stderr

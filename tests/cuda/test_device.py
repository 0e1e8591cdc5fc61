"""What only a GPU can show: no call waits, any stream, the same bits every time, at sizes where blocks run at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.cuda import CudaKernels
from kernels.cuda._load import open_runtime
from kernels.cuda.toeplitz import CudaToeplitz
from kernels.reference import direct
from tests import tolerances
from tests.cases import noise, open_device, spokes, uniform
from tests.laws import assert_near


@pytest.fixture
def cupy() -> Any:
    return pytest.importorskip("cupy")


@pytest.fixture
def k(cupy: Any) -> CudaKernels:
    kernels: CudaKernels = open_device("cuda").kernels  # skips with the reason
    return kernels


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(17)


@pytest.mark.gpu
@pytest.mark.parametrize("coils", [8, 32])
def test_a_real_radial_scan_against_some_of_its_direct_sums(
    k: CudaKernels, cupy: Any, rng: np.random.Generator, coils: int
) -> None:
    shape, points = (256, 256), spokes(256, 256)
    x = noise(rng, coils, *shape)
    y = cupy.asnumpy(k.nufft(points, shape).forward(cupy.asarray(x))).reshape(coils, -1)
    some = rng.choice(y.shape[1], 200, replace=False)
    assert_near(y[:, some], direct.nufft_forward(points.reshape(-1, 2)[some], x, shape), tolerances.nufft(1e-4))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(256, 256), (64, 64, 64)], ids=str)
def test_large_spreads_repeat_bit_for_bit(
    k: CudaKernels, cupy: Any, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    plan = k.nufft(uniform(rng, 200_000, len(shape)), shape)
    y = cupy.asarray(noise(rng, 4, 200_000))
    first = plan.adjoint(y)
    for _ in range(5):
        assert bool((plan.adjoint(y) == first).all())


@pytest.mark.gpu
def test_no_call_waits_for_the_device(k: CudaKernels, cupy: Any, rng: np.random.Generator) -> None:
    """CUDA refuses to record what would wait."""
    points, shape = uniform(rng, 5000, 2), (64, 60)
    plan, operator = k.nufft(points, shape), CudaToeplitz(open_runtime(0), points, shape=shape)
    x, maps = cupy.asarray(noise(rng, *shape)), cupy.asarray(noise(rng, 5, *shape))
    weights = cupy.ones(5000, np.float32)

    def work() -> list[Any]:
        y = plan.forward(maps)
        return [
            plan.adjoint(y),
            plan.normal(x, maps=maps, weights=weights),
            operator(x, maps=maps),
            k.ifft_rss(maps[:, np.newaxis], crop=(1, 32, 60)),
        ]

    expected = [found.copy() for found in work()]
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    cupy.cuda.get_current_stream().synchronize()
    with cupy.cuda.using_allocator(pool.malloc), stream:
        for _ in range(2):
            work()
        stream.synchronize()
        stream.begin_capture()
        recorded = work()
        graph = stream.end_capture()
        graph.launch()
        stream.synchronize()
    for found, wanted in zip(recorded, expected, strict=True):
        assert bool((found == wanted).all())

"""The normal operator as a convolution: against the direct sum, on the CUDA source executed here."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

from kernels.cuda import toeplitz
from kernels.cuda.graph import Work
from kernels.cuda.nufft import CudaNufft
from kernels.cuda.toeplitz import SIGMA, CudaToeplitz, Pair, even_smooth
from kernels.plan import FINEST_EPS
from kernels.reference import direct
from tests import tolerances
from tests.cases import COILS, noise, uniform
from tests.cuda.shim import ShimRuntime, all_names, find_compiler
from tests.laws import assert_adjoint, assert_near, assert_repeatable

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="g++ is not installed: no CUDA source is executed here")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(13)


@pytest.fixture(scope="module")
def shim() -> ShimRuntime:
    return ShimRuntime(all_names(), seed=4)


def tolerance(shape: tuple[int, ...]) -> float:
    """Of a convolution whose point spread function is spread as accurately as can be."""
    cells = prod(even_smooth(2 * n) for n in shape)
    return tolerances.convolution(cells, spread=tolerances.nufft(FINEST_EPS[SIGMA]))


@pytest.mark.parametrize("shape", [(15,), (16, 16), (13, 18), (9, 1), (8, 7, 6)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_normal_operator(
    shim: ShimRuntime, rng: np.random.Generator, shape: tuple[int, ...], weighted: bool
) -> None:
    points = uniform(rng, 300, len(shape))
    weights = rng.uniform(0.1, 1, 300).astype(np.float32) if weighted else None
    operator = CudaToeplitz(shim, points, shape=shape, weights=weights)
    x = noise(rng, 2, *shape)
    exact = direct.nufft_normal(points, x, shape, weights=weights, maps=None)
    assert_near(operator(x), exact, tolerance(shape))
    assert_adjoint(operator, operator, x[0], x[1], tolerances.ADJOINT)
    assert_repeatable(operator, x)


@pytest.mark.parametrize("coils", COILS)
def test_it_folds_maps_in(shim: ShimRuntime, rng: np.random.Generator, coils: int) -> None:
    points, shape = uniform(rng, 200, 2), (9, 12)
    x, maps = noise(rng, *shape), noise(rng, coils, *shape)
    operator = CudaToeplitz(shim, points, shape=shape)
    expected = direct.nufft_normal(points, x, shape, weights=None, maps=maps)
    assert_near(operator(x, maps=maps), expected, tolerance(shape))


def test_refuses_weights_that_do_not_fit(shim: ShimRuntime) -> None:
    weights = np.ones(3, np.float64)
    with pytest.raises(ValueError, match=r"weights are float64 \(3,\), expected float32 \(4,\): convert them"):
        CudaToeplitz(shim, np.zeros((4, 2), np.float32), shape=(8, 8), weights=weights)  # type: ignore[arg-type]


class Timed(ShimRuntime):
    """A shim whose works take the times that are told, one after another."""

    def __init__(self, *seconds: float) -> None:
        super().__init__(all_names(), seed=4)
        self.told = list(seconds)

    def seconds(self, work: Work) -> float:
        work()
        return self.told.pop(0)


@pytest.mark.parametrize(("pair", "convolution", "chosen"), [(2.0, 1.0, CudaToeplitz), (1.0, 2.0, Pair)])
def test_a_plan_that_is_asked_again_takes_what_was_measured_to_be_faster(
    rng: np.random.Generator, pair: float, convolution: float, chosen: type
) -> None:
    runtime, shape, points = Timed(pair, convolution), (16, 16), uniform(rng, 300, 2)
    weights = rng.uniform(0.1, 1, 300).astype(np.float32)
    plan = CudaNufft(runtime, points, shape=shape)
    first = plan.operator(weights)
    assert isinstance(first, Pair) and len(runtime.told) == 2
    again = plan.operator(weights)
    assert isinstance(again, chosen) and not runtime.told
    assert plan.operator(weights) is again
    assert isinstance(plan.operator(weights.copy()), Pair)  # other weights, which may not come again either
    other = CudaNufft(runtime, uniform(rng, 300, 2), shape=shape)  # of the same size: nothing is measured again
    other.operator()
    assert isinstance(other.operator(), chosen)
    x, maps = noise(rng, *shape), noise(rng, 3, *shape)
    exact = direct.nufft_normal(points, x, shape, weights=weights, maps=maps)
    for operator in (first, again):
        assert_near(operator(x, maps=maps), exact, max(tolerance(shape), 2 * tolerances.nufft(1e-4)))


def test_a_spectrum_larger_than_it_may_be_is_not_tried(rng: np.random.Generator, monkeypatch: Any) -> None:
    monkeypatch.setattr(toeplitz, "LARGEST_SPECTRUM", 4 * 16 * 16 - 1)
    plan = CudaNufft(Timed(), uniform(rng, 30, 2), shape=(16, 16))
    assert isinstance([plan.operator() for _ in range(3)][-1], Pair)

"""The CUDA NUFFT beyond the laws that every device passes: options, order of threads, memory, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels.contract import Complex, Real
from kernels.cuda import grid, nufft_steps
from kernels.cuda.nufft import CudaNufft
from kernels.plan import POINTS_PER_BLOCK, plan_geometry
from kernels.reference import direct
from tests import tolerances
from tests.cases import COILS, noise, spokes, uniform
from tests.cuda.sanitized import run_sanitized
from tests.cuda.shim import ShimRuntime, all_names, find_compiler
from tests.laws import assert_adjoint, assert_near

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="g++ is not installed: no CUDA source is executed here")

FILE = "nufft.cu"
Shape = tuple[int, ...]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture(scope="module")
def shim() -> ShimRuntime:
    return ShimRuntime(all_names(), seed=5)


@pytest.fixture(scope="module")
def unusual() -> ShimRuntime:
    """The kernels of half weights, and of the smaller grid's widest footprints."""
    names = nufft_steps.names(widths=range(9, 10), half_widths=range(3, 6))
    wanted = tuple(name for name in names[FILE] if "16" not in name)
    return ShimRuntime(grid.NAMES | {FILE: wanted}, seed=5)


def crowded(rng: np.random.Generator, axes: int) -> Real:
    """More points in a tile than one block takes, round the seam where coordinates wrap, and a few elsewhere."""
    count = 3 * POINTS_PER_BLOCK
    seam = np.pi + 0.02 * rng.standard_normal((count, axes))
    folded = (seam + np.pi) % (2 * np.pi) - np.pi
    return np.concatenate([folded, rng.uniform(-np.pi, np.pi, (50, axes))]).astype(np.float32)


@pytest.mark.parametrize("shape", [(14, 9), (6, 5, 7)], ids=str)
def test_the_order_of_threads_and_blocks_changes_no_bit(rng: np.random.Generator, shape: Shape) -> None:
    points, coils = crowded(rng, len(shape)), 3
    x, y = noise(rng, coils, *shape), noise(rng, coils, len(points))
    results = []
    for seed in (0, 1, 2):
        plan = CudaNufft(ShimRuntime(all_names(), seed=seed), points, shape=shape)
        assert len(plan._lists._split) > 0  # the case is about tiles that are spread in parts
        results.append((plan.forward(x), plan.adjoint(y), plan.normal(x)))
    for found in zip(*results, strict=True):
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("shape", [(14, 9), (6, 5, 7)], ids=str)
def test_tiles_spread_in_parts_add_up(shim: ShimRuntime, rng: np.random.Generator, shape: Shape) -> None:
    points = crowded(rng, len(shape))
    x, y = noise(rng, 2, *shape), noise(rng, 2, len(points))
    plan = CudaNufft(shim, points, shape=shape)
    # Nearly all points see nearly the same number, and nearly all of y falls together: measured by the operator's norm.
    size = np.linalg.norm(np.concatenate(direct.exponentials(points, shape)), 2)
    assert_near(plan.forward(x), direct.nufft_forward(points, x, shape), 1e-4, norm=size * float(np.linalg.norm(x)))
    assert_near(plan.adjoint(y), direct.nufft_adjoint(points, y, shape), 1e-4, norm=size * float(np.linalg.norm(y)))
    assert_adjoint(plan.forward, plan.adjoint, x, y, tolerances.ADJOINT)


@pytest.mark.parametrize("coils", COILS)
@pytest.mark.parametrize("shape", [(12, 15), (7, 6, 9)], ids=str)
def test_maps_and_weights_of_any_number_of_coils(
    shim: ShimRuntime, rng: np.random.Generator, shape: Shape, coils: int
) -> None:
    points = uniform(rng, 150, len(shape))
    weights = rng.uniform(0.1, 1, 150).astype(np.float32)
    x, maps = noise(rng, *shape), noise(rng, coils, *shape)
    plan = CudaNufft(shim, points, shape=shape, eps=1e-5)
    expected = direct.nufft_normal(points, x, shape, weights=weights, maps=maps)
    assert_near(plan.normal(x, weights=weights, maps=maps), expected, 2 * tolerances.nufft(1e-5))


@pytest.mark.parametrize("eps", [1e-2, 1e-3])
@pytest.mark.parametrize("shape", [(24, 31), (12, 9, 10)], ids=str)
def test_half_weights_keep_a_coarse_accuracy(
    unusual: ShimRuntime, rng: np.random.Generator, shape: Shape, eps: float
) -> None:
    points, x = uniform(rng, 400, len(shape)), noise(rng, 4, *shape)
    y = noise(rng, 4, 400)
    plan = CudaNufft(unusual, points, shape=shape, eps=eps, half_weights=True)
    assert_near(plan.forward(x), direct.nufft_forward(points, x, shape), tolerances.nufft(eps))
    assert_near(plan.adjoint(y), direct.nufft_adjoint(points, y, shape), tolerances.nufft(eps))
    assert_adjoint(plan.forward, plan.adjoint, x, y, tolerances.ADJOINT)


@pytest.mark.parametrize("shape", [(40, 33), (9, 12, 8)], ids=str)
def test_the_smaller_grid_with_its_widest_kernel(unusual: ShimRuntime, rng: np.random.Generator, shape: Shape) -> None:
    points, x = uniform(rng, 300, len(shape)), noise(rng, 2, *shape)
    assert plan_geometry(points, shape, eps=5e-5, sigma=1.25).spreading.width == 9
    plan = CudaNufft(unusual, points, shape=shape, eps=5e-5, sigma=1.25)
    assert_near(plan.forward(x), direct.nufft_forward(points, x, shape), tolerances.nufft(5e-5))


def test_a_radial_scan_at_a_real_size(shim: ShimRuntime, rng: np.random.Generator) -> None:
    shape, points = (64, 64), spokes(100, 128)
    x, y = noise(rng, 8, *shape), noise(rng, 8, *points.shape[:2])
    plan = CudaNufft(shim, points, shape=shape)
    assert_near(plan.forward(x), direct.nufft_forward(points, x, shape), tolerances.nufft(1e-4))
    assert_adjoint(plan.forward, plan.adjoint, x, y, tolerances.ADJOINT)


def test_coils_beyond_the_memory_of_one_grid_take_turns(
    shim: ShimRuntime, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, shape = uniform(rng, 80, 2), (10, 11)
    x, y, maps = noise(rng, 5, *shape), noise(rng, 5, 80), noise(rng, 5, *shape)
    whole = CudaNufft(shim, points, shape=shape)
    monkeypatch.setattr(grid, "GRID_BYTES", 2 * 8 * 20 * 24)
    turns = CudaNufft(shim, points, shape=shape)
    assert [part.stop for part in turns._grid.turns(5)] == [2, 4, 5]
    assert np.array_equal(turns.forward(x), whole.forward(x))
    assert np.array_equal(turns.adjoint(y), whole.adjoint(y))
    assert_near(turns.normal(x[0], maps=maps), whole.normal(x[0], maps=maps), tolerances.sum_of(10))


def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """np.empty hands out NaN, so that what a kernel does not write shows."""

    def empty(shape: Shape, dtype: type) -> Complex:
        return np.full(shape, np.nan, dtype)

    monkeypatch.setattr(np, "empty", empty)


@pytest.mark.parametrize("shape", [(13, 10), (5, 6, 7)], ids=str)
def test_every_cell_of_the_work_memory_is_written(
    shim: ShimRuntime, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, shape: Shape
) -> None:
    points = np.full((3, len(shape)), 0.1, np.float32)  # nearly all tiles are empty
    plan = CudaNufft(shim, points, shape=shape)
    x, maps = noise(rng, *shape), noise(rng, 3, *shape)
    with monkeypatch.context() as patch:
        poisoned(patch)
        results = plan.forward(x), plan.adjoint(plan.forward(x)), plan.normal(x, maps=maps)
    assert all(np.isfinite(result).all() for result in results)


def test_no_step_leaves_its_arrays() -> None:
    done = run_sanitized(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from kernels.cuda import grid, nufft_steps
        from kernels.cuda.nufft import CudaNufft
        from tests.cases import COILS, POINTS, noise

        names = nufft_steps.names(widths=range(6, 7), half_widths=range(0))
        runtime = ShimRuntime(names | grid.NAMES, seed=1, sanitize=True)
        rng = np.random.default_rng(2)
        for shape in ((13, 18), (9, 1), (8, 7, 6), (15,)):
            for coils, make in zip(COILS, (*POINTS.values(), *POINTS.values())):
                plan = CudaNufft(runtime, make(rng, 601, len(shape)), shape=shape)
                x = noise(rng, coils, *shape)
                plan.adjoint(plan.forward(x))
                plan.normal(x[0], maps=x, weights=np.ones(601, np.float32))
        print("clean")
        """
    )
    assert done.stdout == "clean\n", done.stderr[-3000:]


def test_refuses_half_weights_for_fine_accuracy(shim: ShimRuntime) -> None:
    with pytest.raises(ValueError, match=r"eps is 0.0001, expected at least 0.001 for half weights: use full ones"):
        CudaNufft(shim, np.zeros((3, 2), np.float32), shape=(8, 8), half_weights=True)


def test_refuses_arrays_from_elsewhere(shim: ShimRuntime) -> None:
    plan = CudaNufft(shim, np.zeros((3, 2), np.float32), shape=(4, 4))
    with pytest.raises(
        TypeError, match=r"x is a builtins.list, expected numpy.ndarray on cuda:shim: move it there first"
    ):
        plan.forward([1.0])  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"weights is a builtins.list, expected numpy.ndarray on cuda:shim: move it there first"
    ):
        plan.normal(np.zeros((4, 4), np.complex64), weights=[1.0])  # type: ignore[arg-type]

"""The normal operator as a convolution: exact, the same bits every time, and chosen where it is faster."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

import kernels
from kernels.cpu.nufft import SPREAD_EPS, CpuNufft
from kernels.cpu.team import Team
from kernels.cpu.toeplitz import layout_of, open_convolver, period, response_of
from kernels.cpu.tuning import prefers_toeplitz
from kernels.reference import direct
from tests import tolerances
from tests.cases import COILS, NUFFT_SHAPES, POINTS, noise, spokes, uniform
from tests.laws import assert_near, assert_repeatable

ENGINES = ("fftw", "scipy")


def convolving(points: np.ndarray, shape: tuple[int, ...], *, engine: str = "fftw", threads: int = 1) -> CpuNufft:
    """A plan whose normal operator is a convolution, whatever is faster; with the loosest accuracy it can have."""
    plan = CpuNufft(points, shape, eps=1e-2, convolver=open_convolver(engine, threads))
    plan.convolves = True
    return plan


def tolerance(shape: tuple[int, ...]) -> float:
    """Of the convolution on the grid that it takes for images of `shape`."""
    return tolerances.convolution(prod(layout_of(shape).lengths), spread=SPREAD_EPS)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", POINTS)
@pytest.mark.parametrize("shape", NUFFT_SHAPES, ids=str)
def test_is_adjoint_after_forward(rng: np.random.Generator, shape: tuple[int, ...], kind: str, engine: str) -> None:
    points, x = POINTS[kind](rng, 251, len(shape)), noise(rng, 2, *shape)
    weights = rng.uniform(0.1, 1, 251).astype(np.float32)
    plan = convolving(points, shape, engine=engine)
    for used in (weights, None):
        exact = direct.nufft_normal(points, x, shape, weights=used, maps=None)
        size = np.linalg.norm(np.concatenate(direct.exponentials(points, shape)), 2) ** 2 * np.linalg.norm(x)
        norm = None if kind == "uniform" else float(size)  # points all alike see one number, which may be near zero
        assert_near(plan.normal(x, weights=used), exact, tolerance(shape), norm=norm)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("coils", COILS)
def test_coils_are_folded_in(rng: np.random.Generator, coils: int, threads: int) -> None:
    points, shape = uniform(rng, 200, 2), (9, 12)
    weights = rng.uniform(0.1, 1, 200).astype(np.float32)
    x, maps = noise(rng, *shape), noise(rng, coils, *shape)
    plan = convolving(points, shape, threads=threads)
    exact = direct.nufft_normal(points, x, shape, weights=weights, maps=maps)
    assert_near(plan.normal(x, weights=weights, maps=maps), exact, tolerance(shape))
    assert_repeatable(lambda image: plan.normal(image, weights=weights, maps=maps), x)


@pytest.mark.parametrize("shape", [(150, 70), (20, 34, 26)], ids=str)
def test_grids_of_many_tiles(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    points = uniform(rng, 300, len(shape))
    x = np.zeros(shape, np.complex64)
    corner, middle = (0,) * len(shape), tuple(n // 2 for n in shape)
    x[corner], x[middle] = 1, 2j
    normal = convolving(points, shape).normal(x)
    # The sum over two voxels only, at all: E^H E x with E's two columns.
    places = np.array([corner, middle]) - np.array(shape) // 2
    y = np.exp(-1j * points.astype(np.float64) @ places.T) @ np.array([1, 2j])
    exact = direct.nufft_adjoint(points, y, shape)
    assert_near(normal, exact, tolerance(shape))


def test_strided_images_and_maps(rng: np.random.Generator) -> None:
    plan = convolving(uniform(rng, 60, 2), (7, 6))
    x, maps = noise(rng, 6, 7).T, noise(rng, 6, 7, 3).T
    assert np.array_equal(plan.normal(x), plan.normal(x.copy()))
    assert np.array_equal(plan.normal(x, maps=maps), plan.normal(x.copy(), maps=maps.copy()))


def test_other_weights_make_another_response(rng: np.random.Generator) -> None:
    points, shape, x = uniform(rng, 60, 2), (6, 7), noise(rng, 6, 7)
    weights = rng.uniform(0.1, 1, 60).astype(np.float32)
    plan = convolving(points, shape)
    first = plan.normal(x, weights=weights)
    weights *= 2  # the caller's own array, changed in place
    assert_near(plan.normal(x, weights=weights), 2 * first, tolerances.sum_of(2) + tolerance(shape))
    assert_near(plan.normal(x), direct.nufft_normal(points, x, shape, weights=None, maps=None), tolerance(shape))


def test_a_response_is_real_and_of_float32(rng: np.random.Generator) -> None:
    layout = layout_of((5, 6))
    delta = np.zeros(layout.lengths, np.complex64)
    delta[0, 0, 0] = 1
    response = response_of(delta, layout)
    assert response.dtype == np.float32
    kept = response.reshape(-1, response.shape[-1])[: layout.lengths[2], : layout.lengths[1]]
    np.testing.assert_allclose(kept, 1 / np.prod(layout.lengths), rtol=tolerances.fft(kept.size))


def test_periods_hold_a_convolution_and_transform_fast() -> None:
    assert [period(n) for n in (1, 2, 8, 9, 256, 320)] == [1, 3, 15, 18, 512, 640]


def test_convolves_where_the_response_fits() -> None:
    # At many points as at few, for which the pair has FINUFFT's grid to transform twice.
    assert all(prefers_toeplitz(points, (48, 48, 48), eps=2.5e-5) for points in (100, 5_000, 96_000))
    assert not prefers_toeplitz(10**9, (512, 512, 512), eps=1e-3)  # its response would take more than 134 MB
    assert kernels.on("cpu").nufft(spokes(64, 512), (256, 256)).convolves


def test_a_team_deals_out_the_same_shares_and_hands_errors_on() -> None:
    shares: list[list[int]] = []
    Team(3).share(lambda items: shares.append(list(items)), range(8))
    assert sorted(shares) == [[0, 3, 6], [1, 4, 7], [2, 5]]
    shares.clear()
    Team(3).share(lambda items: shares.append(list(items)), range(0))
    assert shares == []

    def fail(items: object) -> None:
        raise RuntimeError("no")

    for count in (1, 4):
        with pytest.raises(RuntimeError, match="no"):
            Team(2).share(fail, range(count))

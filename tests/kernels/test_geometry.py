"""Folding of coordinates and density compensation, against analytic integrals."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

import kernels
from kernels.contract import Kernels, Real
from kernels.geometry import density_koosh, density_pipe_menon, density_radial, density_voronoi, fold
from tests import tolerances
from tests.cases import cartesian, spiral, spokes, uniform
from tests.laws import assert_near, distance


@pytest.fixture(scope="module")
def cpu() -> Kernels:
    return kernels.on("cpu")


def gaussian(shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """A smooth object beside the centre, far smaller than the field of view."""
    axes = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
    distances = sum((axis - 2 + 4 * i) ** 2 for i, axis in enumerate(axes))
    return np.exp(-distances / (2 * sigma**2)).astype(np.complex64)


def test_folding_is_exact_in_double_precision(rng: np.random.Generator) -> None:
    points = uniform(rng, 1000, 2).astype(np.float64)
    assert np.abs(fold(points, (8, 8)) - points).max() <= 4 * np.finfo(np.float64).eps
    edges = fold(np.array([[np.pi], [-np.pi], [np.pi * (1 + 5e-7)]]), (8,))
    assert edges.min() >= -np.pi
    assert edges.max() < np.pi
    assert edges[2, 0] == pytest.approx(-np.pi + 5e-7 * np.pi, abs=1e-15)


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 2, 13, 144])
def test_radial_weights_integrate_over_the_plane(offset: float, count: int) -> None:
    points, sigma = spokes(count, 64, offset=offset), 0.6
    weights = density_radial(points)
    f = np.exp(-(points.astype(np.float64) ** 2).sum(axis=-1) / (2 * sigma**2))
    integral = 2 * np.pi * sigma**2 / (2 * np.pi) ** 2
    # Next term of Euler and Maclaurin: B₄ Δ⁴ f''(0) / 8 on either side, against ∫|ρ|f dρ = 2σ²; weights are float32.
    kink = (2 * np.pi / 64 / sigma) ** 4 / 240
    assert (weights * f).sum() == pytest.approx(integral, rel=kink + 64 * tolerances.ROUND)


@pytest.mark.parametrize("first", [0.0, 0.5])
def test_spokes_from_the_centre_outwards(first: float) -> None:
    angle = np.arange(30) * np.pi * (3 - np.sqrt(5))
    radius = np.pi * (np.arange(64) + first) / 64
    points = np.stack([np.outer(np.sin(angle), radius), np.outer(np.cos(angle), radius)], axis=-1).astype(np.float32)
    sigma = 0.5
    f = np.exp(-(points.astype(np.float64) ** 2).sum(axis=-1) / (2 * sigma**2))
    kink = (np.pi / 64 / sigma) ** 4 / 240
    expected = 2 * np.pi * sigma**2 / (2 * np.pi) ** 2
    assert (density_radial(points) * f).sum() == pytest.approx(expected, rel=kink + 64 * tolerances.ROUND)


def test_repeated_spokes_share_their_weight() -> None:
    once = spokes(8, 32)
    twice = np.concatenate([once, once])
    assert_near(density_radial(twice).reshape(2, 8, 32).sum(axis=0), density_radial(once), 8 * tolerances.ROUND)


def test_radial_weights_invert_the_transform(cpu: Kernels) -> None:
    shape = (32, 32)
    angle = np.arange(100) * np.pi / 100
    radius = 2 * np.pi * (np.arange(64) - 32) / 64
    points = np.stack([np.outer(np.sin(angle), radius), np.outer(np.cos(angle), radius)], axis=-1).astype(np.float32)
    plan, image = cpu.nufft(points, shape), gaussian(shape, 3)
    found = plan.adjoint(density_radial(points) * plan.forward(image))
    # What the kink leaves grows as (Δ·r)⁴ over the field of view: 0.4 % of the norm here; angles are exact.
    assert distance(found, image) <= 0.01


@pytest.mark.parametrize("shape", [(16,), (9,), (12, 15), (6, 8, 5)], ids=str)
def test_cartesian_weights_are_one_over_the_number_of_voxels(
    cpu: Kernels, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    weights = density_pipe_menon(cpu, cartesian(shape), shape)
    assert np.abs(weights * prod(shape) - 1).max() <= tolerances.nufft(1e-4)
    plan = cpu.nufft(cartesian(shape), shape)
    kspace = cpu.fft(gaussian(shape, 2), axes=len(shape))
    assert_near(np.sqrt(prod(shape)) * plan.adjoint(weights * kspace), gaussian(shape, 2), 3 * tolerances.nufft(1e-4))


@pytest.mark.parametrize(
    ("name", "points"), [("radial", spokes(89, 96)), ("spiral", spiral(8, 900, 5)), ("spiral-wide", spiral(16, 900, 3))]
)
def test_weights_by_iteration_invert_the_transform(cpu: Kernels, name: str, points: Real) -> None:
    shape = (48, 48)
    weights = density_pipe_menon(cpu, points, shape)
    assert weights.dtype == np.float32
    assert weights.shape == points.shape[:-1]
    assert weights.min() > 0
    plan, image = cpu.nufft(points, shape), gaussian(shape, 3)
    # After ten iterations w ⊛ ψ is 1 within a per cent, and an error of the point spread function is one of the image.
    assert distance(plan.adjoint(weights * plan.forward(image)), image) <= 0.01


def test_both_ways_agree_where_spokes_are_dense(cpu: Kernels) -> None:
    points = spokes(233, 64)
    inner = np.abs(np.linspace(-1, 1, 65)[:-1]) < 0.8
    iterated = density_pipe_menon(cpu, points, (32, 32), iterations=30)[:, inner]
    plan, image = cpu.nufft(points, (32, 32)), gaussian((32, 32), 3)
    assert iterated.sum() == pytest.approx(density_radial(points)[:, inner].sum(), rel=0.02)
    both = [
        plan.adjoint(w * plan.forward(image))
        for w in (density_radial(points), density_pipe_menon(cpu, points, (32, 32)))
    ]
    assert distance(both[0], both[1]) <= 0.02


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            np.zeros((4, 8, 3), np.float32),
            r"points have shape \(4, 8, 3\), expected \[shot, sample, 2\]: use density_p",
        ),
        (spiral(4, 100, 3), "points are not straight spokes through the centre: use density_pipe_menon"),
        (spokes(5, 32) + np.float32(0.5), "points are not straight spokes through the centre"),
        (spokes(5, 32)[:, 8:], "spokes reach .* radians further on one side: use density_pipe_menon"),
    ],
)
def test_refuses_points_that_are_no_spokes(points: Real, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        density_radial(points)


def ball(count: int, samples: int) -> Real:
    """Spokes of equal shares of the half sphere, turned on by the golden angle; to ±π."""
    height, turn = 1 - (np.arange(count) + 0.5) / count, np.arange(count) * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - height**2)
    along = 2 * np.pi * (np.arange(samples) - samples // 2) / samples
    directions = np.stack([height, flat * np.sin(turn), flat * np.cos(turn)], axis=-1)
    return (along[:, None] * directions[:, None]).astype(np.float32)


@pytest.mark.parametrize("centre_out", [False, True])
def test_weights_of_a_koosh_ball_integrate_over_space(centre_out: bool) -> None:
    """∫ exp(−ρ²/2σ²) d³k = (2πσ²)^(3/2): equal steps sum a smooth ρ² f(ρ), which ends at 0, far better than 1e-6."""
    points, sigma = ball(200, 64), 0.5
    if centre_out:
        points = np.concatenate([points[:, 32:], -points[:, 32:]])
    f = np.exp(-(points.astype(np.float64) ** 2).sum(axis=-1) / (2 * sigma**2))
    found = (density_koosh(points) * f).sum() * (2 * np.pi) ** 3
    assert found == pytest.approx((2 * np.pi * sigma**2) ** 1.5, rel=64 * tolerances.ROUND)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((4, 8, 2), np.float32), r"points have shape \(4, 8, 2\), expected \[shot, sample, 3\]: use"),
        (ball(50, 32) + np.float32(0.5), "points are not straight spokes through the centre"),
        (ball(100, 32)[:50], r"directions are uneven by 0\.\d+, expected at most 0.02: use density_pipe_menon"),
    ],
)
def test_refuses_points_that_are_no_koosh_ball(points: Real, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        density_koosh(points)


@pytest.mark.parametrize("shape", [(12, 15), (5, 6, 7)], ids=str)
def test_cells_of_a_cartesian_grid_are_equal_boxes(shape: tuple[int, ...]) -> None:
    weights = density_voronoi(cartesian(shape))
    inner = tuple(slice(1, -1) for _ in shape)
    assert np.abs(weights[inner] * prod(shape) - 1).max() <= 1e-5  # corners of cells from points rounded to float32
    assert weights.sum() == pytest.approx(1, rel=1e-5)  # all of the box ±π


def test_cells_of_random_points_fill_the_box(rng: np.random.Generator) -> None:
    for axes, count in ((2, 900), (3, 400)):
        weights = density_voronoi(uniform(rng, count, axes))
        assert weights.min() > 0
        assert weights.sum() == pytest.approx(1, rel=1e-5)


def test_cells_of_spokes_are_the_analytic_weights() -> None:
    points = spokes(89, 96)
    weights, expected = density_voronoi(points), density_radial(points)
    radius = np.abs(np.arange(96) - 48)
    between = (radius > 4) & (radius < 44)  # near the centre and the rim cells are no rectangles
    # A chord stands for the arc of 2π/178 or less: 1/24 of its square shorter.
    np.testing.assert_allclose(weights[:, between], expected[:, between], rtol=(2 * np.pi / 89) ** 2)
    # The disc of radius π over (2π)², whose polygon has 89 corners or more.
    assert weights.sum() == pytest.approx(np.pi / 4, rel=3e-3)


def test_cells_integrate_over_the_plane_but_for_the_centre() -> None:
    points, sigma, step = spokes(144, 96), 0.5, 2 * np.pi / 96
    f = np.exp(-(points.astype(np.float64) ** 2).sum(axis=-1) / (2 * sigma**2))
    integral = 2 * np.pi * sigma**2
    # The disc of the centre's cell is π step²/4, where Euler and Maclaurin's sum wants π step²/6 (`ramp_across`).
    excess = np.pi * step**2 * (1 / 4 - 1 / 6)
    found = (density_voronoi(points) * f).sum() * (2 * np.pi) ** 2
    # Chords for arcs, 1/24 of the square of at most 2π/144·1.6; the next term of the sum is smaller.
    assert found == pytest.approx(integral + excess, rel=(2 * np.pi / 144) ** 2)


def test_samples_at_one_place_share_its_cell() -> None:
    once = spokes(8, 32)
    twice = np.concatenate([once, once])
    shared, alone = density_voronoi(twice).reshape(2, 8, 32), density_voronoi(once)
    assert np.array_equal(shared[0], shared[1])
    assert_near(shared.sum(axis=0), alone, 8 * tolerances.ROUND)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((4, 8, 1), np.float32), "points have 1 axes, expected 2 or 3: use density_pipe_menon"),
        (np.zeros((4, 2), np.float32), "points lie at 1 places, expected at least 4: use density_pipe_menon"),
        (np.full((4, 2), np.nan, np.float32), "points reach nan radians per voxel"),
    ],
)
def test_refuses_points_without_cells(points: Real, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        density_voronoi(points)

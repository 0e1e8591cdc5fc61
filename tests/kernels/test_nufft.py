"""NUFFT: the laws of its contract on every device, and independent judges."""

from __future__ import annotations

import threading
from math import prod
from pathlib import Path

import numpy as np
import pytest

import kernels
from bench.nufft_sides import koosh_ball
from kernels.contract import Complex
from kernels.cpu.tuning import gains_from_parts
from kernels.reference import direct
from tests import tolerances
from tests.cases import COILS, NUFFT_SHAPES, POINTS, Device, cartesian, noise, spokes, uniform
from tests.laws import (
    assert_adjoint,
    assert_linear,
    assert_near,
    assert_normal,
    assert_pickles,
    assert_repeatable,
    distance,
)
from tests.recon.judges import Bart

EPS = (1e-2, 1e-3, 1e-4, 1e-5)


@pytest.mark.parametrize("shape", NUFFT_SHAPES, ids=str)
@pytest.mark.parametrize("kind", POINTS)
@pytest.mark.parametrize("eps", EPS)
def test_is_within_eps_of_the_direct_sum(
    device: Device, rng: np.random.Generator, shape: tuple[int, ...], kind: str, eps: float
) -> None:
    points = POINTS[kind](rng, 301, len(shape))
    plan = device.kernels.nufft(device.put(points), shape, eps=eps)
    x, y = noise(rng, *shape), noise(rng, 301)
    forward, adjoint = direct.nufft_forward(points, x, shape), direct.nufft_adjoint(points, y, shape)
    # Points that are all alike see one number, which may be near zero: their error is measured by the operator's norm.
    size = 0.0 if kind == "uniform" else np.linalg.norm(np.concatenate(direct.exponentials(points, shape)), 2)
    norms = [max(np.linalg.norm(ax), size * np.linalg.norm(v)) for ax, v in ((forward, x), (adjoint, y))]
    assert_near(device.get(plan.forward(device.put(x))), forward, tolerances.nufft(eps), norm=norms[0])
    assert_near(device.get(plan.adjoint(device.put(y))), adjoint, tolerances.nufft(eps), norm=norms[1])


@pytest.mark.parametrize(("size", "eps"), [(256, 1e-4), (256, 1e-5), (400, 1e-5), (1500, 1e-4)])
def test_keeps_eps_on_grids_where_single_precision_would_not(rng: np.random.Generator, size: int, eps: float) -> None:
    points = uniform(rng, 500, 1)
    x = noise(rng, size)
    plan = kernels.on("cpu").nufft(points, (size,), eps=eps)
    assert_near(plan.forward(x), direct.nufft_forward(points, x, (size,)), tolerances.nufft(eps))


@pytest.mark.parametrize("coils", COILS)
def test_coils_are_transformed_one_by_one(device: Device, rng: np.random.Generator, coils: int) -> None:
    points = uniform(rng, 60, 2).reshape(5, 12, 2)
    plan = device.kernels.nufft(device.put(points), (8, 9))
    x = noise(rng, 2, coils, 8, 9)
    y = device.get(plan.forward(device.put(x)))
    assert y.shape == (2, coils, 5, 12)
    assert y.dtype == np.complex64
    assert np.array_equal(y[1, -1], device.get(plan.forward(device.put(x[1, -1]))))
    back = device.get(plan.adjoint(device.put(y)))
    assert back.shape == x.shape
    assert np.array_equal(back[0, 0], device.get(plan.adjoint(device.put(y[0, 0]))))


@pytest.mark.parametrize("shape", NUFFT_SHAPES, ids=str)
def test_adjointness_linearity_and_normal(device: Device, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    points, eps = uniform(rng, 250, len(shape)), 1e-5
    plan = device.kernels.nufft(device.put(points), shape, eps=eps)

    def forward(x: Complex) -> Complex:
        return device.get(plan.forward(device.put(x)))

    def adjoint(y: Complex) -> Complex:
        return device.get(plan.adjoint(device.put(y)))

    def normal(x: Complex) -> Complex:
        return device.get(plan.normal(device.put(x)))

    x, y = noise(rng, *shape), noise(rng, 250)
    assert_adjoint(forward, adjoint, x, y, tolerances.ADJOINT)
    assert_linear(forward, x, noise(rng, *shape), tolerances.linear(prod(shape)) + tolerances.sum_of(8 ** len(shape)))
    assert_normal(normal, forward, adjoint, x, tolerances.NORMAL)
    exact = direct.nufft_normal(points, x, shape, weights=None, maps=None)
    assert_near(normal(x), exact, 2 * tolerances.nufft(eps))
    assert_repeatable(normal, x)
    assert_repeatable(forward, x)
    assert_repeatable(adjoint, y)


@pytest.mark.parametrize("coils", COILS)
def test_normal_folds_weights_and_maps_in(device: Device, rng: np.random.Generator, coils: int) -> None:
    points, shape = uniform(rng, 200, 2), (9, 12)
    weights = rng.uniform(0.1, 1, 200).astype(np.float32)
    x, maps = noise(rng, *shape), noise(rng, coils, *shape)
    plan = device.kernels.nufft(device.put(points), shape, eps=1e-5)
    found = plan.normal(device.put(x), weights=device.put(weights), maps=device.put(maps))
    expected = direct.nufft_normal(points, x, shape, weights=weights, maps=maps)
    assert_near(device.get(found), expected, 2 * tolerances.nufft(1e-5))


def test_a_pickled_plan_computes_the_same_bits(device: Device, rng: np.random.Generator) -> None:
    plan = device.kernels.nufft(device.put(uniform(rng, 90, 2)), (8, 10))
    assert_pickles(plan, lambda p, x: device.get(p.forward(device.put(x))), noise(rng, 8, 10))


def test_a_cartesian_trajectory_gives_the_dft(device: Device, rng: np.random.Generator) -> None:
    shape = (8, 9)
    x = noise(rng, *shape)
    plan = device.kernels.nufft(device.put(cartesian(shape)), shape, eps=1e-5)
    scaled = device.get(plan.forward(device.put(x))) / np.sqrt(prod(shape))
    assert_near(scaled, direct.dft(x, shape, sign=-1), tolerances.nufft(1e-5))


def test_points_from_another_period_mean_the_same(device: Device, rng: np.random.Generator) -> None:
    shape, x = (10,), noise(rng, 10)
    edge = np.array([[np.pi], [-np.pi], [np.float32(np.pi) * (1 + 5e-7)]], np.float32)
    y = device.get(device.kernels.nufft(device.put(edge), shape, eps=1e-5).forward(device.put(x)))
    assert distance(y, np.full(3, y[0])) <= 2 * tolerances.nufft(1e-5)


def test_strided_input_is_the_same_as_contiguous(device: Device, rng: np.random.Generator) -> None:
    plan = device.kernels.nufft(device.put(uniform(rng, 40, 2)), (6, 7))
    x = noise(rng, 7, 6).T
    y = noise(rng, 40, 3).T
    forward, adjoint = plan.forward(device.put(x)), plan.adjoint(device.put(y))
    assert np.array_equal(device.get(forward), device.get(plan.forward(device.put(x.copy()))))
    assert np.array_equal(device.get(adjoint), device.get(plan.adjoint(device.put(y.copy()))))


def test_one_plan_serves_threads_at_once(rng: np.random.Generator) -> None:
    plan = kernels.on("cpu").nufft(uniform(rng, 2000, 2), (32, 32))
    inputs = [noise(rng, 32, 32) for _ in range(8)]
    expected = [plan.forward(x) for x in inputs]
    found: dict[int, Complex] = {}
    workers = [threading.Thread(target=lambda i=i: found.update({i: plan.forward(inputs[i])})) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(found[i], expected[i]) for i in range(8))


def test_a_team_shares_coils_and_gives_the_same_bits(rng: np.random.Generator) -> None:
    points, x, y = uniform(rng, 300, 2), noise(rng, 5, 12, 15), noise(rng, 5, 300)
    maps, alone, team = noise(rng, 5, 12, 15), kernels.on("cpu"), kernels.on("cpu", threads=2)
    plans = [k.nufft(points, (12, 15), eps=1e-3) for k in (alone, team)]
    assert np.array_equal(plans[0].forward(x), plans[1].forward(x))
    assert np.array_equal(plans[0].adjoint(y), plans[1].adjoint(y))
    assert np.array_equal(alone.combine(x, maps), team.combine(x, maps))
    assert np.array_equal(alone.expand(x[0], maps), team.expand(x[0], maps))
    assert_repeatable(lambda image: plans[1].normal(image, maps=maps), x[0])
    assert_near(plans[1].forward(x[0]), plans[0].forward(x[0]), tolerances.sum_of(12 * 15))
    assert_near(plans[1].adjoint(y[0]), plans[0].adjoint(y[0]), tolerances.sum_of(300))


@pytest.mark.parametrize("shape", [(16, 17), (9, 10, 8)], ids=str)
def test_a_team_shares_the_points_of_a_lone_image(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    points = uniform(rng, 20_001, len(shape))
    assert gains_from_parts(len(points), shape, eps=2.5e-5)
    assert not gains_from_parts(100, shape, eps=2.5e-5)
    assert not gains_from_parts(10**9, (256, 256, 256), eps=2.5e-5)  # a grid for each thread would take too much memory
    alone, team = (kernels.on("cpu", threads=threads).nufft(points, shape) for threads in (1, 3))
    x, y = noise(rng, 1, *shape), noise(rng, len(points))
    assert_repeatable(team.forward, x)
    assert_repeatable(team.adjoint, y)
    assert_adjoint(team.forward, team.adjoint, x, y[np.newaxis], tolerances.ADJOINT)
    assert_pickles(team, lambda plan, values: plan.adjoint(values), y)
    # Each is within eps of the exact transform.
    assert_near(team.forward(x), alone.forward(x), 2 * tolerances.nufft(1e-4))
    assert_near(team.adjoint(y), alone.adjoint(y), 2 * tolerances.nufft(1e-4))
    assert_near(team.adjoint(y), direct.nufft_adjoint(points, y, shape), tolerances.nufft(1e-4))


@pytest.mark.parametrize(
    ("points", "shape", "eps"),
    [
        (koosh_ball(600, 64), (32, 32, 32), 1e-3),
        (koosh_ball(600, 64), (32, 32, 32), 1e-4),
        (koosh_ball(600, 64), (32, 32, 32), 1e-5),
        (spokes(600, 512), (256, 256), 1e-4),
    ],
    ids=["ball, 1e-3", "ball, 1e-4", "ball, 1e-5", "spokes, 1e-4"],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_keeps_eps_where_spokes_meet(points: np.ndarray, shape: tuple[int, ...], eps: float, threads: int) -> None:
    finufft = pytest.importorskip("finufft")
    y = np.ones(points.shape[:-1], np.complex64)  # a point's samples: their sum in the centre is as large as can be
    exact = {2: finufft.nufft2d1, 3: finufft.nufft3d1}[len(shape)]
    axes = points.reshape(-1, len(shape)).T.astype(np.float64)
    judge = exact(*map(np.ascontiguousarray, axes), y.ravel().astype(np.complex128), shape, eps=1e-12, isign=1)
    plan = kernels.on("cpu", threads=threads).nufft(points, shape, eps=eps)
    assert_near(plan.adjoint(y), judge, tolerances.nufft(eps))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_pair_computes_what_the_convolution_does(rng: np.random.Generator, threads: int) -> None:
    points, shape = uniform(rng, 40, 3), (24, 20, 16)
    plan = kernels.on("cpu", threads=threads).nufft(points, shape, eps=1e-5)
    plan.convolves = False  # as for grids whose response would be too large
    weights, x, maps = rng.uniform(0.1, 1, 40).astype(np.float32), noise(rng, *shape), noise(rng, 3, *shape)
    for w in (weights, None):
        for m in (maps, None):
            exact = direct.nufft_normal(points, x, shape, weights=w, maps=m)
            assert_near(plan.normal(x, weights=w, maps=m), exact, 2 * tolerances.nufft(1e-5))


@pytest.mark.parametrize("shape", [(20, 31), (10, 9, 8)], ids=str)
def test_finufft_called_by_itself_agrees(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    finufft = pytest.importorskip("finufft")
    points, x = uniform(rng, 400, len(shape)), noise(rng, *shape)
    simple = {2: finufft.nufft2d2, 3: finufft.nufft3d2}[len(shape)]
    axes = [np.ascontiguousarray(points[:, axis], np.float64) for axis in range(len(shape))]
    judge = simple(*axes, x.astype(np.complex128), eps=1e-12, isign=-1)
    assert_near(kernels.on("cpu").nufft(points, shape, eps=1e-5).forward(x), judge, tolerances.nufft(1e-5))


def test_bart_agrees(rng: np.random.Generator, tmp_path: Path) -> None:
    size, bart = 24, Bart(tmp_path)
    points, images = spokes(13, 20), noise(rng, 3, size, size)
    plan = kernels.on("cpu").nufft(points, (size, size), eps=1e-5)
    # BART: axes (x, y, z) first, in cycles per field of view; transforms scaled by 1/√N, e^(−i) for image → k-space.
    trajectory = np.zeros((*points.shape[:2], 3))
    trajectory[..., 0], trajectory[..., 1] = points[..., 1] * size / (2 * np.pi), points[..., 0] * size / (2 * np.pi)
    judge = bart("nufft -P", trajectory, images[:, np.newaxis]).reshape(3, 13, 20)
    # BART's Kaiser-Bessel window of width 3 on a doubled grid aliases at 1e-3 (doi:10.1109/42.97598).
    assert_near(plan.forward(images) / size, judge, 3e-3)


@pytest.mark.parametrize("eps", [1e-6, 0.1, float("nan")])
def test_refuses_an_accuracy_out_of_reach(eps: float) -> None:
    with pytest.raises(ValueError, match=r"eps is .*, expected 1e-05 to 0.01: choose one in between"):
        kernels.on("cpu").nufft(np.zeros((3, 1), np.float32), (8,), eps=eps)


@pytest.mark.parametrize(
    ("points", "shape", "message"),
    [
        (np.zeros((3, 2), np.float32), (8,), r"points have shape \(3, 2\), expected \[\*samples, 1\]"),
        (np.zeros(3, np.float32), (8,), r"points have shape \(3,\), expected \[\*samples, 1\]"),
        (np.zeros((0, 1), np.float32), (8,), r"points have shape \(0, 1\), expected"),
        (np.full((3, 1), 3.2, np.float32), (8,), r"points reach 3.2 radians per voxel, expected at most π = 3.141593"),
        (np.full((3, 1), np.nan, np.float32), (8,), r"points reach nan radians per voxel"),
        (np.zeros((3, 4), np.float32), (8, 8, 8, 8), r"shape is \(8, 8, 8, 8\), expected one to three sizes"),
        (np.zeros((3, 1), np.float32), (0,), r"shape is \(0,\), expected one to three sizes"),
    ],
)
def test_refuses_points_that_fit_no_grid(
    device: Device, points: np.ndarray, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        device.kernels.nufft(device.put(points), shape)


def test_refuses_integer_points(device: Device) -> None:
    with pytest.raises(TypeError, match="points have dtype int64, expected float32 or float64: convert them first"):
        device.kernels.nufft(device.put(np.zeros((3, 1), np.int64)), (8,))


def test_refuses_arrays_that_do_not_fit_the_plan(device: Device, rng: np.random.Generator) -> None:
    plan = device.kernels.nufft(device.put(uniform(rng, 10, 2)), (4, 5))
    weights = np.ones(10, np.float32)
    x = noise(rng, 4, 5)
    with pytest.raises(TypeError, match="x has dtype complex128, expected complex64: convert it first"):
        plan.forward(device.put(x.astype(np.complex128)))
    with pytest.raises(ValueError, match=r"x has shape \(5, 4\), expected its last axes to be \(4, 5\): reshape it"):
        plan.forward(device.put(x.T))
    with pytest.raises(ValueError, match=r"y has shape \(11,\), expected its last axes to be \(10,\): reshape it"):
        plan.adjoint(device.put(noise(rng, 11)))
    with pytest.raises(ValueError, match=r"weights are float64 \(10,\), expected float32 \(10,\): convert them"):
        plan.normal(device.put(x), weights=device.put(weights.astype(np.float64)))
    with pytest.raises(ValueError, match=r"maps have shape \(3, 4, 5\) and x \(2, 4, 5\), expected .*: pass one image"):
        plan.normal(device.put(noise(rng, 2, 4, 5)), maps=device.put(noise(rng, 3, 4, 5)))

"""The geometry of a NUFFT: its lists by brute force, and a slow NUFFT computed from nothing else."""

from __future__ import annotations

from itertools import product
from math import pi

import numpy as np
import pytest

from kernels.contract import Real
from kernels.plan import (
    BANKS,
    COARSEST_EPS,
    FINEST_EPS,
    KERNELS,
    POINTS_PER_BLOCK,
    RARE,
    RARE_SIGMAS,
    Geometry,
    Spreading,
    expected_error,
    nufft_bytes,
    plan_geometry,
    rare_ratio,
    spreading,
    transform,
)
from kernels.reference import direct, gridded
from tests import tolerances
from tests.cases import NUFFT_SHAPES, POINTS, noise, spokes, uniform
from tests.laws import assert_adjoint, assert_near

ACCURACIES = [
    (2.0, 1e-2),
    (2.0, 1e-3),
    (2.0, 1e-4),
    (2.0, 1e-5),
    (1.25, 1e-2),
    (1.25, 1e-3),
    (1.25, 1e-4),
    (1.25, 5e-5),
]
# (shape, sigma, eps): grids of one tile, of whole tiles, of tiles cut off, and of kernels wider than the last tile
GRIDS = [
    ((300,), 2.0, 1e-4),
    ((16, 16), 2.0, 1e-5),
    ((13, 9), 2.0, 1e-4),
    ((40, 27), 1.25, 5e-5),
    ((9, 6, 5), 1.25, 5e-5),
]


def operator_norm(points: Real, shape: tuple[int, ...]) -> float:
    """‖A‖: what the error of points that are all alike, which see one number, is measured by."""
    return float(np.linalg.norm(np.concatenate(direct.exponentials(points, shape)), 2))


@pytest.mark.parametrize("shape", NUFFT_SHAPES, ids=str)
@pytest.mark.parametrize("kind", POINTS)
@pytest.mark.parametrize(("sigma", "eps"), ACCURACIES)
def test_a_nufft_made_from_the_plan_is_within_eps(
    rng: np.random.Generator, shape: tuple[int, ...], kind: str, sigma: float, eps: float
) -> None:
    points = POINTS[kind](rng, 151, len(shape))
    geometry = plan_geometry(points, shape, eps=eps, sigma=sigma)
    x, y = noise(rng, *shape), noise(rng, 151)
    forward, adjoint = direct.nufft_forward(points, x, shape), direct.nufft_adjoint(points, y, shape)
    size = 0.0 if kind == "uniform" else operator_norm(points, shape)
    norms = [max(float(np.linalg.norm(ax)), size * float(np.linalg.norm(v))) for ax, v in ((forward, x), (adjoint, y))]
    assert_near(gridded.forward(geometry, x), forward, tolerances.nufft(eps), norm=norms[0])
    assert_near(gridded.adjoint(geometry, y), adjoint, tolerances.nufft(eps), norm=norms[1])


@pytest.mark.parametrize(("size", "eps"), [(256, 1e-4), (400, 1e-5), (1500, 1e-5)])
def test_folding_keeps_eps_on_grids_where_single_precision_would_not(
    rng: np.random.Generator, size: int, eps: float
) -> None:
    points, x = uniform(rng, 300, 1), noise(rng, size)
    found = gridded.forward(plan_geometry(points, (size,), eps=eps), x)
    assert_near(found, direct.nufft_forward(points, x, (size,)), tolerances.nufft(eps))


@pytest.mark.parametrize("shape", [(11,), (8, 9), (4, 5, 6)], ids=str)
def test_the_two_directions_are_adjoint(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    geometry = plan_geometry(uniform(rng, 70, len(shape)), shape, eps=1e-3)
    assert_adjoint(
        lambda x: gridded.forward(geometry, x),
        lambda y: gridded.adjoint(geometry, y),
        noise(rng, 2, *shape),
        noise(rng, 2, 70),
        1e-12,  # both in double precision, from the same weights
    )


@pytest.mark.parametrize("kind", POINTS)
@pytest.mark.parametrize(("shape", "sigma", "eps"), GRIDS)
def test_the_lists_hold_what_they_promise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma: float, eps: float, kind: str
) -> None:
    points = POINTS[kind](rng, 700, len(shape))
    geometry = plan_geometry(points, shape, eps=eps, sigma=sigma)
    assert np.array_equal(np.sort(geometry.order), np.arange(700))
    check_tiles(geometry)
    check_blocks(geometry)
    check_touched(geometry)


def check_tiles(geometry: Geometry) -> None:
    """Every cell of the fine grid lies in exactly one tile."""
    covered = np.zeros(geometry.fine, int)
    for origin in geometry.tile_origin:
        covered[tuple(slice(o, o + edge) for o, edge in zip(origin, geometry.tile, strict=True))] += 1
    assert len(geometry.tile_origin) == np.prod(geometry.tiles)
    assert (covered == 1).all()


def check_blocks(geometry: Geometry) -> None:
    """Every point is in exactly one block, which is not too long, and starts in the block's tile."""
    seen = np.zeros(geometry.points, int)
    for tile, first, end in geometry.blocks:
        assert 0 < end - first <= POINTS_PER_BLOCK
        seen[first:end] += 1
        inside = geometry.start[first:end] - geometry.tile_origin[tile]
        assert (inside >= 0).all() and (inside < geometry.tile).all()
    assert (seen == 1).all()


def check_touched(geometry: Geometry) -> None:
    """A tile's list holds the points whose footprint meets it, each once, and the parts hold each list once."""
    taps = np.arange(geometry.spreading.width)
    for tile, origin in enumerate(geometry.tile_origin):
        meets = np.ones(geometry.points, bool)
        for axis, n in enumerate(geometry.fine):
            cells = (geometry.start[:, axis, np.newaxis] + taps) % n
            meets &= ((cells >= origin[axis]) & (cells < origin[axis] + geometry.tile[axis])).any(axis=1)
        first, end = geometry.csr_start[tile : tile + 2]
        assert np.array_equal(geometry.csr_point[first:end], np.flatnonzero(meets))
        parts = geometry.parts[geometry.parts[:, 0] == tile, 1:]
        assert len(parts) >= 1 and (np.diff(parts, axis=1) <= POINTS_PER_BLOCK).all()
        assert parts[0, 0] == first and parts[-1, 1] == end and np.array_equal(parts[1:, 0], parts[:-1, 1])


def test_tiles_follow_a_morton_curve(rng: np.random.Generator) -> None:
    geometry = plan_geometry(uniform(rng, 10, 2), (32, 32), eps=1e-3)
    assert geometry.tile_origin[:8].tolist() == [
        [0, 0],
        [0, 16],
        [16, 0],
        [16, 16],
        [0, 32],
        [0, 48],
        [16, 32],
        [16, 48],
    ]


def test_points_of_a_tile_go_by_their_first_cell_and_shots_may_have_axes(rng: np.random.Generator) -> None:
    points = spokes(5, 40)
    geometry = plan_geometry(points, (20, 20), eps=1e-3)
    flat = plan_geometry(points.reshape(-1, 2), (20, 20), eps=1e-3)
    assert np.array_equal(geometry.order, flat.order)
    tile = np.searchsorted(geometry.blocks[:, 2], np.arange(200), side="right")
    y, x = (geometry.start % 16).T
    same_tile = np.diff(geometry.blocks[tile, 0]) == 0
    onward = np.diff(16 * y + x)[same_tile]
    assert (onward >= 0).all() and (onward == 0).any()
    assert (np.diff(geometry.order)[same_tile][onward == 0] > 0).all()


def test_points_of_a_volumes_tile_take_turns_among_banks(rng: np.random.Generator) -> None:
    """Every bank has had its n-th point before any has its next; points of a bank keep the order they came in."""
    geometry = plan_geometry(uniform(rng, 3000, 3), (9, 12, 10), eps=1e-4)
    span = 8 + geometry.spreading.width - 1
    for tile, first, end in geometry.blocks:
        z, y, x = (geometry.start[first:end] - geometry.tile_origin[tile]).T
        bank = ((z * span + y) * span + x) % BANKS
        turn = np.array([np.count_nonzero(bank[:i] == own) for i, own in enumerate(bank)])
        assert (np.diff(BANKS * turn + bank) > 0).all()
        for own in range(BANKS):
            assert (np.diff(geometry.order[first:end][bank == own]) > 0).all()
    assert end - first > 1


def test_arrays_are_as_a_device_reads_them(rng: np.random.Generator) -> None:
    geometry = plan_geometry(uniform(rng, 40, 3), (6, 7, 8), eps=1e-4)
    width = geometry.spreading.width
    arrays = {
        "order": (np.int32, (40,)),
        "start": (np.int32, (40, 3)),
        "weights": (np.float32, (40, 3, width)),
        "tile_origin": (np.int32, (len(geometry.tile_origin), 3)),
        "blocks": (np.int32, (len(geometry.blocks), 3)),
        "csr_start": (np.int32, (len(geometry.tile_origin) + 1,)),
        "csr_point": (np.int32, (geometry.csr_start[-1],)),
        "parts": (np.int32, (len(geometry.parts), 3)),
    }
    for name, (dtype, shape) in arrays.items():
        array = getattr(geometry, name)
        assert (array.dtype, array.shape) == (dtype, shape), name
        assert array.flags.c_contiguous, name
    assert [axis.shape for axis in geometry.deapodise] == [(6,), (7,), (8,)]
    assert all(n % 2 == 0 and n >= 2 * size for n, size in zip(geometry.fine, geometry.shape, strict=True))


@pytest.mark.parametrize(("count", "shape"), [(4000, (64, 64)), (3000, (24, 24, 24))], ids=str)
def test_the_size_of_a_plan_is_known_before_it_is_made(
    rng: np.random.Generator, count: int, shape: tuple[int, ...]
) -> None:
    geometry = plan_geometry(uniform(rng, count, len(shape)), shape, eps=1e-4)
    # Left out are the lists' starts, four bytes to a tile and twelve to a block.
    assert nufft_bytes(count, shape, geometry.spreading) == pytest.approx(geometry.bytes, rel=0.1)


def aliasing(kernel: Spreading, frequency: np.ndarray) -> np.ndarray:
    """What spreading aliases onto `frequency` (cycles per fine cell), over what it leaves there."""
    copies = transform(kernel, frequency[:, np.newaxis] + np.array([-4, -3, -2, -1, 1, 2, 3, 4]))
    found: np.ndarray = np.linalg.norm(copies, axis=1) / transform(kernel, frequency)
    return found


@pytest.mark.parametrize(("sigma", "width"), [(sigma, width) for sigma, widths in KERNELS.items() for width in widths])
def test_the_table_of_kernels_is_what_their_transforms_say(sigma: float, width: int) -> None:
    factor, error, edge = KERNELS[sigma][width]
    middle = (np.arange(128) + 0.5) / 128 / (2 * sigma)

    def at(share: float) -> tuple[float, float]:
        kernel = Spreading(width, sigma, share * pi * width * (1 - 1 / (2 * sigma)))
        return float(np.sqrt((aliasing(kernel, middle) ** 2).mean())), float(
            aliasing(kernel, np.array([0.5 / sigma]))[0]
        )

    assert at(factor)[0] == pytest.approx(error, rel=0.02)
    assert at(factor)[1] == pytest.approx(edge, rel=0.06)
    assert at(factor)[0] <= min(at(factor - 0.03)[0], at(factor + 0.03)[0])


WIDTHS = [(sigma, width) for sigma, widths in KERNELS.items() for width in widths]
# Of one voxel, the adjoint is one number, which may be as near to zero as it likes.
SHORT = ((16,), (9, 1), (8, 7, 6))
OTHERS = ((64,), (15,), (4,), (32, 5), (16, 16), (13, 18), (3, 3), (2, 2, 2))


def on_grid(geometry: Geometry) -> np.ndarray:
    """What the plan takes exp(−i k·r) for: [point in plan order, voxel]."""
    product_over_axes = np.ones((geometry.points, 1))
    for axis, (size, fine) in enumerate(zip(geometry.shape, geometry.fine, strict=True)):
        voxel = np.arange(size) - size // 2
        cells = geometry.start[:, axis, np.newaxis] + np.arange(geometry.spreading.width)
        waves = np.exp(-2j * pi / fine * cells[..., np.newaxis] * voxel)
        along = (geometry.weights[:, axis, np.newaxis] @ waves)[:, 0] / geometry.deapodise[axis]
        product_over_axes = (product_over_axes[:, :, np.newaxis] * along[:, np.newaxis]).reshape(geometry.points, -1)
    return product_over_axes


def errors_of_draws(shape: tuple[int, ...], *, sigma: float, eps: float, seed: int, draws: int = 50) -> np.ndarray:
    """Relative errors of both directions, for `draws` random images and as many random k-spaces at random points."""
    rng = np.random.default_rng(seed)
    points = uniform(rng, 151, len(shape))
    geometry = plan_geometry(points, shape, eps=eps, sigma=sigma)
    voxels = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"), axis=-1)
    exact = np.exp(-1j * points[geometry.order].astype(np.float64) @ voxels.reshape(-1, len(shape)).T)
    wrong = on_grid(geometry) - exact
    x, y = noise(rng, exact.shape[1], draws), noise(rng, 151, draws)
    pairs = [(wrong @ x, exact @ x), (wrong.conj().T @ y, exact.conj().T @ y)]
    return np.concatenate([np.linalg.norm(bad, axis=0) / np.linalg.norm(good, axis=0) for bad, good in pairs])


def assert_eps_is_kept(shape: tuple[int, ...], sigma: float, width: int, *, seeds: range) -> None:
    """At the smallest eps that `width` is chosen for, no draw is above eps, nor is one of a million expected to be."""
    eps = expected_error(width, sigma, shape) * (1 + 1e-9)
    if not FINEST_EPS[sigma] <= eps <= COARSEST_EPS:
        eps = FINEST_EPS[sigma]  # it is chosen for no grid of this shape, or for all that are too small for the others
    found = np.concatenate([errors_of_draws(shape, sigma=sigma, eps=eps, seed=seed) for seed in seeds])
    assert found.max() <= eps


def test_matrices_of_the_plan_are_what_the_grid_computes(rng: np.random.Generator) -> None:
    points, x = uniform(rng, 40, 2), noise(rng, 9, 6)
    geometry = plan_geometry(points, (9, 6), eps=1e-2)
    found = on_grid(geometry) @ x.ravel()
    assert_near(found, gridded.forward(geometry, x)[geometry.order], 1e-12)  # both in double precision


@pytest.mark.parametrize("shape", SHORT, ids=str)
@pytest.mark.parametrize(("sigma", "width"), WIDTHS)
def test_eps_is_kept_where_a_width_is_only_just_chosen(sigma: float, width: int, shape: tuple[int, ...]) -> None:
    assert_eps_is_kept(shape, sigma, width, seeds=range(10))


@pytest.mark.long
@pytest.mark.parametrize("shape", SHORT + OTHERS, ids=str)
@pytest.mark.parametrize(("sigma", "width"), WIDTHS)
def test_eps_is_kept_by_many_draws(sigma: float, width: int, shape: tuple[int, ...]) -> None:
    assert_eps_is_kept(shape, sigma, width, seeds=range(1000, 1060))


def test_rare_ratios_are_those_of_independent_energies() -> None:
    special = pytest.importorskip("scipy.special")
    stats = pytest.importorskip("scipy.stats")
    assert special.ndtr(-RARE_SIGMAS) == pytest.approx(RARE, rel=1e-4)
    for some, every in ((1, 9), (1, 256), (2, 18), (16, 256), (42, 336), (256, 65536)):
        exact = stats.f.isf(RARE, 2 * some, 2 * every)
        assert exact <= rare_ratio(some, every) <= 1.1 * exact
    assert rare_ratio(1, 1) == float("inf")


def test_the_transform_is_the_sum_over_a_fine_grid() -> None:
    kernel, x = spreading(1e-4, sigma=2.0), np.linspace(-1, 1, 200001)
    values = np.exp(kernel.beta * (np.sqrt(1 - x**2) - 1))
    for frequency in (0.0, 0.1, 0.25):
        expected = np.trapezoid(values * np.cos(pi * kernel.width * frequency * x), x) * kernel.width / 2
        assert transform(kernel, np.array([frequency]))[0] == pytest.approx(expected, rel=1e-6)


def test_wider_kernels_are_chosen_for_higher_accuracy_more_axes_and_smaller_grids() -> None:
    widths = [spreading(eps, sigma=2.0, shape=(256, 256)).width for eps in (1e-2, 1e-3, 1e-4, 1e-5)]
    assert widths == [3, 4, 5, 7]
    assert spreading(1e-4, sigma=2.0, shape=(256, 256, 256)).width == 6
    assert spreading(1e-4, sigma=2.0, shape=(16, 16)).width == 6


@pytest.mark.parametrize(
    ("eps", "sigma", "message"),
    [
        (1e-4, 1.5, "sigma is 1.5, expected 1.25 or 2: choose one of them"),
        (1e-6, 2.0, "eps is 1e-06, expected 1e-05 to 0.05 for sigma 2: choose another"),
        (1e-5, 1.25, "eps is 1e-05, expected 5e-05 to 0.05 for sigma 1.25: choose another"),
        (float("nan"), 2.0, "eps is nan, expected"),
    ],
)
def test_refuses_an_accuracy_out_of_reach(eps: float, sigma: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spreading(eps, sigma=sigma)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((0, 2), np.float32), r"points have shape \(0, 2\), expected \[\*samples, 2\] for a grid of \(8, 8\)"),
        (np.full((3, 2), np.inf, np.float32), "points reach inf radians per voxel, expected at most π"),
        (np.full((3, 2), np.nan, np.float32), "points reach nan radians per voxel, expected at most π"),
        (np.full((3, 2), 3.2, np.float32), "points reach 3.2 radians per voxel, expected at most π"),
    ],
)
def test_refuses_points_that_cannot_be_planned(points: Real, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_geometry(points, (8, 8), eps=1e-3)


def test_every_voxel_has_its_cell() -> None:
    geometry = plan_geometry(np.zeros((1, 2), np.float32), (5, 4), eps=1e-3)
    placed = np.zeros(geometry.fine)
    placed.reshape(-1)[gridded.placed(geometry)] = 1
    assert placed.sum() == 20
    assert all(placed[y, x] == 1 for y, x in product((-2, -1, 0, 1, 2), (-2, -1, 0, 1)))

"""SENSE operators: the laws of linear maps, one scale for Cartesian and non-Cartesian, and what they are for."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

import kernels
from kernels.contract import Complex, Equations, Real
from kernels.geometry import density_pipe_menon
from recon.operators import cartesian_sense, nufft_sense, regularised, soft_sense
from tests import tolerances
from tests.cases import cartesian, spokes, uniform
from tests.laws import assert_adjoint, assert_linear, assert_near, assert_normal, distance
from tests.recon.builders import noise
from tests.recon.test_maps import coils_around

RNG = np.random.default_rng(9)
CPU = kernels.on("cpu")


def every(step: int, grid: tuple[int, ...]) -> Real:
    """Every `step`-th line along y, as a mask [z, y, 1]."""
    mask = np.zeros((*grid[:2], 1), np.float32)
    mask[:, grid[1] // 2 % step :: step] = 1
    return mask


def there_and_back(maps: tuple[int, ...]) -> float:
    """A normal operator of FFTs for maps of shape [coil, *grid]: two transforms, two products with maps, their sum."""
    return 2 * tolerances.fft(prod(maps[1:])) + tolerances.sum_of(1) + tolerances.sum_of(maps[0])


@pytest.mark.parametrize("grid", [(1, 12, 9), (4, 6, 5)], ids=str)
@pytest.mark.parametrize("coils", [1, 3, 8])
@pytest.mark.parametrize("axes", [None, 2])
def test_cartesian_laws(grid: tuple[int, int, int], coils: int, axes: int | None) -> None:
    maps = noise(RNG, (coils, *grid))
    sense = cartesian_sense(CPU, maps, every(2, grid), axes=axes)
    image, kspace = noise(RNG, grid), noise(RNG, (coils, *grid))
    assert_adjoint(sense.forward, sense.adjoint, image, kspace, tolerances.ADJOINT)
    assert_linear(sense.forward, image, noise(RNG, grid), tolerances.linear(300) + tolerances.sum_of(1))
    assert_normal(sense.normal, sense.forward, sense.adjoint, image, there_and_back(maps.shape))


@pytest.mark.parametrize("sets", [1, 2])
def test_several_sets_of_maps(sets: int) -> None:
    grid = (4, 6, 5)
    maps = noise(RNG, (sets, 3, *grid))
    sense = soft_sense(CPU, maps, every(2, grid), axes=2)
    images, kspace = noise(RNG, (sets, *grid)), noise(RNG, (3, *grid))
    assert_adjoint(sense.forward, sense.adjoint, images, kspace, tolerances.ADJOINT)
    assert_normal(sense.normal, sense.forward, sense.adjoint, images, sets * there_and_back(maps.shape[1:]))
    alone = [cartesian_sense(CPU, own, every(2, grid), axes=2) for own in maps]
    expected = np.sum([one.forward(image) for one, image in zip(alone, images, strict=True)], axis=0)
    assert_near(sense.forward(images), expected, tolerances.sum_of(2 * sets))


@pytest.mark.parametrize("coils", [1, 3, 8])
def test_nufft_laws(coils: int) -> None:
    plan = CPU.nufft(uniform(RNG, 150, 2).reshape(10, 15, 2), (9, 12), eps=1e-5)
    sense = nufft_sense(CPU, plan, noise(RNG, (coils, 9, 12)))
    image, kspace = noise(RNG, (9, 12)), noise(RNG, (coils, 10, 15))
    assert_adjoint(sense.forward, sense.adjoint, image, kspace, tolerances.ADJOINT)
    assert_normal(sense.normal, sense.forward, sense.adjoint, image, tolerances.NORMAL)


def test_density_weights_the_inner_product_of_kspace() -> None:
    points, maps = spokes(12, 20), noise(RNG, (3, 10, 10))
    density = density_pipe_menon(CPU, points, (10, 10))
    sense = nufft_sense(CPU, CPU.nufft(points, (10, 10), eps=1e-5), maps, density=density)
    image, kspace = noise(RNG, (10, 10)), noise(RNG, (3, 12, 20))
    weighted = np.sqrt(density * 100)
    assert_adjoint(
        lambda x: sense.forward(x) * weighted,
        lambda y: sense.adjoint(y / weighted),
        image,
        kspace,
        tolerances.ADJOINT,
    )
    assert_normal(sense.normal, sense.forward, sense.adjoint, image, tolerances.NORMAL)


def test_cartesian_and_nufft_have_one_scale() -> None:
    shape, coils = (8, 9), 3
    maps, image, kspace = noise(RNG, (coils, *shape)), noise(RNG, shape), noise(RNG, (coils, *shape))
    exact = cartesian_sense(CPU, maps[:, np.newaxis], np.ones((1, 1, 1), np.float32))
    plan = CPU.nufft(cartesian(shape), shape, eps=1e-5)
    tolerance = 2 * tolerances.nufft(1e-5)
    for density in (None, np.full(shape, 1 / 72, np.float32)):
        sense = nufft_sense(CPU, plan, maps, density=density)
        assert_near(sense.forward(image), exact.forward(image[np.newaxis])[:, 0], tolerance)
        assert_near(sense.adjoint(kspace), exact.adjoint(kspace[:, np.newaxis])[0], tolerance)
        assert_near(sense.normal(image), exact.normal(image[np.newaxis])[0], tolerance)


def test_full_sampling_and_unit_maps_give_the_image_back() -> None:
    grid = (1, 16, 18)
    sense = cartesian_sense(CPU, coils_around(8, grid), np.ones((1, 1, 1), np.float32))
    image = noise(RNG, grid)
    assert_near(sense.normal(image), image, 2 * tolerances.fft(288) + 2 * tolerances.sum_of(16))


def test_density_makes_the_normal_operator_nearly_the_identity() -> None:
    points = spokes(61, 64)
    density = density_pipe_menon(CPU, points, (32, 32))
    sense = nufft_sense(CPU, CPU.nufft(points, (32, 32)), coils_around(4, (1, 32, 32))[:, 0], density=density)
    y, x = np.meshgrid(*(np.arange(32) - 16,) * 2, indexing="ij")
    image = np.exp(-(y**2 + x**2) / 18).astype(np.complex64)  # its spectrum stays inside the disc that spokes cover
    assert distance(sense.normal(image), image) < tolerances.weighted(32, np.pi, sigma=3.0)


@pytest.mark.parametrize("kind", ["cartesian", "radial"])
def test_undersampled_images_are_unfolded(kind: str) -> None:
    grid = (32, 32)
    maps = coils_around(8, (1, *grid))
    y, x = np.meshgrid(*(np.linspace(-1, 1, 32),) * 2, indexing="ij")
    truth = (np.exp(-4 * ((y - 0.2) ** 2 + x**2)) + 0.5j * np.exp(-9 * ((y + 0.3) ** 2 + (x - 0.4) ** 2))).astype(
        np.complex64
    )
    if kind == "cartesian":
        sense, image = cartesian_sense(CPU, maps, every(2, (1, 32, 32))), truth[np.newaxis]
    else:
        sense, image = nufft_sense(CPU, CPU.nufft(spokes(20, 64), grid, eps=1e-5), maps[:, 0]), truth
    equations = regularised(Equations(sense.normal, (), None), 1e-4)
    found = CPU.cg(equations, sense.adjoint(sense.forward(image)), iterations=60, tolerance=1e-5)
    # Conjugate gradients leave a residual of 1e-5, and λ = 1e-4 takes its part of the image.
    left, whole = (np.linalg.norm(sense.normal(x)) for x in (found - image, image))
    assert left <= (1e-5 + tolerances.NORMAL) * whole + 1e-4 * np.linalg.norm(image)
    assert distance(found, image) < tolerances.UNFOLDED


def test_regularisation_adds_a_multiple_of_the_image() -> None:
    image = noise(RNG, (4, 5))
    twice = Equations(lambda x, factor: factor * x, (np.full(1, 2, np.float32),), "twice")
    more = regularised(twice, 0.5)
    assert_near(more.normal(image, *more.operands), 2.5 * image, tolerances.sum_of(2))
    assert len({twice.key, more.key, regularised(twice, 0.25).key}) == 3
    assert regularised(twice, 0.0) is twice


def test_images_of_the_wrong_shape_are_refused() -> None:
    sense = cartesian_sense(CPU, noise(RNG, (3, 1, 4, 5)), np.ones((1, 1, 1), np.float32))
    wrong: Complex = noise(RNG, (4, 5))
    with pytest.raises(ValueError, match=r"image has shape \(4, 5\), expected \(1, 4, 5\): reshape it"):
        sense.forward(wrong)

"""Priors: each proximal step is the minimum that it claims to be, keeps what is no detail, and finds the noise."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from kernels.contract import Complex
from recon.prox import TotalVariation, divergence, gradient, levels_of, noise_of, origin, sparse_wavelets
from tests import tolerances
from tests.foreign import Foreign
from tests.laws import assert_adjoint, assert_near
from tests.recon.builders import noise

RNG = np.random.default_rng(21)
CPU = kernels.on("cpu")


@pytest.mark.parametrize(
    ("grid", "levels"), [((16,), (0,)), ((32, 96), (1, 2)), ((512, 31, 15), (4, 0, 0)), ((33, 64), (1, 2))]
)
def test_no_low_half_is_shorter_than_sixteen(grid: tuple[int, ...], levels: tuple[int, ...]) -> None:
    assert levels_of(grid) == levels


def test_wavelets_shrink_details_and_keep_the_average() -> None:
    x = noise(RNG, (2, 32, 64))
    found = sparse_wavelets(CPU, 0.5, (32, 64))(x, 2.0, 0)
    before, after = (CPU.wavelet(values, levels=(1, 2)) for values in (x, found))
    expected = CPU.shrink(before, 1.0)
    expected[:, :16, :16] = before[:, :16, :16]
    assert_near(after, expected, 4 * tolerances.wavelet(8))
    constant = np.full((32, 64), 3 - 4j, np.complex64)
    assert_near(sparse_wavelets(CPU, 100.0, (32, 64))(constant, 1.0, 5), constant, 2 * tolerances.wavelet(8))


@pytest.mark.parametrize("grid", [(37, 50), (16, 15), (20, 33, 34)], ids=str)
def test_any_size_is_taken_and_kept(grid: tuple[int, ...]) -> None:
    x = noise(RNG, grid)
    found = sparse_wavelets(CPU, 0.0, grid)(x, 1.0, 3)
    assert_near(found, x, 2 * tolerances.wavelet(3 * 8))


def test_the_origin_visits_the_whole_cell() -> None:
    assert origin((2, 0), 0) == (0, 0)
    assert {origin((2, 2), i) for i in range(80)} == {(a, b) for a in range(4) for b in range(4)}


def test_gradient_and_divergence_are_adjoint() -> None:
    axes = (-2, -1)
    assert_adjoint(
        lambda x: gradient(x, axes),
        lambda p: divergence(p, axes),
        noise(RNG, (3, 7, 9)),
        noise(RNG, (2, 3, 7, 9)),
        tolerances.ADJOINT,
    )


def test_total_variation_of_a_step_in_closed_form() -> None:
    """Two plateaus of n and m samples and a step d: each moves by weight / its length towards the other."""
    x = np.repeat(np.array([1 + 1j, 5 - 2j], np.complex64), (6, 10))
    direction = np.complex64((5 - 2j) - (1 + 1j)) / np.float32(5)  # |4 − 3j| = 5
    found = TotalVariation(0.6, 1)(x, 2.0, 0, steps=2000)
    expected = x + np.repeat(np.array([1.2 / 6, -1.2 / 10]) * direction, (6, 10))
    # The dual of 15 differences has a condition of 4 / (2 − 2 cos(π/16)) = 104: momentum is long past it.
    assert_near(found, expected.astype(np.complex64), 1e-4)


def objective(x: Complex, z: Complex, weight: float) -> float:
    """½‖x − z‖² + weight · Σ |∇x|, in double precision."""
    slopes = gradient(x.astype(np.complex128), (-2, -1))
    variation = np.sqrt((np.abs(slopes) ** 2).sum(axis=0)).sum()
    return float(0.5 * np.linalg.norm(x.astype(np.complex128) - z) ** 2 + weight * variation)


def test_total_variation_minimises_its_objective() -> None:
    z = noise(RNG, (12, 14))
    found = TotalVariation(0.4, 2)(z, 1.0, 0, steps=500)
    least = objective(found, z, 0.4)
    assert least < objective(z, z, 0.4)
    for scale in (1e-1, 1e-2):
        for _ in range(10):
            assert least <= objective(found + np.float32(scale) * noise(RNG, z.shape), z, 0.4)


def test_total_variation_goes_on_where_it_was() -> None:
    z = noise(RNG, (24, 24))
    exact = TotalVariation(0.4, 2)(z, 1.0, 0, steps=500)
    prior = TotalVariation(0.4, 2)
    first, *_, later = [prior(z, 1.0, i) for i in range(6)]
    assert np.linalg.norm(later - exact) < 0.2 * np.linalg.norm(first - exact)
    assert TotalVariation(0.0, 2)(z, 1.0, 0) is z


@pytest.mark.parametrize("shape", [(64, 64), (2, 33, 65), (24, 24, 24)], ids=str)
def test_noise_is_found_beside_an_object(shape: tuple[int, ...]) -> None:
    image = 0.3 * noise(RNG, shape)
    image[..., 10:20, 5:18] += 40
    fine = np.prod([n // 2 for n in shape[-2:]])
    # The median of n Rayleigh magnitudes has a deviation of 0.85 σ / √n; the object's edges hold a twentieth of them.
    assert noise_of(CPU, image, min(len(shape), 3) if shape[0] > 2 else 2) == pytest.approx(
        0.3, rel=0.1 + 3 * 0.85 / np.sqrt(fine)
    )
    assert noise_of(CPU, np.ones((1, 1), np.complex64), 2) == 0


def test_total_variation_stays_on_the_device() -> None:
    z = noise(RNG, (9, 11))
    here, there = TotalVariation(0.4, 2)(z, 1.0, 0), TotalVariation(0.4, 2)(Foreign(z), 1.0, 0)  # type: ignore[arg-type]
    assert isinstance(there, Foreign)
    assert np.array_equal(here, there.held)

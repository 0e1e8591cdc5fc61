"""The transforms of ellipses and ellipsoids against theorems and against integrals computed another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.scan import Geometry
from recon.simulate.phantom import (
    Shapes,
    ball_spectrum,
    density,
    directions,
    grid_spectrum,
    inside,
    section,
    seen_from,
    spectrum,
)

Array = NDArray[np.float64]
RNG = np.random.default_rng(7)
TILTED = Geometry(
    (12.0, -5.0, 8.0),
    (0.8, 0.6, 0.0),
    (-0.36, 0.48, 0.8),
    (0.48, -0.64, 0.6),
)


def turned(angle: float, axes: int) -> Array:
    turn = np.eye(axes)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


def shapes(axes: int) -> Shapes:
    """Two overlapping shapes, turned and off centre, one with a phase."""
    radii = np.array([[40.0, 25.0, 31.0], [9.0, 14.0, 6.0]])[:, :axes]
    semiaxes = np.stack([turned(a, axes) @ np.diag(r) for a, r in zip((0.3, -1.1), radii, strict=True)])
    return Shapes(np.array([[3.0, -7.0, 2.0], [-11.0, 4.0, 5.0]])[:, :axes], semiaxes, np.array([1.0, 0.4 - 0.7j]))


def disc_integral(k: Array, center: Array, semiaxes: Array) -> complex:
    """∫ exp(−2πi k·r) over an ellipse by Gauss–Legendre in radius and the trapezoid rule in angle, both spectral."""
    node, weight = np.polynomial.legendre.leggauss(60)
    radius, angle = (node + 1) / 2, 2 * np.pi * np.arange(200) / 200
    unit = radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    values = np.exp(-2j * np.pi * ((unit @ semiaxes.T + center) @ k))
    return complex(abs(np.linalg.det(semiaxes)) * np.sum(weight / 2 * radius * values.mean(axis=1)) * 2 * np.pi)


@pytest.mark.parametrize(("axes", "ball"), [(2, np.pi), (3, 4 * np.pi / 3)])
def test_k_space_at_zero_is_content_times_intensity(axes: int, ball: float) -> None:
    one = shapes(axes)
    expected = sum(
        ball * np.prod(np.linalg.norm(m, axis=0)) * v for m, v in zip(one.semiaxes, one.intensity, strict=True)
    )
    # A handful of double-precision operations.
    assert spectrum(one, np.zeros(axes)) == pytest.approx(expected, rel=1e-13)


def test_an_ellipse_against_its_integral() -> None:
    one = shapes(2)
    for k in RNG.uniform(-0.08, 0.08, (6, 2)):
        expected = sum(
            v * disc_integral(k, c, m) for c, m, v in zip(one.center, one.semiaxes, one.intensity, strict=True)
        )
        # 60 × 200 nodes resolve at most 8 waves across the ellipse to double precision; content is about 3,000.
        assert abs(spectrum(one, k) - expected) < 1e-9


def test_the_ball_against_the_spherical_bessel_function() -> None:
    from scipy.special import spherical_jn

    radius = np.concatenate([np.linspace(1e-6, 0.04, 400), RNG.uniform(0.04, 60, 400)])
    x = 2 * np.pi * radius
    # (sin x − x cos x)/x³ loses eps/x² ≤ 2e-14 just above x = 0.1, where the series takes over.
    np.testing.assert_allclose(ball_spectrum(radius, axes=3), 4 * np.pi * spherical_jn(1, x) / x, rtol=0, atol=3e-13)


@pytest.mark.parametrize(("axes", "zero"), [(2, 3.8317059702075125), (3, 4.493409457909064)])
def test_the_first_zero_is_where_tables_say(axes: int, zero: float) -> None:
    around = ball_spectrum(np.array([zero - 1e-9, zero + 1e-9]) / (2 * np.pi), axes=axes)
    assert around[0] > 0 > around[1]


@pytest.mark.parametrize("axes", [2, 3])
def test_moving_an_object_turns_the_phase(axes: int) -> None:
    k, move = RNG.uniform(-0.2, 0.2, (50, axes)), RNG.uniform(-30, 30, axes)
    one = shapes(axes)
    moved = spectrum(replace(one, center=one.center + move), k)
    np.testing.assert_allclose(moved, spectrum(one, k) * np.exp(-2j * np.pi * k @ move), rtol=0, atol=1e-8)


@pytest.mark.parametrize("axes", [2, 3])
def test_turning_an_object_turns_its_k_space(axes: int) -> None:
    k, turn = RNG.uniform(-0.2, 0.2, (50, axes)), turned(0.7, axes)
    one = shapes(axes)
    other = replace(one, center=one.center @ turn.T, semiaxes=turn @ one.semiaxes)
    # Values reach 130,000; a relative 1e-13 of that.
    np.testing.assert_allclose(spectrum(other, k @ turn.T), spectrum(one, k), rtol=0, atol=1e-8)


def test_a_real_object_has_conjugate_symmetry() -> None:
    k = RNG.uniform(-0.2, 0.2, (50, 3))
    real = replace(shapes(3), intensity=np.array([1.0, -0.3], np.complex128))
    np.testing.assert_array_equal(spectrum(real, -k), np.conj(spectrum(real, k)))


def test_parseval() -> None:
    """A disc inside the field of view: Σ|ρ̂(n/L)|²/L² = ∫ρ², less the tail beyond the largest |k|."""
    radius, view, half = 40.0, 100.0, 150
    disc = Shapes(np.zeros((1, 2)), radius * np.eye(2)[None], np.ones(1, np.complex128))
    side = np.arange(-half, half + 1) / view
    energy = np.sum(np.abs(grid_spectrum(disc, (side, side))) ** 2) / view**2
    missing = 1 - energy / (np.pi * radius**2)
    # |ρ̂|² averages R/(2π²k³), so beyond |k| = K there is R/(πK) of the area πR²; the square holds a bit more.
    assert 0 < missing < 1 / (np.pi**2 * radius * half / view)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_grid_holds_the_values_of_its_points(axes: int) -> None:
    one = replace(shapes(axes), blur_mm=1.3)
    lines = tuple(RNG.uniform(-0.15, 0.15, n) for n in (7, 6, 5)[:axes])
    points = np.stack(np.meshgrid(*reversed(lines), indexing="ij")[::-1], axis=-1)
    np.testing.assert_allclose(grid_spectrum(one, lines), spectrum(one, points), rtol=0, atol=1e-8)


def test_a_soft_edge_is_a_gaussian_filter() -> None:
    one, k = shapes(2), RNG.uniform(-0.2, 0.2, (50, 2))
    filtered = spectrum(one, k) * np.exp(-2 * np.pi**2 * 2.5**2 * np.sum(k**2, axis=-1))
    np.testing.assert_allclose(spectrum(replace(one, blur_mm=2.5), k), filtered, rtol=0, atol=1e-9)


def test_a_section_is_the_object_in_its_plane() -> None:
    solid = shapes(3)
    points = RNG.uniform(-45, 45, (4000, 2))
    there = np.array(TILTED.position_mm) + points @ directions(TILTED)[:2]
    np.testing.assert_array_equal(density(section(solid, TILTED), points), density(solid, there))


def test_another_point_of_view_moves_the_object_only() -> None:
    solid, points = shapes(3), RNG.uniform(-45, 45, (4000, 3))
    there = np.array(TILTED.position_mm) + points @ directions(TILTED)
    np.testing.assert_array_equal(inside(seen_from(solid, TILTED), points), inside(solid, there))


def test_a_section_leaves_out_what_it_misses() -> None:
    high = replace(TILTED, position_mm=(-11.0, 4.0, 40.0), read_dir=(1, 0, 0), phase_dir=(0, 1, 0), slice_dir=(0, 0, 1))
    with pytest.raises(ScanError, match=r"slice at \(-11\.0, 4\.0, 40\.0\) mm does not meet the object: move it"):
        section(shapes(3), high)
    assert len(section(shapes(3), replace(high, position_mm=(-11.0, 4.0, 30.0))).center) == 1


def test_arrays_must_fit() -> None:
    with pytest.raises(ScanError, match=r"shapes have centers \(2, 3\).*expected \[shape, axis\]"):
        Shapes(np.zeros((2, 3)), np.zeros((2, 2, 2)), np.zeros(2, np.complex128))

"""Coil-weighted k-space against quadrature of the continuous product, and the coils against magnetostatics."""

from __future__ import annotations

import numpy as np
import pytest

from recon.errors import ScanError
from recon.simulate.coils import (
    Coils,
    coil_grid_spectrum,
    coil_spectrum,
    fit,
    loops,
    mixed,
    object_phase,
    receive_field,
    sensitivity,
)
from recon.simulate.phantom import Shapes, Spectrum, Vector

RNG = np.random.default_rng(11)
VIEW = {2: np.array([96.0, 80.0]), 3: np.array([96.0, 80.0, 60.0])}
ARRAY = loops(3, radii_mm=(70.0, 60.0), stagger_mm=15.0, loop_mm=30.0)


def field(points: Vector) -> Spectrum:
    everywhere = np.concatenate([points, np.zeros((len(points), 3 - points.shape[1]))], axis=1)
    return receive_field(ARRAY, everywhere) * object_phase(everywhere, length_mm=50.0)


def ellipse(axes: int) -> Shapes:
    semiaxes = np.diag([30.0, 20.0, 17.0][:axes]) + 4 * np.eye(axes, k=1)
    return Shapes(np.array([[5.0, -6.0, 3.0][:axes]]), semiaxes[None], np.array([0.8 + 0.3j]))


def test_coil_weighted_k_space_against_quadrature() -> None:
    coils, one = fit(field, VIEW[2]), ellipse(2)
    node, weight = np.polynomial.legendre.leggauss(60)
    radius, angle = (node + 1) / 2, 2 * np.pi * np.arange(200) / 200
    disc = radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    points = disc @ one.semiaxes[0].T + one.center[0]
    area = abs(np.linalg.det(one.semiaxes[0])) * (weight / 2 * radius)[:, None] * 2 * np.pi / 200
    for k in RNG.uniform(-0.1, 0.1, (5, 2)):
        waves = np.exp(-2j * np.pi * points @ k)
        expected = one.intensity[0] * np.sum(area * sensitivity(coils, points) * waves, axis=(1, 2))
        # The nodes resolve the waves and the smooth coils to double precision, relative to the content.
        scale = np.pi * 600 * np.abs(coils.coefficients).sum()
        np.testing.assert_allclose(coil_spectrum(one, coils, k), expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize(("axes", "matrix"), [(2, (24, 15)), (3, (18, 9, 8))])
@pytest.mark.parametrize("oversampling", [1, 2])
def test_the_grid_holds_the_values_of_its_points(axes: int, matrix: tuple[int, ...], oversampling: int) -> None:
    coils, view = fit(field, VIEW[axes]), VIEW[axes] * np.array([oversampling, 1, 1][:axes])
    lines = [(np.arange(n) - n // 2) / length for n, length in zip(matrix, view, strict=True)]
    points = np.stack(np.meshgrid(*reversed(lines), indexing="ij")[::-1], axis=-1)
    grid = coil_grid_spectrum(ellipse(axes), coils, matrix=matrix, field_of_view_mm=view)
    exact = coil_spectrum(ellipse(axes), coils, points)
    np.testing.assert_allclose(grid, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


def test_points_in_many_blocks() -> None:
    coils, k = fit(field, VIEW[2]), RNG.uniform(-0.1, 0.1, (3, 6000, 2))
    whole = coil_spectrum(ellipse(2), coils, k)
    assert whole.shape == (3, 3, 6000)
    np.testing.assert_allclose(whole[:, 2, 5990:], coil_spectrum(ellipse(2), coils, k[2, 5990:]), rtol=1e-12)


def test_mixed_channels_are_mixed_sensitivities() -> None:
    coils, matrix = fit(field, VIEW[2]), RNG.standard_normal((2, 3)) + 1j * RNG.standard_normal((2, 3))
    points = RNG.uniform(-40, 40, (20, 2))
    np.testing.assert_allclose(
        sensitivity(mixed(coils, matrix), points), matrix @ sensitivity(coils, points), rtol=0, atol=1e-13
    )


def test_a_grid_needs_a_period_that_fits() -> None:
    coils = fit(field, VIEW[2])
    with pytest.raises(ScanError, match=r"period of 192\.0 mm does not divide the grid of a 100\.0 mm field of view"):
        coil_grid_spectrum(ellipse(2), coils, matrix=(8, 8), field_of_view_mm=np.array([100.0, 80.0]))


def test_arrays_must_fit() -> None:
    with pytest.raises(ScanError, match=r"coefficients \(2, 4\), harmonics \(5, 2\) and period \(2,\) do not fit"):
        Coils(np.zeros((2, 4), np.complex128), np.zeros((5, 2), np.int64), np.ones(2))


def test_a_series_is_found_again() -> None:
    """Ridge regression leaves at most half the root of the ridge (1e-4) of each coefficient, in the mean square."""
    start = fit(field, VIEW[2])
    again = fit(lambda points: sensitivity(start, points), VIEW[2])
    points = RNG.uniform(-0.5, 0.5, (4000, 2))
    points = points[np.sum(points**2, axis=1) < 0.25] * VIEW[2]
    rest = np.sqrt(np.mean(np.abs(sensitivity(again, points) - sensitivity(start, points)) ** 2, axis=1))
    assert (rest <= 0.5 * 1e-2 * np.linalg.norm(start.coefficients, axis=1)).all()


def test_the_field_on_the_axis_of_a_loop() -> None:
    corners = loops(1, radii_mm=(50.0, 50.0), stagger_mm=0.0, loop_mm=20.0)
    distance = np.array([0.0, 10.0, 30.0, 70.0])
    # The first of one loop faces the axis from the −x side.
    points = np.stack([-50 + distance, np.zeros(4), np.zeros(4)], axis=-1)
    expected = 2 * np.pi * 20.0**2 / (20.0**2 + distance**2) ** 1.5
    # A loop of 48 straight segments differs from a circle by (π/48)², with a factor of at most 2.
    np.testing.assert_allclose(np.abs(receive_field(corners, points)[0]), expected, rtol=2 * (np.pi / 48) ** 2)


def test_neighbours_are_staggered_and_face_the_axis() -> None:
    corners = loops(4, radii_mm=(100.0, 80.0), stagger_mm=25.0, loop_mm=30.0)
    center = corners.mean(axis=1)
    np.testing.assert_allclose(center[:, 2], [25, -25, 25, -25], atol=1e-9)
    np.testing.assert_allclose((center[:, 0] / 100) ** 2 + (center[:, 1] / 80) ** 2, 1, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(corners - center[:, None], axis=-1), 30, rtol=1e-12)

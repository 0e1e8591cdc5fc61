"""Spokes and spirals: geometry, the gradients' limits, and areas that fill the disc."""

from __future__ import annotations

import numpy as np
import pytest

from recon.simulate.trajectories import (
    GOLDEN_ANGLE_DEG,
    GYROMAGNETIC_HZ_T,
    Gradients,
    ball_areas,
    ball_spokes,
    golden_spokes,
    spiral,
    spiral_areas,
    spoke_areas,
)

GRADIENTS = Gradients(amplitude_mt_m=24.0, slew_t_m_s=150.0)
CASES = [(96, 12, 2.5), (64, 8, 2.5), (128, 16, 2.5), (33, 5, 4.0), (128, 1, 2.5)]


def test_spokes_turn_by_the_golden_angle() -> None:
    assert pytest.approx(111.24611797498108, rel=1e-15) == GOLDEN_ANGLE_DEG
    spokes = golden_spokes(9, 16).astype(np.float64)
    assert spokes.shape == (9, 16, 2)
    assert (spokes[:, 8] == 0).all()
    angle = np.unwrap(np.arctan2(spokes[:, 12, 1], spokes[:, 12, 0]))
    # float32 coordinates of size 0.25.
    np.testing.assert_allclose(np.degrees(np.diff(angle)), GOLDEN_ANGLE_DEG, atol=1e-4)
    np.testing.assert_allclose(
        np.linalg.norm(spokes, axis=-1), np.abs(np.arange(16) - 8)[None].repeat(9, 0) / 16, atol=1e-7
    )


def test_areas_of_spokes_fill_the_disc() -> None:
    # One sample more on one side than on the other: the rim counts half, up to π/(2·samples) of it.
    assert spoke_areas(13, 256).sum() == pytest.approx(np.pi / 4, rel=1 / 256)


def test_spokes_of_a_ball_point_in_all_directions_and_fill_it() -> None:
    spokes = ball_spokes(400, 32).astype(np.float64)
    assert (spokes[:, 16] == 0).all()
    along = spokes[:, 24] / np.linalg.norm(spokes[:, 24], axis=-1, keepdims=True)
    # Golden means leave gaps of less than 2/√count: so does what is not even in the mean of d dᵀ.
    np.testing.assert_allclose(along.T @ along / 400, np.eye(3) / 3, atol=2 / 400)
    # One sample more on one side than on the other: the rim counts half, 3/(2·16) of the ball at most.
    assert ball_areas(400, 32).sum() == pytest.approx(np.pi / 6, rel=3 / 32)


@pytest.mark.parametrize(("matrix", "interleaves", "sample_time_us"), CASES)
def test_spirals_keep_the_limits(matrix: int, interleaves: int, sample_time_us: float) -> None:
    points = spiral(
        interleaves=interleaves,
        matrix=matrix,
        field_of_view_mm=320.0,
        sample_time_us=sample_time_us,
        gradients=GRADIENTS,
    ).astype(np.float64)
    assert points.shape[::2] == (interleaves, 2)
    radius = np.linalg.norm(points, axis=-1)
    assert (radius[:, 0] == 0).all()
    assert (np.diff(radius, axis=1) > 0).all()
    step = np.linalg.norm(np.diff(points[0], axis=0), axis=1)
    assert radius.max() <= 0.5 + 1e-7  # float32
    assert radius.max() > 0.5 - step.max()
    meters = points[0] * matrix / 0.320
    gradient = np.diff(meters, axis=0) / (sample_time_us * 1e-6) / GYROMAGNETIC_HZ_T
    slew = np.diff(gradient, axis=0) / (sample_time_us * 1e-6)
    rounding = 0.5 * matrix / 0.320 * 2.0**-24  # of one float32 coordinate, in cycles/m
    noise = rounding * 4 * np.sqrt(2) / (sample_time_us * 1e-6) ** 2 / GYROMAGNETIC_HZ_T
    # Past the switch the closed form takes the pitch for small against the radius: 1 + 1/(2θ²) too fast.
    assert np.linalg.norm(gradient, axis=1).max() * 1e3 <= GRADIENTS.amplitude_mt_m * 1.01
    assert np.linalg.norm(slew, axis=1).max() <= GRADIENTS.slew_t_m_s + noise


def test_turns_of_spirals_lie_a_voxel_of_k_space_apart() -> None:
    points = spiral(interleaves=4, matrix=64, field_of_view_mm=320.0, sample_time_us=2.5, gradients=GRADIENTS).astype(
        np.float64
    )
    angle = np.unwrap(np.arctan2(points[:, 1:, 1], points[:, 1:, 0]), axis=1)
    # Along any ray the radii of all turns of all interleaves are multiples of 1/64 apart.
    radius = np.linalg.norm(points[:, 1:], axis=-1)
    crossings = np.sort(
        np.concatenate([np.interp(ray, a, r) for a, r in zip(angle, radius, strict=True) for ray in [_rays(a)]])
    )
    np.testing.assert_allclose(np.diff(crossings), 1 / 64, atol=1e-4)


def _rays(angle: np.ndarray) -> np.ndarray:
    first = np.ceil(angle[0] / (2 * np.pi)) * 2 * np.pi
    return np.arange(first, angle[-1], 2 * np.pi)


@pytest.mark.parametrize(("matrix", "interleaves", "sample_time_us"), CASES)
def test_areas_of_spirals_fill_their_disc(matrix: int, interleaves: int, sample_time_us: float) -> None:
    points = spiral(
        interleaves=interleaves,
        matrix=matrix,
        field_of_view_mm=320.0,
        sample_time_us=sample_time_us,
        gradients=GRADIENTS,
    )
    areas, edge = spiral_areas(points), np.linalg.norm(points[0, -1].astype(np.float64))
    assert areas.shape == points.shape[:2]
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(np.pi * edge**2, rel=1e-6)

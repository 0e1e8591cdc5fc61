"""Trajectories: wire units to radians per voxel, axes turned, and ranges that fit no unit refused."""

from __future__ import annotations

import numpy as np
import pytest

from recon.errors import RecipeError, ScanError
from recon.mrd.trajectory import radians
from recon.scan import Space

SPACE = Space((8, 64, 128), (40.0, 128.0, 256.0))  # 5, 2 and 2 mm
RNG = np.random.default_rng(5)
CYCLES = RNG.uniform(-0.5, 0.5, (3, 7, 3)).astype(np.float32)  # (x, y, z) in cycles per voxel
DENSITY = RNG.uniform(0, 1, (3, 7, 1)).astype(np.float32)

# One product of a float32 with a double, rounded to float32: half a unit in the last place of π.
ROUNDING = {"rtol": 2 * np.finfo(np.float32).eps, "atol": 1e-7}


@pytest.mark.parametrize("axes", [2, 3])
def test_axes_turn_and_half_a_cycle_is_pi(axes: int) -> None:
    points, density = radians(CYCLES[..., :axes], axes=axes)
    assert density is None
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, 2 * np.pi * CYCLES[..., :axes][..., ::-1].astype(np.float64), **ROUNDING)
    edge, _ = radians(np.full((1, 1, axes), -0.5, np.float32), axes=axes)
    np.testing.assert_allclose(edge, -np.pi, **ROUNDING)


@pytest.mark.parametrize("axes", [2, 3])
def test_density_rides_in_the_last_column(axes: int) -> None:
    points, density = radians(np.concatenate([CYCLES[..., :axes], DENSITY], axis=-1), axes=axes)
    np.testing.assert_array_equal(points, radians(CYCLES[..., :axes], axes=axes)[0])
    np.testing.assert_array_equal(density, DENSITY[..., 0])


def test_a_plane_may_come_with_three_coordinates() -> None:
    flat = np.concatenate([CYCLES[..., :2], np.zeros_like(DENSITY)], axis=-1)
    points, density = radians(flat, axes=2)
    assert points.shape == (3, 7, 2)
    assert density is None
    _, density = radians(np.concatenate([flat, DENSITY], axis=-1), axes=2)
    np.testing.assert_array_equal(density, DENSITY[..., 0])


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("cycles/fov", [128, 64, 8]), ("1/m", [1 / 0.002, 1 / 0.002, 1 / 0.005])],
)
def test_other_units_say_the_same(unit: str, scale: list[float]) -> None:
    given = (CYCLES * np.array(scale)).astype(np.float32)
    np.testing.assert_allclose(
        radians(given, axes=3, unit=unit, space=SPACE)[0],
        radians(CYCLES, axes=3)[0],
        rtol=4 * np.finfo(np.float32).eps,  # the given values were rounded, too
        atol=1e-7,
    )


def test_a_strided_view_of_a_stream_will_do() -> None:
    raw = np.zeros((3, 7 * 3 * 4 + 2), np.uint8)
    raw[:, 2:] = CYCLES.reshape(3, -1).view(np.uint8)
    view = np.ndarray((3, 7, 3), np.float32, raw, 2, (raw.strides[0], 12, 4))
    np.testing.assert_array_equal(radians(view, axes=3)[0], radians(CYCLES, axes=3)[0])


def with_value(value: float) -> np.ndarray:
    changed = CYCLES.copy()
    changed[1, 2, 0] = value
    return changed


BAD = {
    "columns": (CYCLES[..., :1], {"axes": 2}, "has 1 columns, expected 2 or, with density, 3: send"),
    "too many": (
        np.concatenate([CYCLES, CYCLES], axis=-1),
        {"axes": 3},
        "has 6 columns, expected 3 or, with density, 4",
    ),
    "nan": (with_value(np.nan), {"axes": 3}, "holds values that are not finite, expected numbers"),
    "infinite": (with_value(np.inf), {"axes": 3}, "holds values that are not finite"),
    "density": (
        np.concatenate([CYCLES, DENSITY - 2], axis=-1),
        {"axes": 3},
        r"density goes down to -[\d.]+, expected 0 or more: correct its last column",
    ),
    "grid units": (
        CYCLES * 7.9,
        {"axes": 3, "space": SPACE},
        r"runs from -[\d.]+ to [\d.]+, beyond what cycles/voxel allows \(it would fit cycles/fov\): name its unit",
    ),
    "metres": (CYCLES * 195, {"axes": 3, "space": SPACE}, r"it would fit 1/m"),
    "nothing": (CYCLES * 1e6, {"axes": 3, "space": SPACE}, r"beyond what cycles/voxel allows \(no unit fits\)"),
    "no space": (CYCLES, {"axes": 3, "unit": "1/m"}, "a trajectory in 1/m needs the encoded space, got none: pass"),
}


@pytest.mark.parametrize(("given", "how", "sentence"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_with_what_was_found(given: np.ndarray, how: dict, sentence: str) -> None:
    with pytest.raises(ScanError, match=sentence):
        radians(given, **how)


def test_an_unknown_unit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        RecipeError, match="unknown trajectory unit 'rad', expected one of cycles/voxel, cycles/fov, 1/m"
    ):
        radians(CYCLES, axes=3, unit="rad")

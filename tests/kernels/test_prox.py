"""Proximal steps and phase correction: against their closed forms and laws, on every device."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import kernels
from kernels.contract import Complex
from kernels.reference import direct
from tests import tolerances
from tests.cases import Device, noise
from tests.laws import assert_near, assert_repeatable

SHAPES = ((1,), (7,), (3, 1, 5), (2, 4, 33, 130))
# [frame, *grid], block, shift: more frames than voxels, fewer, one of each; blocks that do not divide the grid
MATRICES = (
    ((4, 16), (8,), (0,)),
    ((12, 9), (4,), (5,)),
    ((1, 6, 6), (3, 3), (0, 0)),
    ((5, 13, 10), (4, 4), (3, -2)),
    ((9, 6, 7), (1, 1), (0, 0)),
    ((16, 16, 16), (8, 8), (7, 1)),
    ((6, 5, 8, 7), (2, 4, 4), (1, 2, 3)),
    ((3, 4, 5), (9, 9), (2, 2)),
)
SWEEPS = 12


def shrink(device: Device, x: Complex, threshold: float) -> Complex:
    found: Complex = device.get(device.kernels.shrink(device.put(x), threshold))
    return found


def low_rank(
    device: Device, x: Complex, threshold: float, block: tuple[int, ...], shift: tuple[int, ...] | None
) -> Complex:
    found: Complex = device.get(device.kernels.low_rank(device.put(x), threshold, block=block, shift=shift))
    return found


def norm(x: NDArray[np.complex64]) -> float:
    return float(np.linalg.norm(x.astype(np.complex128)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threshold", [0, 1e-3, 1.0, 50.0])
def test_shrinking_is_its_closed_form(
    device: Device, rng: np.random.Generator, shape: tuple[int, ...], threshold: float
) -> None:
    x = noise(rng, *shape)
    x.flat[0] = 0
    found = shrink(device, x, threshold)
    assert found.dtype == np.complex64
    assert_near(found, direct.shrink(x, threshold), tolerances.sum_of(3), norm=norm(x))


def test_shrinking_by_zero_changes_nothing(device: Device, rng: np.random.Generator) -> None:
    x = noise(rng, 5, 6)
    x[0] = 0
    x[1] *= np.float32(1e-30)  # whose squares are zero in single precision
    assert np.array_equal(shrink(device, x, 0.0), x)


def test_shrinking_is_the_proximal_step_of_the_sum_of_magnitudes(device: Device, rng: np.random.Generator) -> None:
    """p = prox(x) where (x − p)/λ is a subgradient of |·| at p: p/|p| where p ≠ 0, else at most 1 in magnitude."""
    x, threshold = noise(rng, 400), 0.9
    p = shrink(device, x, threshold).astype(np.complex128)
    subgradient = (x - p) / threshold
    kept = p != 0
    assert 0 < kept.sum() < len(x)
    slack = tolerances.sum_of(3) * np.abs(x) / threshold
    assert (np.abs(subgradient[kept] - p[kept] / np.abs(p[kept])) <= (slack / np.abs(p).clip(1e-3) + slack)[kept]).all()
    assert (np.abs(subgradient[~kept]) <= 1 + slack[~kept]).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_shrinking_is_firmly_nonexpansive(device: Device, rng: np.random.Generator, scale: float) -> None:
    """‖Px − Py‖² ≤ Re⟨x − y, Px − Py⟩, which is what makes proximal iterations converge."""
    x, y = noise(rng, 300), noise(rng, 300) * np.float32(scale)
    step = (shrink(device, x, 1.0).astype(np.complex128)) - shrink(device, y, 1.0)
    inner = np.vdot(x.astype(np.complex128) - y, step).real
    slack = tolerances.sum_of(3) * (norm(x) + norm(y)) * (norm(x - y) + float(np.linalg.norm(step)))
    assert np.linalg.norm(step) ** 2 <= inner + slack


def test_shrinking_keeps_the_phase(device: Device, rng: np.random.Generator) -> None:
    x, turn = noise(rng, 200), np.complex64(0.6 + 0.8j)
    assert_near(shrink(device, x * turn, 0.7), shrink(device, x, 0.7) * turn, tolerances.sum_of(5), norm=norm(x))


def test_shrinking_hides_no_nan(device: Device) -> None:
    x = np.array([np.nan, 2, 1j * np.nan], np.complex64)
    found = shrink(device, x, 1.0)
    assert np.isnan(found[[0, 2]]).all()
    assert found[1] == 1


@pytest.mark.parametrize(("shape", "block", "shift"), MATRICES, ids=str)
@pytest.mark.parametrize("threshold", [0.0, 1.5, 100.0])
def test_low_rank_shrinks_the_singular_values_of_each_block(
    device: Device,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    block: tuple[int, ...],
    shift: tuple[int, ...],
    threshold: float,
) -> None:
    x = noise(rng, *shape)
    found = low_rank(device, x, threshold, block, shift)
    voxels = int(np.prod(block))
    vectors, length = min(shape[0], voxels), max(shape[0], voxels)
    assert_near(
        found,
        direct.low_rank(x, threshold, block, tuple(s % n for s, n in zip(shift, shape[1:], strict=True))),
        tolerances.low_rank(vectors, length, SWEEPS),
        norm=norm(x),
    )
    if threshold == 100.0:  # above every singular value
        assert not found.any()


def test_low_rank_data_stay_so_and_lose_only_the_threshold(device: Device, rng: np.random.Generator) -> None:
    """One component in each block: σ u vᴴ becomes (σ − λ) u vᴴ; blocks of exact zeros stay zero."""
    x = (noise(rng, 8, 1, 1) * noise(rng, 1, 16, 8)).astype(np.complex64)
    x[:, :8] = 0
    found = low_rank(device, x, 2.0, (8, 8), None)
    size = norm(x)
    assert not found[:, :8].any()
    tolerance = tolerances.low_rank(8, 64, SWEEPS)
    assert_near(found[:, 8:], x[:, 8:] * (1 - 2.0 / size), tolerance, norm=size)


def test_small_singular_values_are_not_lost_beside_large_ones(device: Device) -> None:
    """σ = 1 and 1e-4: their squares would be a rounding error apart in single precision."""
    x = np.zeros((2, 4), np.complex64)
    x[0], x[1] = [0.5, 0.5, 0.5, 0.5], np.array([0.5, -0.5, 0.5, -0.5]) * 1e-4
    found = low_rank(device, x, 5e-5, (4,), None)
    assert_near(found[1], x[1] / 2, 1e4 * tolerances.ROUND)


def test_low_rank_is_firmly_nonexpansive(device: Device, rng: np.random.Generator) -> None:
    x, y = noise(rng, 6, 8, 8), noise(rng, 6, 8, 8)
    step = low_rank(device, x, 4.0, (4, 4), (1, 2)).astype(np.complex128) - low_rank(device, y, 4.0, (4, 4), (1, 2))
    inner = np.vdot(x.astype(np.complex128) - y, step).real
    slack = tolerances.low_rank(6, 16, SWEEPS) * (norm(x) + norm(y)) * (norm(x - y) + float(np.linalg.norm(step)))
    assert np.linalg.norm(step) ** 2 <= inner + slack


def test_a_nan_spoils_its_own_block_only(device: Device, rng: np.random.Generator) -> None:
    x = noise(rng, 3, 8)
    expected = low_rank(device, x, 0.5, (4,), None)
    x[1, 5] = np.nan
    found = low_rank(device, x, 0.5, (4,), None)
    assert np.isnan(found[:, 4:]).all()
    assert np.array_equal(found[:, :4], expected[:, :4])


@pytest.mark.parametrize("phases", [(6,), (5, 6), (4, 5, 6)], ids=str)
@pytest.mark.parametrize("turns", [0.5, 40.0, 1590.0])
def test_rotation_multiplies_by_the_phase(
    device: Device, rng: np.random.Generator, phases: tuple[int, ...], turns: float
) -> None:
    x = noise(rng, 4, 5, 6)
    phase = (2 * np.pi * turns * rng.uniform(-1, 1, phases)).astype(np.float32)
    found = device.get(device.kernels.rotate(device.put(x), device.put(phase)))
    assert_near(found, direct.rotate(x, phase), tolerances.ROTATION)
    back = device.get(device.kernels.rotate(device.put(found), device.put(-phase)))
    assert_near(back, x, 2 * tolerances.ROTATION)


def test_the_same_bits_every_time(device: Device, rng: np.random.Generator) -> None:
    x = noise(rng, 5, 12, 8)
    phase = rng.uniform(-3, 3, (12, 8)).astype(np.float32)
    assert_repeatable(lambda values: shrink(device, values, 0.5), x)
    assert_repeatable(lambda values: low_rank(device, values, 0.5, (4, 4), (1, 1)), x)
    assert_repeatable(lambda values: device.get(device.kernels.rotate(device.put(values), device.put(phase))), x)


def test_strided_values_are_the_same_as_contiguous(device: Device, rng: np.random.Generator) -> None:
    x = noise(rng, 8, 12, 5).T[:, ::-1, ::2]
    phase = rng.uniform(-3, 3, (4, 12)).astype(np.float32).T
    assert np.array_equal(shrink(device, x, 0.5), shrink(device, x.copy(), 0.5))
    assert np.array_equal(low_rank(device, x, 0.5, (4, 2), None), low_rank(device, x.copy(), 0.5, (4, 2), None))
    k = device.kernels
    rotated = device.get(k.rotate(device.put(x), device.put(phase)))
    assert np.array_equal(rotated, device.get(k.rotate(device.put(x.copy()), device.put(phase.copy()))))


def test_the_work_of_many_blocks_is_done_in_parts(rng: np.random.Generator) -> None:
    x = noise(rng, 2, 3000)
    found = kernels.on("cpu").low_rank(x, 0.5, block=(2,))
    assert_near(found, direct.low_rank(x, 0.5, (2,), (0,)), tolerances.low_rank(2, 2, SWEEPS), norm=norm(x))


def test_refuses_what_makes_no_sense(device: Device, rng: np.random.Generator) -> None:
    k, x = device.kernels, noise(rng, 3, 4, 6)
    for threshold in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"threshold is {threshold}, expected a finite number, 0 or more: correct"):
            k.shrink(device.put(x), threshold)
    with pytest.raises(TypeError, match="x has dtype float32, expected complex64: convert it first"):
        k.shrink(device.put(x.real.copy()), 1.0)
    with pytest.raises(ValueError, match=r"x has shape \(3, 4, 6\) and block is \(4,\), expected \[frame, \*grid\]"):
        k.low_rank(device.put(x), 1.0, block=(4,))
    with pytest.raises(ValueError, match=r"block is \(4, 0\), expected \[frame, \*grid\] of one to three axes"):
        k.low_rank(device.put(x), 1.0, block=(4, 0))
    with pytest.raises(ValueError, match=r"shift is \(1,\) for a grid of \(4, 6\), expected a number for each axis"):
        k.low_rank(device.put(x), 1.0, block=(2, 2), shift=(1,))
    with pytest.raises(TypeError, match="phase has dtype float64, expected float32 radians: convert it first"):
        k.rotate(device.put(x), device.put(np.zeros(6)))
    with pytest.raises(ValueError, match=r"x has shape \(3, 4, 6\), expected its last axes to be \(4,\): reshape it"):
        k.rotate(device.put(x), device.put(np.zeros(4, np.float32)))

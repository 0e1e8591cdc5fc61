"""The wavelet transform: orthogonal, its own inverse's inverse, and the same as PyWavelets', on every device."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.contract import Complex
from kernels.reference import direct
from tests import tolerances
from tests.cases import Device, noise
from tests.laws import assert_adjoint, assert_linear, assert_near, assert_repeatable

Grid = tuple[int, ...]
# x [*batch, *grid], levels of the last axes, shift: down to single values, unequal levels, axes left alone
CASES = (
    ((8,), (1,), (0,)),
    ((2,), (1,), (1,)),
    ((3, 16), (4,), (5,)),
    ((24, 40), (3, 3), (0, 0)),
    ((2, 3, 16, 12), (3, 2), (7, -3)),
    ((5, 12), (0, 2), (3, 1)),
    ((8, 7), (2, 0), (1, 2)),
    ((8, 12, 20), (2, 1, 2), (0, 0, 0)),
    ((2, 4, 8, 16), (2, 3, 4), (3, 5, 9)),
    ((4, 1, 8, 8), (0, 3, 3), (0, 1, 1)),
    ((6, 10, 66), (1, 1, 1), (-1, 11, 40)),
)


def forward(device: Device, x: Complex, levels: Grid, shift: Grid | None = None) -> Complex:
    found: Complex = device.get(device.kernels.wavelet(device.put(x), levels=levels, shift=shift))
    return found


def inverse(device: Device, x: Complex, levels: Grid, shift: Grid | None = None) -> Complex:
    found: Complex = device.get(device.kernels.iwavelet(device.put(x), levels=levels, shift=shift))
    return found


def modulo(shape: Grid, shift: Grid) -> Grid:
    return tuple(s % n for s, n in zip(shift, shape[len(shape) - len(shift) :], strict=True))


@pytest.mark.parametrize(("shape", "levels", "shift"), CASES, ids=str)
def test_both_directions_are_their_matrices(
    device: Device, rng: np.random.Generator, shape: Grid, levels: Grid, shift: Grid
) -> None:
    x = noise(rng, *shape)
    tolerance = tolerances.wavelet(sum(levels))
    found = forward(device, x, levels, shift)
    assert found.dtype == np.complex64
    assert_near(found, direct.wavelet(x, levels, modulo(shape, shift)), tolerance)
    assert_near(inverse(device, x, levels, shift), direct.iwavelet(x, levels, modulo(shape, shift)), tolerance)


@pytest.mark.parametrize(("shape", "levels", "shift"), CASES, ids=str)
def test_orthogonal(device: Device, rng: np.random.Generator, shape: Grid, levels: Grid, shift: Grid) -> None:
    """Parseval, inverse∘forward = forward∘inverse = 1, and the inverse is the adjoint."""
    x, y = noise(rng, *shape), noise(rng, *shape)
    tolerance = tolerances.wavelet(sum(levels))
    energy = np.linalg.norm(x.astype(np.complex128))
    coefficients = forward(device, x, levels, shift)
    assert abs(np.linalg.norm(coefficients.astype(np.complex128)) - energy) <= tolerance * energy
    assert_near(inverse(device, coefficients, levels, shift), x, 2 * tolerance)
    assert_near(forward(device, inverse(device, x, levels, shift), levels, shift), x, 2 * tolerance)
    assert_adjoint(
        lambda v: forward(device, v, levels, shift), lambda v: inverse(device, v, levels, shift), x, y,
        max(tolerances.ADJOINT, 2 * tolerance),
    )  # fmt: skip


def test_linear_and_repeatable(device: Device, rng: np.random.Generator) -> None:
    x, y = noise(rng, 2, 16, 24), noise(rng, 2, 16, 24)
    for apply in (forward, inverse):
        assert_linear(
            lambda v, apply=apply: apply(device, v, (3, 3), (1, 5)),  # type: ignore[misc]
            x,
            y,
            3 * tolerances.wavelet(6) + tolerances.sum_of(2),
        )
        assert_repeatable(lambda v, apply=apply: apply(device, v, (3, 3), (1, 5)), x)  # type: ignore[misc]


def test_a_shift_moves_the_origin(device: Device, rng: np.random.Generator) -> None:
    x = noise(rng, 8, 12)
    found = forward(device, x, (2, 1), (3, 7))
    assert np.array_equal(found, forward(device, np.roll(x, (-3, -7), (0, 1)), (2, 1)))
    assert np.array_equal(found, forward(device, x, (2, 1), (3 - 8, 7 + 12)))


def test_smooth_images_have_few_large_coefficients(device: Device) -> None:
    """Two vanishing moments: a ramp has no detail except where the edges wrap round; a constant has none at all."""
    tolerance = tolerances.wavelet(2)
    ramp = np.arange(64, dtype=np.float32).astype(np.complex64) - 31.5
    detail = forward(device, ramp, (1,))[32:]
    assert np.abs(detail[1:-1]).max() <= tolerance * np.linalg.norm(ramp)
    constant = np.ones((16, 16), np.complex64)
    coefficients = forward(device, constant, (2, 2))
    assert_near(coefficients[:4, :4], np.full((4, 4), 4, np.complex64), tolerances.wavelet(4))
    coefficients[:4, :4] = 0
    assert np.linalg.norm(coefficients) <= tolerances.wavelet(4) * 16


@pytest.mark.filterwarnings("ignore:Level value of")  # that every coefficient feels the edges is what is wanted here
@pytest.mark.parametrize(("shape", "level"), [((16,), 3), ((24, 40), 3), ((8, 16, 12), 2)], ids=str)
def test_pywavelets_agrees(device: Device, rng: np.random.Generator, shape: Grid, level: int) -> None:
    pywt = pytest.importorskip("pywt", reason="PyWavelets, the judge of the wavelet transform, is not installed")
    x = noise(rng, *shape)
    parts = pywt.wavedecn(x.astype(np.complex128), "db2", mode="periodization", level=level)
    expected, _ = pywt.coeffs_to_array(parts)
    levels = (level,) * len(shape)
    assert_near(forward(device, x, levels), expected, tolerances.wavelet(sum(levels)))


def test_strided_images_are_the_same_as_contiguous(device: Device, rng: np.random.Generator) -> None:
    x = noise(rng, 8, 12, 10).T[:, ::-1, ::2]
    assert np.array_equal(forward(device, x, (2, 1)), forward(device, x.copy(), (2, 1)))
    assert np.array_equal(inverse(device, x, (2, 1), (1, 1)), inverse(device, x.copy(), (2, 1), (1, 1)))


def test_refuses_what_cannot_be_split(device: Device, rng: np.random.Generator) -> None:
    k, x = device.kernels, noise(rng, 12, 10)
    for apply in (k.wavelet, k.iwavelet):
        with pytest.raises(ValueError, match=r"the grid is \(12, 10\) for wavelet levels \(2, 2\), expected sizes div"):
            apply(device.put(x), levels=(2, 2))
        for levels in ((), (0, 0), (1, -1), (1, 1, 1, 1)):
            with pytest.raises(ValueError, match="expected one for each of one to three axes, at least one above 0"):
                apply(device.put(x), levels=levels)
        with pytest.raises(ValueError, match=r"shift is \(1,\) for a grid of \(12, 10\), expected a number for each"):
            apply(device.put(x), levels=(1, 1), shift=(1,))
        with pytest.raises(ValueError, match=r"x has shape \(10,\), expected at least 2 axes, none empty: reshape it"):
            apply(device.put(x[0]), levels=(1, 1))
        with pytest.raises(TypeError, match="x has dtype complex128, expected complex64: convert it first"):
            apply(device.put(x.astype(np.complex128)), levels=(1, 1))

"""Coil operations: against the definition, on every device."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from kernels.reference import direct
from tests import tolerances
from tests.cases import COILS, GRIDS, Device, as_on_the_wire, noise
from tests.laws import assert_adjoint, assert_near, assert_repeatable

Shape3 = tuple[int, int, int]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("coils", COILS)
def test_coil_operations_are_their_definitions(
    device: Device, rng: np.random.Generator, grid: Shape3, coils: int
) -> None:
    k, images, maps, image = device.kernels, noise(rng, coils, *grid), noise(rng, coils, *grid), noise(rng, *grid)
    tolerance = tolerances.sum_of(2 * coils)
    assert_near(device.get(k.rss(device.put(images))), direct.rss(images), tolerance)
    magnitudes = np.linalg.norm((np.abs(images) * np.abs(maps)).sum(axis=0))
    combined = device.get(k.combine(device.put(images), device.put(maps)))
    assert_near(combined, direct.combine(images, maps), tolerance, norm=float(magnitudes))
    expanded = device.get(k.expand(device.put(image), device.put(maps)))
    assert_near(expanded, direct.expand(image, maps), tolerances.sum_of(1))


@pytest.mark.parametrize("coils", COILS)
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)], ids=str)
def test_whitening_mixes_coils(device: Device, rng: np.random.Generator, coils: int, batch: tuple[int, ...]) -> None:
    whitening, samples = noise(rng, coils, coils), noise(rng, *batch, coils, 17)
    found = device.get(device.kernels.whiten(device.put(whitening), device.put(samples)))
    expected = np.einsum("dc,...cs->...ds", whitening.astype(np.complex128), samples)
    magnitudes = np.einsum("dc,...cs->...ds", np.abs(whitening), np.abs(samples))
    assert_near(found, expected, tolerances.sum_of(2 * coils), norm=float(np.linalg.norm(magnitudes)))


def test_combining_is_the_adjoint_of_expanding(device: Device, rng: np.random.Generator) -> None:
    maps = noise(rng, 8, 3, 5, 7)
    assert_adjoint(
        lambda image: device.get(device.kernels.expand(device.put(image), device.put(maps))),
        lambda images: device.get(device.kernels.combine(device.put(images), device.put(maps))),
        noise(rng, 3, 5, 7),
        noise(rng, 8, 3, 5, 7),
        tolerances.ADJOINT,
    )


def test_samples_are_whitened_where_they_lie_in_the_stream(rng: np.random.Generator) -> None:
    cpu, kspace, whitening = kernels.on("cpu"), noise(rng, 4, 1, 6, 9), noise(rng, 4, 4)
    readouts = as_on_the_wire(kspace)[:, 0].transpose(1, 0, 2)
    assert not readouts.flags.aligned
    expected = cpu.whiten(whitening, kspace[:, 0].transpose(1, 0, 2).copy())
    assert np.array_equal(cpu.whiten(whitening, readouts), expected)
    reversed_copy = readouts[..., ::-1].copy()
    assert np.array_equal(cpu.whiten(whitening, readouts[..., ::-1]), cpu.whiten(whitening, reversed_copy))
    assert_repeatable(lambda samples: cpu.whiten(whitening, samples), readouts)


def test_strided_images_are_the_same_as_contiguous(device: Device, rng: np.random.Generator) -> None:
    images, maps = noise(rng, 7, 5, 2, 3).T, noise(rng, 7, 5, 2, 3).T
    k = device.kernels
    assert np.array_equal(device.get(k.rss(device.put(images))), device.get(k.rss(device.put(images.copy()))))
    assert np.array_equal(
        device.get(k.combine(device.put(images), device.put(maps))),
        device.get(k.combine(device.put(images.copy()), device.put(maps.copy()))),
    )


def test_refuses_what_does_not_fit_together(device: Device, rng: np.random.Generator) -> None:
    k, images = device.kernels, noise(rng, 3, 1, 4, 6)
    with pytest.raises(TypeError, match="images has dtype float32, expected complex64: convert it first"):
        k.rss(device.put(images.real.copy()))
    with pytest.raises(
        ValueError, match=r"images have shape \(3, 1, 4, 6\) and maps \(2, 1, 4, 6\), expected the same"
    ):
        k.combine(device.put(images), device.put(images[:2]))
    with pytest.raises(ValueError, match=r"image has shape \(4, 6\), expected \(1, 4, 6\): reshape it"):
        k.expand(device.put(images[0, 0]), device.put(images))
    with pytest.raises(ValueError, match=r"whitening has shape \(3, 2\), expected \[coil, 3\] for 3 coils: remake it"):
        k.whiten(device.put(noise(rng, 3, 2)), device.put(noise(rng, 3, 5)))

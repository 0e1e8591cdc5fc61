"""Centred transforms and the fused root-sum-of-squares image: against the definition, on every device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels.contract import Complex
from kernels.reference import direct
from tests import tolerances
from tests.cases import COILS, GRIDS, Device, as_on_the_wire, noise
from tests.laws import assert_adjoint, assert_linear, assert_near, assert_repeatable
from tests.recon.judges import Bart

Shape3 = tuple[int, int, int]


def crops(grid: Shape3) -> list[Shape3]:
    """The whole grid, half of the readout, and a little of every axis."""
    z, y, x = grid
    return [grid, (z, y, -(-x // 2)), (max(1, z - 1), max(1, y - 2), max(1, x // 3))]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transforms_are_the_centred_dft(device: Device, rng: np.random.Generator, grid: Shape3, axes: int) -> None:
    x = noise(rng, 3, *grid)
    last, tolerance = grid[3 - axes :], tolerances.fft(prod(grid[3 - axes :]))
    assert_near(device.get(device.kernels.fft(device.put(x), axes=axes)), direct.dft(x, last, sign=-1), tolerance)
    assert_near(device.get(device.kernels.ifft(device.put(x), axes=axes)), direct.dft(x, last, sign=1), tolerance)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_crop_keeps_the_centre(device: Device, rng: np.random.Generator, grid: Shape3) -> None:
    x = noise(rng, 2, *grid)
    norm = float(np.linalg.norm(x))
    for crop in crops(grid):
        found = device.get(device.kernels.ifft(device.put(x), axes=3, crop=crop))
        assert_near(found, direct.dft(x, crop, sign=1), tolerances.fft(prod(grid)), norm=norm)


def test_the_centre_of_kspace_is_the_mean_of_the_image(device: Device) -> None:
    image = np.full((4, 5), 2 + 1j, np.complex64)
    kspace = device.get(device.kernels.fft(device.put(image), axes=2))
    centre = np.zeros((4, 5), np.complex64)
    centre[2, 2] = (2 + 1j) * np.sqrt(20)
    assert_near(kspace, centre, tolerances.fft(20))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_inverse_is_the_adjoint_and_undoes_it(device: Device, rng: np.random.Generator, grid: Shape3) -> None:
    def forward(x: Complex) -> Complex:
        return device.get(device.kernels.fft(device.put(x), axes=3))

    def inverse(x: Complex) -> Complex:
        return device.get(device.kernels.ifft(device.put(x), axes=3))

    x, y = noise(rng, *grid), noise(rng, *grid)
    assert_adjoint(forward, inverse, x, y, tolerances.ADJOINT)
    assert_linear(forward, x, y, tolerances.linear(prod(grid)))
    assert_near(inverse(forward(x)), x, 2 * tolerances.fft(prod(grid)))
    assert_repeatable(forward, x)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_strided_input_is_the_same_as_contiguous(device: Device, rng: np.random.Generator, axes: int) -> None:
    x = noise(rng, 5, 7, 4, 6, 3).transpose(4, 2, 0, 3, 1)[::-1, :, ::2]
    for apply in (device.kernels.fft, device.kernels.ifft):
        found = device.get(apply(device.put(x), axes=axes))
        assert np.array_equal(found, device.get(apply(device.put(x.copy()), axes=axes)))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("coils", COILS)
def test_the_fused_image_is_the_definition(device: Device, rng: np.random.Generator, grid: Shape3, coils: int) -> None:
    kspace = noise(rng, coils, *grid)
    tolerance = tolerances.fft(prod(grid)) + tolerances.sum_of(2 * coils)
    for crop in crops(grid):
        expected = direct.rss(direct.dft(kspace, crop, sign=1))
        found = device.get(device.kernels.ifft_rss(device.put(kspace), crop=crop))
        assert found.dtype == np.float32
        assert_near(found, expected, tolerance, norm=float(np.linalg.norm(kspace)))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("coils", "kept"), [(1, 1), (3, 3), (12, 12), (8, 5)])
def test_whitening_mixes_the_coils_first(
    device: Device, rng: np.random.Generator, grid: Shape3, coils: int, kept: int
) -> None:
    kspace, whitening = noise(rng, coils, *grid), noise(rng, kept, coils)
    crop = crops(grid)[1]
    expected = direct.rss(direct.dft(direct.mix(whitening, kspace), crop, sign=1))
    found = device.get(device.kernels.ifft_rss(device.put(kspace), crop=crop, whitening=device.put(whitening)))
    tolerance = tolerances.fft(prod(grid)) + tolerances.sum_of(2 * kept) + tolerances.sum_of(coils)
    magnitudes = np.linalg.norm(np.abs(whitening) @ np.abs(kspace.reshape(coils, -1)))
    assert_near(found, expected, tolerance, norm=float(magnitudes))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_frames_at_once_are_what_each_is_alone(device: Device, rng: np.random.Generator, grid: Shape3) -> None:
    kspace = [device.put(noise(rng, 4, *grid)) for _ in range(3)]
    whitening, crop = [None, device.put(noise(rng, 4, 4)), device.put(noise(rng, 2, 4))], crops(grid)[1]
    found = device.kernels.ifft_rss_each(kspace, crop=crop, whitening=whitening)
    for image, one, mix in zip(found, kspace, whitening, strict=True):
        assert np.array_equal(device.get(image), device.get(device.kernels.ifft_rss(one, crop=crop, whitening=mix)))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_kspace_is_read_where_it_lies_in_the_stream(rng: np.random.Generator, grid: Shape3) -> None:
    kspace, whitening = noise(rng, 4, *grid), noise(rng, 4, 4)
    wire = as_on_the_wire(kspace)
    assert not wire.flags.aligned
    wire.flags.writeable = False
    cpu = kernels.on("cpu")
    for mixed in (None, whitening):
        expected = cpu.ifft_rss(kspace, crop=crops(grid)[1], whitening=mixed)
        assert np.array_equal(cpu.ifft_rss(wire, crop=crops(grid)[1], whitening=mixed), expected)
    assert np.array_equal(cpu.ifft(wire, axes=3), cpu.ifft(kspace, axes=3))


def test_reversed_and_transposed_kspace_are_read_too(rng: np.random.Generator) -> None:
    cpu, kspace = kernels.on("cpu"), noise(rng, 8, 6, 5, 3)
    for view in (kspace[..., ::-1], kspace.transpose(3, 2, 1, 0)):
        assert np.array_equal(cpu.ifft_rss(view, crop=(2, 3, 3)), cpu.ifft_rss(view.copy(), crop=(2, 3, 3)))


def test_the_main_job_at_its_real_size(rng: np.random.Generator) -> None:
    kspace = noise(rng, 2, 1, 256, 512)
    found = kernels.on("cpu").ifft_rss(as_on_the_wire(kspace), crop=(1, 256, 256))
    centre = slice(128, 384)
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, (2, 3)), norm="ortho"), (2, 3))[..., centre]
    expected = np.sqrt((np.abs(image.astype(np.complex128)) ** 2).sum(axis=0))
    assert_near(found, expected, 2 * tolerances.fft(256 * 512))


@pytest.mark.parametrize("power", [-24, -8, 8, 24])
def test_the_unit_of_kspace_only_scales_the_image(rng: np.random.Generator, power: int) -> None:
    kspace = noise(rng, 3, 1, 32, 64)
    cpu, unit = kernels.on("cpu"), np.float32(2.0**power)
    image = cpu.ifft_rss(kspace, crop=(1, 32, 32))
    assert np.array_equal(cpu.ifft_rss(kspace * unit, crop=(1, 32, 32)), image * unit)


def test_an_overflow_is_infinite_and_silent(rng: np.random.Generator) -> None:
    kspace = noise(rng, 2, 1, 8, 8) * np.float32(1e30)
    assert np.isinf(kernels.on("cpu").ifft_rss(kspace, crop=(1, 8, 8))).any()


def test_one_set_of_kernels_serves_threads_at_once(rng: np.random.Generator) -> None:
    cpu = kernels.on("cpu")
    scans = [noise(rng, 3, 1, 24 + i % 3, 32) for i in range(24)]
    expected = [cpu.ifft_rss(scan, crop=(1, scan.shape[2], 16)) for scan in scans]
    with ThreadPoolExecutor(6) as executor:
        found = list(executor.map(lambda scan: cpu.ifft_rss(scan, crop=(1, scan.shape[2], 16)), scans))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_bart_agrees(rng: np.random.Generator, tmp_path: Path) -> None:
    bart, cpu, kspace = Bart(tmp_path), kernels.on("cpu"), noise(rng, 3, 4, 7, 10)
    images = bart("fft -u -i 7", kspace)
    tolerance = 2 * tolerances.fft(4 * 7 * 10)
    assert_near(cpu.ifft(kspace, axes=3), images, tolerance)
    assert_near(cpu.fft(images, axes=3), bart("fft -u 7", images), tolerance)
    rss = bart("rss 8", images).reshape(4, 7, 10).real
    assert_near(cpu.ifft_rss(kspace, crop=(4, 7, 10)), rss, tolerance + tolerances.sum_of(6))


def test_refuses_what_is_no_kspace(device: Device, rng: np.random.Generator) -> None:
    k, x = device.kernels, noise(rng, 3, 1, 4, 6)
    with pytest.raises(TypeError, match="x has dtype float32, expected complex64: convert it first"):
        k.fft(device.put(x.real.copy()), axes=2)
    with pytest.raises(ValueError, match="axes is 4, expected 1, 2 or 3: transform the others in a second call"):
        k.ifft(device.put(x), axes=4)
    with pytest.raises(ValueError, match=r"x has shape \(6,\), expected at least 2 axes, none empty: reshape it"):
        k.fft(device.put(x[0, 0, 0]), axes=2)
    with pytest.raises(ValueError, match=r"crop is \(4, 7\) for a grid of \(4, 6\), expected sizes from 1 up to"):
        k.ifft(device.put(x), axes=2, crop=(4, 7))
    with pytest.raises(ValueError, match=r"crop is \(0, 4, 6\) for a grid of \(1, 4, 6\), expected sizes from 1 up to"):
        k.ifft_rss(device.put(x), crop=(0, 4, 6))
    with pytest.raises(ValueError, match=r"kspace has shape \(1, 4, 6\), expected at least 4 axes"):
        k.ifft_rss(device.put(x[0]), crop=(1, 4, 6))
    with pytest.raises(ValueError, match=r"whitening has shape \(2, 2\), expected \[coil, 3\] for 3 coils: remake it"):
        k.ifft_rss(device.put(x), crop=(1, 4, 6), whitening=device.put(noise(rng, 2, 2)))

"""The fused passes of the fine grid: NumPy's transform of the padded image, every radix, and nothing else written."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.contract import Complex
from kernels.cuda.grid import CufftGrid, FusedGrid, Scales, is_fused, open_grid, solid
from tests import tolerances
from tests.cases import noise
from tests.cuda.sanitized import run_sanitized
from tests.cuda.shim import ShimRuntime, find_compiler
from tests.laws import assert_near

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="g++ is not installed: no CUDA source is executed here")

Shape = tuple[int, ...]
# Radices 8·4, 3·3·4, 5·8, 5·5·2, and as long as a line may be; odd images, full ones, and lines without a partner.
CASES = [
    ((15, 32), (32, 36)),
    ((36, 9), (40, 50)),
    ((1, 30), (32, 1280)),
    ((3, 7), (1280, 32)),
    ((17, 5, 20), (36, 32, 32)),
    ((2, 9), (32, 1152)),  # threads of its own
    ((3, 5), (1152, 32)),
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(19)


@pytest.fixture(scope="module")
def shim() -> ShimRuntime:
    return ShimRuntime({}, seed=7)


def scales_of(rng: np.random.Generator, size: Shape) -> Scales:
    return tuple(rng.uniform(0.5, 2, n).astype(np.float32) for n in size)


def embedded(images: Complex, scales: Scales, fine: Shape) -> Complex:
    """scale · images [coil, z, y, x] in zeros, voxel r at cell r mod n, in double precision."""
    factor = np.ones((1,) * len(scales))
    for axis, scale in enumerate(scales):
        factor = factor * scale.astype(np.float64).reshape(-1, *(1,) * (len(scales) - 1 - axis))
    padded = np.zeros((len(images), *solid(fine)), np.complex128)
    places = [(np.arange(n) - n // 2) % m for n, m in zip(images.shape[1:], solid(fine), strict=True)]
    padded[np.ix_(range(len(images)), *places)] = images * factor
    return padded


@pytest.mark.parametrize(("size", "fine"), CASES, ids=str)
def test_a_padded_image_is_transformed(shim: ShimRuntime, rng: np.random.Generator, size: Shape, fine: Shape) -> None:
    scales, images = scales_of(rng, size), noise(rng, 3, *solid(size))
    found = FusedGrid(shim, size, fine, scales).pad(images)
    expected = np.moveaxis(np.fft.fftn(embedded(images, scales, fine), axes=(1, 2, 3)), 0, 2)
    assert_near(found, expected, tolerances.fft(int(np.prod(fine))))


@pytest.mark.parametrize(("size", "fine"), CASES, ids=str)
def test_a_cropped_inverse_is_the_adjoint(
    shim: ShimRuntime, rng: np.random.Generator, size: Shape, fine: Shape
) -> None:
    scales, coils = scales_of(rng, size), 3
    grid, images = FusedGrid(shim, size, fine, scales), noise(rng, coils, *solid(size))
    values = noise(rng, *solid(fine)[:2], coils, solid(fine)[2])
    there, back = grid.pad(images), np.full(images.shape, np.nan, np.complex64)
    grid.crop(values.copy(), back)
    difference = abs(np.vdot(values, there.astype(np.complex128)) - np.vdot(back, images.astype(np.complex128)))
    assert difference <= tolerances.ADJOINT * np.linalg.norm(there) * np.linalg.norm(values)


@pytest.mark.parametrize("coils", [1, 3, 19])
@pytest.mark.parametrize(("size", "fine"), [CASES[0], CASES[3], CASES[4]], ids=str)
def test_a_convolution_with_maps_is_that_of_cufft(
    shim: ShimRuntime, rng: np.random.Generator, size: Shape, fine: Shape, coils: int
) -> None:
    scales, runtime = scales_of(rng, size), ShimRuntime({"nufft_grid.cu": ("pad", "crop", "multiply")})
    x, maps = noise(rng, *size), noise(rng, coils, *size)
    spectrum = rng.uniform(0, 1, solid(fine)).astype(np.float32)
    fused, plain = FusedGrid(shim, size, fine, scales), CufftGrid(runtime, size, fine, scales)
    tolerance = 2 * tolerances.fft(int(np.prod(fine))) + tolerances.sum_of(coils)
    assert_near(fused.convolve(x, maps, spectrum), plain.convolve(x, maps, spectrum), tolerance)
    assert_near(fused.convolve(maps, None, spectrum), plain.convolve(maps, None, spectrum), tolerance)


@pytest.mark.parametrize(("size", "fine"), [CASES[0], CASES[4]], ids=str)
def test_the_order_of_threads_changes_no_bit(rng: np.random.Generator, size: Shape, fine: Shape) -> None:
    scales, x, maps = scales_of(rng, size), noise(rng, *size), noise(rng, 5, *size)
    spectrum = rng.uniform(0, 1, solid(fine)).astype(np.float32)
    first, *others = (
        FusedGrid(ShimRuntime({}, seed=seed), size, fine, scales).convolve(x, maps, spectrum) for seed in (0, 1, 2)
    )
    assert all(np.array_equal(first, other) for other in others)


def test_which_grids_are_fused(shim: ShimRuntime) -> None:
    assert [n for n in (30, 32, 42, 96, 1280, 1296) if is_fused(n)] == [32, 96, 1280]
    scales = tuple(np.ones(16, np.float32) for _ in range(2))
    assert isinstance(open_grid(shim, (16, 16), (32, 36), scales), FusedGrid)
    assert isinstance(open_grid(shim, (16, 16), (32, 4096), scales), CufftGrid)


def test_no_pass_leaves_its_arrays() -> None:
    done = run_sanitized(
        """
        from kernels.cuda.grid import FusedGrid, solid
        from tests.cases import noise

        rng, runtime = np.random.default_rng(3), ShimRuntime({}, seed=1, sanitize=True)
        for size, fine in (((15, 31), (32, 36)), ((7, 5, 20), (32, 36, 32))):
            grid = FusedGrid(runtime, size, fine, tuple(np.ones(n, np.float32) for n in size))
            x, spectrum = noise(rng, 3, *size), np.ones(solid(fine), np.float32)
            grid.crop(grid.pad(grid.images(x)), np.empty_like(grid.images(x)))
            grid.convolve(x[0], x, spectrum)
        print("clean")
        """
    )
    assert done.stdout == "clean\n", done.stderr[-3000:]

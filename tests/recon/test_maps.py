"""Adaptive combination: the maps that made the images come back, smooth and of unit norm."""

from __future__ import annotations

import numpy as np
import pytest

import recon.maps
from kernels.contract import Complex, Real
from recon.maps import walsh
from tests import tolerances
from tests.laws import assert_near
from tests.recon.builders import noise

Shape3 = tuple[int, int, int]
GRIDS: tuple[Shape3, ...] = ((1, 64, 60), (1, 41, 50), (12, 20, 25))


def coils_around(coils: int, grid: Shape3) -> Complex:
    """Smooth maps [coil, z, y, x] of unit norm: Gaussians from the rim, each with its own phase slope."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in grid), indexing="ij")
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.array([
        np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 3 + 0.5j * (np.sin(a) * y + np.cos(a) * x + z) + 1j * a)
        for a in angles
    ])  # fmt: skip
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)


def disc(grid: Shape3) -> Real:
    """An object with an edge and inner structure, nowhere zero inside."""
    _, y, x = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in grid), indexing="ij")
    return ((y**2 + x**2 < 0.7) * (1 + 0.5 * np.sin(9 * x) * np.cos(7 * y))).astype(np.float32)


def spread(maps: Complex, distance: int) -> float:
    """Largest 1 − |⟨S(r), S(r + d)⟩| for d of `distance` voxels along both y and x (and z, where there are as many).

    What a window of 9 voxels can mix up: its principal eigenvector lies among the maps inside it, at most 4 voxels from
    a block's centre along each axis, and voxels are up to 1.5 from theirs.
    """
    steps = [min(distance, n - 1) for n in maps.shape[1:]]
    worst = 0.0
    for _ in range(2):  # both diagonals
        first = maps[:, steps[0] :, steps[1] :, steps[2] :]
        second = maps[:, : maps.shape[1] - steps[0], : maps.shape[2] - steps[1], : maps.shape[3] - steps[2]]
        worst = max(worst, float((1 - np.abs((first.conj() * second).sum(axis=0))).max()))
        maps = maps[..., ::-1]
    return worst


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("coils", [1, 3, 8, 12, 32])
def test_maps_come_back_from_their_images(grid: Shape3, coils: int) -> None:
    truth, image = coils_around(coils, grid), disc(grid)
    maps = walsh(truth * image)
    inside = image > 0
    assert maps.shape == truth.shape
    assert maps.dtype == np.complex64
    angle = 1 - np.abs((maps.conj() * truth).sum(axis=0))[inside]
    assert angle.max() < max(spread(truth, 6), tolerances.sum_of(2 * coils))
    assert np.abs(np.linalg.norm(maps, axis=0) - 1).max() < tolerances.sum_of(2 * coils)


def test_the_combined_image_is_the_object() -> None:
    grid = (1, 128, 128)
    truth, image = coils_around(8, grid), disc(grid)
    combined = (walsh(truth * image).conj() * truth * image).sum(axis=0)
    assert_near(np.abs(combined), image, spread(truth, 6))


def test_the_phase_is_smooth_inside() -> None:
    grid = (1, 64, 64)
    truth, image = coils_around(8, grid), disc(grid)
    maps = walsh(truth * image)[:, 0, 12:52, 12:52]
    for steps in (maps[:, 1:] - maps[:, :-1], maps[:, :, 1:] - maps[:, :, :-1]):
        # Slopes of the true maps are below 1.5 per unit, a voxel is 2/64; a jump of phase would be of order 1.
        assert np.linalg.norm(steps, axis=0).max() < 4 * 1.5 * 2 / 64


def test_noise_averages_over_the_window() -> None:
    sigma, rng = 0.05, np.random.default_rng(5)
    vector = noise(rng, (8, 1, 1, 1))
    truth = vector / np.linalg.norm(vector)
    maps = walsh(truth + np.float32(sigma) * noise(rng, (8, 1, 64, 64)))
    off = 1 - np.abs((maps.conj() * truth).sum(axis=0)) ** 2
    # Seven directions turn the vector, each by σ in both parts, averaged over 81 voxels; interpolation averages a
    # little more. At the rim windows are smaller.
    assert np.sqrt(off[:, 8:-8, 8:-8].mean()) < 1.2 * sigma * np.sqrt(2 * 7 / 81)


@pytest.mark.parametrize("power", [-40, 40])
def test_the_unit_of_the_images_does_not_matter(power: int) -> None:
    images = coils_around(4, (1, 30, 30)) * disc((1, 30, 30))
    assert np.array_equal(walsh(images * np.float32(2.0**power)), walsh(images))


def test_no_signal_gives_finite_maps_of_unit_norm() -> None:
    maps = walsh(np.zeros((3, 2, 8, 9), np.complex64))
    assert np.abs(np.linalg.norm(maps, axis=0) - 1).max() < tolerances.sum_of(6)


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 1, 7), (2, 5, 4), (3, 3, 3)], ids=str)
def test_grids_smaller_than_a_window(grid: Shape3) -> None:
    maps = walsh(noise(np.random.default_rng(6), (4, *grid)))
    assert maps.shape == (4, *grid)
    assert np.abs(np.linalg.norm(maps, axis=0) - 1).max() < tolerances.sum_of(8)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_slabs_do_not_show(grid: Shape3, monkeypatch: pytest.MonkeyPatch) -> None:
    images = coils_around(5, grid) * disc(grid)
    whole = walsh(images)
    monkeypatch.setattr(recon.maps, "SLAB_BYTES", 1)
    assert np.array_equal(walsh(images), whole)


def test_blocks_of_one_voxel_are_the_definition() -> None:
    images = noise(np.random.default_rng(8), (3, 1, 6, 7))
    maps = walsh(images, block=1, reach=1)
    padded = np.pad(images[:, 0].astype(np.complex128), ((0, 0), (1, 1), (1, 1)))
    for y, x in np.ndindex(6, 7):
        window = padded[:, y : y + 3, x : x + 3].reshape(3, -1)
        values, vectors = np.linalg.eigh(window @ window.conj().T)
        # The power method leaves (λ₂/λ₁)⁸ of the second vector, and its start holds at least a hundredth of the first.
        left = 100 * (values[1] / values[2]) ** recon.maps.ITERATIONS
        assert abs(np.vdot(vectors[:, 2], maps[:, 0, y, x])) > 1 - left**2 - 1e-5

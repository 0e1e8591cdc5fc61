"""ESPIRiT: where the maps are sums of few waves the patches' space is known exactly, and the maps must come back."""

from __future__ import annotations

import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import fft

import recon.espirit
from kernels.contract import Complex, Real
from recon.espirit import espirit, weight
from recon.scan import Shape3
from tests import tolerances
from tests.recon.builders import noise
from tests.recon.judges import Bart
from tests.recon.test_maps import coils_around, disc

PLANES: tuple[Shape3, ...] = ((1, 24, 24), (1, 25, 30))
GRIDS = (*PLANES, (12, 12, 13))


def waves(rng: np.random.Generator, grid: Shape3, *, coils: int) -> Complex:
    """Maps [coil, z, y, x] of unit norm: a wave of 0 or 1 periods along each axis per coil, the coils then mixed.

    A patch of such a map is a polynomial in few powers, each of which occurs once to eight times in it: the space of
    patches is known, and no direction in it is weak.
    """
    axes = np.meshgrid(*((np.arange(n) - n // 2) / n for n in grid), indexing="ij")
    periods = [p for p in product((0, 1), repeat=3) if grid[0] > 1 or p[0] == 0]
    phase = np.array([sum(p * a for p, a in zip(each, axes, strict=True)) for each in periods])
    mixing = np.linalg.qr(noise(rng, (coils, coils)))[0][:, : len(periods)]
    return (np.tensordot(mixing, np.exp(2j * np.pi * phase), axes=1) / np.sqrt(len(periods))).astype(np.complex64)


def kspace_of(images: Complex) -> Complex:
    axes = (1, 2, 3)
    kspace = fft.fftshift(fft.fftn(fft.ifftshift(images, axes=axes), axes=axes, norm="ortho"), axes=axes)
    return kspace.astype(np.complex64)


WEAKEST = 1e-2  # eigenvalue of the weakest direction of such patches, relative to the strongest: far above SIGNAL


def precision(unknowns: int) -> float:
    """1 − cos θ of a space of eigenvectors: θ ≤ rounding of the covariance ÷ the smallest eigenvalue in the space."""
    return (unknowns * tolerances.ROUND / WEAKEST) ** 2 / 2 + tolerances.sum_of(unknowns)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("coils", [8, 9])
def test_maps_of_few_waves_come_back(grid: Shape3, coils: int) -> None:
    """Their patches span (width + 1)^axes dimensions, far fewer than there are patches; every voxel's map is in it."""
    rng = np.random.default_rng(3)
    truth = waves(rng, grid, coils=coils)
    maps, values = espirit(kspace_of(truth * noise(rng, grid)), grid)
    assert (maps.shape, values.shape) == ((1, *truth.shape), (1, *grid))
    assert (maps.dtype, values.dtype) == (np.complex64, np.float32)
    off = 1 - np.abs((maps[0].conj() * truth).sum(axis=0))
    assert off.max() < precision(coils * 64)
    assert np.abs(values - 1).max() < 2 * precision(coils * 64)


@pytest.mark.parametrize("grid", PLANES, ids=str)
def test_two_overlapping_objects_need_two_sets(grid: Shape3) -> None:
    rng = np.random.default_rng(4)
    both = [waves(rng, grid, coils=8) for _ in range(2)]
    maps, values = espirit(kspace_of(sum(m * noise(rng, grid) for m in both)), grid, sets=2)
    assert values.min() > 1 - 2 * precision(8 * 36)
    overlap = np.abs((maps[0].conj() * maps[1]).sum(axis=0))
    assert overlap.max() < tolerances.sum_of(32)
    for truth in both:
        inside = np.linalg.norm((maps.conj() * truth).sum(axis=1), axis=0)
        assert (1 - inside).max() < precision(8 * 36)


def test_one_object_has_one_set() -> None:
    rng = np.random.default_rng(5)
    grid = (1, 24, 24)
    _, values = espirit(kspace_of(waves(rng, grid, coils=8) * noise(rng, grid)), grid, sets=2)
    # All eigenvalues together are the dimension of the space over the patch: (6 + 1)² / 36, and the first one is 1.
    assert values[0].min() > 1 - 2 * precision(8 * 36)
    assert values[1].mean() < 49 / 36 - 1


def test_where_there_is_no_object_there_is_no_map() -> None:
    grid = (1, 64, 64)
    image = disc(grid)
    kspace = kspace_of(coils_around(8, grid) * image)[:, :, 20:44, 20:44]
    maps, values = espirit(np.ascontiguousarray(kspace), grid, crop=0.95)
    size = np.linalg.norm(maps[0], axis=0)
    assert np.array_equal(size > 0, values[0] >= 0.95)
    assert np.abs(size[size > 0] - 1).max() < tolerances.sum_of(16)
    assert (size[image > 0] > 0).all()
    assert (size[:, :2] == 0).any()


def test_soft_maps_rise_smoothly() -> None:
    values = np.linspace(0, 1, 101, dtype=np.float32)
    soft = weight(values, 0.8, soft=True)
    assert soft[0] == 0 and soft[-1] == 1
    assert (np.diff(soft) >= 0).all()
    assert soft[80] == pytest.approx(0.5, abs=1e-5)
    assert (soft[:60] == 0).all()


def test_the_phase_is_that_of_the_strongest_combination() -> None:
    rng = np.random.default_rng(6)
    grid = (1, 24, 24)
    kspace = kspace_of(waves(rng, grid, coils=8) * noise(rng, grid))
    flat = kspace.reshape(8, -1)
    strongest = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    (maps,), _ = espirit(kspace, grid)
    along = np.tensordot(strongest.conj(), maps, axes=1)
    turned = along * np.exp(-1j * np.angle(along[0, 0, 0]))  # an eigenvector comes with any phase
    assert np.abs(turned - np.abs(turned)).max() < 1e-5


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tiles_do_not_show(grid: Shape3, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    kspace = kspace_of(waves(rng, grid, coils=8) * noise(rng, grid))
    whole, _ = espirit(kspace, grid)
    monkeypatch.setattr(recon.espirit, "TILE_BYTES", 1)
    parts, _ = espirit(kspace, grid)
    # A product of another shape may sum in another order: both are as near to the truth as the precision says.
    assert np.abs(parts - whole).max() < 2 * np.sqrt(2 * precision(8 * 64))


def test_more_coils_than_are_kept() -> None:
    """Sixteen mixtures of eight coils are eight coils."""
    rng = np.random.default_rng(8)
    grid = (1, 24, 24)
    mixing = np.linalg.qr(noise(rng, (16, 8)))[0]
    truth = np.tensordot(mixing, waves(rng, grid, coils=8), axes=1)
    (maps,), _ = espirit(kspace_of(truth * noise(rng, grid)), grid)
    off = 1 - np.abs((maps.conj() * truth).sum(axis=0))
    assert off.max() < precision(12 * 36)


@pytest.mark.parametrize(
    ("shape", "sets", "message"),
    [
        ((4, 1, 24, 24), 0, "sets is 0, expected 1 to 4 for these coils: ask for fewer"),
        ((4, 1, 24, 24), 5, "sets is 5, expected 1 to 4 for these coils: ask for fewer"),
        ((4, 1, 2, 24), 1, r"the calibration region is \(1, 2, 24\), expected at least 3 lines of 3: measure more"),
    ],
)
def test_what_cannot_be_used_is_refused(shape: tuple[int, ...], sets: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        espirit(noise(np.random.default_rng(9), shape), (1, 24, 24), sets=sets)


def test_bart_finds_the_same_maps(tmp_path: Path) -> None:
    bart = Bart(tmp_path)
    grid = (1, 64, 60)
    image = disc(grid)
    kspace = kspace_of(coils_around(8, grid) * image)
    judge = bart("ecalib -m1 -r24 -c0", kspace).reshape(8, *grid)
    centre = np.ascontiguousarray(kspace[:, :, 20:44, 18:42])
    (maps,), _ = espirit(centre, grid, crop=0)
    off: Real = 1 - np.abs((maps.conj() * judge).sum(axis=0))
    # The same matrices, up to rounding on both sides.
    assert off[image > 0].max() < 2 * precision(8 * 36)


@pytest.mark.parametrize(
    ("grid", "coils", "sets"), [((1, 256, 256), 8, 1), ((1, 200, 256), 16, 2), ((24, 64, 64), 8, 1)]
)
def test_memory_is_what_the_docstring_says(grid: Shape3, coils: int, sets: int) -> None:
    region = noise(np.random.default_rng(10), (coils, min(grid[0], 16), 16, 16))
    unknowns = min(coils, recon.espirit.VIRTUAL) * (36 if grid[0] == 1 else 64)
    tracemalloc.start()
    try:
        maps, values = espirit(region, grid, sets=sets)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    vectors = 8 * sets * min(coils, recon.espirit.VIRTUAL) * values[0].size
    said = maps.nbytes + values.nbytes + vectors + 3 * recon.espirit.TILE_BYTES + 24 * unknowns**2
    assert peak < 1.5 * said

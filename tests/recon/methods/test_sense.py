"""`sense` and geometry factors: exact where maps are, noise as predicted over replicas, reasons where it cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from kernels.contract import Complex, Real
from recon.cache import Cache
from recon.errors import RecipeError, ScanError
from recon.espirit import espirit
from recon.gather import gather, select
from recon.grappa import Lattice, calibrate, fill, geometry_factor
from recon.methods import METHODS, Workbench
from recon.methods.images import FACTOR, FACTOR_SERIES
from recon.methods.sense import CROP
from recon.pipeline import frames_of, reconstruct
from recon.recipe import Recipe
from recon.scan import Calibration, Image, Trajectory
from recon.sense import Unfolded, folding_of, grid_for, lines_on, unfold
from tests import tolerances
from tests.laws import assert_near
from tests.recon.builders import noise
from tests.recon.methods.phantoms import CPU, distance, encoding, frame_of, image_by, noise_kspace, shots_of, spokes
from tests.recon.methods.test_cg_sense import error, measured, thinned

RNG = np.random.default_rng(31)
WITHIN = 1.1  # of a standard deviation over replicas and the one predicted, at every pixel
LATTICES = [
    (Lattice(1, 2, 0, (0, 0)), (1, 12)),
    (Lattice(1, 3, 0, (0, 1)), (1, 12)),
    (Lattice(2, 2, 0, (1, 1)), (6, 8)),
    (Lattice(2, 2, 1, (0, 0)), (8, 6)),
    (Lattice(3, 4, 2, (2, 1)), (6, 8)),
    (Lattice(1, 3, 1, (0, 2)), (6, 9)),
]


@pytest.mark.parametrize(("lattice", "grid"), LATTICES, ids=str)
def test_any_lattice_is_unfolded_exactly(lattice: Lattice, grid: tuple[int, int]) -> None:
    """With as many coils as voxels in a group, known maps and no noise, the image comes back."""
    assert grid_for(lattice, grid) == grid
    coils, x = lattice.acceleration + 2, 3
    maps, image = noise(RNG, (coils, x, *grid)), noise(RNG, (x, *grid))
    mask = lines_on(lattice, grid, lattice.origin)
    assert mask.sum() * lattice.acceleration == mask.size
    folded = CPU.ifft(CPU.fft(maps * image, axes=2) * mask, axes=2) * np.float32(lattice.acceleration)
    made = unfold(folded, maps, folding_of(lattice, grid, lattice.origin))
    # Random maps have conditions of some ten; the ridge of 1e-6 is amplified by their square.
    assert_near(made.image, image, 2e-3)
    assert (made.factor > 0.999).all()
    assert np.allclose(made.clear, 1, atol=2e-3)


@pytest.mark.parametrize(
    ("lattice", "shape", "grid"),
    [(Lattice(1, 3, 0, (0, 0)), (1, 80), (1, 81)), (Lattice(2, 3, 1, (0, 0)), (7, 8), (12, 9))],
)
def test_a_grid_is_widened_until_aliases_fall_on_voxels(
    lattice: Lattice, shape: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert grid_for(lattice, shape) == grid


def test_voxels_without_maps_are_empty_and_cost_nothing() -> None:
    """Half of the voxels hold nothing: the others are then alone in their group, with a geometry factor of 1."""
    lattice, grid = Lattice(1, 2, 0, (0, 0)), (1, 12)
    maps = noise(RNG, (4, 2, *grid))
    maps[..., 6:] = 0
    image = noise(RNG, (2, *grid))
    folded = CPU.ifft(CPU.fft(maps * image, axes=2) * lines_on(lattice, grid, (0, 0)), axes=2) * np.float32(2)
    made = unfold(folded, maps, folding_of(lattice, grid, (0, 0)))
    assert_near(made.image[..., :6], image[..., :6], 1e-5)
    assert not made.image[..., 6:].any() and not made.factor[..., 6:].any()
    assert np.allclose(made.factor[..., :6], 1, atol=1e-5)


@pytest.mark.parametrize(
    ("protocol", "matrix", "steps"),
    [
        ("brain-se", 96, (2, 1)),
        ("brain-se", 96, (3, 1)),
        ("brain-se", 80, (3, 1)),
        ("head-gre3d", 48, (2, 2)),
        ("head-gre3d", 48, (3, 2)),
    ],
)
def test_it_removes_the_aliases_that_zero_filling_leaves(protocol: str, matrix: int, steps: tuple[int, int]) -> None:
    simulated = measured(protocol, matrix, noise=0)
    scan = thinned(simulated.scan, steps)
    assert error(simulated, scan, "sense") < tolerances.HALVED * error(simulated, scan, "fft")


def test_it_is_better_than_zero_filling_where_the_coils_can_hardly_follow() -> None:
    """Sixfold with eight coils: plain unfolding makes sixteen times the noise, in half of the head."""
    simulated = measured("head-gre3d", 48, noise=1)
    scan = thinned(simulated.scan, (3, 2))
    zero_filled = error(simulated, scan, "fft")
    assert error(simulated, scan, "sense") < zero_filled < error(simulated, scan, "sense", **{"lambda": 0.0})


def test_the_image_says_where_detail_is_lost_in_noise() -> None:
    clear, noisy = (
        next(reconstruct(thinned(measured("brain-se", 48, noise=noise).scan, (6, 1)), Recipe("sense"), CPU))
        for noise in (0.1, 30)
    )
    assert clear.comments == ()
    (comment,) = noisy.comments
    assert re.fullmatch(
        r"sense tells aliases of an acceleration of 6 apart in \d+ % of the image: elsewhere detail is lost in"
        r" noise, and what is seen comes from the centre of k-space",
        comment,
    )


def overlaid(damping: float) -> tuple[Unfolded, Complex, Complex]:
    """What two coils see of a pair of voxels that are hard to tell apart, beside a lone one: unfolded, image, maps."""
    lattice, grid = Lattice(1, 2, 0, (0, 0)), (1, 4)
    maps = np.zeros((2, 1, *grid), np.complex64)
    maps[:, 0, 0, 0], maps[:, 0, 0, 2] = (0.8, 0.6), (0.6, 0.8)
    maps[:, 0, 0, 1] = (1, 0)
    image = np.array([[[1, 2, 3, 0]]], np.complex64)
    folded = CPU.ifft(CPU.fft(maps * image, axes=1) * lines_on(lattice, grid, (0, 0)), axes=1) * np.float32(2)
    weights = np.full(image.shape, damping, np.float32)
    return unfold(folded, maps, folding_of(lattice, grid, (0, 0)), weights), image, maps


def test_damping_takes_nothing_from_a_lone_voxel_and_noise_from_an_overlaid_one() -> None:
    plain, image, _ = overlaid(0.0)
    damped, _, _ = overlaid(0.5)
    assert np.allclose(plain.image, image, atol=1e-4)
    assert damped.image[0, 0, 1] == pytest.approx(2, abs=1e-5)
    assert damped.clear[0, 0, 1] == pytest.approx(1 / 1.5, abs=1e-5)
    # In closed form: [[1, c], [c, 1]] with c = 0.96, its inverse with 1.5 on the diagonal, and 1.5 for the size.
    gram = np.array([[1, 0.96], [0.96, 1]])
    through = 1.5 * np.linalg.inv(gram + 0.5 * np.eye(2))
    assert damped.clear[0, 0, 0] == pytest.approx((through @ gram)[0, 0] / 1.5, abs=1e-5)
    assert damped.factor[0, 0, 0] == pytest.approx(np.sqrt((through @ gram @ through)[0, 0]), abs=1e-5)
    assert plain.factor[0, 0, 0] == pytest.approx(1 / np.sqrt(1 - 0.96**2), rel=1e-4)
    assert np.allclose(damped.image[0, 0, [0, 2]], through @ gram @ np.array([1, 3]), atol=1e-5)


def white_frame(step: int) -> tuple[Complex, NDArray[np.bool_], NDArray[np.bool_]]:
    """Noise-free k-space [coil, 1, ky, kx] of a slice, its `step`-th lines with a centre, and where the object is."""
    simulated = measured("brain-se", 48, noise=0)
    frames, _ = frames_of(simulated.scan)
    kspace = gather(simulated.scan.header, select(simulated.scan.readouts, frames[0].rows)).kspace
    kspace = CPU.fft(CPU.ifft(kspace, axes=1, crop=(48,)), axes=1)
    kspace *= np.float32(300 / np.abs(CPU.rss(CPU.ifft(kspace, axes=2))).max())  # the noise will have σ = 1
    line = np.arange(48) - 24
    return kspace, ((line % step == 0) | (abs(line) <= 10))[None], simulated.truth[0].mask


def replicas_for(pixels: int) -> int:
    """How many complex replicas all of `pixels` need to be WITHIN the truth, but once in a thousand tests.

    Of n replicas the variance, both parts together, is σ² χ² / 2(n − 1) with 2(n − 1) degrees of freedom.
    """
    for count in range(100, 10_000, 20):
        degrees = 2 * (count - 1)
        outside = chi2.sf(degrees * WITHIN**2, degrees) + chi2.cdf(degrees / WITHIN**2, degrees)
        if pixels * outside <= 1e-3:
            return count
    raise AssertionError(f"{pixels} pixels need more than ten thousand replicas")


def assert_predicted(values: list[Complex], expected: Real, inside: NDArray[np.bool_]) -> None:
    """The standard deviation over replicas `values` of noise with σ = 1 is the `expected` one at every pixel."""
    ratio = np.std(values, axis=0, ddof=1)[inside] / np.sqrt(2) / expected[inside]
    assert ratio.min() >= 1 / WITHIN
    assert ratio.max() <= WITHIN
    # Over all pixels and replicas, as if all pixels of a group of three said the same.
    assert np.sqrt((ratio**2).mean()) == pytest.approx(1, abs=3 / np.sqrt(4 * len(values) * inside.sum() / 3))


@pytest.mark.parametrize("step", [2, 3])
def test_noise_over_replicas_is_what_senses_factor_says(step: int) -> None:
    """Pixel by pixel, with the method's own maps and lines of the lattice alone."""
    kspace, sampled, mask = white_frame(step)
    image, factor = images_by("sense", kspace, sampled, gfactor=True, **{"lambda": 0.0})
    lattice = Lattice(1, step, 0, (0, 24 % step))
    maps = np.moveaxis(espirit(kspace[:, :, 14:35, 12:36], (1, 48, 48), crop=CROP)[0][0], -1, 1)
    lines, folding = lines_on(lattice, (1, 48), lattice.origin), folding_of(lattice, (1, 48), lattice.origin)
    values = []
    for _ in range(replicas_for(int(mask.sum()))):
        folded = CPU.ifft(noise(RNG, maps.shape) * lines, axes=1) * np.float32(step)
        values.append(np.moveaxis(unfold(folded, maps, folding).image, 0, -1))
    expected = factor.pixels[0] * np.sqrt(step)
    inside = mask & (expected > 0)
    assert inside.sum() > 0.95 * mask.sum()
    assert_predicted(values, expected, inside)
    assert (image.series, factor.series) == (1, 1 + FACTOR_SERIES)


def images_by(method: str, kspace: Complex, sampled: NDArray[np.bool_], **parameters: Any) -> list[Image]:
    """All images that a method makes of white k-space."""
    bench = Workbench(CPU, Cache())
    return METHODS[method].run(frame_of(kspace, sampled=sampled), Calibration(), Recipe(method, parameters), bench)


@pytest.mark.parametrize("step", [2, 3])
def test_noise_over_replicas_is_what_grappas_factor_says(step: int) -> None:
    """Pixel by pixel, for weights that are known and lines of the lattice alone."""
    kspace, _, mask = white_frame(step)
    lattice = Lattice(1, step, 0, (0, 24 % step))
    weights = calibrate(kspace[:, :, 14:35], lattice)
    images = CPU.ifft(kspace, axes=2)
    combination = np.ascontiguousarray(np.moveaxis((images / CPU.rss(images)).conj(), -1, 1))  # [coil, x, z, y]
    expected = geometry_factor(weights, lattice, combination, (48, 1, 48)) * np.sqrt(step)
    sampled = lines_on(lattice, (1, 48), lattice.origin)
    values = []
    for _ in range(replicas_for(int(mask.sum()))):
        lines = np.ascontiguousarray(np.moveaxis(CPU.ifft(noise(RNG, kspace.shape), axes=1), -1, 1)) * sampled
        fill(lines, sampled, lattice, weights)
        values.append((CPU.ifft(lines, axes=1) * combination).sum(axis=0))
    inside = np.moveaxis(mask, -1, 0)
    exact = noise_of_lines(lambda lines: fill(lines, sampled, lattice, weights), sampled, combination)
    assert_predicted(values, exact, inside)
    # The formula knows no ends of k-space, where sources are missing: there is never more noise than it says, but that
    # the weights of one target may partly cancel those of its neighbour.
    ratio = exact[inside] / expected[inside]
    assert ratio.min() >= 1 / WITHIN
    assert ratio.max() <= WITHIN


def noise_of_lines(complete: Callable[[Complex], None], sampled: NDArray[np.bool_], combination: Complex) -> Real:
    """σ [x, z, y] of the combined image of white lines that `complete` fills, from each sample's own contribution."""
    variance = np.zeros(combination.shape[1:], np.float32)
    for coil, line in product(range(len(combination)), np.flatnonzero(sampled[0])):
        lines = np.zeros_like(combination)
        lines[coil, :, 0, line] = 1
        complete(lines)
        variance += np.abs((CPU.ifft(lines, axes=1) * combination).sum(axis=0)) ** 2
    deviation: Real = np.sqrt(variance)
    return deviation


@pytest.mark.parametrize("combine", ["rss", "adaptive"])
def test_grappa_gives_its_factor_as_a_series_of_its_own(combine: str) -> None:
    kspace, sampled, mask = white_frame(2)
    image, factor = images_by("grappa", kspace, sampled, combine=combine, gfactor=True)
    (alone,) = images_by("grappa", kspace, sampled, combine=combine)
    assert np.array_equal(image.pixels, alone.pixels)
    assert (factor.series, factor.index, factor.unit) == (1 + FACTOR_SERIES, image.index, "1")
    assert factor.comments == (FACTOR,)
    inside = factor.pixels[0][mask]
    assert inside.min() > 0.5 and 1 < np.median(inside) < 1.5


def test_fully_sampled_kspace_is_combined_by_its_maps() -> None:
    kspace, _, mask = white_frame(2)
    image, factor = images_by("sense", kspace, np.ones((1, 48), np.bool_), gfactor=True)
    truth = CPU.rss(CPU.ifft(kspace, axes=2))
    assert distance(image.pixels[0][mask], truth[mask]) < tolerances.UNFOLDED
    assert np.allclose(factor.pixels[0][mask], 1, atol=1e-5)


def test_an_interpolated_image_keeps_its_values() -> None:
    kspace, sampled, mask = white_frame(2)
    coarse = image_by("sense", frame_of(kspace, sampled=sampled))
    finer = encoding((1, 48, 48), recon=(1, 96, 96), field_mm=(1.0, 48.0, 48.0))
    fine = image_by("sense", frame_of(kspace, sampled=sampled, space=finer))
    # Along x the maps are found on a finer grid; along y nothing differs.
    assert distance(fine.pixels[0][:, ::2, ::2][mask], coarse.pixels[0][mask]) < tolerances.UNFOLDED


def test_more_acceleration_than_coils_is_refused() -> None:
    line = np.arange(64) - 32
    sampled = ((line % 4 == 0) | (abs(line) < 9))[None]
    with pytest.raises(ScanError) as caught:
        image_by("sense", frame_of(noise_kspace((3, 1, 64, 16)), sampled=sampled))
    assert str(caught.value) == (
        "the lines of kspace_encode_step_1 and kspace_encode_step_2 are accelerated 4-fold, 3 coils can tell at most 3"
        " voxels apart: measure more lines or use l1-wavelet"
    )


def test_lines_missing_in_the_pattern_are_counted() -> None:
    line = np.arange(64) - 32
    sampled = (((line % 2 == 0) & (line != 20) & (line != -16)) | (abs(line) < 9))[None]
    with pytest.raises(ScanError) as caught:
        image_by("sense", frame_of(noise_kspace((3, 1, 64, 16)), sampled=sampled))
    assert str(caught.value) == (
        "sense finds 2 lines missing in the pattern with a step of 2 in kspace_encode_step_1 and 1 in"
        " kspace_encode_step_2, expected every line of it: use cg-sense or l1-wavelet, which need no regular pattern"
    )


def test_a_centre_too_small_for_maps_is_refused() -> None:
    sampled = np.arange(64)[None] % 2 == 0
    with pytest.raises(ScanError, match="1 lines are fully sampled at the centre of kspace_encode_step_1, expected"):
        image_by("sense", frame_of(noise_kspace((2, 1, 64, 64)), sampled=sampled))


def test_a_trajectory_is_refused() -> None:
    frame = shots_of(noise_kspace((1, 8, 16)), spokes(8, 16), space=encoding((1, 16, 16), kind=Trajectory.RADIAL))
    with pytest.raises(RecipeError) as caught:
        image_by("sense", frame)
    assert str(caught.value) == (
        "the method sense needs Cartesian k-space, the header's trajectory is radial: use cg-sense or auto"
    )

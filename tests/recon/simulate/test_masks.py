"""Sampling patterns: as many lines as asked for, apart as promised, and images of them as they should be."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from recon.errors import RecipeError
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Flag
from recon.simulate import nrmse, simulate
from recon.simulate.masks import GROWTH, elliptical, poisson, undersampled
from tests import tolerances

CPU = kernels.on("cpu")


def test_an_ellipse_holds_a_quarter_of_pi() -> None:
    mask = elliptical((80, 120))
    # Lines on the ellipse's rim, of about 2 · (80 + 120) of the 9600, may fall on either side.
    assert mask.mean() == pytest.approx(np.pi / 4, abs=400 / 9600 / 2)
    assert mask[40, 0] and mask[0, 60] and not mask[0, 0] and not mask[-1, -1]
    assert elliptical((1, 30)).all()


@pytest.mark.parametrize("acceleration", [3.0, 6.0])
def test_poisson_takes_the_lines_asked_for_and_keeps_them_apart(acceleration: float) -> None:
    shape, centre = (60, 72), 12
    mask = poisson(shape, acceleration, np.random.default_rng(5), centre=centre)
    assert mask.mean() * acceleration == pytest.approx(1, abs=0.1)
    assert mask[24:36, 30:42].all()
    assert not (mask & ~elliptical(shape)).any()
    outside = mask.copy()
    outside[24:36, 30:42] = False
    places = np.argwhere(outside)
    gaps = np.linalg.norm(places[:, None] - places, axis=-1) + 1e3 * np.eye(len(places))
    radius = np.hypot((places[:, 0] - 30) / 30, (places[:, 1] - 36) / 36)
    nearest = gaps.min(axis=1)
    inner, outer = nearest[radius < 0.5].mean(), nearest[radius > 0.8].mean()
    assert 1.2 * inner < outer < (1 + GROWTH) * inner


@pytest.mark.parametrize("acceleration", [1.4, 2.0, 8.0])
def test_densities_near_the_ends_are_reached_too(acceleration: float) -> None:
    mask = poisson((30, 36), acceleration, np.random.default_rng(5), centre=8)
    assert mask.mean() * acceleration == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("acceleration", [1.2, 16.9])
def test_a_density_that_cannot_be_is_refused(acceleration: float) -> None:
    """The ellipse has 837 of 30 × 36 lines, the centre 64: neither more nor fewer can be taken."""
    with pytest.raises(RecipeError) as caught:
        poisson((30, 36), acceleration, np.random.default_rng(5), centre=8)
    assert str(caught.value) == (
        f"acceleration is {acceleration} of 30 × 36 lines, expected from 1.29, which takes all lines of the ellipse, to"
        " below 16.9, where the centre of 8 × 8 lines is all that is left: choose one between"
    )


def test_the_same_seed_makes_the_same_pattern() -> None:
    one, same, other = (poisson((20, 30), 3, np.random.default_rng(seed), centre=8) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_an_elliptical_scan_is_the_full_one_with_rounder_corners() -> None:
    full = simulate("head-gre3d", seed=2, coils=4, matrix=40, noise=0)
    grid = full.scan.header.encodings[0].encoded.matrix[:2]
    fewer = undersampled(full, elliptical(grid))
    assert fewer.scan.readouts[-1].head.size == elliptical(grid).sum() == len(fewer.start_s)
    assert fewer.scan.readouts[-1].head["flags"][-1] & Flag.LAST_IN_MEASUREMENT.mask
    (image,) = reconstruct(fewer.scan, Recipe("fft"), CPU)
    missing = np.count_nonzero(~elliptical(grid))
    assert image.comments == (f"undersampled: {missing} of {grid[0] * grid[1]} lines are zero-filled",)
    # The corners of k-space hold little: the image without them is the full one at a slightly lower resolution.
    assert nrmse(image.pixels[0], full.truth[0]) < 0.1


def test_wavelets_unfold_a_poisson_scan() -> None:
    full = simulate("head-gre3d", seed=2, coils=6, matrix=40, noise=1)
    grid = full.scan.header.encodings[0].encoded.matrix[:2]
    fewer = undersampled(full, poisson(grid, 3, np.random.default_rng(7), centre=12))
    errors = [
        nrmse(next(reconstruct(fewer.scan, Recipe(name), CPU)).pixels[0], full.truth[0])
        for name in ("l1-wavelet", "fft")
    ]
    assert errors[0] < tolerances.HALVED * errors[1]


def test_a_mask_of_another_grid_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        undersampled(simulate("brain-se", coils=1, matrix=16), np.ones((1, 20), np.bool_))
    assert str(caught.value) == "the mask has (1, 20) lines (z, y), the measurement (1, 16): make it so large"

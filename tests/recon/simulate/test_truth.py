"""Truth: scale, centring, mask and comparison."""

from __future__ import annotations

import numpy as np
import pytest

from recon.scan import Counters, Space
from recon.simulate.coils import Coils, coil_grid_spectrum
from recon.simulate.phantom import Shapes
from recon.simulate.truth import Ideal, Truth, coil_images, judge, mask, nrmse, pixel_centers, unit


def test_images_are_the_direct_sum_with_plus_i() -> None:
    rng = np.random.default_rng(0)
    kspace = rng.standard_normal((2, 3, 4, 7)) + 1j * rng.standard_normal((2, 3, 4, 7))
    waves = []
    for n in kspace.shape[1:]:
        centred = np.arange(n) - n // 2
        waves.append(np.exp(2j * np.pi * np.outer(centred, centred) / n) / np.sqrt(n))
    direct = np.einsum("czyx,Zz,Yy,Xx->cZYX", kspace, *waves)
    images = coil_images(kspace, (3, 3, 4))
    # Cropping keeps the voxel n // 2 in the middle; pixels are complex64.
    np.testing.assert_allclose(images, direct[:, :, 1:4, 1:5], rtol=0, atol=1e-6)


@pytest.mark.parametrize("axes", [2, 3])
def test_an_image_is_as_bright_as_the_object(axes: int) -> None:
    """With edges so soft that nothing lies beyond the grid, the middle of a large object keeps its intensity."""
    matrix, view = (24, 20, 16)[3 - axes :], (96.0, 60.0, 64.0)[3 - axes :]
    space = Space((1,) * (3 - axes) + matrix, (5.0,) * (3 - axes) + view)
    # σ = 6 mm is at least 1.5 voxels: the filter leaves 1e-5 at the rim of k-space, and the edge is 3.5 σ or more away.
    shapes = Shapes(np.zeros((1, axes)), 21.5 * np.eye(axes)[None], np.array([0.7 + 0.2j]), blur_mm=6.0)
    flat = Coils(np.array([[1.0 + 0j]]), np.zeros((1, axes), np.int64), 2 * np.array(view[::-1]))
    kspace = coil_grid_spectrum(shapes, flat, matrix=matrix[::-1], field_of_view_mm=np.array(view[::-1]))
    images = coil_images(unit(space, axes) * kspace.reshape(1, *space.matrix), space.matrix)
    middle = images[(0, *(n // 2 for n in space.matrix))]
    # The Gaussian's weight beyond 3.58 σ: exp(−3.58²/2) = 1.6e-3 in two dimensions, 4.6e-3 in three.
    assert abs(middle - (0.7 + 0.2j)) < 5e-3 * abs(0.7 + 0.2j)


def test_pixel_centers_follow_the_wire() -> None:
    centers = pixel_centers(Space((2, 3, 4), (10.0, 30.0, 80.0)), 3)
    np.testing.assert_array_equal(centers[1, 1, 2], [0, 0, 0])
    np.testing.assert_array_equal(centers[0, 2, 3], [20, 10, -5])
    np.testing.assert_array_equal(pixel_centers(Space((1, 3, 4), (5.0, 30.0, 80.0)), 2)[0, 0], [-40, -10])


def test_mask_covers_the_object() -> None:
    ellipse = Shapes(np.array([[10.0, 0.0]]), np.diag([30.0, 12.0])[None], np.ones(1, np.complex128))
    covered = mask(ellipse, Space((1, 64, 64), (5.0, 128.0, 128.0)))
    assert covered.shape == (1, 64, 64)
    # Gauss's circle problem: the count differs from the area by at most about the number of voxels on the edge.
    assert abs(covered.sum() - np.pi * 30 * 12 / 4) < 2 * np.pi * 30 / 2
    assert covered[0, 32, 32 + 19]
    assert not covered[0, 32, 32 - 11]


def test_whitening_combines_in_units_of_noise() -> None:
    images = np.array([3.0 + 4j, 0.0])[:, None, None, None].astype(np.complex64)
    ideal = Ideal(Counters(slice=2), images, np.ones((1, 1, 1), np.bool_), sigma=0.5)
    plain, white = judge(ideal, None), judge(ideal, np.diag([2.0, 1.0]).astype(np.complex128))
    assert plain.pixels.tolist() == [[[5.0]]]
    assert plain.predicted_nrmse == 0
    assert white.pixels.tolist() == [[[10.0]]]
    assert white.counters == Counters(slice=2)
    # Far above the noise the error is that of the part along the signal, plus a bias: σ/10 · √(1 + O(σ²/100)).
    assert white.predicted_nrmse == pytest.approx(0.05, rel=0.01)


def test_nrmse_counts_inside_the_object() -> None:
    pixels = np.array([[[3.0, 4.0, 9.0]]], np.float32)
    truth = Truth(Counters(), pixels, np.array([[[True, True, False]]]), 0.0)
    assert nrmse(pixels + np.array([0.3, 0.4, 7], np.float32), truth) == pytest.approx(0.1, rel=1e-6)

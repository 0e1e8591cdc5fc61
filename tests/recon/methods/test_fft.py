"""`fft` against closed forms: values, places, spacing, and what is said of missing lines."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.errors import RecipeError
from recon.methods import METHODS
from recon.methods.fft import unmeasured
from recon.mrd.images import image_head
from recon.scan import Calibration, Quantity, Shape3, Trajectory
from tests.recon.methods.phantoms import (
    blob,
    blob_kspace,
    distance,
    encoding,
    frame_of,
    grid_points,
    image_by,
    noise_kspace,
    shots_of,
    spokes,
)

# The Gaussian's tails beyond the band and the field of view are below 1e-7, float32 transforms err by less than 2e-6.
CLOSED_FORM = 4e-6


def gaussian(shape: Shape3, center: tuple[float, ...]) -> NDArray[np.complex64]:
    """K-space [1 coil, kz, ky, kx] of one Gaussian."""
    return blob_kspace(grid_points(shape), center, int(np.prod(shape)))[None]


def test_a_slice_has_the_values_of_its_object() -> None:
    kspace = blob_kspace(grid_points((48, 64)), (3, -5), 48 * 64)[None, None]
    image = image_by("fft", frame_of(kspace))
    assert distance(image.pixels[0, 0], blob((48, 64), (3, -5))) < CLOSED_FORM


def test_a_volume_has_the_values_of_its_object() -> None:
    image = image_by("fft", frame_of(gaussian((32, 48, 40), (1, -2, 3))))
    assert distance(image.pixels[0], blob((32, 48, 40), (1, -2, 3))) < CLOSED_FORM


def test_removing_oversampling_keeps_values_and_places() -> None:
    kspace = blob_kspace(grid_points((48, 128)), (3, -5), 48 * 128)[None, None]
    image = image_by("fft", frame_of(kspace, space=encoding((1, 48, 128), recon=(1, 48, 64))))
    assert distance(image.pixels[0, 0], blob((48, 64), (3, -5))) < CLOSED_FORM


@pytest.mark.parametrize("spacing", [0.5, 0.8, 1.25])
def test_a_finer_or_coarser_image_keeps_values_and_places(spacing: float) -> None:
    n = round(40 / spacing)
    kspace = blob_kspace(grid_points((40, 80)), (3, -5), 40 * 80)[None, None]
    space = encoding((1, 40, 80), recon=(1, n, n), field_mm=(1.0, 40.0, 40.0))
    image = image_by("fft", frame_of(kspace, space=space))
    assert image.spacing_mm == pytest.approx((1, spacing, spacing))
    # A coarser image loses the band beyond π/1.25: 2·exp(−(2·π/1.25)²/2) of the peak's energy density, below 1e-5.
    assert distance(image.pixels[0, 0], blob((n, n), (3, -5), spacing=spacing)) < 1e-5


def test_a_larger_image_than_the_field_of_view_is_empty_outside() -> None:
    kspace = blob_kspace(grid_points((32, 64)), (3, -5), 32 * 64)[None, None]
    image = image_by("fft", frame_of(kspace, space=encoding((1, 32, 64), recon=(1, 64, 64))))
    assert distance(image.pixels[0, 0], blob((64, 64), (3, -5))) < CLOSED_FORM
    assert not image.pixels[0, 0, :16].any() and not image.pixels[0, 0, 48:].any()


def test_whitening_mixes_the_coils_before_they_are_combined() -> None:
    kspace, mixing = noise_kspace((3, 1, 16, 16)), noise_kspace((3, 3))
    mixed = np.tensordot(mixing, kspace, axes=1).astype(np.complex64)
    calibration = Calibration(whitening=mixing)
    for combine in ("rss", "adaptive"):
        white = image_by("fft", frame_of(kspace), calibration=calibration, combine=combine)
        direct = image_by("fft", frame_of(mixed), combine=combine)
        assert distance(white.pixels, direct.pixels) < 1e-5


def test_adaptive_combination_of_equal_coils_is_their_rss() -> None:
    """One object seen by coils of constant sensitivity: both combinations are exact and agree."""
    kspace = blob_kspace(grid_points((32, 32)), (0, 0), 32 * 32)
    coils = (np.array([1, 2j, -1 + 1j])[:, None, None, None] * kspace).astype(np.complex64)
    rss, adaptive = (image_by("fft", frame_of(coils), combine=how) for how in ("rss", "adaptive"))
    assert distance(adaptive.pixels, rss.pixels) < 1e-5


def test_other_trajectories_are_refused() -> None:
    space = encoding((1, 16, 16), kind=Trajectory.RADIAL)
    frame = shots_of(noise_kspace((1, 4, 16)), spokes(4, 16), space=space)
    with pytest.raises(
        RecipeError, match="fft needs Cartesian k-space, the header's trajectory is radial: use gridding or auto"
    ):
        image_by("fft", frame)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (slice(0, 0), ()),
        (
            slice(0, 3),
            ("partial Fourier along kspace_encode_step_1: 3 of 8 lines are zero-filled, resolution is reduced",),
        ),
        (
            slice(1, 8, 2),
            ("undersampled along kspace_encode_step_1: 4 of 8 lines are zero-filled, the image is aliased",),
        ),
    ],
)
def test_what_is_missing_is_said(missing: slice, message: tuple[str, ...]) -> None:
    sampled = np.ones((1, 8), np.bool_)
    sampled[:, missing] = False
    assert unmeasured(sampled) == message
    assert image_by("fft", frame_of(noise_kspace((2, 1, 8, 8)), sampled=sampled)).comments == message


def test_what_is_missing_of_a_volume_is_said_for_each_direction() -> None:
    sampled = np.ones((6, 8), np.bool_)
    sampled[:, ::2], sampled[:2] = False, False
    assert [line.split(":")[0] for line in unmeasured(sampled)] == [
        "undersampled along kspace_encode_step_1",
        "partial Fourier along kspace_encode_step_2",
    ]
    corners = np.ones((6, 8), np.bool_)
    corners[0, 0] = corners[5, 7] = False
    assert unmeasured(corners) == ("undersampled: 2 of 48 lines are zero-filled",)


def test_what_a_frame_needs_grows_with_coils_and_matrix() -> None:
    small, large = encoding((1, 64, 64)), encoding((1, 128, 128))
    for method in METHODS.values():
        if method.name != "null":
            assert method.bytes_needed(small, 8) < method.bytes_needed(small, 32) < method.bytes_needed(large, 32)
            assert method.cost(small, 8) < method.cost(small, 32) < method.cost(large, 32)
            assert method.bytes_needed(large, 32) >= 8 * 32 * 128 * 128


def test_the_parts_of_an_image_are_those_of_its_complex_pixels() -> None:
    frame = frame_of(np.complex64(1j) * gaussian((1, 24, 32), (0, 3, -5)))
    whole, real, phase, size = (image_by("fft", frame, output=o) for o in ("complex", "real", "phase", "magnitude"))
    np.testing.assert_array_equal(real.pixels, whole.pixels.real)
    np.testing.assert_array_equal(phase.pixels, np.angle(whole.pixels))
    kinds = [image.quantity for image in (whole, real, phase, size)]
    assert kinds == [Quantity.COMPLEX, Quantity.REAL, Quantity.PHASE, Quantity.MAGNITUDE]
    assert [int(image_head(image, attribute_bytes=0)["image_type"]) for image in (whole, real, phase)] == [5, 3, 2]

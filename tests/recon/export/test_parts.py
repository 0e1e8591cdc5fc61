"""What a picture shows: parts, rescale and window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recon.errors import ScanError
from recon.export.parts import STORED_MAX, real_parts, rescale, split, window
from recon.scan import Quantity
from tests.recon.export.builders import image

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


def test_a_complex_image_is_its_magnitude_and_its_phase() -> None:
    pixels = np.array([3 + 4j, -2, 0, 1j], np.complex64).reshape(1, 1, 2, 2)
    (first, magnitude), (second, phase) = real_parts(image(pixels))
    assert (first, second) == (Quantity.MAGNITUDE, Quantity.PHASE)
    rebuilt = magnitude * np.exp(1j * phase)
    np.testing.assert_allclose(rebuilt, pixels, atol=5 * 4 * np.finfo(np.float32).eps)  # |5| times a few roundings


def test_pixels_that_are_no_numbers_are_refused() -> None:
    pixels = np.zeros((1, 1, 2, 2), np.float32)
    pixels[0, 0, 1] = np.nan, np.inf
    with pytest.raises(ScanError) as caught:
        real_parts(image(pixels, series=2, index=5))
    assert str(caught.value) == (
        "image 5 of series 2 has 2 pixels that are NaN or infinite, a picture needs finite ones: "
        "look at the scan's log for the cause"
    )


@given(arrays(np.float32, (1, 1, 3, 5), elements=FINITE))
def test_rescale_keeps_every_value_within_half_a_step(values: np.ndarray) -> None:
    slope, intercept = rescale(values)
    stored = np.rint((values.astype(np.float64) - intercept) / slope)
    assert stored.min() >= 0
    assert stored.max() <= STORED_MAX
    # The intercept is rounded to nine digits, which can move the lowest value by 5e-9 of itself past the end.
    slack = slope / 2 + 1e-8 * abs(intercept)
    assert np.abs(stored * slope + intercept - values).max() <= slack


def test_all_planes_of_an_image_share_one_rescale() -> None:
    pixels = np.arange(24, dtype=np.float32).reshape(1, 4, 2, 3)
    planes = list(split(image(pixels)))
    assert [plane.z for plane in planes] == [0, 1, 2, 3]
    assert {(plane.slope, plane.intercept) for plane in planes} == {rescale(pixels)}


def test_a_few_bright_pixels_do_not_move_the_window() -> None:
    values = np.ones(10_000, np.float32)
    values[:20] = 1e6  # 0.2 %
    assert window(values, Quantity.MAGNITUDE) == (0.0, 1.0)


def test_background_of_exact_zeros_does_not_move_the_window() -> None:
    values = np.zeros(10_000, np.float32)
    values[:20] = 3.0  # as an object that fills little of a cropped grid
    assert window(values, Quantity.MAGNITUDE) == (0.0, 3.0)


def test_signed_parts_have_their_zero_in_the_middle() -> None:
    assert window(np.array([-2.0, 0.0, 1.0], np.float32), Quantity.REAL, percentile=100) == (-2.0, 2.0)
    assert window(np.array([0.1], np.float32), Quantity.PHASE) == (-np.pi, np.pi)


def test_an_empty_picture_has_a_window_of_some_width() -> None:
    assert window(np.zeros(4, np.float32), Quantity.MAGNITUDE) == (0.0, 1.0)

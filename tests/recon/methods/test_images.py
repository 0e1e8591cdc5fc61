"""Images: numbering, outputs, and what is copied from the frame."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from recon.methods.images import number_of
from recon.scan import Counters, Encoding, Limit, Quantity, Space, Trajectory
from tests.recon.methods.phantoms import frame_of, image_by, noise_kspace

SIZES = {"slice": 3, "contrast": 2, "phase": 4, "set": 2, "repetition": 3}


def test_numbers_are_a_bijection_with_slices_fastest() -> None:
    limits = {name: Limit(1, size, 1) for name, size in SIZES.items()}
    space = Space((1, 4, 4), (1, 1, 1))
    encoding = Encoding(space, space, limits, Trajectory.CARTESIAN)
    numbers = [
        number_of(Counters(0, **{name: 1 + value for name, value in zip(SIZES, values, strict=True)}), encoding)
        for values in product(*map(range, SIZES.values()))
    ]
    assert sorted(numbers) == list(range(1, 145))
    first = dict.fromkeys(SIZES, 1)
    assert number_of(Counters(0, **(first | {"slice": 2})), encoding) == 2


@pytest.mark.parametrize(
    ("output", "quantity", "unit", "dtype"),
    [
        ("magnitude", Quantity.MAGNITUDE, "arbitrary", np.float32),
        ("complex", Quantity.COMPLEX, "arbitrary", np.complex64),
        ("phase", Quantity.PHASE, "radian", np.float32),
    ],
)
def test_the_output_is_what_the_recipe_asks_for(output: str, quantity: Quantity, unit: str, dtype: type) -> None:
    image = image_by("fft", frame_of(noise_kspace((3, 1, 8, 8))), output=output)
    assert (image.quantity, image.unit, image.pixels.dtype) == (quantity, unit, dtype)
    assert image.pixels.shape == (1, 1, 8, 8)


def test_magnitude_and_phase_are_those_of_the_complex_image() -> None:
    frame = frame_of(noise_kspace((3, 1, 8, 8)))
    whole = image_by("fft", frame, output="complex").pixels
    np.testing.assert_allclose(image_by("fft", frame, combine="adaptive").pixels, np.abs(whole), rtol=1e-6)
    np.testing.assert_allclose(image_by("fft", frame, output="phase").pixels, np.angle(whole), rtol=1e-6)


def test_the_recipe_stands_in_the_image() -> None:
    image = image_by("fft", frame_of(noise_kspace((3, 1, 8, 8))), oversampling="keep")
    assert '"oversampling":"keep"' in image.attributes["ReconRecipe"]
    assert image.provenance.method == "fft"

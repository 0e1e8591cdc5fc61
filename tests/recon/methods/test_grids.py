"""Grids: spacing, zero filling and cropping keep the voxel r = 0 where it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.errors import HeaderError
from recon.methods.grids import inner, resize, target_of
from recon.scan import Encoding, Shape3, Space, Trajectory, Vector3

sizes = st.integers(1, 9)
shapes = st.tuples(sizes, sizes, sizes)


def encoding(encoded: Shape3, recon: Shape3, fields: tuple[Vector3, Vector3]) -> Encoding:
    return Encoding(Space(encoded, fields[0]), Space(recon, fields[1]), {}, Trajectory.CARTESIAN)


def test_readout_oversampling_is_removed() -> None:
    target = target_of(encoding((1, 64, 128), (1, 64, 64), ((5, 320, 640), (5, 320, 320))))
    assert target.full == (1, 64, 128) and target.shape == (1, 64, 64) and target.spacing_mm == (5, 5, 5)


def test_readout_oversampling_can_be_kept() -> None:
    both = encoding((1, 64, 128), (1, 64, 64), ((5, 320, 640), (5, 320, 320)))
    assert target_of(both, oversampling="keep").shape == (1, 64, 128)


def test_a_finer_image_is_interpolated() -> None:
    target = target_of(encoding((1, 64, 128), (1, 256, 128), ((5, 320, 640), (5, 320, 320))))
    assert target.full == (1, 256, 256) and target.spacing_mm == (5, 1.25, 2.5)


def test_a_rectangular_field_of_view_keeps_square_voxels() -> None:
    target = target_of(encoding((1, 96, 256), (1, 128, 128), ((5, 240, 640), (5, 320, 320))))
    assert target.full == (1, 96, 256) and inner(target) == (1, 96, 128) and target.shape == (1, 128, 128)


def test_slice_oversampling_of_a_volume_is_removed() -> None:
    target = target_of(encoding((40, 64, 64), (32, 64, 64), ((80, 320, 320), (64, 320, 320))))
    assert target.full == (40, 64, 64) and target.shape == (32, 64, 64) and target.spacing_mm == (2, 5, 5)


@pytest.mark.parametrize(("matrix", "fields"), [((1, 4, 4), (5.0, 7.0)), ((9, 4, 4), (5.0, 63.0))])
def test_a_slice_keeps_its_thickness(matrix: Shape3, fields: tuple[float, float]) -> None:
    thickness = fields[1] if matrix[0] == 1 else fields[0]
    target = target_of(encoding((1, 4, 4), matrix, ((fields[0], 8, 8), (fields[1], 8, 8))))
    assert target.shape[0] == target.full[0] == 1 and target.spacing_mm[0] == thickness


def test_a_spacing_that_does_not_divide_the_field_of_view_is_stated_as_it_is() -> None:
    target = target_of(encoding((1, 200, 200), (1, 256, 256), ((5, 250, 250), (5, 220, 220))))
    assert target.full[1] == 291 and target.spacing_mm[1] == 250 / 291


def test_an_impossible_grid_is_refused() -> None:
    with pytest.raises(HeaderError, match=r"spacing of 1 mm makes 5e\+06 voxels, expected 1 to 8192"):
        target_of(encoding((1, 4, 4), (1, 4, 4), ((5, 5e6, 4), (5, 4, 4))))


@given(shapes, shapes)
def test_resizing_keeps_the_centre(shape: Shape3, wanted: Shape3) -> None:
    array = np.zeros((2, *shape), np.complex64)
    array[(slice(None), *(n // 2 for n in shape))] = 1
    resized = resize(array, wanted)
    assert resized.shape == (2, *wanted)
    assert (resized[(slice(None), *(n // 2 for n in wanted))] == 1).all() and resized.sum() == 2


@given(shapes)
def test_resizing_to_the_same_shape_copies_nothing(shape: Shape3) -> None:
    array = np.zeros(shape, np.float32)
    assert np.shares_memory(resize(array, shape), array)

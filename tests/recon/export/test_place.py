"""Where a voxel lies: from a known patient position, through exact k-space and a centred DFT, to the voxel found."""

from __future__ import annotations

import numpy as np
import pytest

from recon.errors import ScanError
from recon.export.place import first_voxel, voxel_axes
from recon.scan import Geometry
from tests.recon.export.builders import image, oblique

# Directions come as float32: 6e-8 relative, times lengths of some 300 mm.
PLACED_MM = 3 * 6e-8 * 300


def image_of_point(offset: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Magnitude image [1, z, y, x] of a point `offset` voxels (z, y, x) from the scan's position, by its k-space."""
    phase = np.zeros(shape)
    for axis, (count, distance) in enumerate(zip(shape, offset, strict=True)):
        k = (np.arange(count) - count // 2) / count
        phase = phase + (k * distance).reshape([-1 if i == axis else 1 for i in range(3)])
    kspace = np.exp(-2j * np.pi * phase)
    return np.abs(np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace)))).astype(np.float32)[None]


@pytest.mark.parametrize("shape", [(1, 6, 8), (1, 7, 5), (4, 6, 9), (5, 8, 6)])
@pytest.mark.parametrize("left_handed", [False, True])
def test_a_point_lands_on_the_voxel_that_position_and_directions_predict(
    shape: tuple[int, int, int], left_handed: bool
) -> None:
    geometry = oblique(3, left_handed=left_handed)
    spacing = (4.0, 1.5, 2.5)
    offset = (0 if shape[0] == 1 else -2, 2, -2)
    dz, dy, dx = (o * s for o, s in zip(offset, spacing, strict=True))
    directions = (geometry.slice_dir, geometry.phase_dir, geometry.read_dir)
    point = np.array(geometry.position_mm)
    for distance, direction in zip((dz, dy, dx), directions, strict=True):
        point = point + distance * np.array(direction)

    made = image(image_of_point(offset, shape), geometry=geometry, spacing_mm=spacing)
    _, z, y, x = np.unravel_index(np.argmax(made.pixels), made.pixels.shape)
    axes = voxel_axes(geometry)
    assert axes is not None
    found = first_voxel(made, axes, int(z)) + x * spacing[2] * axes[0] + y * spacing[1] * axes[1]
    np.testing.assert_allclose(found, point, atol=PLACED_MM)


def test_axes_are_orthonormal_to_double_precision() -> None:
    axes = np.array(voxel_axes(oblique(5, left_handed=True)))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=4 * np.finfo(float).eps)


def test_directions_of_any_length_are_directions() -> None:
    longer = Geometry(read_dir=(3.0, 0.0, 0.0), phase_dir=(0.0, 2.0, 0.0), slice_dir=(0.0, 0.0, -5.0))
    np.testing.assert_array_equal(np.array(voxel_axes(longer)), np.diag([1.0, 1.0, -1.0]))


def test_a_missing_slice_direction_is_read_cross_phase() -> None:
    axes = voxel_axes(Geometry(slice_dir=(0.0, 0.0, 0.0)))
    assert axes is not None
    np.testing.assert_array_equal(axes[2], [0, 0, 1])


def test_missing_directions_are_none_not_a_guess() -> None:
    assert voxel_axes(Geometry(read_dir=(0.0, 0.0, 0.0))) is None


def test_directions_that_are_not_perpendicular_are_refused() -> None:
    with pytest.raises(ScanError) as caught:
        voxel_axes(Geometry(phase_dir=(0.6, 0.8, 0.0)))
    assert str(caught.value) == (
        "read, phase and slice directions are (1.0, 0.0, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, 1.0), "
        "expected perpendicular ones (largest cosine 0.6): correct the acquisition headers"
    )

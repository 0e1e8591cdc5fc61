"""A brain of voxels: its file, its place in the patient, its k-space against single voxels, and the real one."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.errors import FileError, RecipeError
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.simulate import REALISTIC, nrmse, simulate, voxels
from recon.simulate.coils import sensitivity
from recon.simulate.measurement import geometry, head_array, seen_by
from recon.simulate.tissue import spin_echo
from recon.simulate.voxels import FILES, PLACES_MM, SE_VIEW_MM, SPIN_ECHO, brain, cropped, read_head, slab
from tests.recon.methods.phantoms import CPU

NAMES = ["perfusion_rate", "transit_time", "t1", "t2", "t2_star", "m0", "seg_label"]


def nifti(values: NDArray[np.float64], *, origin: tuple[int, int, int], spacing: float = 1.0) -> bytes:
    """A NIfTI-1 file of volumes [quantity, z, y, x] with 0 mm at the voxel `origin` (z, y, x)."""
    head = np.zeros(352, np.uint8)
    head[:4] = np.array([348], "<i4").view(np.uint8)
    head[40:56] = np.array([5, *values.shape[:0:-1], 1, len(values), 1, 1], "<i2").view(np.uint8)
    head[70:74] = np.array([64, 64], "<i2").view(np.uint8)
    head[76:108] = np.array([0, *(spacing,) * 3, 0, 1, 0, 0], "<f4").view(np.uint8)
    head[108:112] = np.array([352], "<f4").view(np.uint8)
    affine = np.concatenate([np.eye(3), -np.array(origin[::-1])[:, None]], axis=1)
    head[280:328] = affine.astype("<f4").ravel().view(np.uint8)
    head[344:348] = np.frombuffer(b"n+1\0", np.uint8)
    return head.tobytes() + values.astype("<f8").tobytes()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """White matter (2) in one voxel, 4 mm up, 3 mm to the front and 2 mm to the right; grey matter (1) in another."""
    label = np.zeros((12, 9, 8))
    label[2 + 4, 5 + 3, 3 + 2], label[2 + 4, 5, 3] = 2, 1
    times = np.stack([np.select([label == 2, label == 1], pair) for pair in ((0.5, 1.1), (0.08, 0.09), (0.06, 0.08))])
    density = np.select([label == 2, label == 1], (64.0, 74.0))
    values = np.stack([np.zeros_like(label), np.zeros_like(label), *times, density, label])
    (tmp_path / f"{FILES}.nii.gz").write_bytes(gzip.compress(nifti(values, origin=(2, 5, 3))))
    (tmp_path / f"{FILES}.json").write_text(json.dumps({"quantities": NAMES}))
    return tmp_path


def test_a_voxel_stands_where_it_is_in_the_patient(small: Path) -> None:
    """Images run to the back and to the left: 3 mm to the front and 2 mm to the right are less than the middle."""
    found = brain(small, (4, 1), thickness=1)
    middle = round(SE_VIEW_MM) // 2
    body = slab(found, 0)
    places = [tuple(place) for place in np.argwhere(body).tolist()]
    assert places == [(middle - 3, middle - 2), (middle, middle)]
    white = found.tissues[2]
    assert (white.density, white.t1_ms, white.t2_ms, white.t2_star_ms) == pytest.approx((0.64, 500, 80, 60))
    assert body[places[0]] == pytest.approx(spin_echo(white, SPIN_ECHO).real)
    assert not slab(found, 1).any()
    thick = slab(brain(small, (4,), thickness=5), 0)
    np.testing.assert_allclose(thick, body / 5)


@pytest.mark.parametrize("matrix", [48, 51])
def test_k_space_of_one_voxel_is_a_wave(matrix: int) -> None:
    body = np.zeros((240, 240))
    body[120 - 7, 120 + 31] = 2.5
    coils = seen_by(head_array(3), geometry(np.eye(3), (0, 0, 0)), np.full(2, SE_VIEW_MM))
    k = (np.arange(2 * matrix) - matrix) / (2 * SE_VIEW_MM), (np.arange(matrix) - matrix // 2) / SE_VIEW_MM
    wave = np.exp(-2j * np.pi * (31 * k[0][None, :] - 7 * k[1][:, None]))
    expected = 2.5 * sensitivity(coils, np.array([31.0, -7.0]))[:, None, None] * wave
    np.testing.assert_allclose(cropped(body, coils, matrix=matrix), expected, rtol=0, atol=1e-12)


def test_another_file_is_refused(small: Path) -> None:
    content = nifti(np.zeros((1, 2, 2, 2)), origin=(0, 0, 0), spacing=2.0)
    with pytest.raises(FileError, match=r"^a.nii is no NIfTI-1 file of 64-bit floats in upright voxels of 1 mm: "):
        read_head(content[:348], "a.nii")


def test_without_the_package_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxels, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"the package asldro is not installed, .*: pip install --no-deps asldro$"):
        simulate("brain-voxels", matrix=16)


def test_more_pixels_than_voxels_are_refused() -> None:
    with pytest.raises(RecipeError, match="matrix is 300, the digital brain has voxels of 1 mm in a view of 240 mm"):
        simulate("brain-voxels", matrix=300)


@pytest.mark.skipif(find_spec("asldro") is None, reason="asldro is not installed: pip install --no-deps asldro")
def test_images_of_the_digital_brain_err_as_their_noise_predicts() -> None:
    assert set(REALISTIC) == {"brain-voxels"}
    scan = simulate("brain-voxels", seed=2, coils=4, matrix=64)
    found = {image.counters.slice: image for image in reconstruct(scan.scan, Recipe(), CPU)}
    for truth in scan.truth:
        assert nrmse(found[truth.counters.slice].pixels[0], truth) < 1.05 * truth.predicted_nrmse
        assert 0.2 < truth.mask.mean() < 0.5  # a brain in a view of 240 mm
    assert [image.geometry.position_mm[2] for _, image in sorted(found.items())] == list(PLACES_MM)

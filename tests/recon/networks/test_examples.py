"""Simulated examples: the noise is what it is said to be, the truth has no ringing, and a seed gives the same bits."""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
from recon.errors import FileError, PackageError
from recon.networks import examples, sources
from recon.networks.pictures import ellipses, picture
from recon.operators import cartesian_sense
from tests import tolerances
from tests.laws import assert_near
from tests.recon.networks.drawn import small_library

SIZE = 48
LIBRARY = small_library()
PACKAGES = ("asldro", "nilearn", "skimage", "nibabel")
MISSING = [name for name in PACKAGES if find_spec(name) is None]
needs_pictures = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)}: not installed, their pictures are needed"
)


def drawn(make: Any, *seed: int) -> Any:
    return make(np.random.default_rng(seed), LIBRARY, SIZE)


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


@pytest.mark.parametrize("make", [examples.undersampled, examples.noisy])
def test_a_seed_gives_the_same_example_and_another_seed_another(make: Any) -> None:
    first = drawn(make, 3, 1)
    assert same(first, drawn(make, 3, 1))
    assert not same(first, drawn(make, 3, 2))


@pytest.mark.parametrize("exact", [True, False])
def test_a_fully_sampled_example_is_its_truth_and_noise_of_one(exact: bool) -> None:
    rng = np.random.default_rng(1)
    coils, full = examples.random_coils(rng, 8), np.ones(SIZE, np.float32)
    if exact:
        found = examples.of_shapes(rng, ellipses(rng, 6, examples.VIEW_MM), coils, lines=full, signal=50)
    else:
        found = examples.of_picture(rng, picture(rng, LIBRARY, 2 * SIZE), coils, lines=full, signal=50)
    noise = examples.measured(found, kernels.on("cpu")).rhs - found.truth
    parts = np.stack([noise.real, noise.imag])
    assert abs(parts.std() - 1) < 5 / sqrt(2 * parts.size)  # five deviations of a standard deviation's own
    assert abs(parts.mean()) < 5 / sqrt(parts.size)
    assert np.percentile(np.abs(found.truth), 99) == pytest.approx(50, rel=1e-5)
    assert np.allclose((np.abs(found.maps) ** 2).sum(axis=0), 1, atol=1e-5)


def test_its_data_are_those_of_the_operator_in_two_dimensions() -> None:
    found, cpu = drawn(examples.undersampled, 6, 1), kernels.on("cpu")
    data, sense = examples.measured(found, cpu), cartesian_sense(cpu, found.maps, found.lines)
    assert_near(data.rhs, sense.adjoint(found.kspace), 4 * tolerances.fft(SIZE**2))
    assert_near(
        data.equations.normal(found.truth, *data.equations.operands),
        sense.normal(found.truth),
        4 * tolerances.fft(SIZE**2),
    )


def test_an_undersampled_example_has_only_its_lines() -> None:
    for seed in range(8):
        found = drawn(examples.undersampled, 5, seed)
        lines = found.lines > 0
        assert not found.kspace[..., ~lines].any() and found.kspace[..., lines].any(axis=(0, 1)).all()
        centre = slice(SIZE // 2 - 2, SIZE // 2 + 2)
        assert lines[centre].all()
        assert SIZE / 8 <= lines.sum() <= SIZE / 2 + 1


@pytest.mark.parametrize("acceleration", [2, 4, 8])
def test_a_mask_has_as_many_lines_as_asked_for(acceleration: int) -> None:
    for seed in range(10):
        lines = examples.mask(np.random.default_rng(seed), 256, acceleration=acceleration)
        assert lines.sum() == 256 / acceleration


@pytest.mark.parametrize("acquired", [SIZE, SIZE // 2])
def test_the_noise_of_an_image_is_its_factor(acquired: int) -> None:
    rng = np.random.default_rng(2)
    nothing, truth = np.zeros((acquired, acquired), np.complex64), np.zeros((SIZE, SIZE), np.complex64)
    factor = np.full((SIZE, SIZE), 1.7, np.float32)
    for _ in range(6):  # whole or one-sided, as the seed has it
        part = examples.one_sided(rng, acquired)
        image = examples.noised(rng, nothing, truth, signal=10, factor=factor, part=part).image
        parts = np.stack([image.real, image.imag])
        independent = 0.6 * 2 * acquired**2  # samples at least
        assert abs(parts.std() / 1.7 - 1) < 5 / sqrt(2 * independent)


def test_the_truth_of_an_edge_is_no_wider_than_its_truncation_and_does_not_ring() -> None:
    size, fine = 32, 32 * examples.FINEST
    rise = {"truth": [], "image": []}
    for start in range(examples.FINEST):  # the edge at every place within a voxel: a profile finer than voxels
        body = np.zeros((fine, fine), np.complex64)
        body[:, fine // 4 + start : 3 * fine // 4 + start] = 1
        exact, truth = examples.truncated(body, size, size)
        image = examples.centred(examples.fft.ifft2, exact)
        for name, found in (("truth", truth), ("image", image)):
            rise[name].append(np.abs(found[size // 2, size // 8 : size // 2]))
    profile = {name: np.stack(rows[::-1], axis=1).ravel() for name, rows in rise.items()}
    widths = {name: (np.diff(np.interp([0.1, 0.9], row[: row.argmax()], np.arange(row.argmax())))[0]) / examples.FINEST
              for name, row in profile.items()}  # fmt: skip
    assert widths["truth"] <= widths["image"] == pytest.approx(0.89, abs=0.1)
    assert profile["image"].max() > 1.07
    assert profile["truth"].max() - 1 < (profile["image"].max() - 1) / 3


def test_a_truncated_ellipse_rings_round_its_means() -> None:
    rng = np.random.default_rng(4)
    exact, truth = examples.truncated_shapes(ellipses(rng, 5, examples.VIEW_MM), SIZE, SIZE)
    image = examples.centred(examples.fft.ifft2, exact)
    flat = np.abs(np.gradient(truth.real)).max(axis=0) == 0
    assert np.abs(image - truth)[flat].mean() < 0.05  # the same units and the same place
    assert np.linalg.norm(image - truth) < 0.2 * np.linalg.norm(truth)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(PackageError, match=r"pictures of no-such are needed, .*: pip install --no-deps no-such$"):
        sources.folder_of("no_such_package", "no-such")


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(400)))
    with pytest.raises(FileError, match=r"a\.nii\.gz is no NIfTI-1 file of plain numbers: install"):
        sources.read_volume(tmp_path / "a.nii.gz")


def test_no_photograph_is_in_two_splits() -> None:
    train, choose = (set(names) for names in sources.PHOTOGRAPHS.values())
    assert train and choose and not train & choose
    assert {package for package, *_ in sources.REAL.values()} & {"asldro", "nilearn", "skimage"} == set()


@needs_pictures
def test_real_pictures_are_read_and_larger_than_their_matrix() -> None:
    found = list(sources.real_pictures(("abdomen", "brain")))
    assert [(name, pixels.shape) for name, pixels, _ in found] == [
        ("abdomen", (300, 484)), ("brain-0", (96, 128)), ("brain-1", (96, 128)), ("brain-2", (96, 128)),
    ]  # fmt: skip
    for _, pixels, matrix in found:
        assert pixels.min() >= 0 and pixels.max() == 1 and pixels.std() > 0.05
        assert all(n < have for n, have in zip(matrix, pixels.shape, strict=True))


@needs_pictures
def test_the_template_is_read_as_it_is_stored() -> None:
    volume = sources.read_volume(sources.folder_of("nilearn") / sources.TEMPLATE)
    assert volume.shape == (189, 233, 197)
    middle = volume[94, 116]  # a line through the middle of the head, from left to right: air at both ends
    assert middle[:10].max() == middle[-10:].max() == 0 < middle[60:140].min()

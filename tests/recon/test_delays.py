"""Gradient delays: known ones are found within what noise allows, and images come back to where none were."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.delays import SMALLEST, estimate, lines_of, undelayed
from recon.gather import gather, select
from recon.pipeline import frames_of, reconstruct
from recon.recipe import Recipe
from recon.scan import Frame, Image, Trajectory
from recon.simulate import SimulatedScan, nrmse, simulate
from recon.simulate.volumes import LATE_US, SAMPLE_TIME_US
from tests.recon.builders import noise
from tests.recon.judges import Bart
from tests.recon.methods.phantoms import CPU, blob_kspace, encoding, image_by, shots_of, spokes
from tests.recon.methods.test_volumes import stacked

TRUE = np.array(LATE_US) / -SAMPLE_TIME_US  # shifts in samples: x, y, xy
MATRIX = np.array([[TRUE[1], TRUE[2]], [TRUE[2], TRUE[0]]])  # with axes (y, x)


@cache
def measured(strength: float) -> SimulatedScan:
    return simulate("head-radial", seed=2, coils=4, matrix=64, noise=strength)


@cache
def frame() -> Frame:
    scan = measured(0.0).scan
    (index,), _ = frames_of(scan)
    return gather(scan.header, select(scan.readouts, index.rows))


def late_blob(points: NDArray[np.float32], moved: NDArray[np.float64]) -> Frame:
    """Spokes whose header says `points`, measured where they really were: moved by `moved` [y, x] n samples."""
    step = 2 * np.pi / points.shape[1]
    across = points[:, -1, -2:] - points[:, 0, -2:]
    direction = across / np.linalg.norm(across, axis=-1, keepdims=True)
    real = points.astype(np.float64)
    real[..., -2:] += (direction @ moved)[:, None] * step
    axes = points.shape[-1]
    shape = (1, 32, 64) if axes == 2 else (4, 32, 64)
    space = encoding(shape, recon=(shape[0], 32, 32), kind=Trajectory.RADIAL)
    kspace = np.stack([blob_kspace(real, (0, *where)[-axes:], 32 * 64) for where in ((3, -5), (-4, 6))])
    return replace(shots_of(kspace, points, space=space), sample_time_us=4.0)


def shift_of(each: Frame) -> NDArray[np.float64]:
    return np.array(estimate(lines_of([each], CPU)).shift)


def test_known_delays_are_found() -> None:
    """Without noise what is left is the interpolation's 2e-5, over slopes of some tenths of the signal a sample."""
    np.testing.assert_allclose(shift_of(frame()), TRUE, atol=1e-3)


@pytest.mark.parametrize("size", [0.0, 0.3, 1.5, -2.0])
def test_small_and_large_delays_of_either_sign_are_found(size: float) -> None:
    moved = size * np.array([[1.0, 0.25], [0.25, -0.6]])
    expected = [moved[1, 1], moved[0, 0], moved[0, 1]]
    np.testing.assert_allclose(shift_of(late_blob(spokes(40, 64), moved)), expected, atol=2e-3)


def test_noise_moves_them_as_far_as_is_said() -> None:
    """The uncertainty that is given with each estimate is that of many: a factor of two for what pairs share."""
    rng, sigma = np.random.default_rng(0), 0.02 * float(np.abs(frame().kspace).max())
    found, said = [], []
    for _ in range(24):
        noisy = replace(frame(), kspace=frame().kspace + sigma * noise(rng, frame().kspace.shape))
        each = estimate(lines_of([noisy], CPU))
        found.append(each.shift)
        said.append(each.error)
    spread = float((np.array(found) - TRUE).std(axis=0).max())
    assert np.mean(said) / 2 < spread < 2 * np.mean(said)
    assert np.abs(np.mean(found, axis=0) - TRUE).max() < 5 * np.mean(said) / np.sqrt(24) + 1e-3


def test_barts_ring_finds_the_same_less_exactly(tmp_path: Path) -> None:
    """Its order is (y, x, xy); samples count twice, as the readouts are oversampled, in neither program."""
    path = np.zeros((*frame().kspace.shape[1:], 3), np.complex64)
    assert frame().trajectory is not None
    path[..., :2] = frame().trajectory[..., ::-1] * (64 / (2 * np.pi))
    y, x, xy = Bart(tmp_path)("estdelay -R", path, frame().kspace[..., None]).real
    theirs, ours = np.array([x, y, xy]), shift_of(frame())
    np.testing.assert_allclose(theirs, TRUE, atol=0.15)
    assert np.abs(ours - TRUE).max() < np.abs(theirs - TRUE).max()


def image_of(strength: float, method: str = "gridding", **parameters: Any) -> Image:
    (image,) = reconstruct(measured(strength).scan, Recipe(method, parameters), CPU)
    return image


def test_the_image_is_as_good_as_with_the_delays_known() -> None:
    (truth,) = measured(0.0).truth
    best = image_by("gridding", replace(frame(), trajectory=_at(MATRIX)))
    free, found, late = (nrmse(i.pixels[0], truth) for i in (best, image_of(0.0), image_of(0.0, delays="off")))
    # Delays are rounded to 1/64 of a sample: 1/100 of these, and of what they cost.
    assert found < 1.05 * free
    assert late > 3 * free


def test_so_it_is_with_noise() -> None:
    (truth,) = measured(1.0).truth
    found, late = (nrmse(image.pixels[0], truth) for image in (image_of(1.0), image_of(1.0, delays="off")))
    assert found < 1.2 * truth.predicted_nrmse
    assert late > 2 * truth.predicted_nrmse


def _at(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    points = frame().trajectory
    assert points is not None
    across = points[:, -1] - points[:, 0]
    direction = across / np.linalg.norm(across, axis=-1, keepdims=True)
    step = np.linalg.norm(across, axis=-1).mean() / (points.shape[1] - 1)
    return (points + (direction @ matrix)[:, None] * step).astype(np.float32)


def test_they_are_told_in_microseconds() -> None:
    (words,) = image_of(0.0).comments
    # By 1/64 of a sample: 0.08 µs.
    assert words == "gradient delays found and corrected: x 3.52 µs, y -2.03 µs, between them 0.78 µs"
    assert not image_of(0.0, delays="off").comments
    assert image_of(0.0, "cg-sense", iterations=2).comments == (words,)


def test_a_stack_is_moved_as_its_central_partition_is() -> None:
    moved = np.array([[-0.5, 0.1], [0.1, 0.8]])
    late = late_blob(stacked(spokes(40, 64), 4), moved)
    (found,) = undelayed([late], CPU)
    assert found.trajectory is not None and late.trajectory is not None
    np.testing.assert_array_equal(found.trajectory[..., 0], late.trajectory[..., 0])
    # Spoke 0 of each partition points along x; 1/64 of a sample is what delays are rounded to.
    first = (found.trajectory[:4, 0, 1:] - late.trajectory[:4, 0, 1:]) / (2 * np.pi / 64)
    np.testing.assert_allclose(first, [[0.1, 0.8]] * 4, atol=1 / 64)


def test_frames_together_have_the_same_delays() -> None:
    late = late_blob(spokes(40, 64), np.diag([0.4, -0.7]))
    assert late.trajectory is not None
    halves = [
        replace(late, kspace=late.kspace[:, part], trajectory=late.trajectory[part])
        for part in (slice(0, 20), slice(20, 40))
    ]
    found = undelayed(halves, CPU)
    assert found[0].warnings == found[1].warnings and "x -" not in found[0].warnings[0]
    assert found[0].warnings[0].startswith("gradient delays found and corrected: x 2.81 µs, y -1.62 µs")


def test_without_delays_nothing_changes() -> None:
    """The very same trajectory, whose plan is known already."""
    still = late_blob(spokes(40, 64), np.zeros((2, 2)))
    (found,) = undelayed([still], CPU)
    assert found is still
    slight = late_blob(spokes(40, 64), np.diag([SMALLEST / 2, 0.0]))
    assert undelayed([slight], CPU)[0] is slight


def test_other_trajectories_are_left_alone() -> None:
    spiral = replace(frame(), encoding=replace(frame().encoding, trajectory=Trajectory.SPIRAL))
    assert undelayed([spiral], CPU)[0] is spiral


NOT_FOUND = "gradient delays could not be found and are not corrected: "


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda f: replace(f, kspace=f.kspace[..., :20], trajectory=f.trajectory[:, :20]), "the shots have 20 samples"),
        (lambda f: replace(f, trajectory=f.trajectory**3), "the shots are no straight and evenly sampled spokes"),
        (
            lambda f: replace(f, kspace=f.kspace[..., 64:], trajectory=f.trajectory[:, 64:]),
            "the spokes begin at the centre of k-space, expected spokes through it",
        ),
        (
            lambda f: replace(f, kspace=f.kspace[:, :2], trajectory=f.trajectory[:2]),
            "1 pairs of spokes cross at more than 45 degrees, expected at least 3",
        ),
        (lambda f: replace(f, kspace=0 * f.kspace), "the centre of k-space holds no signal that tells delays apart"),
        (
            lambda f: replace(f, kspace=noise(np.random.default_rng(1), f.kspace.shape)),
            "no delays up to 4 samples make the spokes agree where they cross",
        ),
    ],
)
def test_what_cannot_be_found_is_said(changed: Any, reason: str) -> None:
    bad = changed(frame())
    (found,) = undelayed([bad], CPU)
    assert found.trajectory is bad.trajectory
    (words,) = found.warnings
    assert words.startswith(NOT_FOUND + reason)

"""`gridding` against closed forms, the Cartesian case, BART and simulated hearts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.cpu import CpuKernels
from kernels.plans import Plans
from recon.cache import Cache
from recon.errors import DeviceError, LimitError, RecipeError, ScanError
from recon.methods import METHODS, Workbench, choose
from recon.pipeline import reconstruct, reconstruct_frame
from recon.recipe import Recipe
from recon.scan import Calibration, Readouts, Trajectory
from recon.simulate import nrmse, simulate
from tests import tolerances
from tests.recon.builders import header, heads, noise
from tests.recon.judges import Bart
from tests.recon.methods.phantoms import (
    CPU,
    SIGMA,
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

RADIAL, OTHER = Trajectory.RADIAL, Trajectory.OTHER


def test_cartesian_points_of_equal_density_give_the_image_of_the_fft() -> None:
    kspace = noise_kspace((2, 1, 24, 32))
    points = grid_points((24, 32)).astype(np.float32)
    shots = shots_of(kspace[:, 0], points, space=encoding((1, 24, 32), kind=RADIAL))
    gridded = image_by("gridding", replace(shots, density=np.full((24, 32), 7, np.float32)), eps=1e-5)
    # The NUFFT keeps its eps; the wire's density is scaled on a Gaussian whose tails beyond the band are 2e-9.
    assert distance(gridded.pixels, image_by("fft", frame_of(kspace)).pixels) < 3e-5


@pytest.mark.parametrize("density", [None, np.full((23, 31), 7, np.float32)], ids=["none", "of the wire"])
def test_cells_of_cartesian_points_give_the_image_of_the_fft(density: np.ndarray | None) -> None:
    """Of odd sizes, where no point lies on the edge of the band, all cells are alike."""
    kspace = noise_kspace((2, 1, 23, 31))
    points = grid_points((23, 31)).astype(np.float32)
    shots = replace(shots_of(kspace[:, 0], points, space=encoding((1, 23, 31), kind=OTHER)), density=density)
    gridded = image_by("gridding", shots, eps=1e-5, density="voronoi")
    assert distance(gridded.pixels, image_by("fft", frame_of(kspace)).pixels) < 3e-5


def test_cells_need_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    points = grid_points((5, 7)).astype(np.float32)
    shots = shots_of(noise_kspace((2, 1, 5, 7))[:, 0], points, space=encoding((1, 5, 7), kind=OTHER))
    with pytest.raises(
        DeviceError, match="density voronoi needs SciPy, which this worker lacks: install it or leave it"
    ):
        image_by("gridding", shots, density="voronoi")


def test_a_path_without_cells_is_refused() -> None:
    points = np.zeros((2, 4, 2), np.float32)
    shots = shots_of(noise_kspace((2, 1, 2, 4))[:, 0], points, space=encoding((1, 2, 4), kind=OTHER))
    with pytest.raises(ScanError, match=r"no cells to weight with: points lie at 1 places, expected at least 4"):
        image_by("gridding", shots, density="voronoi")


@pytest.mark.parametrize("oversampling", [1, 2])
def test_spokes_give_the_values_of_the_object(oversampling: int) -> None:
    n = 48
    bound = tolerances.weighted(n, np.pi, sigma=SIGMA)
    if oversampling == 1:
        bound += tolerances.centre_cell(n, sigma=SIGMA)
    points = spokes(96, n * oversampling)  # π/2·48 = 76 would meet Nyquist's condition
    space = encoding((1, n, n * oversampling), recon=(1, n, n), kind=RADIAL)
    kspace = blob_kspace(points, (3, -5), n * n * oversampling)[None]
    image = image_by("gridding", shots_of(kspace, points, space=space))
    assert distance(image.pixels[0, 0], blob((n, n), (3, -5))) < bound


def test_a_finer_image_keeps_values_and_places() -> None:
    points = spokes(96, 96)
    space = encoding((1, 48, 96), recon=(1, 96, 96), field_mm=(1.0, 48.0, 48.0), kind=RADIAL)
    image = image_by("gridding", shots_of(blob_kspace(points, (3, -5), 48 * 96)[None], points, space=space))
    assert image.spacing_mm == (1, 0.5, 0.5)
    assert distance(image.pixels[0, 0], blob((96, 96), (3, -5), spacing=0.5)) < tolerances.weighted(
        48, np.pi, sigma=SIGMA
    )


def test_a_coarser_image_leaves_the_band_beyond_it_out() -> None:
    points = spokes(96, 96)
    space = encoding((1, 48, 96), recon=(1, 38, 38), field_mm=(1.0, 48.0, 48.0), kind=RADIAL)
    image = image_by("gridding", shots_of(blob_kspace(points, (3, -5), 48 * 96)[None], points, space=space))
    # Beyond the new band, at 38/48 of the old one, the Gaussian has 4e-6 of its peak.
    bound = tolerances.weighted(48, np.pi * 38 / 48, sigma=SIGMA)
    assert distance(image.pixels[0, 0], blob((38, 38), (3, -5), spacing=48 / 38)) < bound


def test_a_volume_of_spokes_gives_the_values_of_the_object() -> None:
    n, count = 32, 2400  # even coverage needs about π·n²/2 = 1608 spokes
    height = 1 - (np.arange(count) + 0.5) / count  # steps of equal area, each turned on by the golden angle
    turn, flat = np.arange(count) * np.pi * (3 - np.sqrt(5)), np.sqrt(1 - height**2)
    axis = np.stack([height, flat * np.sin(turn), flat * np.cos(turn)], axis=-1)
    radius = 2 * np.pi * (np.arange(2 * n) - n) / (2 * n)
    points = (radius[None, :, None] * axis[:, None]).astype(np.float32)
    space = encoding((n, n, 2 * n), recon=(n, n, n), kind=RADIAL)
    image = image_by(
        "gridding", shots_of(blob_kspace(points, (1, 2, -3), 2 * n**3)[None], points, space=space), eps=1e-3
    )
    bound = tolerances.weighted(n, np.pi, sigma=SIGMA, axes=3) + tolerances.nufft(1e-3)
    assert distance(image.pixels[0], blob((n, n, n), (1, 2, -3))) < bound


def test_bart_grids_to_the_same_image(tmp_path: Path) -> None:
    """The same samples, weights and points through BART's adjoint NUFFT."""
    n = 48
    # Not to the edge of the band: samples on the border of its grid BART leaves out.
    points, kspace = np.float32(0.95) * spokes(60, 96), noise_kspace((3, 60, 96))
    space = encoding((1, n, 96), recon=(1, n, n), kind=RADIAL)
    ramp = np.linalg.norm(points, axis=-1).astype(np.float32) + np.float32(0.01)
    image = image_by("gridding", replace(shots_of(kspace, points, space=space), density=ramp), eps=1e-5)
    bart = Bart(tmp_path)
    # BART's trajectory counts in units of 1/FOV with axes (x, y, z); its samples are [coil, shot, sample, 1].
    path = np.zeros((60, 96, 3), np.complex64)
    path[..., :2] = points[..., ::-1] * n / (2 * np.pi)
    adjoint = bart(f"nufft -a -d {n}:{n}:1", path, (kspace * ramp)[:, :, :, None])
    judge = np.abs(bart("rss 8", adjoint).reshape(n, n))
    factor = (judge * image.pixels[0, 0]).sum() / (judge**2).sum()
    assert distance(image.pixels[0, 0], factor * judge) < tolerances.bart_nufft() + tolerances.nufft(1e-5)


@pytest.mark.parametrize("protocol", ["heart-radial", "heart-spiral"])
def test_simulated_hearts_come_near_their_truth(protocol: str) -> None:
    simulated = simulate(protocol, seed=3, coils=4, matrix=64, repetitions=1)
    truth = {each.counters: each for each in simulated.truth}
    images = list(reconstruct(simulated.scan, Recipe(), CPU))
    assert {image.counters for image in images} == set(truth)
    assert max(nrmse(image.pixels[0], truth[image.counters]) for image in images) <= tolerances.HEARTS


def test_frames_of_one_trajectory_are_planned_once() -> None:
    cache, points = Cache(), spokes(20, 32)
    space = encoding((1, 32, 32), kind=RADIAL)
    for _ in range(3):
        image_by("gridding", shots_of(noise_kspace((1, 20, 32)), points, space=space), cache=cache)
    image_by("gridding", shots_of(noise_kspace((1, 20, 32)), points[::-1].copy(), space=space), cache=cache)
    assert (cache.hits, cache.misses) == (2, 2)
    assert cache.bytes > 0


def test_a_plan_that_the_device_may_not_make_is_refused_with_its_size() -> None:
    frame = shots_of(noise_kspace((1, 20, 32)), spokes(20, 32), space=encoding((1, 32, 32), kind=RADIAL))
    small = Workbench(CpuKernels(plans=Plans(largest_bytes=1000)), Cache())
    with pytest.raises(LimitError, match=r"the plan needs .* MB, its budget is 0.0 MB: raise the budget or use"):
        METHODS["gridding"].run(frame, Calibration(), Recipe("gridding"), small)


def test_cartesian_scans_are_refused() -> None:
    with pytest.raises(RecipeError, match="gridding needs a trajectory, the header's is cartesian: use fft or auto"):
        image_by("gridding", frame_of(noise_kspace((1, 1, 8, 8))))


def test_a_density_of_nothing_is_refused() -> None:
    frame = shots_of(noise_kspace((1, 4, 16)), spokes(4, 16), space=encoding((1, 16, 16), kind=RADIAL))
    with pytest.raises(ScanError, match="density that the trajectory carries is zero everywhere"):
        image_by("gridding", replace(frame, density=np.zeros((4, 16), np.float32)))


def test_an_image_coarser_than_every_sample_is_refused() -> None:
    space = encoding((1, 16, 16), recon=(1, 2, 2), field_mm=(1.0, 16.0, 16.0), kind=RADIAL)
    frame = shots_of(noise_kspace((1, 1, 2)), np.full((1, 2, 2), 3, np.float32), space=space)
    with pytest.raises(ScanError, match="no sample of the trajectory is coarse enough"):
        image_by("gridding", frame)


def test_auto_grids_what_is_not_cartesian() -> None:
    recipe = Recipe("auto", {"trajectory_unit": "1/m", "oversampling": "keep"})
    for kind in Trajectory:
        chosen = choose(recipe, encoding((1, 8, 8), kind=kind), calibrated=False)
        cartesian = kind in (Trajectory.CARTESIAN, Trajectory.EPI)
        assert chosen.method == ("fft" if cartesian else "gridding") and chosen["oversampling"] == "keep"
    assert choose(Recipe("null"), encoding((1, 8, 8)), calibrated=False) == Recipe("null")


def test_other_units_of_the_trajectory_are_named_by_the_recipe() -> None:
    points = spokes(20, 32)
    head = heads(20, samples=32, kspace_encode_step_1=np.arange(20), trajectory_dimensions=2)
    data = noise(np.random.default_rng(1), (20, 2, 32))
    scan = header((1, 32, 32), trajectory=RADIAL)
    images = [
        reconstruct_frame(
            scan, [Readouts(head, data, path)], [], Recipe("gridding", {"trajectory_unit": unit}), CPU, Cache()
        )
        for unit, path in (
            ("cycles/voxel", points[..., ::-1] / (2 * np.pi)),
            ("cycles/fov", points[..., ::-1] / (2 * np.pi) * 32),
        )
    ]
    assert distance(images[1][0].pixels, images[0][0].pixels) < tolerances.moved(32)


def test_a_sliding_window_makes_the_images_of_its_readouts() -> None:
    """Real time: the images of a window are those of a scan that has these readouts only."""
    scan = simulate("heart-radial", seed=3, coils=2, matrix=32, repetitions=1).scan
    recipe = Recipe("gridding", {"window": 21, "stride": 8})
    images = list(reconstruct(scan, recipe, CPU))
    noise_run, run = scan.readouts
    assert len(images) == 1 + (len(run.head) - 21) // 8
    assert [image.counters.repetition for image in images] == list(range(len(images)))
    for i in (0, 3, len(images) - 1):
        part = slice(8 * i, 8 * i + 21)
        alone = reconstruct_frame(
            scan.header,
            [Readouts(run.head[part], run.samples[part], run.trajectory[part])],  # type: ignore[index]
            [noise_run],
            Recipe("gridding"),
            CPU,
            Cache(),
        )
        np.testing.assert_array_equal(images[i].pixels, alone[0].pixels)
        assert images[i].time_stamp == run.head["acquisition_time_stamp"][8 * i]


def test_what_is_called_radial_but_has_no_spokes_is_weighted_all_the_same() -> None:
    points = grid_points((32, 32)).astype(np.float32)
    shots = shots_of(blob_kspace(points, (3, -5), 32 * 32)[None], points, space=encoding((1, 32, 32), kind=RADIAL))
    image = image_by("gridding", shots)
    assert distance(image.pixels[0, 0], blob((32, 32), (3, -5))) < tolerances.weighted(32, np.pi, sigma=SIGMA)

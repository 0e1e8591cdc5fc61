"""Stacks of stars and koosh balls: closed forms, the way round the FFT, BART, and simulated heads."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.cache import Cache
from recon.gather import gather, select
from recon.methods import Workbench
from recon.methods.grids import target_of
from recon.methods.hybrid import middle
from recon.methods.problem import CENTRE_LINES, espirit_maps
from recon.methods.sampling import sampling_of
from recon.methods.shots import unstacked
from recon.pipeline import frames_of, reconstruct
from recon.recipe import Recipe, Value
from recon.scan import Frame, Trajectory
from recon.simulate import SimulatedScan, nrmse, simulate
from recon.stack import partitions_of
from tests import tolerances
from tests.recon.judges import Bart
from tests.recon.methods.phantoms import (
    CPU,
    SIGMA,
    blob,
    blob_kspace,
    distance,
    encoding,
    image_by,
    shots_of,
    spokes,
)

RADIAL = Trajectory.RADIAL
HEADS = {"head-stars": 32, "head-koosh": 20}


def stacked(plane: NDArray[np.float32], partitions: int) -> NDArray[np.float32]:
    """The planar shots [shot, sample, 2] in each partition, one shot in all of them before the next."""
    kz = 2 * np.pi * (np.arange(partitions) - partitions // 2) / partitions
    shape = (len(plane), partitions, plane.shape[1])
    deep = np.broadcast_to(kz[None, :, None], shape)
    flat = np.broadcast_to(plane[:, None], (*shape, 2))
    points = np.concatenate([deep[..., None], flat], axis=-1)
    return points.reshape(-1, plane.shape[1], 3).astype(np.float32)


def stack_frame(n: int = 32, partitions: int = 16, count: int = 60) -> Frame:
    points = stacked(spokes(count, 2 * n), partitions)
    space = encoding((partitions, n, 2 * n), recon=(partitions, n, n), kind=RADIAL)
    kspace = blob_kspace(points, (1, 3, -5), partitions * 2 * n * n)[None]
    return shots_of(kspace, points, space=space)


def shuffled(frame: Frame) -> Frame:
    """The same shots, the partitions in another order each time: no stack in the same order any more."""
    assert frame.trajectory is not None
    order = np.random.default_rng(0).permutation(len(frame.trajectory))
    density = None if frame.density is None else frame.density[order]
    return replace(frame, kspace=frame.kspace[:, order], trajectory=frame.trajectory[order], density=density)


@cache
def measured(protocol: str, *, noise: float) -> SimulatedScan:
    return simulate(protocol, seed=3, coils=6, matrix=HEADS[protocol], noise=noise)


def frame_of_scan(simulated: SimulatedScan) -> Frame:
    (index,), _ = frames_of(simulated.scan)
    return gather(simulated.scan.header, select(simulated.scan.readouts, index.rows))


def test_geometry_tells_a_stack() -> None:
    frame = stack_frame(8, 4, 5)
    rows = partitions_of(frame)
    assert rows is not None and rows.tolist() == [[p + 4 * s for s in range(5)] for p in range(4)]
    assert partitions_of(shuffled(frame)) is None
    assert frame.trajectory is not None
    ramp, missing, turned = frame.trajectory.copy(), frame.trajectory[:-1], frame.trajectory.copy()
    ramp[3, :, 0] += np.linspace(0, 0.1, 16)
    turned[4, :, 1:] = turned[4, :, :0:-1]
    for points in (ramp, missing, turned):
        assert partitions_of(replace(frame, trajectory=points)) is None
    assert partitions_of(replace(frame, trajectory=frame.trajectory[:, :, 1:])) is None


def test_a_stack_gives_the_values_of_the_object() -> None:
    frame = stack_frame()
    image = image_by("gridding", frame)
    assert distance(image.pixels[0], blob((16, 32, 32), (1, 3, -5))) < tolerances.weighted(32, np.pi, sigma=SIGMA)


def test_thinner_slices_keep_values_and_places() -> None:
    """Interpolated along z, and cropped: the values stay."""
    frame = stack_frame()
    finer = replace(
        frame.encoding, recon=replace(frame.encoding.recon, matrix=(20, 32, 32), field_of_view_mm=(10, 32, 32))
    )
    image = image_by("gridding", replace(frame, encoding=finer))
    assert image.spacing_mm == (0.5, 1, 1)
    z = (np.arange(20) - 10) * 0.5 - 1
    y, x = (np.arange(32) - 16 - 3)[:, None], np.arange(32) - 16 + 5
    truth = np.exp(-(z[:, None, None] ** 2 + y**2 + x**2) / (2 * SIGMA**2))
    assert distance(image.pixels[0], truth) < tolerances.weighted(32, np.pi, sigma=SIGMA)


@pytest.mark.parametrize("method", ["gridding", "cg-sense"])
def test_taking_a_stack_apart_changes_nothing(method: str) -> None:
    """The FFT along kz and planes are the transform in three dimensions, whose order of shots is free."""
    frame = frame_of_scan(measured("head-stars", noise=1))
    assert frame.trajectory is not None
    radius = np.linalg.norm(frame.trajectory[..., 1:], axis=-1)
    weighted = replace(frame, density=radius + np.float32(0.02))
    assert unstacked(weighted, target_of(frame.encoding), CPU).kspace.shape == (6, 8, 50, 64)
    assert unstacked(shuffled(weighted), target_of(frame.encoding), CPU).kspace.shape == (6, 400, 64)
    options: dict[str, Value] = {"eps": 1e-5} | ({} if method == "gridding" else {"iterations": 4})
    flat, deep = (image_by(method, each, **options).pixels for each in (weighted, shuffled(weighted)))
    # Weights of the wire are scaled on a Gaussian, whose tails 8 partitions cut off at 2σ: by so much the images may
    # differ in brightness. Each transform keeps its eps; of cg-sense's there are two for each coil's image and step.
    factor = np.vdot(deep, flat) / np.vdot(deep, deep)
    assert abs(factor - 1) < 0.05
    assert distance(flat, factor * deep) < (3e-5 if method == "gridding" else 4 * 3e-5)


@pytest.mark.parametrize("protocol", HEADS)
def test_simulated_heads_come_near_their_truth(protocol: str) -> None:
    simulated = measured(protocol, noise=1)
    (image,) = reconstruct(simulated.scan, Recipe("gridding"), CPU)
    (truth,) = simulated.truth
    # Ideal weights leave the noise alone; half as much again is what even weights and the edge of k-space cost.
    assert nrmse(image.pixels[0], truth) < 1.6 * truth.predicted_nrmse


@pytest.mark.parametrize("protocol", HEADS)
@pytest.mark.parametrize("method", ["cg-sense", "l1-wavelet"])
def test_iterative_methods_take_volumes(protocol: str, method: str) -> None:
    simulated = measured(protocol, noise=1)
    (image,) = reconstruct(simulated.scan, Recipe(method, {"iterations": 5}), CPU)
    assert nrmse(image.pixels[0], simulated.truth[0]) <= tolerances.HEARTS


def barts_points(frame: Frame) -> NDArray[np.complex64]:
    """The path in units of 1/FOV, with axes (x, y, z); BART counts a stack's partitions in whole numbers too."""
    assert frame.trajectory is not None
    size = np.array(target_of(frame.encoding).shape)
    return (frame.trajectory * (size / (2 * np.pi)))[..., ::-1].astype(np.complex64)


@pytest.mark.parametrize("protocol", HEADS)
def test_bart_grids_to_the_same_volume(protocol: str, tmp_path: Path) -> None:
    frame = frame_of_scan(measured(protocol, noise=0))
    assert frame.trajectory is not None
    # BART's kernel does not wrap round its grid of twice the size: three cells from the border it is still whole.
    reach = np.pi * (1 - 3 / np.array(target_of(frame.encoding).shape))
    inside = (np.abs(frame.trajectory) < reach).all(axis=-1)
    kspace = frame.kspace * inside
    density = (np.linalg.norm(frame.trajectory[..., 1:], axis=-1) + 0.1).astype(np.float32)
    image = image_by("gridding", replace(frame, kspace=kspace, density=density), eps=1e-5)
    shape = image.pixels.shape[1:]
    sizes = ":".join(str(n) for n in shape[::-1])
    bart = Bart(tmp_path)
    adjoint = bart(f"nufft -a -d {sizes}", barts_points(frame), (kspace * density)[:, :, :, None])
    judge = np.abs(bart("rss 8", adjoint)).reshape(shape)
    judge *= np.vdot(judge, image.pixels[0]) / np.vdot(judge, judge)
    assert distance(image.pixels[0], judge) < tolerances.bart_nufft(3) + 1e-5


@pytest.mark.parametrize("protocol", HEADS)
def test_bart_makes_no_better_volume_by_least_squares(protocol: str, tmp_path: Path) -> None:
    simulated = measured(protocol, noise=0)
    frame, bart = frame_of_scan(simulated), Bart(tmp_path)
    (image,) = reconstruct(simulated.scan, Recipe("cg-sense"), CPU)
    coils = gridded_coils(frame)
    (maps,) = espirit_maps(middle(CPU.fft(coils, axes=3), CENTRE_LINES), image.pixels.shape[1:], sets=1)
    theirs = bart("pics -S -i10 -d0 -t", barts_points(frame), frame.kspace[:, :, :, None], maps)
    size = np.abs(theirs).astype(np.float32).reshape(image.pixels.shape[1:])
    (truth,) = simulated.truth
    size *= np.float32(np.vdot(size, truth.pixels) / np.vdot(size, size))
    assert nrmse(image.pixels[0], truth) < 1.02 * nrmse(size, truth)


def gridded_coils(frame: Frame) -> NDArray[np.complex64]:
    """The image of each coil by itself [coil, z, y, x], from which the method finds its maps too."""
    target = target_of(frame.encoding)
    planes = unstacked(frame, target, CPU)
    sampling = sampling_of(planes, target, eps=1e-4, workbench=Workbench(CPU, Cache()))
    images = sampling.plan.adjoint((planes.kspace * sampling.weights * sampling.scale).astype(np.complex64))
    return images.reshape(len(images), *target.shape)

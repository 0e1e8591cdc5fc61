"""Spirals off resonance: edges as sharp as on resonance, simulated heads as near to their truth, or words why not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.cache import Cache
from recon.field import segments_of
from recon.methods import Workbench
from recon.methods.grids import target_of
from recon.methods.off_resonance import with_field
from recon.methods.shots import SegmentedNormal, shots_of, times_of
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Geometry, Image, Readouts, Scan, Space, Trajectory
from recon.simulate import SimulatedScan, nrmse, simulate
from recon.simulate.evolution import Evolving, evolved_spectrum, rate
from recon.simulate.measurement import head_array, seen_by
from recon.simulate.phantom import Shapes
from recon.simulate.trajectories import spiral
from recon.simulate.truth import unit
from recon.simulate.volumes import GRADIENTS, SPIRAL_SAMPLE_TIME_US
from tests.recon.methods.phantoms import CPU, image_by, noise_kspace
from tests.recon.methods.phantoms import shots_of as frame_of_shots

SIZE, VIEW_MM, RADIUS_MM, FINER = 64, 220.0, 60.0, 4


@cache
def measured(noise: float) -> SimulatedScan:
    return simulate("head-spiral", seed=3, coils=4, matrix=64, noise=noise)


def images(noise: float, method: str = "gridding", **parameters: Any) -> list[Image]:
    return list(reconstruct(measured(noise).scan, Recipe(method, parameters), CPU))


# ---- a disc whose edges are measured ----


def disc(frequency_hz: float) -> Frame:
    """A disc that far off resonance, with echoes 2 ms apart, on a grid of quarter voxels."""
    points = spiral(
        interleaves=4,
        matrix=SIZE,
        field_of_view_mm=VIEW_MM,
        sample_time_us=SPIRAL_SAMPLE_TIME_US,
        gradients=GRADIENTS,
    )
    encoded = Space((1, SIZE, SIZE), (5.0, VIEW_MM, VIEW_MM))
    fine = Space((1, FINER * SIZE, FINER * SIZE), (5.0, VIEW_MM, VIEW_MM))
    space = Encoding(encoded, fine, {}, Trajectory.SPIRAL)
    path = np.ascontiguousarray(points[..., ::-1] * np.float32(2 * np.pi))
    first, second = (
        replace(
            frame_of_shots(samples(points, encoded, frequency_hz, late_s=late), path, space=space),
            sample_time_us=SPIRAL_SAMPLE_TIME_US,
            te_ms=1000 * late,
        )
        for late in (0.0, 2e-3)
    )
    return replace(first, echoes=(first, second))


def samples(points: NDArray[np.float32], space: Space, frequency_hz: float, *, late_s: float) -> NDArray[np.complex64]:
    shape = Shapes(np.zeros((1, 2)), RADIUS_MM * np.eye(2)[None], np.ones(1, np.complex128))
    moving = Evolving(shape, np.array([rate(frequency_hz)]), np.zeros((1, 2)))
    coils = seen_by(head_array(4), Geometry(), np.array([VIEW_MM, VIEW_MM]))
    k = points.astype(np.float64) / np.array(space.spacing_mm[:0:-1])
    time_s = late_s + np.arange(points.shape[1]) * SPIRAL_SAMPLE_TIME_US * 1e-6
    exact = evolved_spectrum(moving, coils, k, np.broadcast_to(time_s, k.shape[:-1]))
    return np.asarray(unit(space, 2) * exact, np.complex64)


def corrected(frame: Frame, **parameters: Any) -> Frame:
    (made,) = with_field([frame], Calibration(), Recipe("gridding", parameters), Workbench(CPU, Cache()))
    return made


def edge_mm(frame: Frame, method: str) -> float:
    """From 10 to 90 % of the height: the mean over the disc's edges along x and y."""
    pixels = image_by(method, frame).pixels[0, 0]
    middle, step = len(pixels) // 2, VIEW_MM / len(pixels)
    rays = (pixels[middle, middle:], pixels[middle, middle::-1], pixels[middle:, middle], pixels[middle::-1, middle])
    return float(np.mean([width(np.asarray(ray, np.float64), step) for ray in rays]))


def width(ray: NDArray[np.float64], step_mm: float) -> float:
    """Of an edge about RADIUS_MM from the ray's start, whose height is the mean a little inside."""
    place = np.arange(len(ray)) * step_mm
    height = ray[(place > RADIUS_MM - 30) & (place < RADIUS_MM - 10)].mean()
    near = np.flatnonzero((place > RADIUS_MM - 15) & (place < RADIUS_MM + 15))
    low = near[np.flatnonzero(ray[near] >= 0.1 * height)[-1]]
    high = near[np.flatnonzero(ray[near] >= 0.9 * height)[-1]]

    def crossing(i: int, level: float) -> float:
        return float(place[i] + step_mm * (ray[i] - level) / (ray[i] - ray[i + 1]))

    return crossing(int(low), 0.1 * height) - crossing(int(high), 0.9 * height)


@pytest.mark.parametrize("method", ["gridding", "cg-sense"])
def test_edges_are_as_sharp_as_on_resonance(method: str) -> None:
    """100 Hz turn the signal by 0.6 of a circle until the end of the readout."""
    sharp = edge_mm(replace(disc(0.0), echoes=()), method)
    blurred = edge_mm(replace(disc(100.0), echoes=()), method)
    again = edge_mm(corrected(disc(100.0)), method)
    assert again == pytest.approx(sharp, rel=0.1)
    assert blurred > 1.25 * sharp


# ---- simulated heads ----


@pytest.mark.parametrize("method", ["gridding", "cg-sense", "l1-wavelet"])
def test_simulated_heads_come_near_their_truth(method: str) -> None:
    simulated = measured(1.0)
    right, wrong = (images(1.0, method, off_resonance=how, **few(method)) for how in ("correct", "off"))
    (truth,) = simulated.truth
    assert len(right) == len(wrong) == 1
    near, far = (nrmse(each[0].pixels[0], truth) for each in (right, wrong))
    assert near < 0.6 * far
    if method == "gridding":  # the others' few iterations leave an error of their own
        assert near < 1.2 * truth.predicted_nrmse < 0.4 * far


def few(method: str) -> dict[str, int]:
    return {} if method == "gridding" else {"iterations": 4}


def test_the_correction_is_told() -> None:
    (image,) = images(1.0)
    assert image.comments == ("off-resonance from -100 to 114 Hz is corrected in 6 time segments",)
    assert not images(1.0, off_resonance="off")[0].comments


def test_fewer_coils_do() -> None:
    (image,) = images(1.0, coils=3)
    assert nrmse(image.pixels[0], measured(1.0).truth[0]) < 2 * measured(1.0).truth[0].predicted_nrmse


NOT_FOUND = "off-resonance could not be found and is not corrected: "


def test_one_echo_is_not_enough() -> None:
    scan = measured(1.0).scan
    noise, run = scan.readouts
    kept = run.head["contrast"] == 0
    assert run.trajectory is not None
    one = Scan(scan.header, (noise, Readouts(run.head[kept], run.samples[kept], run.trajectory[kept])))
    (image,) = reconstruct(one, Recipe("gridding"), CPU)
    assert image.comments == (f"{NOT_FOUND}calibration echoes came at [2.0] ms, expected two rising echo times",)
    np.testing.assert_array_equal(image.pixels, images(1.0, off_resonance="off")[0].pixels)


def test_echoes_of_the_same_time_tell_nothing() -> None:
    scan = measured(1.0).scan
    (image,) = reconstruct(replace(scan, header=replace(scan.header, te_ms=(2.0, 2.0))), Recipe("gridding"), CPU)
    assert image.comments[0].startswith(f"{NOT_FOUND}calibration echoes came at [2.0, 2.0] ms")


def test_grasp_corrects_every_frame_and_counts_no_echo_as_a_frame() -> None:
    scan = simulate("head-spiral", seed=3, coils=3, matrix=32, repetitions=2, noise=0.0)
    found = list(reconstruct(scan.scan, Recipe("grasp", {"window": 2, "strength": 0.0}), CPU))
    assert len(found) == 2 and all("time segments" in image.comments[0] for image in found)
    assert max(nrmse(image.pixels[0], truth) for image, truth in zip(found, scan.truth, strict=True)) < 0.05


# ---- laws ----


def test_time_segments_keep_forward_and_adjoint_a_pair() -> None:
    frame = corrected(disc(100.0))
    shots = shots_of(frame, target_of(frame.encoding), Calibration(), Recipe("gridding"), Workbench(CPU, Cache()))
    assert shots.segments is not None
    x, y = noise_kspace((2, *shots.planned)), noise_kspace((2, *shots.kspace.shape[1:]))
    one, other = np.vdot(y, shots.forward(x)), np.vdot(shots.adjoint(y), x)
    # Each of the moments' transforms and sums rounds by itself.
    assert abs(one - other) < 1e-5 * np.linalg.norm(y) * np.linalg.norm(shots.forward(x))
    normal = SegmentedNormal(shots)
    assert np.vdot(x, normal(x)).real > 0
    assert abs(np.vdot(x, normal(x)).imag) < 1e-5 * np.vdot(x, normal(x)).real


def test_no_field_is_no_segment() -> None:
    """A field of 0 Hz has one moment of phase 1: the image is that without a field."""
    frame = disc(0.0)
    made = segments_of(np.zeros((8, 8)), (0.0, 0.0), times_of(frame), like=noise_kspace((1, 8, 8)))
    np.testing.assert_allclose(made.weights, 1, atol=1e-6)
    np.testing.assert_allclose(made.phases, 1, atol=1e-6)

"""`grasp` follows a lesion as the agent arrives where single frames have too few spokes; BART is asked to do better."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.contract import Complex
from recon.cache import Cache
from recon.errors import RecipeError
from recon.gather import gather, select
from recon.methods import METHODS, Workbench, grouping_of
from recon.methods.grasp import temporal_variation
from recon.methods.grids import target_of
from recon.methods.problem import maps_of, weighted_problem
from recon.methods.shots import Shots, shots_of
from recon.pipeline import frames_of, reconstruct
from recon.prepare import whitening
from recon.prox import gradient
from recon.recipe import Recipe
from recon.scan import Calibration, Counters, Image
from recon.simulate import SimulatedScan, nrmse, simulate
from recon.simulate.anatomies import BREAST, labels
from recon.simulate.truth import pixel_centers
from recon.solve import Composite, fista, largest_eigenvalue
from tests.recon.judges import Bart
from tests.recon.methods.phantoms import CPU, distance, encoding, frame_of, image_by, noise_kspace

FRAMES = 8
BARTS = 100  # iterations of BART's solver


@cache
def measured() -> SimulatedScan:
    return simulate("breast-stars", seed=3, coils=4, matrix=48, repetitions=FRAMES)


@cache
def images(method: str) -> tuple[Image, ...]:
    window = measured().scan.header.encodings[0].limits["kspace_encode_step_1"].maximum + 1
    return tuple(reconstruct(measured().scan, Recipe(method, {"window": window} if method == "grasp" else {}), CPU))


def tumour(image: Image) -> NDArray[np.bool_]:
    geometry = image.geometry
    turn = np.array([geometry.read_dir, geometry.phase_dir, geometry.slice_dir])
    points = np.array(geometry.position_mm) + pixel_centers(measured().scan.header.encodings[0].recon, 3) @ turn
    found = labels(BREAST, points) == [region.name for region in BREAST].index("tumour")
    return np.asarray(found.reshape(image.pixels.shape[1:]))


def curve_error(found: tuple[Image, ...]) -> float:
    """How far the tumour's mean over time is from the truth's, relative to it."""
    inside = tumour(found[0])
    curves = [[pixels[inside].mean() for pixels in each] for each in (shown(found), true())]
    return distance(np.array(curves[0]), np.array(curves[1]))


def shown(found: tuple[Image, ...]) -> list[NDArray[np.generic]]:
    return [image.pixels[0] for image in found]


def true() -> list[NDArray[np.float32]]:
    return [truth.pixels for truth in measured().truth]


def error(found: tuple[Image, ...]) -> float:
    squares = [nrmse(image.pixels[0], truth) ** 2 for image, truth in zip(found, measured().truth, strict=True)]
    return float(np.sqrt(np.mean(squares)))


def test_the_lesion_enhances() -> None:
    inside = tumour(images("grasp")[0])
    assert np.count_nonzero(inside) >= 6
    course = [pixels[inside].mean() for pixels in true()]
    assert course[-1] > 1.2 * course[0]


def test_frames_together_are_nearer_to_the_truth_than_each_by_itself() -> None:
    """A fifth of the spokes that Nyquist asks for, in space and in the lesion's course.

    In space also than what noise alone makes of a frame by itself with ideal weights, which coils alone do not reach.
    """
    together, alone = images("grasp"), images("cg-sense")
    least = np.sqrt(np.mean([truth.predicted_nrmse**2 for truth in measured().truth]))
    assert [image.counters for image in together] == [Counters(repetition=i) for i in range(FRAMES)]
    assert error(together) < least < error(alone)
    assert curve_error(together) < curve_error(alone)
    assert curve_error(together) < 0.03


def test_windows_of_time_are_the_repetitions_that_are_as_long() -> None:
    by_counter, by_time = (
        reconstruct(measured().scan, Recipe("grasp", {"iterations": 1, **choice}), CPU)
        for choice in ({"over": "repetition"}, {"over": "time", "window": 16})
    )
    for one, other in zip(by_counter, by_time, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert (one.counters, one.index) == (other.counters, other.index)


def test_finer_windows_make_more_frames() -> None:
    recipe = Recipe("grasp", {"window": 8, "iterations": 1})
    found = list(reconstruct(measured().scan, recipe, CPU))
    assert [image.counters.repetition for image in found] == list(range(2 * FRAMES))
    stamps = [image.time_stamp for image in found]
    assert len(set(stamps)) == 2 * FRAMES and stamps == sorted(stamps)


def test_a_strong_prior_leaves_no_change_in_time() -> None:
    found = list(reconstruct(measured().scan, Recipe("grasp", {"window": 16, "strength": 1e3, "iterations": 40}), CPU))
    steps = [distance(a.pixels, b.pixels) for a, b in pairwise(found)]
    assert max(steps) < 0.02


def test_temporal_variation_is_a_prox_over_the_first_axis() -> None:
    """It leaves what is constant, and moves two frames towards each other by its strength: x ± s·sign."""
    still = np.repeat(noise_kspace((1, 4, 4)), 3, axis=0)
    np.testing.assert_allclose(temporal_variation(5.0)(still, 1.0, 0), still, atol=1e-6)
    pair = np.array([[0.0], [10.0]], np.complex64)
    prox = temporal_variation(2.0)
    for i in range(20):  # each call goes on with the dual of the last one
        moved = prox(pair, 0.5, i)
    np.testing.assert_allclose(moved, [[1.0], [9.0]], atol=1e-3)


def test_cartesian_scans_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        image_by("grasp", frame_of(noise_kspace((2, 1, 8, 8))))
    assert str(caught.value) == "the method grasp needs a trajectory, the header's is cartesian: use llr or l1-wavelet"


def test_what_it_needs_grows_with_the_scan() -> None:
    space = measured().scan.header.encodings[0]
    method, raw = METHODS["grasp"], measured().scan.readouts[-1].samples.nbytes
    sizes = [method.needs(space, 4, recipe=Recipe("grasp", {"window": 16}), raw_bytes=n * raw) for n in (1, 4)]
    assert sizes[0][0] > 3 * raw and sizes[1][1] == pytest.approx(4 * sizes[0][1])
    by_counter = method.needs(space, 4, recipe=Recipe("grasp", {"over": "repetition"}), raw_bytes=raw)
    assert by_counter[1] == pytest.approx(sizes[0][1])
    assert grouping_of(Recipe("grasp")).whole
    assert method.bytes_needed(encoding((1, 16, 16)), 4) > 0 and method.cost(encoding((1, 16, 16)), 4) > 0


# ---- BART on one plane ----


def plane_of(shots: Shots, matrix: Complex) -> Shots:
    """The middle plane of a stack's `shots`, white."""
    middle = shots.kspace.shape[1] // 2
    white = np.tensordot(matrix, shots.kspace[:, middle], axes=1).astype(np.complex64)
    return replace(shots, kspace=white, calibration=Calibration(), grid=(1, *shots.grid[1:]))


@cache
def planes() -> tuple[tuple[Shots, ...], Complex]:
    """The middle plane in each frame, and maps [1, coil, y, x] from all frames' spokes."""
    scan, bench = measured().scan, Workbench(CPU, Cache())
    indices, noise = frames_of(scan)
    every = [gather(scan.header, select(scan.readouts, index.rows)) for index in indices]
    known = whitening(noise, header=scan.header, sample_time_us=every[0].sample_time_us)
    assert known.whitening is not None
    target, recipe = target_of(every[0].encoding), Recipe("grasp")
    made = [plane_of(shots_of(frame, target, Calibration(), recipe, bench), known.whitening) for frame in every]
    whole = gather(scan.header, select(scan.readouts, np.concatenate([index.rows for index in indices])))
    all_shots = plane_of(shots_of(whole, target, Calibration(), recipe, bench), known.whitening)
    return tuple(made), maps_of(all_shots, all_shots.images(), recipe)


def objective(found: Complex, strength: float) -> float:
    """½ Σ w |F S x − y|² + strength · Σ |x(t + 1) − x(t)|, less a constant."""
    parts, maps = planes()
    problems = [weighted_problem(shots, shots.images(), maps) for shots in parts]
    data = sum(
        0.5 * np.vdot(x, p.normal(x)).real - np.vdot(p.rhs, x).real for p, x in zip(problems, found, strict=True)
    )
    return float(data + strength * np.abs(gradient(found, (0,))).sum())


def barts(strength: float, bart: Bart) -> Complex:
    """BART's images [frame, y, x] of the same objective; its tenth dimension is time, its transform ours over n."""
    parts, maps = planes()
    n, lead = parts[0].grid[1], (len(parts), 1, 1, 1, 1, 1, 1)
    points = np.zeros((len(parts), *parts[0].trajectory.shape[:2], 3), np.complex64)
    points[..., :2] = [shots.trajectory[..., ::-1] * n / (2 * np.pi) for shots in parts]
    kspace = np.stack([shots.kspace * shots.sampling.scale / n for shots in parts])
    weights = np.stack([np.sqrt(shots.sampling.weights) * n for shots in parts]).astype(np.complex64)
    files = {
        name: str(bart.write(array.reshape(lead + shape)))
        for name, array, shape in (
            ("t", points, (1, *points.shape[1:])),
            ("p", weights, (1, *weights.shape[1:], 1)),
        )
    }
    command = f"pics -w1 -d0 -i{BARTS} -R T:1024:0:{strength} -t {files['t']} -p {files['p']}"
    found = bart(command, kspace.reshape(*lead, *kspace.shape[1:], 1), maps[0][:, None])
    return found.reshape(len(parts), n, n)


def ours(strength: float, iterations: int) -> Complex:
    parts, maps = planes()
    problems = [weighted_problem(shots, shots.images(), maps) for shots in parts]
    rhs = np.stack([problem.rhs for problem in problems])
    step = 1 / max(largest_eigenvalue(problem.normal, problem.rhs) for problem in problems)

    def normal(x: Complex) -> Complex:
        return np.stack([problem.normal(image) for problem, image in zip(problems, x, strict=True)])

    return fista(Composite(normal, rhs, temporal_variation(strength)), step=step, iterations=iterations, start=rhs)


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_bart_finds_no_lower_objective(strength: float, tmp_path: Path) -> None:
    """The same data, weights, maps and strength; BART's operator and solver are its own, and go on for longer."""
    own, theirs = ours(strength, 30), barts(strength, Bart(tmp_path))
    lowest = abs(objective(theirs, strength))
    assert objective(own, strength) <= objective(theirs, strength) + 0.001 * lowest
    # Both have the same minimum: what is left between them is what either has not yet reached of it.
    assert distance(own, theirs) < 0.03

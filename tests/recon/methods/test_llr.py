"""`llr` takes what echoes or moments have in common; exact truth and BART judge it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kernels.contract import Complex
from recon.errors import CalibrationError
from recon.gather import gather, select
from recon.methods import METHODS
from recon.methods.problem import espirit_maps
from recon.methods.together import merged_lines
from recon.operators import Operator, cartesian_sense
from recon.pipeline import frames_of, reconstruct
from recon.prepare import whitening
from recon.prox import low_rank_blocks
from recon.recipe import Recipe, Value
from recon.scan import Flag, Readouts, Scan
from recon.simulate import SimulatedScan, nrmse, simulate
from recon.solve import Composite, fista
from tests import tolerances
from tests.recon.judges import Bart
from tests.recon.methods.phantoms import CPU, distance, frame_of, image_by, noise_kspace
from tests.recon.methods.test_cg_sense import thinned

N, COILS, EXCESS = 64, 8, 24


@cache
def measured(protocol: str = "brain-ir") -> SimulatedScan:
    """Six inversion times, or six moments of a stack of stars."""
    if protocol == "brain-dsc":
        return simulate(protocol, seed=3, coils=COILS, matrix=N, repetitions=6)
    if protocol == "breast-stars":
        return simulate(protocol, seed=3, coils=4, matrix=32, repetitions=6)
    return simulate(protocol, seed=3, coils=COILS, matrix=N)


@cache
def third() -> Scan:
    return thinned(measured().scan, (3, 1), centre=EXCESS)


def dealt_out(scan: Scan) -> Scan:
    """Every third line, other ones in each contrast and repetition: none of them has a centre of its own."""
    runs = []
    for run in scan.readouts:
        place = run.head["kspace_encode_step_1"].astype(int) + run.head["contrast"] + run.head["repetition"]
        kept = (place % 3 == 0) | ((run.head["flags"] & Flag.IS_NOISE_MEASUREMENT.mask) != 0)
        runs.append(Readouts(run.head[kept], run.samples[kept]))
    return replace(scan, readouts=tuple(runs))


def error(simulated: SimulatedScan, scan: Scan, method: str, **parameters: Value) -> float:
    """NRMSE of all images together."""
    found = {image.counters: image for image in reconstruct(scan, Recipe(method, parameters), CPU)}
    squares = [nrmse(found[truth.counters].pixels[0], truth) ** 2 for truth in simulated.truth]
    return float(np.sqrt(np.mean(squares)))


def test_contrasts_together_are_nearer_to_the_truth_than_each_by_itself() -> None:
    """A third of the lines, and noise: better than coils alone and than a sparse prior in space.

    That order is what the method is for. How much nearer depends on the object: there BART is the judge, below.
    """
    together = error(measured(), third(), "llr", over="contrast")
    assert together < error(measured(), third(), "cg-sense")
    assert together < error(measured(), third(), "l1-wavelet")


def test_moments_of_spokes_together_are_nearer_to_the_truth() -> None:
    """Than what noise alone makes of a moment by itself with ideal weights, which coils alone do not reach."""
    simulated = measured("breast-stars")
    least = np.sqrt(np.mean([truth.predicted_nrmse**2 for truth in simulated.truth]))
    assert error(simulated, simulated.scan, "llr") < least < error(simulated, simulated.scan, "cg-sense")


def test_without_a_prior_the_frames_are_those_of_least_squares() -> None:
    """Both solve the same equations to their end, through maps of one frame or of the mean: the noise grows alike."""
    plain = error(measured(), third(), "llr", strength=0.0, iterations=300, tolerance=0.0)
    assert plain == pytest.approx(error(measured(), third(), "cg-sense", iterations=100), rel=0.1)


def test_a_centre_dealt_out_among_frames_makes_their_maps() -> None:
    simulated = measured("brain-dsc")
    scan = dealt_out(simulated.scan)
    with pytest.raises(CalibrationError):
        error(simulated, scan, "cg-sense")
    assert error(simulated, scan, "llr") < tolerances.HALVED * error(simulated, scan, "fft")


def test_unlike_contrasts_lend_one_another_no_lines_for_maps() -> None:
    with pytest.raises(CalibrationError, match="expected at least 8 for coil maps"):
        error(measured(), dealt_out(measured().scan), "llr")


def test_merged_lines_are_the_mean_of_those_measured() -> None:
    kspace = noise_kspace((2, 1, 3, 4))
    masks = np.array([[[True, True, False]], [[True, False, False]]])
    merged = merged_lines([frame_of(kspace * (1 + i), sampled=mask) for i, mask in enumerate(masks)])
    assert merged.sampled is not None and merged.sampled.tolist() == [[True, True, False]]
    np.testing.assert_allclose(merged.kspace[:, :, 0], 1.5 * kspace[:, :, 0], rtol=1e-6)
    np.testing.assert_array_equal(merged.kspace[:, :, 1:], kspace[:, :, 1:] * [[[[1], [0]]]])


def test_two_runs_are_bitwise_equal() -> None:
    one, other = (list(reconstruct(third(), Recipe("llr", {"iterations": 4}), CPU)) for _ in range(2))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, other, strict=True))


def test_a_block_of_noise_vanishes_at_its_own_strength() -> None:
    """The expected largest singular value is at most σ√2 (√rows + √columns); a fluctuation passes it by less than 5 %.

    That of a tenth more of the voxels' energy stays: what is alike in all frames is worth √(frames·voxels) of it.
    """
    noise = noise_kspace((12, 64, 64))
    gone = low_rank_blocks(CPU, 1.05, 2)(noise, 1.0, 3)
    assert not gone.any()
    kept = low_rank_blocks(CPU, 1.05, 2)(noise + 10, 1.0, 3)
    assert np.mean(np.abs(kept)) > 5


def test_sets_are_images_of_their_own() -> None:
    x = noise_kspace((3, 2, 16, 16))
    prox = low_rank_blocks(CPU, 0.5, 2)
    both = prox(x, 1.0, 2)
    for i in range(2):
        np.testing.assert_array_equal(both[:, i], prox(np.ascontiguousarray(x[:, i]), 1.0, 2))
    pair = list(reconstruct(third(), Recipe("llr", {"sets": 2, "iterations": 3}), CPU))
    assert len(pair) == len(measured().truth)


def test_one_frame_by_itself_is_an_image() -> None:
    kspace = noise_kspace((3, 1, 32, 32))
    alone = image_by("llr", frame_of(kspace), strength=0.0, tolerance=0.0, iterations=2)
    # Fully sampled, least squares are the zero-filled image, which the solver starts from.
    expected = image_by("cg-sense", frame_of(kspace))
    assert distance(alone.pixels, expected.pixels) < 4 * (tolerances.fft(32 * 32) + tolerances.sum_of(2 * 3))


def test_what_it_needs_grows_with_the_frames() -> None:
    space, method = measured().scan.header.encodings[0], METHODS["llr"]
    one = replace(space, limits={name: limit for name, limit in space.limits.items() if name != "contrast"})
    (little, brief), (much, long) = (
        method.needs(each, COILS, recipe=Recipe("llr"), raw_bytes=10**6) for each in (one, space)
    )
    assert much > little and long == pytest.approx(6 * brief)


# ---- BART on one plane ----


@cache
def white() -> tuple[Complex, Complex]:
    """White k-space [contrast, coil, 1, ky, kx] of the scan, and maps [coil, 1, y, x] of its mean."""
    scan = third()
    indices, noise = frames_of(scan)
    frames = [gather(scan.header, select(scan.readouts, index.rows)) for index in indices]
    matrix = whitening(noise, header=scan.header, sample_time_us=frames[0].sample_time_us).whitening
    assert matrix is not None
    raw = np.stack([np.tensordot(matrix, frame.kspace, axes=1) for frame in frames]).astype(np.complex64)
    kspace = CPU.fft(CPU.ifft(raw, axes=1, crop=(N,)), axes=1)
    low, high = (N - EXCESS) // 2, (N + EXCESS) // 2
    (maps,) = espirit_maps(np.ascontiguousarray(kspace.mean(axis=0)[:, :, low:high, low:high]), (1, N, N), sets=1)
    return kspace, np.ascontiguousarray(maps)


def away(found: Complex) -> float:
    """NRMSE of images [contrast, 1, y, x]."""
    squares = [nrmse(np.abs(image), truth) ** 2 for image, truth in zip(found, measured().truth, strict=True)]
    return float(np.sqrt(np.mean(squares)))


def sense() -> Operator:
    kspace, maps = white()
    sampled = np.abs(kspace[0]).any(axis=(0, 3)).astype(np.float32)[..., None]
    return cartesian_sense(CPU, maps, sampled)


def ours(strength: float) -> Complex:
    """Thirty iterations from zero, with the maps that BART gets."""
    kspace, _ = white()
    operator = sense()
    rhs = np.stack([operator.adjoint(each) for each in kspace])

    def normal(x: Complex) -> Complex:
        return np.stack([operator.normal(image) for image in x])

    prior = low_rank_blocks(CPU, strength, 2)
    flat = Composite(lambda x: normal(x[:, None])[:, 0], rhs[:, 0], prior)
    return fista(flat, step=1.0, iterations=30)[:, None]


def barts(strength: float, bart: Bart) -> Complex:
    """BART's images [contrast, 1, y, x] by blocks as large; its sixth dimension is the echo time."""
    kspace, maps = white()
    found = bart(f"pics -w1 -i30 -d0 -b8 -R L:7:7:{strength}", kspace[:, None], maps)
    return found.reshape(len(kspace), 1, N, N)


def test_bart_comes_no_nearer_to_the_truth(tmp_path: Path) -> None:
    """Where each takes its best of the same range of strengths, whose units differ; nor than the method by default."""
    strengths = (0.1, 0.2, 0.4, 0.8)
    theirs = [away(barts(strength, Bart(tmp_path))) for strength in strengths]
    own = [away(ours(strength)) for strength in strengths]
    assert 0 < np.argmin(theirs) < 3 and 0 < np.argmin(own) < 3
    assert min(own) <= 1.02 * min(theirs)
    assert error(measured(), third(), "llr") <= 1.02 * min(theirs)

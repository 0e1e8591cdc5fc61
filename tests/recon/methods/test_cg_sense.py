"""`cg-sense` finds what zero filling cannot, and says when it has no centre to start from."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kernels.contract import Complex
from recon.errors import ScanError
from recon.gather import gather, select
from recon.mrd.hdf5 import read_scan
from recon.pipeline import frames_of, reconstruct
from recon.recipe import Recipe, Value
from recon.scan import Calibration, Flag, Readouts, Scan
from recon.simulate import SimulatedScan, nrmse, simulate
from tests import tolerances
from tests.recon.judges import Bart, shepp_logan
from tests.recon.methods.phantoms import CPU, distance, frame_of, image_by, noise_kspace


@cache
def measured(protocol: str, matrix: int, *, noise: float) -> SimulatedScan:
    return simulate(protocol, seed=3, coils=8, matrix=matrix, noise=noise)


def thinned(scan: Scan, steps: tuple[int, int], *, centre: int = 24) -> Scan:
    """Every `steps`-th line along both steps, and a full centre whose lines serve imaging and calibration alike."""
    (encoding,) = scan.header.encodings
    runs = []
    for run in scan.readouts:
        regular, middle = np.ones((2, len(run.head)), np.bool_)
        for name, step in zip(("kspace_encode_step_1", "kspace_encode_step_2"), steps, strict=True):
            limit = encoding.limits[name]
            place = run.head[name].astype(int) - limit.center
            regular &= place % step == 0
            middle &= (abs(place) <= centre // 2) | (limit.minimum == limit.maximum)
        kept = regular | middle | ((run.head["flags"] & Flag.IS_NOISE_MEASUREMENT.mask) != 0)
        runs.append(Readouts(run.head[kept], run.samples[kept]))
    header = replace(scan.header, encodings=(replace(encoding, acceleration=steps),))
    return replace(scan, header=header, readouts=tuple(runs))


def error(simulated: SimulatedScan, scan: Scan, method: str, **parameters: Value) -> float:
    """NRMSE of the first image of `scan` against the truth of the full measurement."""
    image = next(reconstruct(scan, Recipe(method, parameters), CPU))
    (truth,) = (each for each in simulated.truth if each.counters == image.counters)
    return nrmse(image.pixels[0], truth)


@pytest.mark.parametrize(
    ("protocol", "matrix", "steps"), [("brain-se", 96, (2, 1)), ("brain-se", 96, (3, 1)), ("head-gre3d", 48, (2, 2))]
)
def test_it_removes_the_aliases_that_zero_filling_leaves(protocol: str, matrix: int, steps: tuple[int, int]) -> None:
    simulated = measured(protocol, matrix, noise=0)
    scan = thinned(simulated.scan, steps)
    # Without noise what is left is the error of maps from 24 lines.
    assert error(simulated, scan, "cg-sense") < tolerances.HALVED * error(simulated, scan, "fft")


def test_more_iterations_remove_more() -> None:
    simulated = measured("brain-se", 96, noise=0)
    scan = thinned(simulated.scan, (3, 1))
    one, five = (error(simulated, scan, "cg-sense", iterations=n) for n in (1, 5))
    assert five < tolerances.HALVED * one


def test_noise_grows_no_more_than_it_must() -> None:
    simulated = measured("brain-se", 96, noise=1)
    (truth,) = (each for each in simulated.truth if each.counters.slice == 0)
    # 60 of 96 lines, times a geometry factor that eight coils keep below 1.5 at twofold acceleration.
    bound = 1.5 * np.sqrt(96 / 60) * truth.predicted_nrmse
    assert error(simulated, thinned(simulated.scan, (2, 1)), "cg-sense") <= bound


def test_regularisation_shrinks_the_image() -> None:
    """For fully sampled k-space the normal operator is the identity, so λ = 1 halves the image."""
    frame = frame_of(noise_kspace((4, 1, 32, 32)))
    plain, shrunk = (image_by("cg-sense", frame, **{"lambda": strength}).pixels for strength in (0.0, 1.0))
    # The identity by two transforms of 1024 values and two sums over 4 complex coils, solved to 1e-6 each time.
    bound = 2 * (tolerances.fft(32 * 32) + tolerances.sum_of(2 * 4) + 1e-6)
    assert distance(shrunk, plain / 2) < bound


def test_whitening_mixes_the_coils_before_all_else() -> None:
    kspace, mixing = noise_kspace((3, 1, 32, 32)), noise_kspace((3, 3))
    mixed = np.tensordot(mixing, kspace, axes=1).astype(np.complex64)
    white = image_by("cg-sense", frame_of(kspace), calibration=Calibration(whitening=mixing))
    # Both round, once before the transform and once after it; mixing may shrink what was rounded by its condition.
    bound = 2 * np.linalg.cond(mixing) * (tolerances.fft(32 * 32) + tolerances.sum_of(2 * 3))
    assert distance(white.pixels, image_by("cg-sense", frame_of(mixed)).pixels) < bound


def folded(kspace: Complex, lines: int) -> Complex:
    """K-space of the central `lines` lines' field of view [coil, 1, ky, kx]: what is outside folds onto the inside."""
    image = CPU.ifft(kspace, axes=2)
    start = (kspace.shape[2] - lines) // 2
    inside = image[:, :, start : start + lines].copy()
    inside[:, :, lines - start :] += image[:, :, :start]
    inside[:, :, :start] += image[:, :, start + lines :]
    return CPU.fft(inside, axes=2)


def test_two_sets_of_maps_unfold_what_is_larger_than_the_field_of_view() -> None:
    """The object spans more than the 56 lines: in the overlap one set must fail, and two sets hold both parts."""
    simulated = measured("brain-se", 96, noise=0)
    frames, _ = frames_of(simulated.scan)
    whole = gather(simulated.scan.header, select(simulated.scan.readouts, frames[0].rows)).kspace
    kspace = folded(CPU.fft(CPU.ifft(whole, axes=1, crop=(96,)), axes=1), 56)
    sampled = (np.arange(56) % 2 == 0) | (abs(np.arange(56) - 28) <= 12)
    truth = CPU.rss(CPU.ifft(kspace, axes=2))
    errors = [
        distance(image_by("cg-sense", frame_of(kspace, sampled=sampled[None]), sets=sets).pixels[0], truth)
        for sets in (1, 2)
    ]
    assert errors[1] < tolerances.HALVED * errors[0]


def test_more_sets_than_coils_are_refused() -> None:
    with pytest.raises(ScanError) as caught:
        image_by("cg-sense", frame_of(noise_kspace((2, 1, 32, 32))), sets=3)
    assert str(caught.value) == ("sets is 3, the scan has 2 coils: ask for at most as many sets as there are coils")


def test_two_sets_work_for_trajectories_too() -> None:
    simulated = simulate("heart-radial", seed=3, coils=4, matrix=48, repetitions=1)
    one, two = (error(simulated, simulated.scan, "cg-sense", iterations=5, sets=sets) for sets in (1, 2))
    assert two <= tolerances.HEARTS
    assert one != two


def test_a_centre_too_small_for_maps_is_refused() -> None:
    sampled = np.arange(64)[None] % 2 == 0
    with pytest.raises(ScanError) as caught:
        image_by("cg-sense", frame_of(noise_kspace((2, 1, 64, 64)), sampled=sampled))
    assert str(caught.value) == (
        "1 lines are fully sampled at the centre of kspace_encode_step_1, expected at least 8 for coil maps:"
        " measure calibration lines or use fft"
    )


@pytest.mark.parametrize("protocol", ["heart-radial", "heart-spiral"])
def test_simulated_hearts_come_near_their_truth(protocol: str) -> None:
    simulated = simulate(protocol, seed=3, coils=4, matrix=48, repetitions=1)
    assert error(simulated, simulated.scan, "cg-sense", iterations=5) <= tolerances.HEARTS


def test_calibration_lines_of_ismrmrds_generator_are_used(tmp_path: Path) -> None:
    options = ("-m", "64", "-c", "8", "-n", "0")
    (full,) = reconstruct(read_scan(shepp_logan(tmp_path / "full.h5", *options)), Recipe("fft"), CPU)
    scan = read_scan(shepp_logan(tmp_path / "half.h5", *options, "-a", "2", "-w", "24"))
    for image in reconstruct(scan, Recipe("cg-sense"), CPU):
        assert distance(image.pixels, full.pixels) < tolerances.UNFOLDED
    (zero_filled, _) = reconstruct(scan, Recipe("fft"), CPU)
    assert distance(zero_filled.pixels, full.pixels) > 0.2


@pytest.mark.parametrize("step", [2, 3])
def test_bart_makes_no_better_image_of_the_same_lines(step: int, tmp_path: Path) -> None:
    """Nor than `grappa`, which BART does not have; within the two percent that the project promises."""
    bart = Bart(tmp_path)
    simulated = measured("brain-se", 96, noise=0)
    scan = thinned(simulated.scan, (step, 1))
    frames, _ = frames_of(scan)
    (index,) = (each for each in frames if each.counters.slice == 0)
    kspace = gather(scan.header, select(scan.readouts, index.rows)).kspace
    kspace = CPU.fft(CPU.ifft(kspace, axes=1, crop=(96,)), axes=1)
    image = bart("pics -S -i10 -d0", kspace, bart("ecalib -m1 -r24 -c0", kspace)).reshape(1, 96, 96)
    (truth,) = (each for each in simulated.truth if each.counters == index.counters)
    # BART scales its result by the data; both estimate the truth, so the best factor is taken for it.
    size = np.abs(image).astype(np.float32)
    size *= np.float32(np.vdot(size, truth.pixels) / np.vdot(size, size))
    for method in ("cg-sense", "grappa"):
        assert error(simulated, scan, method) <= 1.02 * nrmse(size, truth)

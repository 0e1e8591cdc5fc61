"""Echo-planar scans whose truth is exact: ghosts, displacement, shots, navigators, and what is said of each."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from bench.planar import ghost_level
from recon.assemble import Assembler
from recon.epi import UNDESCRIBED, WITHOUT_NAVIGATORS, fit_of, straight_line
from recon.errors import HeaderError, ScanError
from recon.scan import Flag, Readouts, Scan, Trajectory, TrajectoryDescription
from recon.simulate import SimulatedScan, nrmse
from recon.simulate.epi import gradient_for
from tests.recon.builders import header, heads, noise
from tests.recon.planar import ONE_SLICE, images_of, scan_of, with_encoding

# Noise-free. What is left is what a line does to itself while it is read (off-resonance and T2* within it, a gradient
# that lags on its ramps too) and the edge of the band, which samples on ramps see otherwise than a grid: 0.4 % at 32
# voxels, of which half again is room.
EXACT = 0.006
GHOST = 0.01
PHASECORR = Flag.IS_PHASECORR_DATA.mask


@cache
def single() -> SimulatedScan:
    return scan_of(ONE_SLICE)


def test_a_single_shot_is_free_of_ghosts() -> None:
    (image,), (truth,) = images_of(single().scan), single().truth
    assert image.provenance.method == "fft" and image.comments == ()
    assert nrmse(image.pixels[0], truth) < EXACT
    assert ghost_level(image, truth) < GHOST


def test_without_navigators_there_are_ghosts_and_the_image_says_so() -> None:
    simulated = scan_of(replace(ONE_SLICE, navigators=False))
    (image,) = images_of(simulated.scan)
    assert image.comments == (WITHOUT_NAVIGATORS,)
    assert ghost_level(image, simulated.truth[0]) > 20 * GHOST


@pytest.mark.parametrize("phase", [-3.0, 2.5])
def test_any_phase_between_odd_and_even_lines_is_found(phase: float) -> None:
    """Near ±π half of it is a matter of sign, which no magnitude shows."""
    simulated = scan_of(replace(ONE_SLICE, phase_rad=phase, late_us=-2.0))
    (image,), (truth,) = images_of(simulated.scan), simulated.truth
    assert nrmse(image.pixels[0], truth) < EXACT and ghost_level(image, truth) < GHOST


def test_several_shots_have_navigators_each() -> None:
    simulated = scan_of(replace(ONE_SLICE, shots=4))
    (image,), (truth,) = images_of(simulated.scan), simulated.truth
    assert nrmse(image.pixels[0], truth) < EXACT and ghost_level(image, truth) < GHOST


def test_off_resonance_displaces_by_frequency_times_spacing_times_lines_and_the_image_says_so() -> None:
    """50 Hz · 0.552 ms · 64 lines = 1.77 voxels against the order of the lines; the head's own 1 Hz comes on top."""
    plan, n = ONE_SLICE, 64
    spacing_s = gradient_for(n).total_us * 1e-6
    found = [images_of(scan_of(replace(plan, offset_hz=f), matrix=n).scan)[0] for f in (0.0, 50.0)]
    places = [np.average(np.arange(n), weights=image.pixels[0, 0].sum(axis=1) ** 2) for image in found]
    predicted = -50 * spacing_s * n
    assert places[1] - places[0] == pytest.approx(predicted, rel=0.03)
    assert found[0].comments == ()
    (said,) = found[1].comments
    assert "displaces the object by -1.8" in said and "it is not corrected" in said
    assert float(found[1].attributes["EpiDisplacementVoxelsPerHz"]) == pytest.approx(predicted / 50)
    own = float(found[0].attributes["EpiOffResonanceHz"])
    assert float(found[1].attributes["EpiOffResonanceHz"]) - own == pytest.approx(50, rel=1e-3)
    voxels, mm = (float(found[1].attributes[f"EpiDisplacement{unit}"]) for unit in ("Voxels", "Mm"))
    assert voxels == pytest.approx(predicted * (50 + own) / 50, rel=1e-3) and mm == pytest.approx(
        240 / n * voxels, rel=1e-5
    )


def test_accelerated_lines_are_calibrated_by_lines_with_navigators_of_their_own() -> None:
    """`grappa` makes a line of others: 1 % of error at 32 voxels, where the calibration is all of k-space."""
    simulated = scan_of(replace(ONE_SLICE, acceleration=2), coils=8)
    (image,), (truth,) = images_of(simulated.scan), simulated.truth
    assert image.provenance.method == "grappa" and image.comments == ()
    assert nrmse(image.pixels[0], truth) < 0.015 and ghost_level(image, truth) < GHOST


def test_averages_and_missing_lines_are_those_of_any_cartesian_scan() -> None:
    run = single().scan.readouts[0]
    head = run.head.copy()
    head["average"] = 1
    twice = Readouts(head, 3 * run.samples)
    encoding = single().scan.header.encodings[0]
    limits = dict(encoding.limits) | {"average": replace(encoding.limits["slice"], maximum=1)}
    scan = with_encoding(replace(single().scan, readouts=(run, twice)), replace(encoding, limits=limits))
    (once,), (mean,) = images_of(single().scan), images_of(scan)
    np.testing.assert_allclose(mean.pixels, 2 * once.pixels, rtol=1e-4, atol=1e-6)
    kept = (run.head["flags"] & PHASECORR != 0) | (run.head["kspace_encode_step_1"] >= 8)
    (part,) = images_of(replace(single().scan, readouts=(Readouts(run.head[kept], run.samples[kept]),)))
    assert any("partial Fourier along kspace_encode_step_1: 8 of 32 lines" in said for said in part.comments)
    assert ghost_level(part, single().truth[0]) < 0.05  # blurred edges reach the ghost's place


def test_readouts_in_any_parts_make_the_same_image() -> None:
    """As they come from the wire: bit for bit."""
    run = single().scan.readouts[0]
    parts = tuple(Readouts(run.head[i : i + 5], run.samples[i : i + 5]) for i in range(0, len(run.head), 5))
    (whole,), (parted,) = images_of(single().scan), images_of(replace(single().scan, readouts=parts))
    np.testing.assert_array_equal(whole.pixels, parted.pixels)


def test_an_undescribed_gradient_is_taken_as_even_and_said() -> None:
    encoding = replace(single().scan.header.encodings[0], description=None)
    scan = with_encoding(single().scan, encoding)
    with pytest.raises(ScanError, match="keeps 120 samples after its discards, expected 1 to 64"):
        images_of(scan)
    run = scan.readouts[0]
    head = run.head.copy()
    head["number_of_samples"], head["center_sample"] = 64, 32
    (image,) = images_of(replace(scan, readouts=(Readouts(head, run.samples[:, :, 28:92]),)))
    assert UNDESCRIBED in image.comments


def test_samples_that_the_description_does_not_have_are_refused() -> None:
    run = single().scan.readouts[0]
    head = run.head.copy()
    head["number_of_samples"] = 100
    scan = replace(single().scan, readouts=(Readouts(head, run.samples[:, :, :100]),))
    with pytest.raises(ScanError, match="has 100 samples, the trajectory description says numSamples 120"):
        images_of(scan)


def test_a_contradictory_description_stops_the_scan() -> None:
    encoding = single().scan.header.encodings[0]
    assert encoding.description is not None
    values = dict(encoding.description.values) | {"rampDownTime": 10}
    scan = with_encoding(single().scan, replace(encoding, description=TrajectoryDescription("ConventionalEPI", values)))
    with pytest.raises(HeaderError, match="the trajectory description contradicts itself: 120 samples"):
        images_of(scan)


# --- navigators ------------------------------------------------------------------------------------------------------


def profiles(constant: float, slope: float, drift: float, *, size: int = 40, coils: int = 3) -> np.ndarray:
    """Three navigators of an object between voxels 8 and 32."""
    rng = np.random.default_rng(4)
    x = np.arange(size) - size // 2
    bright = noise(rng, (coils, size)) * (np.abs(x) < 12)
    turns = [0.0, constant + slope * x + drift, 2 * drift]
    return np.stack([bright * np.exp(1j * turn) for turn in turns]).astype(np.complex64)


@pytest.mark.parametrize("case", [(0.7, 0.05, 0.3), (-2.9, -0.2, -0.9), (0.0, 0.0, 0.0)])
def test_navigators_tell_lines_apart_from_drift(case: tuple[float, float, float]) -> None:
    constant, slope, drift = case
    for first_is_reversed in (False, True):
        reverse = np.array([False, True, False]) ^ first_is_reversed
        fit = fit_of(profiles(constant, slope, drift), reverse)
        assert fit is not None
        sign = -1 if first_is_reversed else 1
        assert (fit.constant, fit.slope, fit.turn) == pytest.approx((sign * constant, sign * slope, drift), abs=1e-5)


def test_outliers_count_less() -> None:
    """A sixth of the voxels, as bright as the others and 1.5 radians off, moves the plain fit ten times as far."""
    x = np.arange(60) - 30
    profile = np.exp(1j * (0.4 + 0.03 * x)).astype(np.complex64)
    profile[45:55] *= np.exp(1.5j)
    constant, slope = straight_line(profile)
    plain_slope, plain = np.polyfit(x, np.unwrap(np.angle(profile)), 1)
    assert abs(slope - 0.03) < abs(plain_slope - 0.03) / 10 and abs(constant - 0.4) < abs(plain - 0.4) / 10


def test_two_navigators_or_such_of_one_direction_say_nothing() -> None:
    three = profiles(0.5, 0.0, 0.0)
    assert fit_of(three[:2], np.array([False, True])) is None
    assert fit_of(three, np.array([False, False, False])) is None
    assert straight_line(np.zeros(5, np.complex64)) == (0.0, 0.0)


# --- which navigators belong to a frame ------------------------------------------------------------------------------


def rows_of(flags: list[int], **fields: object) -> list[list[int]]:
    scan = header((1, 4, 8), trajectory=Trajectory.EPI, limits={"repetition": (0, 1), "slice": (0, 1)})
    head = heads(len(flags), flags=np.array(flags, np.uint64), **fields)
    return [index.rows.tolist() for index in Assembler(scan).add(head)]


def test_a_frame_has_the_navigators_before_it_and_among_its_shots() -> None:
    n = PHASECORR
    flags = [n, n, n, 0, 0, n, n, n, 0, 0]
    line = [0, 0, 0, 0, 2, 0, 0, 0, 1, 3]
    assert rows_of(flags, kspace_encode_step_1=line) == [list(range(10))]


def test_navigators_serve_later_frames_of_their_slice_until_new_ones_come() -> None:
    n = PHASECORR
    flags, line = [n, n, n, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 2, 3, 0, 1, 2, 3]
    repetition = [0] * 7 + [1] * 4
    first, second = rows_of(flags, kspace_encode_step_1=line, repetition=repetition)
    assert first == list(range(7)) and second == [0, 1, 2, 7, 8, 9, 10]
    slices = [0] * 7 + [1] * 4
    _, other = rows_of(flags, kspace_encode_step_1=line, slice=slices)
    assert other == [7, 8, 9, 10]


def test_a_scan_in_memory_and_its_frames_have_the_same_navigators() -> None:
    """Two repetitions: each frame is corrected by its own."""
    simulated = scan_of(ONE_SLICE, repetitions=2)
    scan: Scan = simulated.scan
    for image, truth in zip(images_of(scan), simulated.truth, strict=True):
        assert image.counters == truth.counters and nrmse(image.pixels[0], truth) < EXACT

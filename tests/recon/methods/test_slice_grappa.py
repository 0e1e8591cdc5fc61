"""Slices excited together: an image of each, at its place, with little of the others in it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from recon.errors import CalibrationError, RecipeError, ScanError
from recon.methods import decide
from recon.methods.slice_grappa import lattice_step, steady
from recon.scan import Flag, Image, Readouts, Scan
from recon.simulate import SimulatedScan, nrmse
from recon.simulate.epi import Plan
from recon.slice_grappa import apart, calibrate
from tests.foreign import Foreign
from tests.recon.builders import noise
from tests.recon.planar import images_of, scan_of, with_encoding

LEAKAGE = 0.03
# Noise-free: 1.9 % at 32 voxels and 3 slices, where weights of 5 × 5 samples span a sixth of k-space.
ERROR = {2: 0.025, 3: 0.025, 4: 0.035}


def together(bands: int) -> Plan:
    """One group of slices, 30 mm apart; of four slices, 24."""
    step = 24.0 if bands == 4 else 30.0
    return Plan(bands=bands, slices_mm=tuple(step * (i - (bands - 1) / 2) for i in range(bands)))


@cache
def group(bands: int) -> SimulatedScan:
    return scan_of(together(bands), coils=16)


def by_slice(scan: Scan, method: str = "auto") -> dict[int, Image]:
    return {image.counters.slice: image for image in images_of(scan, method)}


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_each_slice_has_its_image_at_its_place(bands: int) -> None:
    simulated = group(bands)
    found = by_slice(simulated.scan)
    assert sorted(found) == list(range(bands))
    alone = [run.head for run in simulated.scan.readouts]
    for truth in simulated.truth:
        image = found[truth.counters.slice]
        assert nrmse(image.pixels[0], truth) < ERROR[bands]
        assert image.provenance.method == "slice-grappa" and image.comments == ()
        assert image.index == truth.counters.slice + 1
        (head,) = (run[(run["encoding_space_ref"] == 1) & (run["slice"] == truth.counters.slice)][:1] for run in alone)
        assert image.geometry.position_mm == pytest.approx(head["position"][0], abs=1e-3)


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_little_of_a_slice_shows_in_the_others(bands: int) -> None:
    """One slice at a time gives signal, told apart by the weights of all: what the other images then show of it.

    Both as root mean squares over the slice's own object.
    """
    masks = {truth.counters.slice: truth.mask for truth in group(bands).truth}
    for excited in range(bands):
        simulated = scan_of(replace(together(bands), excited=(excited,)), coils=16)
        found = by_slice(simulated.scan)
        sizes = {i: float(np.sqrt(np.mean(found[i].pixels[0][masks[i]] ** 2))) for i in range(bands)}
        assert max(sizes[i] for i in range(bands) if i != excited) < LEAKAGE * sizes[excited]


def test_lines_missing_within_slices_are_made_by_grappa() -> None:
    simulated = scan_of(replace(together(2), acceleration=2), coils=16, matrix=48)
    found = by_slice(simulated.scan)
    for truth in simulated.truth:
        assert nrmse(found[truth.counters.slice].pixels[0], truth) < 0.05


def test_groups_are_frames_of_their_own() -> None:
    plan = Plan(bands=2, slices_mm=(-20.0, -10.0, 20.0, 30.0))
    simulated = scan_of(plan, coils=8, repetitions=2)
    images = images_of(simulated.scan)
    assert [(image.counters.repetition, image.counters.slice) for image in images] == [
        (r, i) for r in (0, 1) for group in ((0, 2), (1, 3)) for i in group
    ]
    assert [image.index for image in images] == [1, 3, 2, 4, 5, 7, 6, 8]
    found = {(image.counters.repetition, image.counters.slice): image for image in images}
    for truth in simulated.truth:
        image = found[truth.counters.repetition, truth.counters.slice]
        assert nrmse(image.pixels[0], truth) < 0.05


def without_calibration(scan: Scan, slices: list[int]) -> Scan:
    runs = []
    for run in scan.readouts:
        kept = (run.head["encoding_space_ref"] == 0) | ~np.isin(run.head["slice"], slices)
        runs.append(Readouts(run.head[kept], run.samples[kept]))
    return replace(scan, readouts=tuple(runs))


def test_without_the_slices_one_by_one_they_stay_on_one_another_and_the_image_says_so() -> None:
    scan = without_calibration(group(3).scan, [2])
    (image,) = images_of(scan)
    assert image.provenance.method == "fft"
    assert "slice-grappa was not possible, this is the zero-filled image" in image.comments[0]
    assert "and not all came: send them before the image" in image.comments[0]
    with pytest.raises(CalibrationError, match="slice-grappa needs the slices one by one"):
        images_of(scan, "slice-grappa")
    (image,) = images_of(without_calibration(scan, [0, 1, 2]))
    assert image.provenance.method == "fft"


def test_auto_says_why() -> None:
    encoding = group(3).scan.header.encodings[0]
    assert decide(encoding, calibrated=True) == (
        "slice-grappa",
        "auto takes slice-grappa: the header's multiband_factor is 3, and the slices one by one came with the frame",
    )
    assert decide(encoding, calibrated=False)[0] == "fft"


def test_a_scan_of_single_slices_is_refused() -> None:
    scan = scan_of(Plan(slices_mm=(0.0,))).scan
    with pytest.raises(RecipeError, match="the method slice-grappa needs slices excited together"):
        images_of(scan, "slice-grappa")


def test_a_calibration_at_another_place_than_the_header_says_is_refused() -> None:
    scan = group(3).scan
    encoding = scan.header.encodings[0]
    assert encoding.multiband is not None
    wrong = replace(encoding.multiband, spacing_mm=((-30.0, 0.0, 35.0),))
    with pytest.raises(ScanError, match=r"the calibration of slice 2 lies at .* mm, its group's position and"):
        images_of(with_encoding(scan, replace(encoding, multiband=wrong)))


def test_too_few_lines_to_calibrate_with_are_counted() -> None:
    slices = noise(np.random.default_rng(1), (2, 8, 6, 16))
    words = "slice-grappa finds 6 lines of 16 samples of each slice alone, too few to tell 2 slices apart with 8 coils"
    with pytest.raises(CalibrationError, match=words):
        calibrate(slices, 1)


def test_a_calibration_without_its_centre_is_refused() -> None:
    scan = group(2).scan
    runs = [_without_centre(run) for run in scan.readouts]
    words = "slice-grappa finds 0 lines of 64 samples of each slice alone, too few to tell 2 slices apart with 16 coils"
    with pytest.raises(CalibrationError, match=words):
        images_of(replace(scan, readouts=tuple(runs)), "slice-grappa")
    image = images_of(replace(scan, readouts=tuple(runs)))[0]
    assert image.comments[0].startswith("slice-grappa was not possible, this is the zero-filled image: slice-grappa")


def _without_centre(run: Readouts) -> Readouts:
    calibrates = (run.head["flags"] & Flag.IS_PARALLEL_CALIBRATION.mask) != 0
    centre = run.head["kspace_encode_step_1"] == 16
    kept = ~(calibrates & centre)
    return replace(run, head=run.head[kept], samples=run.samples[kept])


def test_blips_that_do_not_step_evenly_are_refused() -> None:
    measured = np.ones(12, np.bool_)
    even = np.exp(-2j * np.pi * np.outer([0, 1, 2], np.arange(12) % 3) / 3).astype(np.complex64)
    np.testing.assert_allclose(steady(even, measured, 1), even, atol=1e-5)
    uneven = np.exp(-2j * np.pi * np.outer([0, 1, 2], np.arange(12) % 3) / 4).astype(np.complex64)
    with pytest.raises(CalibrationError, match="the blips turn a slice by uneven steps from line to line"):
        steady(uneven, measured, 1)


def test_steps_go_on_over_lines_that_were_not_measured() -> None:
    measured = np.arange(12) % 2 == 1
    assert lattice_step(measured, 4) == 2
    blips = np.exp(-2j * np.pi * np.arange(12)[np.newaxis] / 6).astype(np.complex64)
    np.testing.assert_allclose(steady(blips * measured, measured, 2), blips, atol=1e-5)
    with pytest.raises(CalibrationError, match="accelerated 2-fold"):
        lattice_step(measured, 1)


def test_arrays_of_a_device_stay_there() -> None:
    rng = np.random.default_rng(3)
    slices, lines = noise(rng, (2, 3, 24, 24)), noise(rng, (3, 20, 24))
    measured = np.ones(24, np.bool_)
    here = apart(lines, measured, calibrate(slices, 1))
    there = apart(Foreign(lines), measured, calibrate(Foreign(slices), 1))  # type: ignore[arg-type]
    assert isinstance(there, Foreign)
    np.testing.assert_array_equal(here, there.held)

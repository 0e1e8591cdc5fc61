"""Retrospective gating of simulated hearts with irregular beats, and what becomes of a scan that cannot be gated."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.methods import METHODS, settle
from recon.methods.cine import _of_phase
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Counters, Flag, Image, Limit, Readouts, Scan, Waveform
from recon.simulate import SimulatedScan, nrmse, simulate
from recon.simulate.cine import CINE_PHASES, VARIABILITY
from recon.simulate.objects import heart_regions
from recon.simulate.physiology import contraction
from recon.simulate.truth import pixel_centers
from tests.recon.builders import heads
from tests.recon.methods.phantoms import CPU
from tests.tolerances import HALVED

READER = "not gated, the image is an average over the heart's motion: "


@cache
def simulated() -> SimulatedScan:
    return simulate("heart-cine", seed=3, coils=4, matrix=64)


@cache
def images() -> tuple[Image, ...]:
    return tuple(reconstruct(simulated().scan, Recipe("cine", {"phases": CINE_PHASES}), CPU))


def blood_mm2(pixels: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The area of the left cavity in a slice: signal above the heart muscle's as a share of the blood's, summed."""
    space = simulated().scan.header.encodings[0].recon
    away = np.linalg.norm(pixel_centers(space, 2) - np.array([23.5, -12.5]), axis=-1)
    whole = away < 31.0  # inside the outer edge of the wall
    blood = np.median(reference[away < 8])
    muscle = np.median(reference[(away > 27.5) & (away < 31)])
    share = (pixels - muscle) / (blood - muscle)
    return float(share[whole].sum() * np.prod(space.spacing_mm[1:]))


def test_every_phase_is_an_image_with_its_delay() -> None:
    assert VARIABILITY == 0.1
    assert [image.counters for image in images()] == [Counters(phase=i) for i in range(CINE_PHASES)]
    assert [image.index for image in images()] == list(range(1, CINE_PHASES + 1))
    delays = np.array([image.physiology_time_stamp[0] for image in images()])
    assert (np.diff(delays) > 0).all() and 0 < delays[0] < delays[-1] < 0.9 * 1.2 / 0.0025
    assert all("2 of 9 heartbeats are irregular and left out" in image.comments for image in images())


@pytest.mark.parametrize("state", ["end of systole", "end of diastole"])
def test_blood_pool_areas_are_within_three_percent_of_the_truth(state: str) -> None:
    truth = simulated().truth
    areas = [blood_mm2(t.pixels[0], truth[-1].pixels[0]) for t in truth]
    phase = int(np.argmin(areas)) if state == "end of systole" else CINE_PHASES - 1
    assert areas[phase] == pytest.approx(blood_mm2(images()[phase].pixels[0, 0], truth[-1].pixels[0]), rel=0.03)
    assert min(areas) < 0.55 * max(areas)  # the heart does beat: the cavity shrinks to (15 / 24)² of its area


def test_every_phase_comes_near_its_truth() -> None:
    """0.7 % are noise; where the heart is fastest it moves by more than a voxel in a phase."""
    assert heart_regions(0.0) != heart_regions(float(contraction(np.array([0.2]))[0]))
    errors = [nrmse(image.pixels[0], truth) for image, truth in zip(images(), simulated().truth, strict=True)]
    average = reconstruct(uncounted(()), Recipe("cine"), CPU)
    (blurred,) = (image.pixels[0] for image in average)
    worst = max(nrmse(blurred, truth) for truth in simulated().truth)
    assert max(errors) < worst / 2


def uncounted(waveforms: tuple[Waveform, ...]) -> Scan:
    """The scan with another ECG, its readouts not counting from their R wave."""
    runs = []
    for run in simulated().scan.readouts:
        head = run.head.copy()
        head["physiology_time_stamp"] = 0
        runs.append(replace(run, head=head))
    return Scan(simulated().scan.header, tuple(runs), waveforms)


def changed(waveforms: tuple[Waveform, ...]) -> Image:
    (image,) = reconstruct(uncounted(waveforms), Recipe("cine"), CPU)
    return image


def comment(image: Image) -> str:
    (found,) = (text for text in image.comments if text.startswith(READER))
    return found.removeprefix(READER)


def test_without_an_ecg_the_image_is_an_average_and_says_so() -> None:
    text = comment(changed(()))
    assert text.startswith("the scan has no ECG waveform")
    assert text.endswith("physiology_time_stamp counts nothing: send an ECG waveform or the counters")


def test_without_r_peaks_the_image_is_an_average_and_says_so() -> None:
    flat = tuple(replace(block, samples=np.full_like(block.samples, 2048)) for block in simulated().scan.waveforms)
    assert "shows no two R-peaks" in comment(changed(flat))


def test_an_ecg_of_another_time_is_said_to_be() -> None:
    later = tuple(replace(block, time_stamp=block.time_stamp + 400_000) for block in simulated().scan.waveforms)
    assert "correct the time stamps; and " in comment(changed(later))


def test_an_ecg_longer_than_the_scan_serves_as_well() -> None:
    first = simulated().scan.waveforms[0]
    before = tuple(
        replace(block, time_stamp=first.time_stamp - 4000 + i * block.samples.shape[1])
        for i, block in enumerate(simulated().scan.waveforms[:10])
    )
    (some, *_) = reconstruct(
        Scan(simulated().scan.header, simulated().scan.readouts, before + simulated().scan.waveforms),
        Recipe("cine", {"rr_tolerance": 1.0}),
        CPU,
    )
    assert not [text for text in some.comments if text.startswith(READER)]


def test_lines_are_interpolated_in_time_and_shared_where_a_phase_has_none() -> None:
    """Linear motion comes out exact; a line measured elsewhere in the beat only is taken from there."""
    place = np.array([0.10, 0.20, 0.80])  # line 0 twice round the centre of phase 1 of 10, line 1 once, far away
    head = heads(3, samples=2, coils=1, kspace_encode_step_1=[0, 0, 1])
    run = type(simulated().scan.readouts[0])(head, np.array([1, 3, 7], np.complex64).repeat(2).reshape(3, 1, 2))
    encoding = simulated().scan.header.encodings[0]
    rows = np.arange(3)
    made, remarks = _of_phase(run, rows, place, encoding=encoding, phase=(1, 10))
    np.testing.assert_allclose(made.samples[:, 0, 0], [2, 7], rtol=1e-6)
    assert remarks == ("1 of 2 lines of phase 1 are shared with the phase nearest in time",)
    across, _ = _of_phase(run, rows, np.array([0.98, 0.12, 0.8]), encoding=encoding, phase=(0, 10))
    np.testing.assert_allclose(across.samples[0, 0, 0], 2, rtol=1e-6)  # both 0.7 phases from the centre, 0.05


def test_spokes_are_gated_too() -> None:
    scan = simulate("heart-radial", seed=3, coils=2, matrix=32, repetitions=1).scan
    found = list(reconstruct(scan, Recipe("cine", {"phases": 6}), CPU))
    assert [image.counters.phase for image in found] == list(range(6))
    assert not any(text.startswith(READER) for image in found for text in image.comments)


def retro(count: int | float | str) -> Scan:
    header = simulated().scan.header
    return replace(simulated().scan, header=replace(header, user={"RetroGatedImages": count}))


def test_auto_takes_it_where_the_header_says_that_gating_comes_afterwards() -> None:
    """As converters of vendors' raw data say it, with the number of phases that were asked for at the scanner."""
    recipe, reason = settle(Recipe("auto", {"combine": "adaptive"}), retro(25).header)
    assert (recipe.method, recipe["phases"], recipe["combine"]) == ("cine", 25, "adaptive")
    assert reason == "auto takes cine: the header's user parameter RetroGatedImages is 25"
    for count in (0, 1, 5000, "25"):
        assert settle(Recipe(), retro(count).header) == (Recipe(), "")
    assert settle(Recipe("fft"), retro(25).header) == (Recipe("fft"), "")
    found = list(reconstruct(retro(CINE_PHASES), Recipe(), CPU))
    assert [image.provenance.method for image in found] == ["cine"] * CINE_PHASES
    for image, same in zip(found, images(), strict=True):
        np.testing.assert_array_equal(image.pixels, same.pixels)


def test_readouts_that_count_from_their_r_wave_need_no_ecg() -> None:
    """Ticks of 2.5 ms against an ECG's peaks: the heart moves by a twentieth of a voxel at most in a tick."""
    found = list(reconstruct(replace(simulated().scan, waveforms=()), Recipe("cine"), CPU))
    assert [image.counters.phase for image in found] == list(range(CINE_PHASES))
    assert all("gated by the readouts' physiology_time_stamp: the scan has no ECG" in i.comments[0] for i in found)
    for image, by_ecg, truth in zip(found, images(), simulated().truth, strict=True):
        assert nrmse(image.pixels[0], truth) < nrmse(by_ecg.pixels[0], truth) + 0.005


def errors(recipe: Recipe, scan: Scan) -> NDArray[np.float64]:
    found = reconstruct(scan, recipe, CPU)
    pairs = zip(found, simulated().truth, strict=True)
    return np.array([nrmse(image.pixels[0], truth) for image, truth in pairs])


def test_leaving_out_irregular_beats_makes_the_images_better() -> None:
    """An early beat ends before its diastole: as a full beat it would put systole where the others rest."""
    kept, rejected = (errors(Recipe("cine", {"rr_tolerance": most}), simulated().scan) for most in (1.0, 0.3))
    assert np.sqrt(np.mean(rejected**2)) < np.sqrt(np.mean(kept**2))


def test_sharing_costs_less_than_the_lines_that_a_phase_lacks() -> None:
    """Of each beat's last lines none is measured; diastole has no motion, so that their neighbours in time serve."""
    run = simulated().scan.readouts[-1]
    delay_s = run.head["physiology_time_stamp"][:, 0] * 0.0025
    lost = (delay_s > 0.75) & (run.head["kspace_encode_step_1"] % 4 == 1)
    left = np.flatnonzero(~lost)
    part = replace(run, head=run.head[left], samples=run.samples[left])
    scan = replace(simulated().scan, readouts=(*simulated().scan.readouts[:-1], part))
    found = list(reconstruct(scan, Recipe("cine"), CPU))
    shared = [image for image in found if any("are shared with the phase" in text for text in image.comments)]
    assert shared and all(image.counters.phase > CINE_PHASES / 2 for image in shared)
    for image in shared:
        truth = simulated().truth[image.counters.phase]
        assert nrmse(image.pixels[0], truth) < nrmse(images()[image.counters.phase].pixels[0], truth) + 0.005


def test_accelerated_phases_are_unfolded_by_their_calibration_lines() -> None:
    """Every second line and 24 in the centre: the heart without aliases, which zero-filling leaves in."""
    encoding = simulated().scan.header.encodings[0]
    header = replace(
        simulated().scan.header, encodings=(replace(encoding, acceleration=(2, 1), calibration_mode="embedded"),)
    )
    run = simulated().scan.readouts[-1]
    line = run.head["kspace_encode_step_1"].astype(int)
    centre = np.abs(line - 32) < 12
    left = np.flatnonzero((line % 2 == 0) | centre)
    head = run.head[left].copy()
    head["flags"][(line[left] % 2 == 1)] |= np.uint64(Flag.IS_PARALLEL_CALIBRATION.mask)
    part = replace(run, head=head, samples=run.samples[left])
    scan = replace(simulated().scan, header=header, readouts=(*simulated().scan.readouts[:-1], part))
    unfolded = errors(Recipe("cine"), scan)
    plain = replace(header, encodings=(replace(encoding, acceleration=(2, 1), calibration_mode=""),))
    folded = errors(Recipe("cine"), replace(scan, header=plain))
    assert (unfolded < HALVED * folded).all()


def test_what_it_needs_is_what_it_takes() -> None:
    """The readouts joined, two phases' shares of them, one phase's own need: neither more, nor far less."""
    simulated_run = simulated().scan.readouts[-1]
    cuts = [slice(i, i + 100) for i in range(0, len(simulated_run.head), 100)]
    runs = tuple(Readouts(simulated_run.head[cut], simulated_run.samples[cut]) for cut in cuts)
    scan, recipe = replace(simulated().scan, readouts=(*simulated().scan.readouts[:-1], *runs)), Recipe("cine")
    list(reconstruct(scan, recipe, CPU))  # plans are cached
    tracemalloc.start()
    list(reconstruct(scan, recipe, CPU))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    raw = sum(run.samples.nbytes for run in runs)
    declared, _ = METHODS["cine"].needs(scan.header.encodings[0], 4, recipe=recipe, raw_bytes=raw)
    workspace = 64 << 20  # that transforms of any size may take
    assert raw < peak < declared
    assert declared - workspace < 1.5 * peak


def test_a_slice_comes_out_the_same_before_the_scan_ends_as_after() -> None:
    """Two slices one after the other, with one ECG: each is gated by the part of it that is its own."""
    scan = simulated().scan
    *before, run = scan.readouts
    later = run.head.copy()
    ticks = int(run.head["acquisition_time_stamp"][-1] - run.head["acquisition_time_stamp"][0]) + 1600
    later["acquisition_time_stamp"] += ticks
    later["slice"] = 1
    encoding = scan.header.encodings[0]
    limits = {**encoding.limits, "slice": Limit(0, 1, 0)}
    header = replace(scan.header, encodings=(replace(encoding, limits=limits),))
    moved = tuple(replace(block, time_stamp=block.time_stamp + ticks) for block in scan.waveforms)
    both = Scan(header, (*before, run, replace(run, head=later)), (*scan.waveforms, *moved))
    found = list(reconstruct(both, Recipe("cine"), CPU))
    assert [image.counters.slice for image in found] == [0] * CINE_PHASES + [1] * CINE_PHASES
    alone = replace(both, readouts=(*before, run), waveforms=scan.waveforms)
    for image, wanted in zip(found, reconstruct(alone, Recipe("cine"), CPU), strict=False):
        np.testing.assert_allclose(image.pixels, wanted.pixels, rtol=0, atol=1e-3 * wanted.pixels.max())

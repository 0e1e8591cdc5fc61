"""Free-breathing scans with known motion, sorted by the breath; and what becomes of those that show none."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.breathing import Breathed, breathed, by_centre, resting
from recon.errors import RecipeError, ScanError
from recon.methods import grouping_of
from recon.methods.breathing import _of_state
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Image, Readouts, Scan
from recon.simulate import SimulatedScan, nrmse, simulate
from recon.simulate.breathing import VIEW_MM, Stage, coronal, parts, states
from recon.simulate.coils import coil_spectrum
from recon.simulate.measurement import chest_array, seen_by
from recon.simulate.noise import whitening
from recon.simulate.physiology import BASELINE, BELLOWS_SPAN
from recon.simulate.truth import unit
from tests.recon.builders import header, heads, noise
from tests.recon.methods.phantoms import CPU

MATRIX, COILS = 48, 4
ACCEPTED = 0.4
AVERAGE = "not gated, the image is an average over the breath: "


@cache
def simulated() -> SimulatedScan:
    return simulate("abdomen-radial", seed=1, coils=COILS, matrix=MATRIX)


def images(scan: Scan, **values: str | float | int) -> list[Image]:
    return list(reconstruct(scan, Recipe("gridding", values), CPU))


def true_breath() -> NDArray[np.float64]:
    """The diaphragm [readout] as the belt saw it, between samples 20 ms apart."""
    blocks = simulated().scan.waveforms
    trace = np.concatenate([block.samples[0] for block in blocks])
    own_s = blocks[0].time_stamp * 0.0025 + np.arange(len(trace)) * 0.02
    times_s = simulated().scan.readouts[-1].head["acquisition_time_stamp"] * 0.0025
    return (np.interp(times_s, own_s, trace) - BASELINE) / BELLOWS_SPAN


@cache
def stage() -> Stage:
    coils = seen_by(chest_array(COILS), coronal(), np.full(2, VIEW_MM))
    return Stage(simulated().scan.header.encodings[0], coils, parts(coronal()))


@cache
def at_rest() -> Scan:
    """The same readouts, without noise, of a body that does not breathe."""
    *before, run = simulated().scan.readouts
    assert run.trajectory is not None
    k = run.trajectory.astype(np.float64) / np.array(stage().encoding.encoded.spacing_mm[:0:-1])
    seen = sum(coil_spectrum(part.shapes, stage().coils, k) for part in stage().parts)
    samples = (unit(stage().encoding.encoded, 2) * seen).transpose(1, 0, 2).astype(np.complex64)
    return replace(simulated().scan, readouts=(*before, replace(run, samples=samples)))


def moved(breath: NDArray[np.float64]) -> tuple[float, float]:
    """How far the body averaged over `breath` is from that at rest, and the root mean square of its moments.

    Of coil images, in the disc of k-space that spokes reach.
    """
    moments = np.quantile(breath, (np.arange(12) + 0.5) / 12)
    (rest,), seen = states(stage(), np.zeros(1)), np.stack(list(states(stage(), moments)))
    place = np.fft.fftfreq(MATRIX)
    disc = np.hypot(place[:, None], place) < 0.5
    errors = [
        np.linalg.norm(np.fft.fft2(image - rest, norm="ortho")[..., disc]) for image in [seen.mean(axis=0), *seen]
    ]
    share = np.array(errors) / np.linalg.norm(rest)
    return float(share[0]), float(np.sqrt(np.mean(np.square(share[1:]))))


def error(image: Image, other: Image) -> float:
    covered = simulated().truth[0].mask
    return float(
        np.linalg.norm((image.pixels[0] - other.pixels[0])[covered]) / np.linalg.norm(other.pixels[0][covered])
    )


@pytest.mark.parametrize("source", ["waveform", "self", "auto"])
def test_images_near_the_end_of_expiration_are_as_sharp_as_their_breath_is_still(source: str) -> None:
    """A spoke sees one moment, an image at least the average of all: what motion does lies between these errors.

    Against the same spokes of a body at rest nothing else is different but noise, which grows with fewer spokes.
    """
    (truth,) = simulated().truth
    breath = true_breath()
    best = np.sort(breath)[: round(ACCEPTED * len(breath))]
    (average, _), (_, left) = moved(breath), moved(best)
    (free,), (gated,), (rest,) = (
        images(simulated().scan),
        images(simulated().scan, respiration=source),
        images(at_rest()),
    )
    (same,) = images(at_rest(), respiration="waveform")
    alone = truth.predicted_nrmse / np.sqrt(ACCEPTED)
    # Magnitudes of combined coils differ by no more than the coils do, and by a few percent less.
    assert error(free, rest) > 0.95 * average > 2 * (left + alone) > 2 * error(gated, same)
    assert nrmse(gated.pixels[0], truth) < nrmse(rest.pixels[0], truth) + left + alone < nrmse(free.pixels[0], truth)
    source = {"self": "the centre of k-space"}.get(source, "the respiratory waveform")
    assert gated.comments == (f"state 1 of 1 of the breath: 384 of 960 readouts, by {source}",)


def test_states_of_the_breath_are_images_from_expiration_on() -> None:
    """Each is nearer to the body held at its own depth than to that held at another's."""
    found = images(simulated().scan, respiration="auto", acceptance=1.0, bins=3)
    assert [image.counters.phase for image in found] == [0, 1, 2]
    assert [image.index for image in found] == [1, 2, 3]
    depths = [float(np.median(part)) for part in np.split(np.sort(true_breath()), 3)]
    white = whitening(simulated().noise_covariance).astype(np.complex64)
    held = [np.linalg.norm(np.tensordot(white, image, axes=1), axis=0) for image in states(stage(), np.array(depths))]
    away = np.array([[np.linalg.norm(image.pixels[0] - body) for body in held] for image in found])
    assert away.argmin(axis=1).tolist() == [0, 1, 2]


def signal_of(run: Readouts, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    return by_centre(run, simulated().scan.header.encodings[0], times_s)


def test_noise_shows_no_breath() -> None:
    """Of twenty scans of nothing none is taken for a breath."""
    run = simulated().scan.readouts[-1]
    times_s = run.head["acquisition_time_stamp"] * 0.0025
    for seed in range(20):
        nothing = noise(np.random.default_rng(seed), run.samples.shape)
        with pytest.raises(ScanError, match=r"k-space's centre shows no breath: its slow part is 0\.\d+ of its fast"):
            signal_of(replace(run, samples=nothing), times_s)


def test_without_any_signal_the_image_is_an_average_and_says_so() -> None:
    *before, run = simulated().scan.readouts
    assert run.trajectory is not None
    some = Readouts(run.head[:90], run.samples[:90], run.trajectory[:90])
    few = Scan(simulated().scan.header, (*before, some))
    (image,), (plain,) = images(few, respiration="auto"), images(few)
    np.testing.assert_array_equal(image.pixels, plain.pixels)
    (comment,) = (text for text in image.comments if text.startswith(AVERAGE))
    assert comment.removeprefix(AVERAGE).startswith("the scan has no RESPIRATION waveform")
    assert "; and k-space's centre was measured 90 times in 0.71" in comment
    (kept,) = reconstruct(few, Recipe("cine", {"respiration": "waveform"}), CPU)
    assert any(text.startswith("not gated, the image is an average over the heart's motion") for text in kept.comments)


def test_a_belt_that_shows_nothing_is_said_to() -> None:
    flat = tuple(replace(block, samples=np.full_like(block.samples, 7)) for block in simulated().scan.waveforms)
    (image,) = images(replace(simulated().scan, waveforms=flat), respiration="waveform")
    assert image.comments == (f"{AVERAGE}the respiratory waveform is 7 throughout: check the belt",)
    half = simulated().scan.waveforms[: len(flat) // 2]
    (image,) = images(replace(simulated().scan, waveforms=half), respiration="waveform")
    assert "readouts elsewhere: correct the time stamps or send all of it" in image.comments[0]


def test_lines_of_another_state_stand_in_for_those_that_were_not_measured() -> None:
    """Line 0 is the mean of both measured in the state, line 1 the one nearest to it."""
    head = heads(4, samples=2, coils=1, kspace_encode_step_1=[0, 0, 1, 1])
    run = Readouts(head, np.array([1, 3, 7, 20], np.complex64).repeat(2).reshape(4, 1, 2))
    breath = Breathed(np.array([0.0, 0.25, 0.5, 0.75]), "a test")
    (mask,) = resting(breath, bins=1, acceptance=0.5)
    made, told = _of_state(run, mask, breath, cartesian=True)
    np.testing.assert_allclose(made.samples[:, 0, 0], [2, 7], rtol=1e-6)
    assert told == ["2 of 4 readouts, by a test", "1 of 2 lines are of the nearest other state of the breath"]
    spokes, told = _of_state(run, mask, breath, cartesian=False)
    assert spokes.samples[:, 0, 0].tolist() == [1, 3] and len(told) == 1


def test_lines_through_the_centre_tell_the_breath_of_a_cartesian_scan() -> None:
    """An object that grows brighter as it moves, on every fourth line: the rest is between these in time."""
    space = header((1, 8, 8), coils=1).encodings[0]
    time = np.arange(1600) * 0.01
    breath = np.sin(np.pi * time / 4) ** 4
    line = np.where(np.arange(1600) % 4 == 0, 4, 1)
    head = heads(1600, coils=1, kspace_encode_step_1=line, acquisition_time_stamp=np.rint(time / 0.0025))
    samples = noise(np.random.default_rng(5), (1600, 1, 8)) * np.float32(0.05)
    samples += np.where(line == 4, 3 + breath, 40 * time)[:, None, None].astype(np.float32)
    run = Readouts(head, samples)
    found = breathed((), run, space, source="auto")
    assert found.source == "the centre of k-space"
    (mask,) = resting(found, bins=1, acceptance=ACCEPTED)
    assert breath[mask].max() < np.quantile(breath, ACCEPTED + 0.05)


def test_scans_are_sorted_when_they_have_ended_and_not_in_windows() -> None:
    assert grouping_of(Recipe("gridding", {"respiration": "auto"})).whole
    assert not grouping_of(Recipe("gridding")).whole
    with pytest.raises(RecipeError, match=r"window is 8 and respiration auto: .*: ask for one of them"):
        Recipe("gridding", {"respiration": "auto", "window": 8})

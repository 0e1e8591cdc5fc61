"""Frames that calibrate each other (TGRAPPA): exact truth of a beating heart, and what a separate scan would give."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from recon.methods import METHODS, choose, decide
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Flag, Image, Limit, Readouts, Scan
from recon.simulate import SimulatedScan, nrmse, simulate
from tests import tolerances
from tests.laws import distance
from tests.recon.methods.phantoms import CPU
from tests.recon.methods.test_cg_sense import measured


@cache
def heart() -> SimulatedScan:
    return simulate("heart-realtime", seed=1, coils=8, matrix=64, noise=0, repetitions=5)  # until the end of systole


def errors(images: list[Image]) -> list[float]:
    return [nrmse(image.pixels[0], truth) for image, truth in zip(images, heart().truth, strict=True)]


@pytest.mark.parametrize("method", ["grappa", "sense"])
def test_each_frame_shows_its_own_time(method: str) -> None:
    """An image made of its own lines and those of the frames before it would show the heart of all three."""
    images = list(reconstruct(heart().scan, Recipe(method), CPU))
    (run,) = heart().scan.readouts
    assert [image.counters for image in images] == [truth.counters for truth in heart().truth]
    whole = replace(heart().scan.header.encodings[0], acceleration=(1, 1), calibration_mode="")
    header = replace(heart().scan.header, encodings=(whole,))
    blurred = []
    for number, truth in list(enumerate(heart().truth))[2:]:
        rows = (run.head["repetition"] > number - 3) & (run.head["repetition"] <= number)
        head = run.head[rows].copy()
        head["repetition"], head["flags"] = 0, 0
        (image,) = reconstruct(Scan(header, (Readouts(head, run.samples[rows]),)), Recipe("fft"), CPU)
        blurred.append(nrmse(image.pixels[0], truth))
    assert np.linalg.norm(errors(images)[2:]) < tolerances.HALVED * np.linalg.norm(blurred)


def test_a_body_at_rest_looks_as_if_a_separate_scan_had_calibrated_it() -> None:
    """Three frames of every third line are the whole of k-space, near whose centre a separate scan would measure."""
    simulated = measured("brain-se", 96, noise=0)
    (run,) = simulated.scan.readouts
    here = run.head["slice"] == 0
    line = run.head["kspace_encode_step_1"][here].astype(int)
    (encoding,) = simulated.scan.header.encodings
    alone = {**encoding.limits, "slice": Limit(0, 0, 0), "repetition": Limit(0, 2, 0)}

    def scan(mode: str, runs: list[Readouts]) -> Scan:
        space = replace(encoding, limits=alone, acceleration=(3, 1), calibration_mode=mode)
        return Scan(replace(simulated.scan.header, encodings=(space,)), tuple(runs))

    def lines(kept: np.ndarray, repetition: int, flag: int = 0) -> Readouts:
        head = run.head[here][kept].copy()
        head["flags"], head["repetition"] = flag, repetition
        head["flags"][-1] |= np.uint64(0 if flag else Flag.LAST_IN_REPETITION.mask)
        return Readouts(head, run.samples[here][kept])

    frames = [lines(line % 3 == number, number) for number in range(3)]
    centre = lines(abs(line - 48) <= 16, 0, Flag.IS_PARALLEL_CALIBRATION.mask)
    shared = list(reconstruct(scan("interleaved", frames), Recipe("grappa"), CPU))
    apart = list(reconstruct(scan("separate", [centre, *frames]), Recipe("grappa"), CPU))
    assert len(shared) == len(apart) == 3
    for one, other in zip(shared, apart, strict=True):
        assert distance(one.pixels, other.pixels) < 1e-6  # the same sums of the same lines


def test_auto_takes_grappa_and_needs_memory_for_the_neighbours() -> None:
    (encoding,) = heart().scan.header.encodings
    assert decide(encoding, calibrated=False) == (
        "grappa",
        "auto takes grappa: the header's accelerationFactor is 3 × 1, its calibrationMode interleaved",
    )
    alone = replace(encoding, calibration_mode="embedded")
    assert METHODS["grappa"].bytes_needed(encoding, 8) > METHODS["grappa"].bytes_needed(alone, 8)
    assert choose(Recipe(), replace(encoding, acceleration=(1, 1)), calibrated=False).method == "fft"


def test_too_few_frames_for_a_calibration_are_zero_filled_and_say_so() -> None:
    (run,) = heart().scan.readouts
    first = run.head["repetition"] == 0
    short = replace(heart().scan, readouts=(Readouts(run.head[first], run.samples[first]),))
    (image,) = reconstruct(short, Recipe(), CPU)
    assert image.comments[0].startswith("grappa was not possible, this is the zero-filled image: grappa finds 0 × 1")

"""Calibration lines of a separate scan: they calibrate every method, and never enter the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.gather import gather, select
from recon.pipeline import frames_of, reconstruct
from recon.recipe import Recipe
from recon.scan import Flag, Readouts, Scan
from recon.simulate import nrmse
from tests import tolerances
from tests.recon.methods.phantoms import CPU
from tests.recon.methods.test_cg_sense import error, measured, thinned


def separated(scan: Scan, step: int, *, brightness: float = 3.0, samples: slice = slice(None)) -> Scan:
    """Every `step`-th line of slice 0, after 25 lines of calibration that are `brightness` times as bright."""
    (encoding,) = scan.header.encodings
    run = scan.readouts[-1]
    place = run.head["kspace_encode_step_1"].astype(int) - encoding.limits["kspace_encode_step_1"].center
    ours = run.head["slice"] == 0
    centre, lattice = ours & (abs(place) <= 12), ours & (place % step == 0)
    head = run.head[centre].copy()
    head["flags"] = Flag.IS_PARALLEL_CALIBRATION.mask
    head["number_of_samples"] = len(range(*samples.indices(run.samples.shape[2])))
    calibration = Readouts(head, (run.samples[centre] * np.float32(brightness))[:, :, samples])
    space = replace(encoding, acceleration=(step, 1), calibration_mode="separate")
    header = replace(scan.header, encodings=(space,))
    return Scan(header, (*scan.readouts[:-1], calibration, Readouts(run.head[lattice], run.samples[lattice])))


@pytest.mark.parametrize("method", ["grappa", "sense", "cg-sense", "l1-wavelet"])
def test_every_method_is_calibrated_by_it(method: str) -> None:
    """The lattice's lines alone, and lines of another brightness: they may lend their coils' ratios, nothing else."""
    simulated = measured("brain-se", 96, noise=0)
    alike, brighter = (separated(simulated.scan, 2, brightness=brightness) for brightness in (1.0, 4.0))
    assert error(simulated, brighter, method) < tolerances.UNFOLDED
    # A power of two changes no digit of a ratio.
    one, other = (next(reconstruct(scan, Recipe(method), CPU)) for scan in (alike, brighter))
    assert np.array_equal(one.pixels, other.pixels)


def test_auto_takes_grappa() -> None:
    scan = separated(measured("brain-se", 48, noise=1).scan, 2)
    (image,) = reconstruct(scan, Recipe(), CPU)
    assert (image.provenance.method, image.comments) == ("grappa", ())


def test_noise_is_as_with_calibration_lines_in_the_frame() -> None:
    simulated = measured("brain-se", 96, noise=1)
    truth = simulated.truth[0]
    for method in ("grappa", "cg-sense"):
        image = next(reconstruct(separated(simulated.scan, 2, brightness=1.0), Recipe(method), CPU))
        # Half of the lines, and a geometry factor that eight coils keep below 1.5.
        assert nrmse(image.pixels[0], truth) <= 1.5 * np.sqrt(2) * truth.predicted_nrmse


def test_the_image_holds_its_own_lines_only() -> None:
    scan = separated(measured("brain-se", 48, noise=0).scan, 2)
    frames, _ = frames_of(scan)
    readouts = select(scan.readouts, frames[0].rows)
    frame = gather(scan.header, readouts, calibration=True)
    without = gather(scan.header, readouts)
    assert np.array_equal(frame.kspace, without.kspace)
    assert frame.sampled is not None and frame.sampled.sum() == 24
    assert frame.reference is not None and frame.reference.sampled is not None
    assert frame.reference.sampled.sum() == 25
    assert without.reference is None


def test_calibration_lines_of_another_length_are_not_used_and_the_image_says_so() -> None:
    scan = separated(measured("brain-se", 48, noise=0).scan, 2, samples=slice(24, 72))
    frames, _ = frames_of(scan)
    frame = gather(scan.header, select(scan.readouts, frames[0].rows), calibration=True)
    assert frame.reference is None
    assert frame.warnings == (
        "the separate calibration lines have [48] samples, the image's readouts have 96 samples and the header's"
        " limits: they are not used",
    )


def test_a_whole_centre_in_the_frame_needs_no_separate_scan() -> None:
    """A header may say `separate` and the sender still put its calibration lines among the image's own."""
    simulated = measured("brain-se", 96, noise=0)
    scan = thinned(simulated.scan, (2, 1))
    (encoding,) = scan.header.encodings
    named = replace(scan, header=replace(scan.header, encodings=(replace(encoding, calibration_mode="separate"),)))
    assert error(simulated, named, "grappa") < tolerances.HALVED * error(simulated, named, "fft")

"""Fields larger than the image in phase and slice direction, and echoes off the readout's middle: exact images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import kernels
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Readouts, Scan, Space
from recon.simulate import nrmse, simulate
from recon.simulate.truth import coil_images
from tests import tolerances
from tests.recon.methods.phantoms import distance
from tests.recon.methods.test_cg_sense import measured, thinned

CPU = kernels.on("cpu")
ROUNDING = 2 * tolerances.fft(32 * 32 * 64)  # our transform of the whole, and samples in single precision


def with_field(scan: Scan, kept: tuple[int, int]) -> Scan:
    """The scan whose image has only the middle `kept` voxels (z, y) of what is encoded, of the same size."""
    (encoding,) = scan.header.encodings
    matrix = (*kept, encoding.recon.matrix[2])
    z, y, x = (n * mm for n, mm in zip(matrix, encoding.recon.spacing_mm, strict=True))
    smaller = replace(encoding, recon=Space(matrix, (z, y, x)))
    return replace(scan, header=replace(scan.header, encodings=(smaller,)))


@pytest.mark.parametrize("kept", [(18, 20), (12, 28), (13, 21)], ids=["phase", "slice", "both, odd"])
def test_phase_and_slice_oversampling_are_cut_away(kept: tuple[int, int]) -> None:
    simulated = simulate("head-gre3d", seed=3, coils=3, matrix=32, noise=0)
    full = simulated.truth[0].pixels
    (image,) = reconstruct(with_field(simulated.scan, kept), Recipe("fft"), CPU)
    low = [n // 2 - k // 2 for n, k in zip(full.shape[:2], kept, strict=True)]
    middle = full[low[0] : low[0] + kept[0], low[1] : low[1] + kept[1]]
    assert image.pixels[0].shape == middle.shape
    assert distance(image.pixels[0], middle) < ROUNDING


METHODS = ("grappa", "sense", "cg-sense")


@pytest.mark.parametrize("method", METHODS)
def test_aliases_are_removed_before_oversampling_is_cut_away(method: str) -> None:
    """Maps and weights belong to all that is encoded: the image is the middle of the one without a smaller field."""
    kept = (17, 27)  # of 23 × 36
    simulated = measured("head-gre3d", 40, noise=0)
    thin = thinned(simulated.scan, (2, 1), centre=12)
    full = simulated.truth[0]
    low = [n // 2 - k // 2 for n, k in zip(full.pixels.shape[:2], kept, strict=True)]
    middle = (slice(low[0], low[0] + kept[0]), slice(low[1], low[1] + kept[1]))
    (whole,) = reconstruct(thin, Recipe(method), CPU)
    (image,) = reconstruct(with_field(thin, kept), Recipe(method), CPU)
    assert image.pixels[0].shape == full.pixels[middle].shape
    assert distance(image.pixels[0], whole.pixels[0][middle]) < ROUNDING
    (folded,) = reconstruct(with_field(thin, kept), Recipe("fft"), CPU)
    inside = replace(full, pixels=full.pixels[middle], mask=full.mask[middle])
    assert nrmse(image.pixels[0], inside) < tolerances.HALVED * nrmse(folded.pixels[0], inside)


@pytest.mark.parametrize("method", METHODS)
def test_undersampled_asymmetric_echoes_lose_what_full_ones_lose(method: str) -> None:
    """The judge has zeros where nothing was sampled, along the readout only: its lines are complete."""
    simulated = measured("brain-se", 96, noise=0)
    thin = asymmetric(thinned(simulated.scan, (2, 1)), 40)
    first = next(reconstruct(thin, Recipe(method), CPU))
    exact = next(reconstruct(asymmetric(simulated.scan, 40), Recipe("fft"), CPU))
    folded = next(reconstruct(thin, Recipe("fft"), CPU))
    assert distance(first.pixels, exact.pixels) < tolerances.HALVED * distance(folded.pixels, exact.pixels)


def asymmetric(scan: Scan, missing: int) -> Scan:
    """The scan whose readouts begin `missing` samples later."""
    (run,) = scan.readouts
    head = run.head.copy()
    head["number_of_samples"] -= missing
    head["center_sample"] -= missing
    return replace(scan, readouts=(Readouts(head, run.samples[..., missing:].copy()),))


@pytest.mark.parametrize("missing", [10, 17])
def test_an_asymmetric_echo_is_the_image_of_the_samples_that_came(missing: int) -> None:
    """Placed by its centre sample; the judge's k-space has zeros where nothing was sampled."""
    simulated = simulate("brain-se", seed=3, coils=3, matrix=32, noise=0)
    (run,) = simulated.scan.readouts
    first, *_ = reconstruct(asymmetric(simulated.scan, missing), Recipe("fft"), CPU)
    rows = np.flatnonzero(run.head["slice"] == first.counters.slice)
    kspace = np.zeros((3, 1, 32, 64), np.complex64)
    kspace[:, 0, run.head["kspace_encode_step_1"][rows], missing:] = run.samples[rows, :, missing:].swapaxes(0, 1)
    exact = np.linalg.norm(coil_images(kspace, (1, 32, 32)), axis=0)
    assert distance(first.pixels[0], exact) < ROUNDING

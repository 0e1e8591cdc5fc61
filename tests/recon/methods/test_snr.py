"""Maps in units of the noise: by formula and by replicas they agree, and with truth over noise where that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi, norm

from recon.errors import RecipeError, ScanError
from recon.methods.snr import SNR, SNR_SERIES
from recon.pipeline import reconstruct
from recon.recipe import Recipe, Value
from recon.scan import Flag, Image, Limit, Readouts, Scan
from recon.simulate import SimulatedScan, simulate
from tests.recon.methods.phantoms import CPU
from tests.recon.methods.test_cg_sense import measured, thinned

REPLICAS = 40


def maps_by(method: str, scan: Scan, **parameters: Value) -> list[Image]:
    """The images of slice 0 of `scan`."""
    runs = [
        (run, (run.head["flags"] & Flag.IS_NOISE_MEASUREMENT.mask != 0) | (run.head["slice"] == 0))
        for run in scan.readouts
    ]
    kept = tuple(Readouts(run.head[rows], run.samples[rows]) for run, rows in runs)
    return list(reconstruct(replace(scan, readouts=kept), Recipe(method, parameters), CPU))


def bounds(count: int, pixels: int) -> tuple[float, float]:
    """Between which the standard deviation of `count` real replicas lies in all of `pixels` but once in a thousand."""
    miss = 1e-3 / (2 * pixels)
    low, high = (float(chi.ppf(share, count - 1)) / np.sqrt(count - 1) for share in (miss, 1 - miss))
    return low, high


def test_fully_sampled_the_formula_is_the_image_itself() -> None:
    """Whitened k-space has noise of 1, an orthonormal transform keeps it, and so does a root sum of squares."""
    image, snr = maps_by("fft", measured("brain-se", 48, noise=1).scan, snr="analytic")
    assert np.array_equal(snr.pixels, image.pixels)
    assert (snr.series, snr.index, snr.unit) == (1 + SNR_SERIES, image.index, "1")
    assert SNR in snr.comments


@pytest.mark.parametrize(
    ("method", "step", "parameters"),
    [("fft", 1, {}), ("fft", 1, {"combine": "adaptive", "coils": 6}), ("grappa", 2, {}), ("sense", 2, {"lambda": 0.0})],
    ids=str,
)
def test_replicas_agree_with_the_formula(method: str, step: int, parameters: dict[str, Value]) -> None:
    """Pixel by pixel in the object where it is bright; of undersampled scans the formula leaves the centre out."""
    simulated = measured("brain-se", 48, noise=1)
    scan = simulated.scan if step == 1 else thinned(simulated.scan, (step, 1), centre=10)
    formula = maps_by(method, scan, snr="analytic", **parameters)[1].pixels[0]
    replicas = maps_by(method, scan, snr=REPLICAS, **parameters)[1].pixels[0]
    inside = simulated.truth[0].mask & (formula > 5)  # where a magnitude has the noise of its real part, to 1 / 2·5²
    ratio = formula[inside] / replicas[inside]  # of standard deviations, that of replicas first
    low, high = bounds(REPLICAS, int(inside.sum()))
    assert ratio.min() > low * (1 if step == 1 else np.sqrt(24 / 34))
    assert ratio.max() < high * 1.02
    # A mean over n pixels deviates by 1 / √(2 · replicas · n); 11 of 35 lines are measured between those of a half.
    expected = pytest.approx(1, abs=0.02 + 4 / np.sqrt(2 * REPLICAS * inside.sum())) if step == 1 else None
    assert expected is None or np.sqrt((ratio**2).mean()) == expected
    assert np.sqrt((ratio**2).mean()) <= 1.02 + 4 / np.sqrt(2 * REPLICAS * inside.sum())


def repeated(simulated: SimulatedScan) -> Scan:
    """Every readout twice, with noise of its own: two averages."""
    again = simulate("brain-se", seed=4, coils=8, matrix=48, noise=1).scan
    noise, *runs = (*simulated.scan.readouts, again.readouts[-1])
    for average, run in enumerate(runs):
        head = run.head.copy()
        head["average"], head["flags"] = average, 0
        runs[average] = Readouts(head, run.samples)
    (encoding,) = simulated.scan.header.encodings
    twice = replace(encoding, limits={**encoding.limits, "average": Limit(0, 1, 0)})
    return replace(simulated.scan, header=replace(simulated.scan.header, encodings=(twice,)), readouts=(noise, *runs))


@pytest.mark.parametrize("snr", ["analytic", REPLICAS])
def test_two_averages_are_better_by_the_square_root_of_two(snr: Value) -> None:
    simulated = measured("brain-se", 48, noise=1)
    once, twice = (maps_by("fft", scan, snr=snr)[1].pixels[0] for scan in (simulated.scan, repeated(simulated)))
    inside = simulated.truth[0].mask & (once > 5)
    gain = float((twice[inside] / once[inside]).mean())
    assert gain == pytest.approx(np.sqrt(2), rel=0.02 + norm.ppf(0.999) / np.sqrt(REPLICAS * inside.sum()))


@pytest.mark.parametrize("method", ["cg-sense", "l1-wavelet"])
def test_any_method_has_replicas(method: str) -> None:
    scan = thinned(measured("brain-se", 48, noise=1).scan, (2, 1))
    image, snr = maps_by(method, scan, snr=3)
    assert snr.series == image.series + SNR_SERIES
    inside = measured("brain-se", 48, noise=1).truth[0].mask
    assert np.median(snr.pixels[0][inside]) > 5


def test_a_scan_without_noise_scan_has_no_such_map() -> None:
    with pytest.raises(ScanError) as caught:
        maps_by("fft", measured("brain-se", 48, noise=0).scan, snr="analytic")
    assert str(caught.value) == (
        "snr is analytic, but the scan is not whitened: acquire a noise scan and leave whiten on, or set snr to off"
    )


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        (
            "tv",
            {},
            "snr is analytic, but how noise goes through the method tv is known for fft, grappa, sense only:"
            " ask for a number of replicas",
        ),
        (
            "fft",
            {"partial_fourier": "pocs"},
            "snr is analytic, but partial_fourier is pocs, through which noise goes by no formula:"
            " ask for a number of replicas",
        ),
    ],
)
def test_where_there_is_no_formula_replicas_are_advised(
    method: str, parameters: dict[str, Value], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(method, {"snr": "analytic", **parameters})
    assert str(caught.value) == message

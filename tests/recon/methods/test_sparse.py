"""`l1-wavelet` and `tv` remove noise and aliases that the coils alone cannot; BART is asked to do better."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kernels.contract import Complex
from recon.espirit import espirit
from recon.gather import gather, select
from recon.operators import cartesian_sense
from recon.pipeline import frames_of
from recon.prepare import whitening
from recon.prox import TotalVariation, sparse_wavelets
from recon.scan import Calibration
from recon.simulate import Truth, nrmse, simulate
from recon.solve import Composite, fista
from tests.recon.judges import Bart
from tests.recon.methods.phantoms import CPU, distance, frame_of, image_by, noise_kspace
from tests.recon.methods.test_cg_sense import error, measured, thinned

METHODS = ("l1-wavelet", "tv")


@cache
def white_lines() -> tuple[Complex, Complex, Truth]:
    """White k-space [coil, 1, ky, kx] of a noisy slice (every third line and a centre), its maps, and the truth."""
    simulated = measured("brain-se", 96, noise=1)
    scan = thinned(simulated.scan, (3, 1))
    frames, noise = frames_of(scan)
    (index,) = (each for each in frames if each.counters.slice == 0)
    frame = gather(scan.header, select(scan.readouts, index.rows))
    calibration = whitening(noise, header=scan.header, sample_time_us=frame.sample_time_us)
    assert calibration.whitening is not None
    white = np.tensordot(calibration.whitening, frame.kspace, axes=1).astype(np.complex64)
    kspace = CPU.fft(CPU.ifft(white, axes=1, crop=(96,)), axes=1)
    (maps,) = espirit(kspace[:, :, 36:60, 36:60], (1, 96, 96), crop=0)[0]
    (truth,) = (each for each in simulated.truth if each.counters == index.counters)
    return kspace, np.ascontiguousarray(maps), truth


def ours(method: str, strength: float, iterations: int) -> float:
    """NRMSE after so many iterations from zero, with the maps that BART gets."""
    kspace, maps, truth = white_lines()
    sampled = np.abs(kspace).any(axis=(0, 3)).astype(np.float32)[..., None]
    sense = cartesian_sense(CPU, maps, sampled)
    prior = sparse_wavelets(CPU, strength, (96, 96)) if method == "l1-wavelet" else TotalVariation(strength, 2)
    found = fista(Composite(sense.normal, sense.adjoint(kspace), prior), step=1.0, iterations=iterations)
    return nrmse(np.abs(found), truth)


def barts(method: str, strength: float, bart: Bart) -> float:
    """NRMSE of BART's image after 30 iterations with the same maps."""
    kspace, maps, truth = white_lines()
    prior = {"l1-wavelet": "W:3:0", "tv": "T:3:0"}[method]
    image = bart(f"pics -w1 -i30 -d0 -R {prior}:{strength}", kspace, maps)
    return nrmse(np.abs(image).reshape(1, 96, 96), truth)


@pytest.mark.parametrize("method", METHODS)
def test_bart_comes_no_nearer_to_the_truth(method: str, tmp_path: Path) -> None:
    """At the default strength, and where each takes its best."""
    strengths = (0.25, 0.5, 1.0)
    theirs = [barts(method, strength, Bart(tmp_path)) for strength in strengths]
    own = [ours(method, strength, 30) for strength in strengths]
    assert own[1] <= 1.02 * theirs[1]
    assert min(own) <= 1.02 * min(theirs)


@pytest.mark.parametrize(
    "method", [pytest.param("l1-wavelet", marks=pytest.mark.xfail(strict=True, reason="0.053 against 0.047")), "tv"]
)
def test_bart_comes_no_nearer_where_the_prior_is_too_strong(method: str, tmp_path: Path) -> None:
    assert ours(method, 2.0, 30) <= 1.02 * barts(method, 2.0, Bart(tmp_path))


@pytest.mark.parametrize("method", METHODS)
def test_it_halves_the_noise_that_the_coils_amplify(method: str) -> None:
    simulated = measured("brain-se", 96, noise=1)
    scan = thinned(simulated.scan, (3, 1))
    assert error(simulated, scan, method) < 0.5 * error(simulated, scan, "cg-sense")


@pytest.mark.parametrize("method", METHODS)
def test_a_stronger_prior_leaves_less(method: str) -> None:
    """The measure that a prior holds small falls as its strength rises: wavelets and variation both kill noise."""
    frame = frame_of(noise_kspace((4, 1, 32, 32)))
    sizes = [
        float(np.linalg.norm(image_by(method, frame, strength=strength, tolerance=0.0).pixels))
        for strength in (0.0, 0.5, 2.0)
    ]
    assert sizes[0] > 1.1 * sizes[1] > 1.1 * 1.1 * sizes[2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_the_default_means_the_same_at_every_scale(method: str, scale: float) -> None:
    """Without a noise scan the noise is estimated from the data: the image scales with them, and looks the same."""
    kspace, _, _ = white_lines()
    sampled = np.abs(kspace).any(axis=(0, 3))
    plain = image_by(method, frame_of(kspace, sampled=sampled))
    scaled = image_by(method, frame_of((kspace * scale).astype(np.complex64), sampled=sampled))
    # The iteration stops at a relative change of 1e-3: rounding may make that one step sooner or later.
    assert distance(scaled.pixels / scale, plain.pixels) < 2e-3


def test_no_strength_is_least_squares() -> None:
    """Fully sampled k-space is the normal operator's identity: without a prior its first step is the answer."""
    frame = frame_of(noise_kspace((4, 1, 32, 32)))
    plain = image_by("cg-sense", frame)
    for method in METHODS:
        assert distance(image_by(method, frame, strength=0.0).pixels, plain.pixels) < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("protocol", ["heart-radial", "head-gre3d"])
def test_volumes_and_trajectories_take_the_same_priors(method: str, protocol: str) -> None:
    simulated = simulate(protocol, seed=3, coils=4, matrix=32, repetitions=1)
    scan = simulated.scan if protocol == "heart-radial" else thinned(simulated.scan, (2, 1), centre=16)
    assert error(simulated, scan, method) < error(simulated, scan, "cg-sense")


def test_iterations_stop_where_little_changes() -> None:
    frame = frame_of(white_lines()[0], sampled=np.abs(white_lines()[0]).any(axis=(0, 3)))
    long, short, first = (
        image_by("tv", frame, iterations=60, tolerance=tolerance).pixels for tolerance in (0.0, 1e-3, 1.0)
    )
    assert distance(short, long) < 0.1 * distance(first, long)


@pytest.mark.parametrize("method", METHODS)
def test_the_estimated_noise_serves_as_well_as_the_known(method: str) -> None:
    kspace, _, truth = white_lines()
    frame = frame_of(kspace, sampled=np.abs(kspace).any(axis=(0, 3)))
    white = Calibration(whitening=np.eye(len(kspace), dtype=np.complex64))
    known, guessed = (image_by(method, frame, calibration=given).pixels[0] for given in (white, None))
    assert nrmse(guessed, truth) < 1.1 * nrmse(known, truth)

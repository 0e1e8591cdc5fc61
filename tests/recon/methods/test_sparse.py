"""`l1-wavelet` and `tv` remove noise and aliases that the coils alone cannot; BART is asked to do better."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from kernels.contract import Complex, Equations
from recon.espirit import espirit
from recon.gather import gather, select
from recon.methods.problem import Problem
from recon.methods.sparse import towards_data
from recon.operators import Operator, cartesian_sense
from recon.pipeline import frames_of
from recon.prepare import whitening
from recon.prox import TotalVariation, levels_of, sparse_wavelets
from recon.scan import Calibration, Scan
from recon.simulate import Truth, nrmse, simulate
from recon.solve import Composite, fista
from tests.recon.judges import Bart
from tests.recon.methods.phantoms import CPU, distance, frame_of, image_by, noise_kspace
from tests.recon.methods.test_cg_sense import error, measured, thinned

METHODS = ("l1-wavelet", "tv")


def thirds() -> Scan:
    """Every third line of a noisy scan, and a centre."""
    return thinned(measured("brain-se", 96, noise=1).scan, (3, 1))


@cache
def white_lines() -> tuple[Complex, Complex, Truth]:
    """White k-space [coil, 1, ky, kx] of a noisy slice (every third line and a centre), its maps, and the truth."""
    simulated, scan = measured("brain-se", 96, noise=1), thirds()
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


def problem() -> tuple[Operator, Complex]:
    """The operator of those lines and maps, and its adjoint of the lines."""
    kspace, maps, _ = white_lines()
    sampled = np.abs(kspace).any(axis=(0, 3)).astype(np.float32)[..., None]
    sense = cartesian_sense(CPU, maps, sampled)
    return sense, sense.adjoint(kspace)


@cache
def ours(method: str, strength: float, iterations: int) -> Complex:
    """The image after so many iterations from zero, with the maps that BART gets."""
    sense, rhs = problem()
    prior = sparse_wavelets(CPU, strength, (96, 96)) if method == "l1-wavelet" else TotalVariation(strength, 2)
    return fista(Composite(sense.normal, rhs, prior), step=1.0, iterations=iterations)


def barts(method: str, strength: float, bart: Bart) -> Complex:
    """BART's image after 30 iterations with the same maps."""
    kspace, maps, _ = white_lines()
    prior = {"l1-wavelet": "W:3:0", "tv": "T:3:0"}[method]
    return bart(f"pics -w1 -i30 -d0 -R {prior}:{strength}", kspace, maps).reshape(1, 96, 96)


def away(image: Complex) -> float:
    """NRMSE of an image of those lines."""
    return nrmse(np.abs(image), white_lines()[2])


@pytest.mark.parametrize("method", METHODS)
def test_bart_comes_no_nearer_to_the_truth(method: str, tmp_path: Path) -> None:
    """At the default strength, and where each takes its best; nor than the whole method, with maps of its own."""
    strengths = (0.25, 0.5, 1.0)
    theirs = [away(barts(method, strength, Bart(tmp_path))) for strength in strengths]
    own = [away(ours(method, strength, 30)) for strength in strengths]
    assert own[1] <= 1.02 * theirs[1]
    assert min(own) <= 1.02 * min(theirs)
    assert error(measured("brain-se", 96, noise=1), thirds(), method) <= 1.02 * min(theirs)


def energy(image: Complex, strength: float) -> float:
    """What `l1-wavelet` and BART's `-R W` hold small, details taken over all origins of the transform on a third."""
    sense, _ = problem()
    kspace, _, _ = white_lines()
    levels = levels_of((96, 96))
    details = []
    for origin in product(range(0, 1 << levels[0], 3), range(0, 1 << levels[1], 3)):
        values = np.abs(CPU.wavelet(image, levels=levels, shift=origin))
        values[..., : 96 >> levels[0], : 96 >> levels[1]] = 0
        details.append(float(values.sum()))
    return 0.5 * float(np.linalg.norm(sense.forward(image) - kspace)) ** 2 + strength * float(np.mean(details))


@pytest.mark.parametrize("strength", [0.5, 2.0, 4.0])
def test_bart_goes_one_step_towards_the_data_after_its_last_threshold(strength: float, tmp_path: Path) -> None:
    """So its image is not where the energy of both is least: ours is lower, and after that step as near to the truth.

    BART's loop thresholds first and follows the data's gradient afterwards, so it hands out an image that no threshold
    has seen: with a strong prior nearer to the truth, with more energy.
    """
    sense, rhs = problem()
    own, theirs = ours("l1-wavelet", strength, 30), barts("l1-wavelet", strength, Bart(tmp_path))
    assert energy(own, strength) <= energy(theirs, strength)
    problem_ = Problem(Equations(sense.normal, (), "sense"), rhs, 2, np.abs, 1.0, bounded=True)
    assert away(towards_data(problem_, own, 1.0)) <= 1.02 * away(theirs)


def test_bart_comes_no_nearer_where_variation_is_too_dear(tmp_path: Path) -> None:
    assert away(ours("tv", 2.0, 30)) <= 1.02 * away(barts("tv", 2.0, Bart(tmp_path)))


@pytest.mark.parametrize("method", METHODS)
def test_a_last_step_towards_the_data_undoes_a_strong_prior(method: str) -> None:
    """Of fully sampled k-space: one gradient of ½‖x − y‖² ends at y."""
    frame = frame_of(noise_kspace((4, 1, 32, 32)))
    strong, undone, data = (
        image_by(method, frame, strength=strength, last_step=step).pixels
        for strength, step in ((3.0, "prior"), (3.0, "data"), (0.0, "prior"))
    )
    assert distance(undone, data) < 1e-5
    assert distance(strong, data) > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_there_is_less_noise_than_the_lines_alone_can_have(method: str) -> None:
    """Without a prior, noise grows as √(all / measured lines), and by a geometry factor, which is at least 1."""
    kspace, _, truth = white_lines()
    least = truth.predicted_nrmse / np.sqrt(np.abs(kspace).any(axis=(0, 1, 3)).mean())
    simulated = measured("brain-se", 96, noise=1)
    assert error(simulated, thirds(), method) < least < error(simulated, thirds(), "cg-sense")


@pytest.mark.parametrize("method", METHODS)
def test_a_stronger_prior_leaves_less(method: str) -> None:
    """Of fully sampled k-space x = prox(y): ⟨y − x, x⟩ = strength · prior(x) ≥ 0, since twice x costs twice as much.

    So ‖y‖² ≥ ‖x‖² + ‖y − x‖², and magnitudes are no farther from one another than what they are of.
    """
    frame = frame_of(noise_kspace((4, 1, 32, 32)))
    plain, weak, strong = (
        image_by(method, frame, strength=strength, tolerance=0.0).pixels.astype(np.float64)
        for strength in (0.0, 0.5, 2.0)
    )
    assert np.linalg.norm(plain) > np.linalg.norm(weak) > np.linalg.norm(strong)
    for shrunk in (weak, strong):
        assert np.linalg.norm(plain) >= np.hypot(np.linalg.norm(shrunk), np.linalg.norm(plain - shrunk))


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
    guessed = nrmse(image_by(method, frame).pixels[0], truth)
    # An object's edges may hold a twentieth of the details that the noise is found from, and make it a tenth larger.
    known = [
        nrmse(image_by(method, frame, calibration=white, strength=0.5 * factor).pixels[0], truth)
        for factor in (1.0, 1.1)
    ]
    # Iterations stop at a relative change of 1e-3.
    assert min(known) - 1e-3 <= guessed <= max(known) + 1e-3

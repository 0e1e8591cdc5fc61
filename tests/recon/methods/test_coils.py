"""Fewer, virtual coils: the image stays, the noise stays white, and what is left out is what was said."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from kernels.contract import Complex
from recon.errors import RecipeError, ScanError
from recon.gather import gather, select
from recon.methods import METHODS
from recon.pipeline import frames_of, reconstruct
from recon.prepare import (
    CENTRE_LINES,
    LOST,
    aligned,
    compressed_geometrically,
    compressed_together,
    strongest,
    strongest_along,
)
from recon.recipe import Recipe, Value
from recon.scan import Calibration
from recon.simulate import nrmse, simulate
from tests import tolerances
from tests.recon.builders import noise
from tests.recon.methods.phantoms import CPU, distance, encoding, frame_of, noise_kspace
from tests.recon.methods.test_cg_sense import error, measured, thinned
from tests.recon.methods.test_reference import separated

RNG = np.random.default_rng(41)


def dependent(coils: int, rank: int) -> Complex:
    """K-space [coil, 1, ky, kx] of coils that are combinations of `rank` ones."""
    return np.tensordot(noise(RNG, (coils, rank)), noise_kspace((rank, 1, 32, 24)), axes=1).astype(np.complex64)


@pytest.mark.parametrize("coils", [3, "auto"])
def test_what_depends_on_three_coils_fits_into_three(coils: Value) -> None:
    frame = frame_of(dependent(12, 3))
    (found,), _ = compressed_together([frame], Calibration(), coils)
    assert len(found.kspace) == 3
    before, after = (CPU.rss(each.kspace) for each in (frame, found))
    # The combinations come from one eigenvalue problem of 12 coils in single precision.
    assert distance(after, before) < 100 * tolerances.sum_of(12)


def test_combinations_are_orthonormal_and_in_order() -> None:
    samples = noise(RNG, (6, 200)) * np.arange(1, 7, dtype=np.float32)[:, None]
    matrix = strongest(samples, 4)
    assert np.allclose(matrix @ matrix.conj().T, np.eye(4), atol=1e-5)
    powers = (np.abs(matrix @ samples) ** 2).sum(axis=1)
    assert (np.diff(powers) < 0).all()


def test_auto_loses_no_more_than_it_may() -> None:
    samples = noise(RNG, (8, 400)) * np.geomspace(1, 1e-3, 8, dtype=np.float32)[:, None]
    matrix = strongest(samples, "auto")
    assert 1 < len(matrix) < 8
    kept = [float(np.linalg.norm(matrix[:n] @ samples) ** 2 / np.linalg.norm(samples) ** 2) for n in (-1, len(matrix))]
    assert kept[0] < 1 - LOST < kept[1] + 1e-5


def test_noise_stays_white() -> None:
    covariance = noise(RNG, (6, 6))
    mixing = np.linalg.cholesky(covariance @ covariance.conj().T + np.eye(6))
    whitening = np.linalg.inv(mixing).astype(np.complex64)
    frame = frame_of(np.tensordot(mixing, noise_kspace((6, 1, 96, 96)), axes=1).astype(np.complex64))
    (found,), calibration = compressed_together([frame], Calibration(whitening=whitening), 4)
    assert calibration.whitening is not None
    white = (calibration.whitening @ found.kspace.reshape(4, -1)).astype(np.complex128)
    # σ = 1 in each part, that is a variance of 2; each of 16 entries is a mean over n = 9216 with deviation 2 / √n. The
    # strongest combinations of pure noise in the 576 central samples are stronger by some √(4 · 6 / 576) there alone.
    assert np.abs(white @ white.conj().T / white.shape[1] - 2 * np.eye(4)).max() < 2 * (5 / 96 + 0.2 * 576 / 9216)


def test_as_many_coils_as_there_are_change_nothing() -> None:
    frame = frame_of(noise_kspace((4, 1, 32, 24)))
    for coils in ("all", 4, 9):
        (same,), _ = compressed_together([frame], Calibration(), coils)
        assert same is frame


@cache
def lost_with(coils: int) -> float:
    """What the image loses with all but the strongest combinations of its coils in the centre of exact k-space."""
    simulated = measured("brain-se", 96, noise=0)
    frames, _ = frames_of(simulated.scan)
    kspace = gather(simulated.scan.header, select(simulated.scan.readouts, frames[0].rows)).kspace
    middle = [slice(n // 2 - CENTRE_LINES // 2, n // 2 + CENTRE_LINES // 2) for n in kspace.shape[2:]]
    centre = kspace[:, :, middle[0], middle[1]].reshape(len(kspace), -1).astype(np.complex128)
    strong = np.linalg.svd(centre, full_matrices=False)[0][:, :coils]
    images = CPU.ifft(kspace, axes=2, crop=(96, 96))[:, 0]
    kept = np.tensordot(strong.conj().T, images, axes=1)
    whole, seen = (np.linalg.norm(each, axis=0)[simulated.truth[0].mask[0]] for each in (images, kept))
    return distance(seen, whole)


@pytest.mark.parametrize("method", ["fft", "grappa", "sense", "cg-sense", "l1-wavelet"])
def test_six_of_eight_coils_serve_every_method(method: str) -> None:
    """Each makes of six what it makes of eight, but for what these lose: `fft` that exactly, others no more."""
    simulated = measured("brain-se", 96, noise=0)
    scan = simulated.scan if method == "fft" else thinned(simulated.scan, (2, 1))
    six, eight = (error(simulated, scan, method, coils=coils) for coils in (6, "all"))
    assert six <= eight + lost_with(6)
    if method == "fft":
        # Both are sums over 8 coils of transforms in single precision, the combinations from eigenvectors of as many.
        assert six == pytest.approx(lost_with(6), abs=100 * tolerances.sum_of(8))


def test_trajectories_are_compressed_too() -> None:
    simulated = simulate("heart-radial", seed=3, coils=8, matrix=48, repetitions=1)
    for method in ("gridding", "cg-sense"):
        assert error(simulated, simulated.scan, method, coils="auto") <= tolerances.HEARTS


def test_a_separate_scan_compresses_the_image_with_it() -> None:
    simulated = measured("brain-se", 96, noise=0)
    scan = separated(simulated.scan, 2)
    assert error(simulated, scan, "grappa", coils=6) <= error(simulated, scan, "grappa") + lost_with(6)


def along_readout(coils: int, samples: int) -> Complex:
    """K-space [coil, 1, ky, kx] of coils that see two places of the object each, apart along the readout."""
    places = np.arange(samples)
    centres = np.linspace(0, samples, coils, endpoint=False)
    sees = np.exp(-(((places - centres[:, None] + samples / 2) % samples - samples / 2) ** 2) / 8)
    images = sees[:, None, None] * CPU.ifft(noise_kspace((1, 1, 32, samples)), axes=2)
    return CPU.fft(images.astype(np.complex64), axes=2)


@pytest.mark.parametrize("coils", [1, 2, 4])
def test_geometric_compression_keeps_more_with_as_few(coils: int) -> None:
    """At each place the best combinations are at least as good there as those that are best on the whole."""
    frame = frame_of(along_readout(8, 48))
    kept = []
    for (found,), _ in (
        compressed_together([frame], Calibration(), coils),
        compressed_geometrically([frame], Calibration(), coils, CPU),
    ):
        assert len(found.kspace) == coils
        kept.append(float(np.linalg.norm(found.kspace[:, :, 4:28]) / np.linalg.norm(frame.kspace[:, :, 4:28])))
    assert kept[0] < kept[1] <= 1 + 1e-5


def test_geometric_auto_loses_no_more_than_it_may_and_needs_fewer() -> None:
    frame = frame_of(along_readout(8, 48))
    ((found,), _), ((plain,), _) = (
        compressed_geometrically([frame], Calibration(), "auto", CPU),
        compressed_together([frame], Calibration(), "auto"),
    )
    assert len(found.kspace) < len(plain.kspace)
    centre = slice(4, 28)
    lost = 1 - float(np.linalg.norm(found.kspace[:, :, centre]) / np.linalg.norm(frame.kspace[:, :, centre])) ** 2
    assert lost < LOST + 1e-5


def test_neighbours_are_turned_alike_and_span_what_they_did() -> None:
    bases = strongest_along(CPU.ifft(along_readout(6, 32)[:, 0], axes=1), 3)
    turned = aligned(bases)
    spans = [np.swapaxes(b.conj(), -1, -2) @ b for b in (bases, turned)]
    assert np.allclose(spans[0], spans[1], atol=1e-4)
    steps = [float(np.linalg.norm(np.diff(b, axis=0), axis=(1, 2)).max()) for b in (bases, turned)]
    assert steps[1] < steps[0]


def test_geometric_compression_leaves_noise_white_and_gaps_empty() -> None:
    kspace = noise_kspace((6, 1, 64, 64))
    kspace[..., :10] = 0
    whitening = np.eye(6, dtype=np.complex64) * 2
    sampled = (np.arange(64) % 2 == 0)[None]
    (found,), calibration = compressed_geometrically(
        [frame_of(kspace, sampled=sampled)], Calibration(whitening=whitening), 4, CPU
    )
    assert calibration.whitening is not None and np.array_equal(calibration.whitening, np.eye(4))
    assert not found.kspace[..., :10].any() and not found.kspace[:, ~sampled].any()
    whole, _ = compressed_geometrically(
        [frame_of(noise_kspace((6, 1, 96, 96)))], Calibration(whitening=whitening), 4, CPU
    )
    outer = np.delete(whole[0].kspace, slice(36, 60), axis=2).reshape(4, -1)  # no line that the combinations come from
    # Rows of unit norm times 2: a variance of 2 · 2²; each entry is a mean over n samples with deviation 8 / √n.
    assert np.abs(outer @ outer.conj().T / outer.shape[1] - 8 * np.eye(4)).max() < 8 * 5 / np.sqrt(outer.shape[1])


@pytest.mark.parametrize("method", ["fft", "grappa", "cg-sense"])
def test_four_geometric_coils_come_nearer_than_four_of_the_whole(method: str) -> None:
    simulated = measured("brain-se", 96, noise=0)
    scan = simulated.scan if method == "fft" else thinned(simulated.scan, (2, 1))
    plain, geometric = (error(simulated, scan, method, coils=4, compression=how) for how in ("svd", "geometric"))
    assert geometric < plain


def test_geometric_compression_refuses_trajectories() -> None:
    scan = simulate("heart-radial", seed=3, coils=4, matrix=32, repetitions=1).scan
    with pytest.raises(RecipeError) as caught:
        list(reconstruct(scan, Recipe("cg-sense", {"coils": 2, "compression": "geometric"}), CPU))
    assert str(caught.value) == (
        "compression is geometric, which needs Cartesian k-space, the scan is goldenangle: ask for compression svd"
    )


def test_what_a_frame_needs_is_that_of_its_virtual_coils() -> None:
    space, raw = encoding((1, 128, 128)), 8 * 32 * 128 * 128
    method = METHODS["cg-sense"]

    def needed(coils: int, wanted: Value) -> tuple[int, float]:
        return method.needs(space, coils, recipe=Recipe("cg-sense", {"coils": wanted}), raw_bytes=raw)

    few, compressed_, many = needed(8, "all"), needed(32, 8), needed(32, "all")
    assert few[0] < compressed_[0] == few[0] + raw < many[0]
    assert few[1] < compressed_[1] < many[1]
    assert needed(32, "auto") == many  # how many that will be, the data say
    keys = [method.key(space, coils, Recipe("cg-sense", {"coils": 8})) for coils in (32, 16, 4)]
    assert keys[0] == keys[1] != keys[2]


def test_a_sample_that_is_not_finite_is_named() -> None:
    scan = simulate("brain-se", seed=3, coils=4, matrix=32, noise=0).scan
    samples = scan.readouts[-1].samples.copy()
    samples[80, 2, 30] = np.inf
    bad = replace(scan, readouts=(*scan.readouts[:-1], replace(scan.readouts[-1], samples=samples)))
    with pytest.raises(ScanError, match=r"holds .*inf.* in coil 2, sample 30, expected finite samples"):
        list(reconstruct(bad, Recipe("fft", {"coils": 2}), CPU))


@pytest.mark.parametrize(("step", "lines", "reason"), [(2, 0, "too few to calibrate"), (5, 12, "accelerated 5-fold")])
def test_auto_gives_a_plainer_image_and_says_why(step: int, lines: int, reason: str) -> None:
    simulated = simulate("brain-se", seed=3, coils=4, matrix=48, noise=0)
    scan = thinned(simulated.scan, (step, 1), centre=lines)
    (encoding,) = scan.header.encodings
    promised = replace(scan, header=replace(scan.header, encodings=(replace(encoding, calibration_mode="embedded"),)))
    image = next(reconstruct(promised, Recipe(), CPU))
    assert image.provenance.method == "fft"
    assert image.comments[0].startswith("grappa was not possible, this is the zero-filled image: ")
    assert reason in image.comments[0]
    assert "lines are zero-filled, the image is aliased" in image.comments[1]
    plain = next(reconstruct(promised, Recipe("fft"), CPU))
    assert np.array_equal(image.pixels, plain.pixels)
    assert nrmse(image.pixels[0], simulated.truth[0]) < 1

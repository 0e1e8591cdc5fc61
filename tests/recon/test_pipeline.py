"""The whole way from readouts to images, against exact truth and against other people's programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ismrmrd
import numpy as np
import pytest
from numpy.typing import NDArray

import kernels
import recon
from recon.cache import Cache
from recon.errors import ScanError
from recon.mrd.hdf5 import read_scan
from recon.pipeline import frames_of, reconstruct, reconstruct_frame
from recon.recipe import Recipe
from recon.scan import Flag, Image, Readouts, Scan, ScanHeader, Trajectory
from recon.simulate import nrmse, simulate
from tests.recon.builders import header, heads, noise, readouts_of
from tests.recon.judges import Bart, ismrmrd_recon, shepp_logan

CPU = kernels.on("cpu")
RNG = np.random.default_rng(2)
PLAIN = Recipe("fft", {"whiten": False})

# A float32 FFT of n points errs by about ε·log₂ n relative to the image's norm, ours as well as the judge's:
# 2 · 6e-8 · log₂(256·512) = 2e-6.
FFT_TOLERANCE = 4e-6


def images_of(scan: Scan, recipe: Recipe = PLAIN) -> list[Image]:
    return list(reconstruct(scan, recipe, CPU))


def distance(image: NDArray[np.generic], judge: NDArray[np.generic], *, scaled: bool = False) -> float:
    """Relative distance in norm; `scaled` allows one factor between the two."""
    if scaled:
        judge = judge * (np.vdot(judge, image) / np.vdot(judge, judge)).real
    return float(np.linalg.norm(image - judge) / np.linalg.norm(judge))


@pytest.mark.parametrize(
    "options",
    [
        ("-m", "64", "-c", "4"),
        ("-m", "48", "-c", "1", "-O", "1"),
        ("-m", "96", "-c", "3", "-O", "3", "-r", "3"),
        ("-m", "64", "-c", "8", "-r", "2", "-C"),
        ("-m", "32", "-c", "2", "-k"),
    ],
)
def test_files_of_ismrmrds_generator_look_as_its_own_reconstruction_makes_them(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    path = shepp_logan(tmp_path / "scan.h5", *options)
    images = images_of(read_scan(path))
    assert distance(images[-1].pixels[0, 0], ismrmrd_recon(path), scaled=True) < FFT_TOLERANCE
    assert [image.index for image in images] == list(range(1, len(images) + 1))


def test_an_accelerated_file_is_zero_filled_with_a_warning(tmp_path: Path) -> None:
    path = shepp_logan(tmp_path / "scan.h5", "-m", "64", "-c", "4", "-a", "2")
    images = images_of(read_scan(path))
    warning = "undersampled along kspace_encode_step_1: 32 of 64 lines are zero-filled, the image is aliased"
    assert [image.comments for image in images] == [(warning,)] * 2
    bart = Bart(tmp_path)
    for image, kspace in zip(images, read_by_hand(path), strict=True):
        judge = bart("resize -c 0 64", bart("rss 8", bart("fft -i -u 7", kspace)))
        assert distance(image.pixels[0, 0], judge.reshape(64, 64).real) < FFT_TOLERANCE


def read_by_hand(path: Path) -> NDArray[np.complex64]:
    """[repetition, coil, z, y, x] of a file by the `ismrmrd` package, line by line."""
    with ismrmrd.Dataset(path, create_if_needed=False) as dataset:
        kspace = np.zeros((2, 4, 1, 64, 128), np.complex64)
        for i in range(dataset.number_of_acquisitions()):
            line = dataset.read_acquisition(i)
            kspace[line.idx.repetition, :, 0, line.idx.kspace_encode_step_1] = line.data
    return kspace


def test_bart_makes_the_same_image(tmp_path: Path) -> None:
    bart = Bart(tmp_path)
    kspace = noise(RNG, (5, 1, 48, 96))
    (image,) = images_of(Scan(header((1, 48, 96), coils=5), (readouts_of(kspace),)))
    judge = bart("rss 8", bart("fft -i -u 7", kspace))
    assert distance(image.pixels[0], judge.reshape(1, 48, 96).real) < FFT_TOLERANCE


def test_bart_makes_the_same_volume(tmp_path: Path) -> None:
    bart = Bart(tmp_path)
    kspace = noise(RNG, (3, 12, 20, 32))
    scan = Scan(header((12, 20, 32), recon=(12, 20, 16), coils=3), (readouts_of(kspace),))
    (image,) = images_of(replace(scan, header=oversampled(scan.header)))
    judge = bart("rss 8", bart("resize -c 0 16", bart("fft -i -u 7", kspace)))
    assert distance(image.pixels[0], judge.reshape(12, 20, 16).real) < FFT_TOLERANCE


def oversampled(scan: ScanHeader) -> ScanHeader:
    """The same voxels in both spaces: the recon field of view is as much smaller as its matrix."""
    (encoding,) = scan.encodings
    z, y, x = (d * n for d, n in zip(encoding.encoded.spacing_mm, encoding.recon.matrix, strict=True))
    return replace(scan, encodings=(replace(encoding, recon=replace(encoding.recon, field_of_view_mm=(z, y, x))),))


@pytest.mark.parametrize("protocol", ["brain-se", "head-gre3d"])
def test_cartesian_protocols_err_no_more_than_their_noise(protocol: str) -> None:
    simulated = simulate(protocol, seed=3, coils=6, matrix=64)
    truth = {each.counters: each for each in simulated.truth}
    images = images_of(simulated.scan, Recipe())
    assert {image.counters for image in images} == set(truth)
    for image in images:
        wanted = truth[image.counters]
        assert nrmse(image.pixels[0], wanted) <= 1.2 * wanted.predicted_nrmse
        assert image.comments == ()


def test_whitened_noise_has_unit_variance() -> None:
    covariance = noise(RNG, (4, 4))
    mixed = np.matmul(covariance, noise(RNG, (64 + 64, 4, 64)))
    scan = noisy_scan(mixed, noise_us=5.0, imaging_us=5.0)
    (image,) = images_of(scan, Recipe("fft"))
    # The mean of the squared magnitude is 2 per coil; 64² samples of 4 coils know it to 1 %, 64² noise samples as well.
    assert float((image.pixels**2).mean()) == pytest.approx(8, rel=0.05)


def test_whitening_scales_with_the_dwell_times() -> None:
    """Four times the dwell time is half the noise: the same samples are worth twice as much."""
    mixed = noise(RNG, (64 + 64, 4, 64))
    (equal,) = images_of(noisy_scan(mixed, noise_us=5.0, imaging_us=5.0), Recipe("fft"))
    (longer,) = images_of(noisy_scan(mixed, noise_us=5.0, imaging_us=20.0), Recipe("fft"))
    np.testing.assert_array_equal(longer.pixels, 2 * equal.pixels)  # a power of two rounds nothing


def noisy_scan(samples: NDArray[np.complex64], *, noise_us: float, imaging_us: float) -> Scan:
    """64 noise readouts and a 64 × 64 image, all from `samples` [readout, 4 coils, 64]."""
    head = heads(128, samples=64, coils=4, kspace_encode_step_1=np.arange(128) % 64, sample_time_us=imaging_us)
    head["flags"][:64], head["sample_time_us"][:64] = Flag.IS_NOISE_MEASUREMENT.mask, noise_us
    return Scan(header((1, 64, 64), coils=4), (Readouts(head, samples.astype(np.complex64)),))


def test_frames_cut_by_hand_make_the_same_images() -> None:
    """What a worker does with one frame at a time is what the whole pipeline does."""
    scan = simulate("brain-se", seed=4, coils=4, matrix=48).scan
    indices, noise_runs = frames_of(scan)
    cache, data = Cache(), np.concatenate([run.samples for run in scan.readouts[1:]])
    heads_of_all = np.concatenate([run.head for run in scan.readouts[1:]])
    first = len(scan.readouts[0].head)
    for index, image in zip(indices, reconstruct(scan, Recipe(), CPU), strict=True):
        rows = index.rows - first
        (alone,) = reconstruct_frame(
            scan.header, [Readouts(heads_of_all[rows], data[rows])], noise_runs, Recipe(), CPU, cache
        )
        np.testing.assert_allclose(alone.pixels, image.pixels, rtol=1e-5)
    assert (cache.hits, cache.misses) == (len(indices) - 1, 1)  # one whitening for all of them


def test_what_others_must_know_stands_in_the_image() -> None:
    scan = simulate("brain-se", seed=4, coils=2, matrix=32).scan
    for image in reconstruct(scan, Recipe(), CPU):
        assert image.provenance.version == recon.__version__
        assert image.provenance.method == "fft" and len(image.provenance.recipe_hash) == 64
        assert image.patient_position == scan.header.patient_position
        assert image.series == 1


def test_the_version_is_the_distributions() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'\nversion = "{recon.__version__}"\n' in project.read_text(encoding="utf-8")


def test_the_null_method_makes_no_image() -> None:
    assert images_of(Scan(header(), (readouts_of(noise(RNG, (2, 1, 8, 8))),)), Recipe("null")) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, complex(0, -np.inf)])
@pytest.mark.parametrize(
    "recipe", [PLAIN, Recipe("fft", {"combine": "adaptive"}), Recipe("fft", {"output": "phase"}), Recipe("cg-sense")]
)
def test_a_sample_that_is_not_finite_is_named(value: complex, recipe: Recipe) -> None:
    run = readouts_of(noise(RNG, (2, 1, 16, 16)))
    run.samples[5, 1, 3] = value
    with pytest.raises(ScanError) as caught:
        images_of(Scan(header((1, 16, 16)), (run,)), recipe)
    assert str(caught.value).startswith("the readout with scan_counter 5 (slice 0, repetition 0, line 5) holds")
    assert str(caught.value).endswith("in coil 1, sample 3, expected finite samples: measure it again")


@pytest.mark.parametrize(
    "recipe", [Recipe("gridding"), Recipe("gridding", {"combine": "adaptive"}), Recipe("cg-sense")]
)
def test_a_sample_of_a_spoke_that_is_not_finite_is_named(recipe: Recipe) -> None:
    path = np.float32(0.5) * RNG.uniform(-1, 1, (32, 16, 2)).astype(np.float32)
    data = noise(RNG, (32, 2, 16))
    data[7, 0, 2] = np.inf
    head = heads(32, samples=16, kspace_encode_step_1=np.arange(32), trajectory_dimensions=2)
    scan = header((1, 16, 16), trajectory=Trajectory.RADIAL, limits={"kspace_encode_step_1": (0, 31)})
    with pytest.raises(ScanError, match=r"scan_counter 7 .* in coil 0, sample 2"):
        images_of(Scan(scan, (Readouts(head, data, path),)), recipe)


def test_infinities_that_cancel_in_an_average_are_named() -> None:
    runs = [readouts_of(noise(RNG, (2, 1, 8, 8)), average=i) for i in range(2)]
    for run, value in zip(runs, (np.inf, -np.inf), strict=True):
        run.samples[4, 0, 4] = value
    with pytest.raises(ScanError, match=r"scan_counter 4 .* in coil 0, sample 4"):
        images_of(Scan(header(limits={"average": (0, 1)}), tuple(runs)))


def test_two_encoding_spaces_make_images_of_their_own_size() -> None:
    small, large = (readouts_of(noise(RNG, (2, 1, n, n)), encoding_space_ref=i) for i, n in enumerate((8, 12)))
    both = replace(header((1, 8, 8)), encodings=header((1, 8, 8)).encodings + header((1, 12, 12)).encodings)
    mixed = images_of(
        Scan(both, (Readouts(small.head[:4], small.samples[:4]), large, Readouts(small.head[4:], small.samples[4:])))
    )
    assert [(image.counters.encoding, image.pixels.shape[2:]) for image in mixed] == [(1, (12, 12)), (0, (8, 8))]
    assert [(image.series, image.index) for image in mixed] == [(2, 1), (1, 1)]
    (alone,) = images_of(Scan(header((1, 8, 8)), (small,)))
    np.testing.assert_allclose(mixed[1].pixels, alone.pixels, rtol=1e-6)


def test_noise_that_is_not_finite_is_refused() -> None:
    scan = noisy_scan(noise(RNG, (128, 4, 64)), noise_us=5.0, imaging_us=5.0)
    scan.readouts[0].samples[2, 3, 4] = np.nan
    with pytest.raises(ScanError):
        images_of(scan, Recipe("fft"))


def test_samples_too_large_for_single_precision_are_said_to_be() -> None:
    run = readouts_of(np.full((2, 1, 8, 8), 3e38, np.complex64))
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ScanError, match="overflows single precision"):
        images_of(Scan(header(), (run,)))


def test_missing_lines_are_said_in_the_image() -> None:
    run = readouts_of(noise(RNG, (2, 1, 8, 8)))
    (image,) = images_of(Scan(header(), (Readouts(run.head[:6], run.samples[:6]),)))
    assert image.comments == (
        "2 of 8 lines were not received, their k-space is taken as zero",
        "partial Fourier along kspace_encode_step_1: 2 of 8 lines are zero-filled, resolution is reduced",
    )

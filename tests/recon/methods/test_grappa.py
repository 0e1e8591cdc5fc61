"""`grappa` against exact truth, ISMRMRD's generator, and what it must leave alone."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.assemble import Assembler
from recon.errors import CalibrationError, RecipeError, ScanError
from recon.grappa import SLAB_BYTES
from recon.methods import choose, decide, enough_spokes
from recon.mrd.hdf5 import read_scan
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Flag, Limit, Readouts, Scan, Shape3, Trajectory
from tests import tolerances
from tests.recon.builders import header, heads, noise
from tests.recon.judges import shepp_logan
from tests.recon.methods.phantoms import CPU, distance, encoding, frame_of, image_by, noise_kspace, shots_of, spokes
from tests.recon.methods.test_cg_sense import error, measured, thinned


@pytest.mark.parametrize(
    ("protocol", "matrix", "steps"), [("brain-se", 96, (2, 1)), ("brain-se", 96, (3, 1)), ("head-gre3d", 48, (2, 2))]
)
def test_it_removes_the_aliases_that_zero_filling_leaves(protocol: str, matrix: int, steps: tuple[int, int]) -> None:
    simulated = measured(protocol, matrix, noise=0)
    scan = thinned(simulated.scan, steps)
    # Without noise what is left is the error of weights from 24 lines.
    assert error(simulated, scan, "grappa") < tolerances.HALVED * error(simulated, scan, "fft")


def test_noise_grows_no_more_than_it_must() -> None:
    simulated = measured("brain-se", 96, noise=1)
    (truth,) = (each for each in simulated.truth if each.counters.slice == 0)
    # 60 of 96 lines, times a geometry factor that eight coils keep below 1.5 at twofold acceleration.
    bound = 1.5 * np.sqrt(96 / 60) * truth.predicted_nrmse
    assert error(simulated, thinned(simulated.scan, (2, 1)), "grappa") <= bound


@pytest.mark.parametrize("combine", ["rss", "adaptive"])
def test_a_full_frame_is_the_image_of_fft(combine: str) -> None:
    frame = frame_of(noise_kspace((3, 4, 12, 20)))
    one, other = (image_by(method, frame, combine=combine) for method in ("grappa", "fft"))
    assert np.array_equal(one.pixels, other.pixels)
    assert one.provenance.method == "grappa"


def half(lines: int, *, centre: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Every second line [1, ky] and `centre` more."""
    line = np.arange(lines)
    return (((line % 2) == 0) | (abs(line - lines // 2 + 0.5) < centre / 2))[None]


def test_whitening_mixes_the_coils_before_all_else() -> None:
    kspace, mixing = noise_kspace((3, 1, 48, 32)), noise_kspace((3, 3))
    mixed = np.tensordot(mixing, kspace, axes=1).astype(np.complex64)
    sampled = half(48, centre=20)
    white = image_by("grappa", frame_of(kspace, sampled=sampled), calibration=Calibration(whitening=mixing))
    # The same sums in another order, through a regularised system of condition 1/RIDGE at most.
    assert distance(white.pixels, image_by("grappa", frame_of(mixed, sampled=sampled)).pixels) < 1e-3


def test_lines_that_no_pattern_explains_stay_zero_with_a_warning() -> None:
    sampled = np.random.default_rng(3).random((1, 64)) > 0.4
    frame = frame_of(noise_kspace((2, 1, 64, 32)), sampled=sampled)
    one, other = (image_by(method, frame) for method in ("grappa", "fft"))
    assert one.comments == other.comments != ()


def test_partial_fourier_is_said() -> None:
    sampled = half(48, centre=20)
    sampled[:, :10] = False
    (comment,) = image_by("grappa", frame_of(noise_kspace((2, 1, 48, 32)), sampled=sampled)).comments
    assert (
        comment == "partial Fourier along kspace_encode_step_1: 10 of 48 lines are zero-filled, resolution is reduced"
    )


def test_an_interpolated_image_keeps_its_values() -> None:
    kspace = noise_kspace((3, 1, 48, 32))
    sampled = half(48, centre=20)
    coarse = image_by("grappa", frame_of(kspace, sampled=sampled), combine="rss")
    finer = encoding((1, 48, 32), recon=(1, 96, 64), field_mm=(1.0, 48.0, 32.0))
    fine = image_by("grappa", frame_of(kspace, sampled=sampled, space=finer), combine="rss")
    assert distance(fine.pixels[..., ::2, ::2], coarse.pixels) < 1e-5


def test_memory_is_what_the_docstring_says() -> None:
    frame = frame_of(noise_kspace((12, 1, 256, 256)), sampled=half(256, centre=24))
    tracemalloc.start()
    try:
        image_by("grappa", frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * (16 * 12 * 256 * 256 + 2 * SLAB_BYTES)


def test_a_centre_too_small_is_refused() -> None:
    frame = frame_of(noise_kspace((2, 1, 64, 64)), sampled=half(64, centre=0))
    with pytest.raises(ScanError, match="grappa finds 1 × 1 fully sampled lines of 64 samples at the centre"):
        image_by("grappa", frame)


def without_centre(acceleration: int = 2) -> Scan:
    """Lines of a full scan on either side of the centre, which the pattern leaves out."""
    line = np.arange(48)
    places = np.flatnonzero(line % acceleration == (48 // 2 + 1) % acceleration)
    head = heads(len(places), samples=32, coils=8, kspace_encode_step_1=places)
    samples = noise(np.random.default_rng(5), (len(places), 8, 32))
    return Scan(header((1, 48, 32), coils=8, acceleration=(acceleration, 1)), (Readouts(head, samples),))


@pytest.mark.parametrize("method", ["grappa", "sense", "cg-sense", "l1-wavelet", "tv"])
@pytest.mark.parametrize("acceleration", [2, 3])
def test_a_centre_that_was_not_measured_is_refused_by_all_that_calibrate_with_it(
    method: str, acceleration: int
) -> None:
    scan = without_centre(acceleration)
    words = (
        f"grappa finds 0 × 1 fully sampled lines of 32 samples at the centre of k-space, too few to calibrate an"
        f" acceleration of {acceleration} with 8 coils: measure more calibration lines or use fft"
        if method == "grappa"
        else "0 lines are fully sampled at the centre of kspace_encode_step_1, expected at least 8 for coil maps:"
        " measure calibration lines or use fft"
    )
    with pytest.raises(CalibrationError) as caught:
        list(reconstruct(scan, Recipe(method), CPU))
    assert str(caught.value) == words
    if method in ("grappa", "sense"):
        (image,) = reconstruct(scan, Recipe(method, {"fallback": True}), CPU)
        (plain,) = reconstruct(scan, Recipe("fft"), CPU)
        assert np.array_equal(image.pixels, plain.pixels)
        assert image.comments[0] == f"{method} was not possible, this is the zero-filled image: {words}"


def test_a_trajectory_is_refused() -> None:
    points = spokes(8, 16)
    frame = shots_of(noise_kspace((1, 8, 16)), points, space=encoding((1, 16, 16), kind=Trajectory.RADIAL))
    with pytest.raises(RecipeError) as caught:
        image_by("grappa", frame)
    assert str(caught.value) == (
        "the method grappa needs Cartesian k-space, the header's trajectory is radial: use gridding or auto"
    )


@pytest.mark.parametrize("line", [0, 24])
def test_a_sample_that_is_not_finite_is_named(line: int) -> None:
    places = np.flatnonzero(half(48, centre=20)[0])
    head = heads(len(places), samples=32, kspace_encode_step_1=places)
    samples = noise(np.random.default_rng(2), (len(places), 2, 32))
    samples[places == line, 1, 7] = np.nan
    scan = Scan(header((1, 48, 32), acceleration=(2, 1)), (Readouts(head, samples),))
    with pytest.raises(ScanError, match=rf"line {line}\) holds .* in coil 1, sample 7"):
        list(reconstruct(scan, Recipe("grappa"), CPU))


def test_ismrmrds_generator_with_calibration_lines(tmp_path: Path) -> None:
    options = ("-m", "64", "-c", "8", "-n", "0")
    (full,) = reconstruct(read_scan(shepp_logan(tmp_path / "full.h5", *options)), Recipe("fft"), CPU)
    scan = read_scan(shepp_logan(tmp_path / "half.h5", *options, "-a", "2", "-w", "24"))
    filled, zero_filled = (list(reconstruct(scan, Recipe(name), CPU)) for name in ("auto", "fft"))
    assert [image.provenance.method for image in filled] == ["grappa"] * 2
    for one, other in zip(filled, zero_filled, strict=True):
        assert one.comments == ()
        assert distance(one.pixels, full.pixels) < 0.25 * distance(other.pixels, full.pixels)


def test_repetitions_of_ismrmrds_generator_calibrate_each_other(tmp_path: Path) -> None:
    """It says interleaved: two repetitions of every second line, each with the lines that the other lacks."""
    options = ("-m", "64", "-c", "8", "-n", "0")
    (full,) = reconstruct(read_scan(shepp_logan(tmp_path / "full.h5", *options)), Recipe("fft"), CPU)
    scan = read_scan(shepp_logan(tmp_path / "half.h5", *options, "-a", "2"))
    assert scan.header.encodings[0].calibration_mode == "interleaved"
    filled, zero_filled = (list(reconstruct(scan, Recipe(name), CPU)) for name in ("auto", "fft"))
    assert [image.provenance.method for image in filled] == ["grappa"] * 2
    for one, other in zip(filled, zero_filled, strict=True):
        assert one.comments == ()
        assert distance(one.pixels, full.pixels) < 0.25 * distance(other.pixels, full.pixels)


def test_without_calibration_lines_auto_zero_fills_with_a_warning(tmp_path: Path) -> None:
    scan = read_scan(shepp_logan(tmp_path / "half.h5", "-m", "32", "-c", "2", "-a", "2"))
    (encoding,) = scan.header.encodings
    header = replace(scan.header, encodings=(replace(encoding, calibration_mode="other"),))
    for image in reconstruct(replace(scan, header=header), Recipe(), CPU):
        assert image.provenance.method == "fft"
        assert "undersampled along kspace_encode_step_1: 16 of 32 lines are zero-filled" in image.comments[0]


def test_auto_takes_it_where_a_pattern_and_calibration_lines_are() -> None:
    full = encoding((1, 8, 8))
    half_space = replace(full, acceleration=(2, 1))
    promised = replace(half_space, calibration_mode="embedded")
    recipe = Recipe("auto", {"combine": "adaptive"})
    cases = [(full, True, "fft"), (half_space, False, "fft"), (half_space, True, "grappa"), (promised, False, "grappa")]
    for space, calibrated, method in cases:
        chosen = choose(recipe, space, calibrated=calibrated)
        assert (chosen.method, chosen["combine"]) == (method, "adaptive")
    radial = replace(promised, trajectory=Trajectory.RADIAL)
    assert choose(recipe, radial, calibrated=True).method == "gridding"


@pytest.mark.parametrize("mode", ["interleaved", "other"])
def test_a_frame_knows_whether_calibration_lines_came_with_it(mode: str) -> None:
    assembler = Assembler(header((1, 8, 8), acceleration=(2, 1), calibration_mode=mode))
    head = heads(5, kspace_encode_step_1=[0, 2, 3, 4, 6])
    head["flags"][2] = Flag.IS_PARALLEL_CALIBRATION.mask
    head["flags"][4] = Flag.LAST_IN_SLICE.mask
    (index,) = assembler.add(head)
    assert index.calibrated == (mode == "interleaved") == (len(index.rows) == 5)


def test_auto_says_which_field_decided() -> None:
    full = encoding((1, 8, 8))
    half = replace(full, acceleration=(2, 1))
    cases = {
        "auto takes gridding: the header's trajectory is spiral": (replace(half, trajectory=Trajectory.SPIRAL), False),
        "auto takes cg-sense: the header's limits of kspace_encode_step_1 hold 25 spokes, Nyquist asks for 101": (
            spokes_of((1, 64, 64), 25),
            False,
        ),
        "auto takes gridding: the header's trajectory is radial": (spokes_of((1, 64, 64), 51), False),
        "auto takes fft: the header's trajectory is cartesian, its accelerationFactor 1 × 1": (full, True),
        "auto takes grappa: the header's accelerationFactor is 2 × 1, and calibration lines came with the frame": (
            replace(half, calibration_mode="interleaved"),
            True,
        ),
        "auto takes grappa: the header's accelerationFactor is 2 × 1, its calibrationMode embedded": (
            replace(half, calibration_mode="embedded"),
            False,
        ),
        "auto takes fft: the header's accelerationFactor is 2 × 1, but its calibrationMode is not given and no"
        " calibration lines came": (half, False),
    }
    for sentence, (space, calibrated) in cases.items():
        method, reason = decide(space, calibrated=calibrated)
        assert reason == sentence
        assert choose(Recipe(), space, calibrated=calibrated).method == method


def spokes_of(matrix: Shape3, spokes: int, *, partitions: int = 1) -> Encoding:
    """An encoding whose limits count so many spokes, in each of so many partitions."""
    limits = {"kspace_encode_step_1": Limit(0, spokes - 1, 0), "kspace_encode_step_2": Limit(0, partitions - 1, 0)}
    return replace(encoding(matrix, kind=Trajectory.RADIAL), limits=limits)


def test_auto_counts_the_spokes_of_a_stack_and_of_a_ball() -> None:
    """A stack has them in every partition; a ball, which steps through none, needs the square of them."""
    stack, ball = spokes_of((8, 32, 32), 40, partitions=8), spokes_of((32, 32, 32), 800)
    assert (enough_spokes(stack), enough_spokes(ball)) == (50, 1608)
    assert decide(stack, calibrated=False)[0] == "gridding"
    assert decide(ball, calibrated=False)[0] == "cg-sense"
    unknown = replace(ball, limits={})
    assert decide(unknown, calibrated=False)[0] == "gridding"


@pytest.mark.parametrize(("centre", "instead"), [(0, "fft"), (4, "fft"), (10, "cg-sense or fft")])
def test_the_way_out_that_is_named_is_one(centre: int, instead: str) -> None:
    """A narrow readout leaves eight coils too few equations, with or without enough lines for coil maps."""
    line = np.arange(48)
    sampled = ((line % 4 == 0) | (abs(line - 23.5) < centre / 2))[None]
    frame = frame_of(noise_kspace((8, 1, 48, 8)), sampled=sampled)
    with pytest.raises(CalibrationError, match=rf"measure more calibration lines or use {instead}$"):
        image_by("grappa", frame)
    assert image_by("fft", frame).pixels.any()
    if "cg-sense" in instead:
        assert image_by("cg-sense", frame).pixels.any()
    else:
        with pytest.raises(CalibrationError, match="expected at least 8 for coil maps"):
            image_by("cg-sense", frame)

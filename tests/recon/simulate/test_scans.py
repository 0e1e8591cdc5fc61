"""Whole simulated scans: heads, headers, noise, files, and truth against independent reconstructions."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.assemble import Assembler
from recon.errors import RecipeError
from recon.mrd.hdf5 import read_scan
from recon.mrd.header import parse_header
from recon.prepare import whitening
from recon.scan import COUNTERS, Counters, Flag, Geometry, Readouts, Trajectory
from recon.simulate import PROTOCOLS, SimulatedScan, nrmse, save, simulate
from recon.simulate.coils import Coils
from recon.simulate.heart import (
    MOMENTS,
    RADIAL,
    RADIAL_BEATS,
    RADIAL_PHASES,
    Stage,
    chest,
    grid,
    heart,
    spoiled_signal,
)
from recon.simulate.measurement import chest_array, seen_by
from recon.simulate.physiology import contraction
from recon.simulate.trajectories import spiral_areas, spoke_areas

NAMES = tuple(PROTOCOLS)[:4]
CARTESIAN = NAMES[:2]
FRAMES = {"brain-se": 5, "head-gre3d": 1, "heart-radial": RADIAL_PHASES, "heart-spiral": 3}
IMAGE = ("slice", "contrast", "phase", "repetition", "set")


@cache
def small(name: str, *, noise: float = 1.0, seed: int = 1, repetitions: int | None = None) -> SimulatedScan:
    default = 3 if name == "heart-spiral" else 1
    return simulate(name, seed=seed, matrix=32, coils=4, noise=noise, repetitions=repetitions or default)


def imaging(scan: SimulatedScan) -> Readouts:
    return scan.scan.readouts[-1]


def rows_of(readouts: Readouts, counters: Counters) -> NDArray[np.int64]:
    same = np.all([readouts.head[name] == getattr(counters, name) for name in IMAGE], axis=0)
    return np.flatnonzero(same)


def whitened(scan: SimulatedScan) -> NDArray[np.complex64]:
    """Imaging samples, whitened by what the noise scan says."""
    noise, image = scan.scan.readouts
    dwell = float(image.head["sample_time_us"][0])
    matrix = whitening([noise], header=scan.scan.header, sample_time_us=dwell).whitening
    return np.matmul(matrix, image.samples)


def kspace(scan: SimulatedScan, samples: NDArray[np.complex64], counters: Counters) -> NDArray[np.complex128]:
    """[coil, kz, ky, kx] of one Cartesian image, line by line as the counters say."""
    head, rows = imaging(scan).head, rows_of(imaging(scan), counters)
    grid = np.zeros((samples.shape[1], *scan.scan.header.encodings[0].encoded.matrix), np.complex128)
    for row in rows:
        grid[:, head["kspace_encode_step_2"][row], head["kspace_encode_step_1"][row]] = samples[row]
    return grid


def transformed(grid: NDArray[np.complex128]) -> NDArray[np.complex128]:
    axes = (1, 2, 3)
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(grid, axes=axes), axes=axes, norm="ortho"), axes=axes)


def cropped(images: NDArray[np.complex128], width: int) -> NDArray[np.complex128]:
    start = images.shape[-1] // 2 - width // 2
    return images[..., start : start + width]


def combined(images: NDArray[np.complex128]) -> NDArray[np.float64]:
    return np.sqrt(np.sum(np.abs(images) ** 2, axis=0))


# ---- heads and headers ----


@pytest.mark.parametrize("name", NAMES)
def test_the_header_means_the_same_to_the_ismrmrd_package(name: str) -> None:
    import ismrmrd

    header = small(name).scan.header
    assert parse_header(header.xml) == header
    theirs = ismrmrd.xsd.CreateFromDocument(header.xml)
    assert theirs.acquisitionSystemInformation.receiverChannels == 4
    assert theirs.encoding[0].trajectory.value == header.encodings[0].trajectory.value
    assert theirs.encoding[0].reconSpace.matrixSize.x == 32
    assert theirs.measurementInformation.protocolName == name
    assert [PROTOCOLS[name].timing.tr_ms] == theirs.sequenceParameters.TR
    assert [PROTOCOLS[name].timing.te_ms] == theirs.sequenceParameters.TE
    assert theirs.sequenceParameters.flipAngle_deg == [PROTOCOLS[name].timing.flip_deg]
    assert theirs.subjectInformation.patientName == "Phantom^1"


@pytest.mark.parametrize("name", NAMES)
def test_counters_keep_the_limits_and_use_them(name: str) -> None:
    head = imaging(small(name)).head
    for counter, limit in small(name).scan.header.encodings[0].limits.items():
        assert (head[counter].min(), head[counter].max()) == (limit.minimum, limit.maximum), counter
    unused = set(COUNTERS) - set(small(name).scan.header.encodings[0].limits)
    assert all((head[counter] == 0).all() for counter in unused)


@pytest.mark.parametrize("name", NAMES)
def test_every_image_has_one_first_and_one_last_readout(name: str) -> None:
    scan = small(name)
    head = imaging(scan).head
    assert len(scan.truth) == FRAMES[name]
    for truth in scan.truth:
        flags = head["flags"][rows_of(imaging(scan), truth.counters)]
        np.testing.assert_array_equal(np.flatnonzero(flags & np.uint64(Flag.FIRST_IN_SLICE.mask)), [0])
        np.testing.assert_array_equal(np.flatnonzero(flags & np.uint64(Flag.LAST_IN_SLICE.mask)), [len(flags) - 1])
    for first, last, counters in (
        (Flag.FIRST_IN_REPETITION, Flag.LAST_IN_REPETITION, ["repetition"]),
        (Flag.FIRST_IN_PHASE, Flag.LAST_IN_PHASE, ["phase", "repetition"]),
        (Flag.FIRST_IN_CONTRAST, Flag.LAST_IN_CONTRAST, ["contrast", "repetition"]),
        (Flag.FIRST_IN_SET, Flag.LAST_IN_SET, ["set", "repetition"]),
        (Flag.FIRST_IN_SEGMENT, Flag.LAST_IN_SEGMENT, ["segment", "repetition"]),
        (Flag.FIRST_IN_AVERAGE, Flag.LAST_IN_AVERAGE, [*IMAGE, "average"]),
    ):
        count = len(np.unique(head[counters]))
        assert np.count_nonzero(head["flags"] & np.uint64(first.mask)) == count
        assert np.count_nonzero(head["flags"] & np.uint64(last.mask)) == count
    ends = head["flags"] & np.uint64(Flag.LAST_IN_MEASUREMENT.mask)
    np.testing.assert_array_equal(np.flatnonzero(ends), [len(head) - 1])


@pytest.mark.parametrize("name", NAMES)
def test_assembly_finds_the_images_of_the_truth(name: str) -> None:
    scan = small(name)
    assembler = Assembler(scan.scan.header)
    found = [frame for run in scan.scan.readouts for frame in assembler.add(run.head)] + assembler.finish()
    assert len(found) == len(scan.truth)
    assert {frame.counters for frame in found} == {truth.counters for truth in scan.truth}
    assert all(frame.complete and not frame.warnings for frame in found)
    assert len(assembler.noise_rows) == len(scan.scan.readouts[0].head)


@pytest.mark.parametrize("name", NAMES)
def test_times_numbers_and_sizes(name: str) -> None:
    scan = small(name)
    heads = np.concatenate([run.head for run in scan.scan.readouts])
    assert len(scan.start_s) == len(heads)
    assert scan.start_s[0] == 0
    assert (np.diff(scan.start_s) > 0).all()
    ticks = heads["acquisition_time_stamp"].astype(np.int64)
    np.testing.assert_array_equal(ticks - ticks[0], np.floor(scan.start_s / 0.0025))
    np.testing.assert_array_equal(heads["scan_counter"], np.arange(1, len(heads) + 1))
    assert (heads["measurement_uid"] == 1001).all()
    assert (heads["channel_mask"][:, 0] == 0b1111).all()
    assert (heads["channel_mask"][:, 1:] == 0).all()
    for run in scan.scan.readouts:
        assert (run.head["number_of_samples"] == run.samples.shape[2]).all()
        assert (run.head["active_channels"] == run.samples.shape[1]).all()
        assert (run.head["trajectory_dimensions"] == (0 if run.trajectory is None else run.trajectory.shape[2])).all()


@pytest.mark.parametrize("name", NAMES)
def test_directions_are_right_handed_and_oblique(name: str) -> None:
    head = imaging(small(name)).head
    read, phase, through = (head[axis].astype(np.float64) for axis in ("read_dir", "phase_dir", "slice_dir"))
    # Directions are float32.
    np.testing.assert_allclose(np.cross(read, phase), through, atol=3e-7)
    np.testing.assert_allclose(np.linalg.norm(read, axis=1), 1, atol=3e-7)
    assert np.abs(through[0]).max() < 0.9999


def test_slices_are_excited_alternately_and_lie_where_they_say() -> None:
    head = imaging(small("brain-se")).head
    assert head["slice"][:5].tolist() == [0, 2, 4, 1, 3]
    places = np.array([head["position"][head["slice"] == i][0] for i in range(5)], np.float64)
    steps = np.diff(places, axis=0)
    np.testing.assert_allclose(steps, 12.0 * np.tile(head["slice_dir"][0].astype(np.float64), (4, 1)), atol=1e-4)


def test_repetitions_repeat_the_measurement() -> None:
    scan = small("brain-se", noise=0.0, repetitions=2)
    once = small("brain-se", noise=0.0)
    assert [t.counters for t in scan.truth] == [Counters(slice=s, repetition=r) for r in range(2) for s in range(5)]
    second = imaging(scan).samples[len(imaging(once).samples) :]
    np.testing.assert_array_equal(second, imaging(once).samples)


# ---- the heart ----


@pytest.mark.parametrize("name", NAMES[2:])
def test_trajectories_are_cycles_per_voxel(name: str) -> None:
    readouts = imaging(small(name))
    assert readouts.trajectory is not None
    assert readouts.trajectory.dtype == np.float32
    reach = np.linalg.norm(readouts.trajectory, axis=-1).max()
    assert 0.45 < reach <= 0.5 + 1e-7
    kind = {"heart-radial": Trajectory.GOLDEN_ANGLE, "heart-spiral": Trajectory.SPIRAL}[name]
    assert small(name).scan.header.encodings[0].trajectory == kind


def test_the_radial_cine_follows_the_ecg() -> None:
    scan = small("heart-radial")
    head = imaging(scan).head
    delay = head["physiology_time_stamp"][:, 0] * 0.0025
    window = 4 * RADIAL.tr_ms / 1000  # four spokes of each phase in a beat, with 32² voxels
    np.testing.assert_array_equal(np.floor((delay - 0.02 + 0.0025) / window + 1e-9), head["phase"])
    beat = np.arange(len(head)) // (RADIAL_PHASES * 4)
    assert beat.max() + 1 == RADIAL_BEATS
    ecg = np.concatenate([block.samples for block in scan.scan.waveforms], axis=1)
    r_waves = scan.scan.waveforms[0].time_stamp + np.flatnonzero(ecg[2])
    since = head["acquisition_time_stamp"].astype(np.int64) - head["physiology_time_stamp"][:, 0] - r_waves[beat]
    assert (np.abs(since) <= 1).all()  # each of the three is rounded to a tick


def test_the_heart_moves_and_the_rest_does_not() -> None:
    scan = small("heart-radial", noise=0.0)
    first, systole = scan.truth[0].pixels[0], scan.truth[6].pixels[0]
    change = np.abs(systole - first)
    heart, wall = change[12:19, 11:22], change[:, 28:]
    # The chest wall is ten voxels from the heart: of a change there only ringing arrives, a tenth at most.
    assert heart.max() > 0.1 * first[12:19, 11:22].max()
    assert wall.max() < 0.1 * heart.max()


def test_moments_of_the_truth_are_enough() -> None:
    """The mean over a few moments of a frame against that over all its readouts, when the heart is fastest."""
    stage = Stage(small("heart-spiral").scan.header.encodings[0], _chest_coils(), spoiled_signal)
    contracted = contraction(0.12 + 0.009 * np.arange(12))
    moments = np.quantile(contracted, (np.arange(MOMENTS) + 0.5) / MOMENTS)
    every, few = (
        np.mean([grid(stage, heart(stage, float(c))) for c in some], axis=0) for some in (contracted, moments)
    )
    # A hundredth of the error that the demo allows.
    assert np.linalg.norm(few - every) < 0.01 * 0.08 * np.linalg.norm(every + grid(stage, chest(stage)))


def _chest_coils() -> Coils:
    return seen_by(chest_array(2), Geometry(), np.array([320.0, 320.0]))


# ---- noise ----


def test_the_noise_is_what_was_said() -> None:
    scan, clean = small("brain-se"), small("brain-se", noise=0.0)
    noise = imaging(scan).samples - imaging(clean).samples
    flat = noise.transpose(1, 0, 2).reshape(4, -1).astype(np.complex128)
    variance = np.diag(scan.noise_covariance).real
    deviation = np.sqrt(np.outer(variance, variance) / flat.shape[1])
    assert (np.abs(flat @ flat.conj().T / flat.shape[1] - scan.noise_covariance) < 5 * deviation).all()
    assert not clean.noise_covariance.any()
    assert len(clean.scan.readouts) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_noise_scan_whitens_to_snr_units(name: str) -> None:
    scan, clean = small(name), small(name, noise=0.0)
    assert (scan.scan.readouts[0].head["flags"] == Flag.IS_NOISE_MEASUREMENT.mask).all()
    dwell = float(imaging(scan).head["sample_time_us"][0])
    noise = scan.scan.readouts[0]
    matrix = whitening([noise], header=scan.scan.header, sample_time_us=dwell).whitening
    assert matrix is not None
    white = matrix @ scan.noise_covariance @ matrix.conj().T
    count = noise.samples.shape[0] * noise.samples.shape[2]
    # The inverse of a sample covariance of `count` complex values: each entry off by 2/√count.
    np.testing.assert_allclose(white, 2 * np.eye(4), rtol=0, atol=5 * 2 / np.sqrt(count))
    drawn = matrix @ (imaging(scan).samples - imaging(clean).samples)
    assert drawn.real.std() == pytest.approx(1, abs=5 / np.sqrt(2 * drawn.size) + 5 / np.sqrt(count))


# ---- truth ----


@pytest.mark.parametrize("name", CARTESIAN)
def test_cartesian_truth_is_the_transform_of_clean_data(name: str) -> None:
    scan = small(name, noise=0.0)
    for truth in scan.truth:
        images = cropped(transformed(kspace(scan, imaging(scan).samples, truth.counters)), 32)
        # complex64 data and pixels; a transform of up to 36,864 values adds rounding of some 1e-7.
        np.testing.assert_allclose(combined(images), truth.pixels, rtol=0, atol=2e-6 * truth.pixels.max())


@pytest.mark.parametrize("name", CARTESIAN)
def test_cartesian_error_is_the_predicted_one(name: str) -> None:
    scan = small(name)
    samples = whitened(scan)
    for truth in scan.truth:
        image = combined(cropped(transformed(kspace(scan, samples, truth.counters)), 32))
        voxels = np.count_nonzero(truth.mask)
        # A mean of `voxels` squares with kurtosis of at most 3; the whitening knows the noise to 0.3 %.
        assert nrmse(image, truth) == pytest.approx(truth.predicted_nrmse, rel=5 / np.sqrt(2 * voxels) + 0.01)


def test_bart_makes_the_same_image(tmp_path: Path) -> None:
    if shutil.which("bart") is None:
        pytest.skip("bart is not installed (Debian package bart): its judgement of the simulated data is not asked")
    scan = small("head-gre3d", noise=0.0)
    grid = kspace(scan, imaging(scan).samples, Counters())
    _write_cfl(tmp_path / "k", grid.transpose(3, 2, 1, 0))
    for command in ("fft -iu 7 k x", "rss 8 x m", "resize -c 0 32 m image"):
        subprocess.run(["bart", *command.split()], cwd=tmp_path, check=True, env={"OMP_NUM_THREADS": "1"})
    pixels = _read_cfl(tmp_path / "image").real.squeeze().transpose(2, 1, 0)
    np.testing.assert_allclose(pixels, scan.truth[0].pixels, rtol=0, atol=2e-6 * pixels.max())


def _write_cfl(path: Path, array: NDArray[np.complex128]) -> None:
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(str(n) for n in array.shape) + "\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def _read_cfl(path: Path) -> NDArray[np.complex64]:
    shape = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(shape, order="F")


def _gridded(
    scan: SimulatedScan, counters: Counters, *, areas: Callable[..., NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Density-compensated adjoint with FINUFFT, on the scale of the encoded grid's orthonormal transform."""
    import finufft

    encoding, rows = scan.scan.header.encodings[0], rows_of(imaging(scan), counters)
    points = imaging(scan).trajectory[rows]  # type: ignore[index]
    x, y = (2 * np.pi * points.astype(np.float64)).reshape(-1, 2).T
    voxels = np.prod(encoding.encoded.matrix)
    weighted = whitened(scan)[rows].transpose(1, 0, 2) * (areas(points) * np.sqrt(voxels))
    values = weighted.reshape(len(weighted), -1).astype(np.complex128)
    shape = encoding.recon.matrix[1:]
    images = finufft.nufft2d1(np.ascontiguousarray(y), np.ascontiguousarray(x), values, shape, eps=1e-6, isign=1)
    return combined(images[:, None])


@pytest.mark.parametrize(
    ("name", "areas"),
    [("heart-radial", lambda points: spoke_areas(*points.shape[:2])), ("heart-spiral", spiral_areas)],
)
def test_gridding_comes_near_the_truth(name: str, areas: Callable[..., NDArray[np.float64]]) -> None:
    """The demo asks 8 % of a gridded image of the full protocol; ideal density weights must leave half of that free."""
    scan = simulate(name, seed=5, repetitions=1, coils=4)
    for truth in scan.truth[::6]:
        error = nrmse(_gridded(scan, truth.counters, areas=areas), truth)
        assert error >= 0.95 * truth.predicted_nrmse  # nothing is better than the noise allows
        assert error <= 0.05


# ---- choices, files ----


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_makes_the_same_bytes(name: str) -> None:
    state = np.random.get_state()[1].copy()
    one = simulate(name, seed=7, matrix=16, coils=2, repetitions=1)
    other = simulate(name, seed=7, matrix=16, coils=2, repetitions=1)
    third = simulate(name, seed=8, matrix=16, coils=2, repetitions=1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    for a, b, c in zip(one.scan.readouts, other.scan.readouts, third.scan.readouts, strict=True):
        assert a.head.tobytes() == b.head.tobytes()
        assert a.samples.tobytes() == b.samples.tobytes()
        assert a.samples.tobytes() != c.samples.tobytes()
    assert one.scan.header == other.scan.header
    assert one.scan.header.study_uid != third.scan.header.study_uid
    assert len(one.scan.header.study_uid) <= 64


@pytest.mark.parametrize("name", NAMES)
def test_saved_scans_read_back(name: str, tmp_path: Path) -> None:
    scan = small(name)
    save(tmp_path / "scan.h5", scan)
    again = read_scan(tmp_path / "scan.h5")
    assert again.header == scan.scan.header
    for mine, theirs in zip(scan.scan.readouts, again.readouts, strict=True):
        assert mine.head.tobytes() == theirs.head.tobytes()
        np.testing.assert_array_equal(mine.samples, theirs.samples)
        if mine.trajectory is not None:
            np.testing.assert_array_equal(mine.trajectory, theirs.trajectory)
    assert len(again.waveforms) == len(scan.scan.waveforms)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(RecipeError, match="no protocol is called 'knee', expected one of brain-se, head-gre3d"):
        simulate("knee")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"matrix": 8}, "matrix is 8, protocols take 16 to 512"),
        ({"coils": 65}, "coils is 65, protocols take 1 to 64"),
        ({"repetitions": 0}, "repetitions is 0, protocols take 1 to 1000"),
        ({"noise": -1.0}, "noise is -1.0, protocols take 0 to 1000"),
    ],
)
def test_choices_out_of_range_are_refused(choice: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        simulate("brain-se", **choice)  # type: ignore[arg-type]

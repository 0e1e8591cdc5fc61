"""Gathering: a view where the samples lie in order, and otherwise what a loop over the readouts would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.gather import gather, select
from recon.mrd import wire
from recon.scan import Flag, Geometry, Readouts, ScanHeader, Shape3, Trajectory
from tests.recon.builders import header, heads, noise, readouts_of

RNG = np.random.default_rng(1)


def slow(scan: ScanHeader, runs: Sequence[Readouts]) -> NDArray[np.complex128]:
    """One readout after the other: turn round, cut, place by the centre, mean over what fell on the same line."""
    encoding = scan.encodings[0]
    nz, ny, nx = encoding.encoded.matrix
    total = np.zeros((runs[0].samples.shape[1], nz, ny, nx), complex)
    count = np.zeros((nz, ny))
    for run in runs:
        for head, samples in zip(run.head, run.samples, strict=True):
            pre, center = int(head["discard_pre"]), int(head["center_sample"])
            cut = samples[:, pre : samples.shape[1] - int(head["discard_post"])]
            center -= pre
            if int(head["flags"]) & Flag.IS_REVERSE.mask:
                cut, center = cut[:, ::-1], cut.shape[1] - 1 - center
            first = min(max(nx // 2 - center, 0), nx - cut.shape[1])
            y = ny // 2 + int(head["kspace_encode_step_1"]) - encoding.limits["kspace_encode_step_1"].center
            z = nz // 2 + int(head["kspace_encode_step_2"]) - encoding.limits["kspace_encode_step_2"].center
            total[:, z, y, first : first + cut.shape[1]] += cut
            count[z, y] += 1
    mean: NDArray[np.complex128] = total / np.maximum(count, 1)[None, :, :, None]
    return mean


@st.composite
def frames(draw: st.DrawFn) -> tuple[ScanHeader, list[Readouts]]:
    """Readouts of one frame in any order: partial Fourier, asymmetric echoes, discards, averages, reversed lines."""
    nz, ny, nx = (draw(st.integers(1, n)) for n in (3, 5, 9))
    low = draw(st.integers(0, ny - 1))
    limits = {"kspace_encode_step_1": (0, ny - 1 - low, ny // 2 - low)}  # the first `low` lines are not measured
    if ny // 2 < low:
        limits = {"kspace_encode_step_1": (0, ny - 1, ny // 2)}
        low = 0
    kept = draw(st.integers(1, nx))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 20))
    extra = rng.integers(0, 3, (2, count)) if draw(st.booleans()) else np.zeros((2, count), int)
    samples = kept + 4
    head = heads(
        count,
        samples=samples,
        kspace_encode_step_1=rng.integers(0, ny - low, count),
        kspace_encode_step_2=rng.integers(0, nz, count),
        discard_pre=extra[0],
        discard_post=4 - extra[0] + extra[1] % kept,
        center_sample=draw(st.integers(0, samples)),
        flags=rng.choice([0, Flag.IS_REVERSE.mask], count) if draw(st.booleans()) else 0,
    )
    data = noise(rng, (count, 2, samples))
    cut = draw(st.integers(0, count))
    runs = [Readouts(head[a:b], data[a:b]) for a, b in ((0, cut), (cut, count)) if b > a]
    return header((nz, ny, nx), limits=limits), runs


@given(frames())
def test_gathering_is_what_a_loop_over_readouts_does(frame: tuple[ScanHeader, list[Readouts]]) -> None:
    scan, runs = frame
    # Sums of at most 20 values in float32 against float64.
    np.testing.assert_allclose(gather(scan, runs).kspace, slow(scan, runs), rtol=0, atol=20 * 2**-23 * 20)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 10), (4, 6, 5)])
def test_a_full_grid_in_natural_order_is_a_view(shape: Shape3) -> None:
    kspace = noise(RNG, (2, *shape))
    run = readouts_of(kspace)
    frame = gather(header(shape), [run])
    assert np.shares_memory(frame.kspace, run.samples)
    np.testing.assert_array_equal(frame.kspace, kspace)
    assert frame.sampled is not None and frame.sampled.all()


def test_a_volume_whose_partitions_run_fastest_is_a_view() -> None:
    kspace = noise(RNG, (2, 4, 6, 5))
    step_1, step_2 = np.divmod(np.arange(24), 4)
    head = heads(24, samples=5, kspace_encode_step_1=step_1, kspace_encode_step_2=step_2)
    run = Readouts(head, np.ascontiguousarray(kspace.transpose(2, 1, 0, 3)).reshape(24, 2, 5))
    frame = gather(header((4, 6, 5)), [run])
    assert np.shares_memory(frame.kspace, run.samples)
    np.testing.assert_array_equal(frame.kspace, kspace)


def test_equal_discards_are_cut_without_a_copy() -> None:
    kspace = noise(RNG, (2, 1, 8, 8))
    run = readouts_of(np.pad(kspace, [(0, 0)] * 3 + [(2, 3)]), discard_pre=2, discard_post=3, center_sample=6)
    frame = gather(header(), [run])
    assert np.shares_memory(frame.kspace, run.samples)
    np.testing.assert_array_equal(frame.kspace, kspace)


def test_a_run_in_a_receive_buffer_is_a_view_of_it() -> None:
    kspace = noise(RNG, (2, 1, 8, 8))
    buffer = np.frombuffer(bytearray(b"\0" + bytes(wire.encode_readouts(readouts_of(kspace)))), np.uint8)[1:]
    frame = gather(header(), [wire.view_run(buffer, count=8)])
    assert np.shares_memory(frame.kspace, buffer)
    np.testing.assert_array_equal(frame.kspace, kspace)


def test_averages_are_their_mean() -> None:
    kspace = noise(RNG, (3, 2, 1, 8, 8))
    runs = [readouts_of(k, average=i) for i, k in enumerate(kspace)]
    frame = gather(header(limits={"average": (0, 2)}), runs)
    np.testing.assert_allclose(frame.kspace, kspace.mean(axis=0), atol=2**-20)


def test_a_line_read_backwards_is_turned_round() -> None:
    kspace = noise(RNG, (2, 1, 8, 8))
    run = readouts_of(kspace)
    run.samples[1::2] = run.samples[1::2, :, ::-1]
    run.head["flags"][1::2] = Flag.IS_REVERSE.mask
    np.testing.assert_array_equal(gather(header(), [run]).kspace, kspace)


def test_partial_fourier_is_placed_by_the_centre_of_the_limits() -> None:
    kspace = noise(RNG, (2, 1, 8, 8))
    run = readouts_of(kspace)
    run.head["kspace_encode_step_1"] -= 3  # the sender counts from its first measured line
    measured = Readouts(run.head[3:], run.samples[3:])
    frame = gather(header(limits={"kspace_encode_step_1": (0, 4, 1)}), [measured])
    kspace[:, :, :3] = 0
    np.testing.assert_array_equal(frame.kspace, kspace)
    assert frame.sampled is not None and frame.sampled[0].tolist() == [False] * 3 + [True] * 5


def test_a_centre_that_the_sender_left_zero_is_not_believed() -> None:
    kspace = noise(RNG, (2, 1, 8, 8))
    run = readouts_of(kspace, center_sample=0)
    np.testing.assert_array_equal(gather(header(limits={"kspace_encode_step_1": (0, 7, 0)}), [run]).kspace, kspace)


def test_an_asymmetric_echo_is_placed_by_its_centre() -> None:
    kspace = noise(RNG, (2, 1, 8, 8))
    run = readouts_of(kspace[..., 2:], center_sample=2)
    kspace[..., :2] = 0
    np.testing.assert_array_equal(gather(header(), [run]).kspace, kspace)


def test_place_and_time_come_from_the_first_readout() -> None:
    run = readouts_of(noise(RNG, (2, 1, 8, 8)), slice=3, repetition=2, measurement_uid=9)
    run.head["position"], run.head["read_dir"], run.head["phase_dir"] = (1, 2, 3), (0, 1, 0), (1, 0, 0)
    run.head["slice_dir"], run.head["patient_table_position"] = (0, 0, -1), (0, 0, 50)
    run.head["acquisition_time_stamp"], run.head["physiology_time_stamp"] = np.arange(8) + 100, (7, 8, 9)
    frame = gather(header(limits={"slice": (0, 3), "repetition": (0, 2)}), [run])
    assert frame.geometry == Geometry((1, 2, 3), (0, 1, 0), (1, 0, 0), (0, 0, -1), (0, 0, 50))
    assert (frame.counters.slice, frame.counters.repetition, frame.measurement_uid) == (3, 2, 9)
    assert (frame.time_stamp, frame.physiology_time_stamp, frame.sample_time_us) == (100, (7, 8, 9), 5.0)


def test_directions_left_zero_are_those_of_an_unrotated_frame() -> None:
    frame = gather(header(), [readouts_of(noise(RNG, (2, 1, 8, 8)))])
    assert frame.geometry == Geometry()


def spokes(path: NDArray[np.float32], **fields: Any) -> Readouts:
    """Random samples [readout, 2 coils, sample] on the trajectory `path`."""
    head = heads(len(path), samples=path.shape[1], trajectory_dimensions=path.shape[2], **fields)
    return Readouts(head, noise(RNG, (len(path), 2, path.shape[1])), path)


def test_shots_are_a_view_with_their_trajectory_in_radians() -> None:
    path = RNG.uniform(-0.5, 0.5, (6, 8, 3)).astype(np.float32)
    path[..., 2] = np.abs(path[..., 2])
    run = spokes(path)
    frame = gather(header(trajectory=Trajectory.RADIAL), [run])
    assert np.shares_memory(frame.kspace, run.samples)
    np.testing.assert_array_equal(frame.kspace, run.samples.transpose(1, 0, 2))
    assert frame.trajectory is not None and frame.density is not None
    np.testing.assert_allclose(frame.trajectory, 2 * np.pi * path[..., 1::-1], atol=1e-6)  # axes (y, x)
    np.testing.assert_array_equal(frame.density, path[..., 2])


def test_shots_lose_their_discards() -> None:
    path = RNG.uniform(-0.5, 0.5, (6, 8, 2)).astype(np.float32)
    run = spokes(path, discard_pre=1, discard_post=2)
    frame = gather(header(trajectory=Trajectory.SPIRAL), [run])
    assert frame.trajectory is not None and frame.trajectory.shape == (6, 5, 2)
    np.testing.assert_array_equal(frame.kspace, run.samples.transpose(1, 0, 2)[..., 1:6])


def test_unequal_discards_of_shots_are_refused() -> None:
    run = spokes(np.zeros((2, 8, 2), np.float32), discard_pre=[0, 1])
    with pytest.raises(ScanError, match="discard different numbers of samples"):
        gather(header(trajectory=Trajectory.SPIRAL), [run])


def test_shots_of_a_stack_lie_on_their_partitions() -> None:
    path = RNG.uniform(-0.5, 0.5, (4, 8, 2)).astype(np.float32)
    run = spokes(path, kspace_encode_step_2=np.arange(4))
    frame = gather(header((4, 8, 8), trajectory=Trajectory.RADIAL), [run])
    assert frame.trajectory is not None
    np.testing.assert_allclose(frame.trajectory[:, 0, 0], np.pi / 2 * (np.arange(4) - 2), atol=1e-6)
    np.testing.assert_allclose(frame.trajectory[..., 1:], 2 * np.pi * path[..., ::-1], atol=1e-6)


def test_shots_without_trajectory_are_refused() -> None:
    run = Readouts(heads(2), noise(RNG, (2, 2, 8)))
    with pytest.raises(ScanError, match="carry no trajectory, a radial scan needs one"):
        gather(header(trajectory=Trajectory.RADIAL), [run])


@given(st.lists(st.integers(0, 29), min_size=1, unique=True).map(sorted))
def test_selecting_finds_readouts_across_runs(rows: list[int]) -> None:
    data = np.arange(30, dtype=np.complex64).reshape(30, 1, 1)
    runs = [Readouts(heads(b - a, samples=1, coils=1), data[a:b]) for a, b in ((0, 7), (7, 8), (8, 30))]
    found = select(runs, np.array(rows))
    assert np.concatenate([run.samples for run in found]).ravel().real.tolist() == rows


def test_selecting_evenly_spaced_readouts_copies_nothing() -> None:
    data = noise(RNG, (30, 2, 8))
    (found,) = select([Readouts(heads(30), data)], np.arange(1, 30, 5))
    assert np.shares_memory(found.samples, data)


def test_lines_measured_twice_and_once_are_each_their_mean() -> None:
    kspace = noise(RNG, (2, 1, 8, 8))
    run = readouts_of(kspace)
    again = Readouts(run.head[2:4], 3 * run.samples[2:4])
    kspace[:, :, 2:4] *= 2
    np.testing.assert_allclose(gather(header(), [run, again]).kspace, kspace, atol=2**-20)


def test_calibration_lines_are_left_out_unless_they_are_asked_for() -> None:
    kspace = noise(RNG, (2, 1, 8, 8))
    run = readouts_of(kspace)
    run.head["flags"][1::2] = Flag.IS_PARALLEL_CALIBRATION.mask
    np.testing.assert_array_equal(gather(header(), [run], calibration=True).kspace, kspace)
    frame = gather(header(), [run])
    kspace[:, :, 1::2] = 0
    np.testing.assert_array_equal(frame.kspace, kspace)
    assert frame.sampled is not None and frame.sampled[0].tolist() == [True, False] * 4


def test_a_density_of_nothing_counts_as_none_and_is_told() -> None:
    scan = header((4, 8, 8), trajectory=Trajectory.RADIAL, limits={"kspace_encode_step_1": (0, 3)})
    path = np.zeros((4, 8, 4), np.float32)  # x, y, z and a density
    path[..., 0] = np.linspace(-0.5, 0.4, 8)
    run = Readouts(heads(4, kspace_encode_step_1=np.arange(4)), noise(np.random.default_rng(0), (4, 2, 8)), path)
    frame = gather(scan, [run])
    assert frame.density is None
    assert frame.warnings == ("the trajectory's density is zero everywhere: samples are weighted by where they lie",)
    path[..., 3] = 1
    assert gather(scan, [run]).density is not None

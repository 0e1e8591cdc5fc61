"""Assembly: every imaging readout ends up in exactly one frame, as early as it can be known to be complete."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recon.assemble import Assembler, FrameIndex, Grouping, is_calibration, is_imaging
from recon.errors import HeaderError, ScanError
from recon.scan import COUNTERS, Counters, Flag, Limit, ScanHeader, Trajectory
from tests.recon.builders import header, heads, lines

LOOPS = ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition", "set")
NOT_IMAGING = (
    Flag.IS_NOISE_MEASUREMENT,
    Flag.IS_PARALLEL_CALIBRATION,
    Flag.IS_NAVIGATION_DATA,
    Flag.IS_PHASECORR_DATA,
    Flag.IS_HPFEEDBACK_DATA,
    Flag.IS_DUMMYSCAN_DATA,
    Flag.IS_RTFEEDBACK_DATA,
    Flag.IS_SURFACECOILCORRECTIONSCAN_DATA,
    Flag.IS_PHASE_STABILIZATION_REFERENCE,
    Flag.IS_PHASE_STABILIZATION,
)


def assembled(scan: ScanHeader, head: NDArray[np.void], *, cuts: tuple[int, ...] = ()) -> list[FrameIndex]:
    """All frames of a scan whose heads arrive in pieces."""
    assembler = Assembler(scan)
    edges = [0, *sorted(cut % (len(head) + 1) for cut in cuts), len(head)]
    found = [index for a, b in pairwise(edges) for index in assembler.add(head[a:b])]
    return found + assembler.finish()


@st.composite
def measurements(draw: st.DrawFn) -> tuple[ScanHeader, NDArray[np.void]]:
    """A scan of up to three values per counter: some lines left out, some repeated, in any order, with any flags."""
    sizes = [draw(st.integers(1, 3)) for _ in LOOPS]
    limits = {name: (0, size - 1, size // 2) for name, size in zip(LOOPS, sizes, strict=True)}
    mode = draw(st.sampled_from(("other", "embedded")))
    scan = header((3, 3, 8), limits=limits, acceleration=(draw(st.integers(1, 2)), 1), calibration_mode=mode)
    grid = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = rng.permutation(np.tile(np.arange(len(grid)), 2 if draw(st.booleans()) else 1))[: draw(st.integers(1, 60))]
    head = heads(len(rows), **{name: grid[rows, i] for i, name in enumerate(LOOPS)})
    special = rng.random(len(rows)) < draw(st.sampled_from((0.0, 0.3)))
    head["flags"][special] |= rng.choice([np.uint64(flag.mask) for flag in NOT_IMAGING], special.sum())
    ends = rng.random(len(rows)) < draw(st.sampled_from((0.0, 0.1)))
    head["flags"][ends] |= np.uint64(Flag.LAST_IN_SLICE.mask)
    return scan, head


@given(measurements(), st.lists(st.integers(0, 60), max_size=6))
def test_every_imaging_readout_is_in_exactly_one_frame(
    measurement: tuple[ScanHeader, NDArray[np.void]], cuts: list[int]
) -> None:
    scan, head = measurement
    imaging = np.flatnonzero(is_imaging(head["flags"]))
    if not len(imaging):
        with pytest.raises(ScanError):
            assembled(scan, head)
        return
    frames = assembled(scan, head, cuts=tuple(cuts))
    placed = np.concatenate([index.rows for index in frames])
    assert len(np.unique(placed)) == len(placed)
    np.testing.assert_array_equal(np.sort(placed[is_imaging(head["flags"])[placed]]), imaging)
    if scan.encodings[0].calibration_mode == "other":
        assert len(placed) == len(imaging)
    for index in frames:
        assert (np.diff(index.rows) > 0).all()
        for name in ("slice", "contrast", "phase", "repetition", "set"):
            assert (head[name][index.rows] == getattr(index.counters, name)).all()


@given(measurements(), st.lists(st.integers(0, 60), max_size=6))
def test_frames_do_not_depend_on_how_the_readouts_arrive(
    measurement: tuple[ScanHeader, NDArray[np.void]], cuts: list[int]
) -> None:
    scan, head = measurement
    if not is_imaging(head["flags"]).any():
        return
    whole, pieces = assembled(scan, head), assembled(scan, head, cuts=tuple(cuts))
    assert [described(index) for index in whole] == [described(index) for index in pieces]


def described(index: FrameIndex) -> tuple[object, ...]:
    return index.counters, index.rows.tolist(), index.complete, index.warnings


def test_a_frame_is_out_with_its_last_line() -> None:
    head = heads(24, kspace_encode_step_1=np.arange(24) % 8, repetition=np.arange(24) // 8)
    assembler = Assembler(header(limits={"repetition": (0, 2)}))
    when = [len(list(assembler.add(head[i : i + 1]))) for i in range(24)]
    assert np.flatnonzero(when).tolist() == [7, 15, 23]
    assert assembler.finish() == []


def test_interleaved_slices_are_told_apart() -> None:
    head = heads(24, kspace_encode_step_1=np.arange(24) // 3, slice=np.arange(24) % 3)
    frames = assembled(header(limits={"slice": (0, 2)}), head)
    assert [index.counters.slice for index in frames] == [0, 1, 2]
    assert all(index.rows.tolist() == list(range(index.counters.slice, 24, 3)) for index in frames)


def test_averages_wait_for_each_other() -> None:
    head = heads(16, kspace_encode_step_1=np.arange(16) % 8, average=np.arange(16) // 8)
    assembler = Assembler(header(limits={"average": (0, 1)}))
    assert not list(assembler.add(head[:15]))
    (index,) = assembler.add(head[15:])
    assert index.complete and len(index.rows) == 16


def test_a_volume_has_all_its_partitions() -> None:
    counters = lines((4, 8, 8))
    (index,) = assembled(header((4, 8, 8)), heads(32, **counters))
    assert index.complete and len(index.rows) == 32


def test_an_accelerated_frame_ends_at_its_flag() -> None:
    head = heads(8, kspace_encode_step_1=np.arange(8) // 2 * 2, slice=np.arange(8) % 2)
    head["flags"][6:] = Flag.LAST_IN_SLICE.mask
    assembler = Assembler(header(limits={"slice": (0, 1)}, acceleration=(2, 1)))
    first, second = assembler.add(head)
    assert first.complete and second.complete and not first.warnings
    assert assembler.finish() == []


def test_an_accelerated_frame_without_flags_ends_with_the_scan() -> None:
    assembler = Assembler(header(acceleration=(2, 1)))
    assert not list(assembler.add(heads(4, kspace_encode_step_1=np.arange(0, 8, 2))))
    (index,) = assembler.finish()
    assert index.complete


def test_missing_lines_are_said() -> None:
    head = heads(6, kspace_encode_step_1=np.arange(6))
    head["flags"][-1] = Flag.LAST_IN_SLICE.mask
    (index,) = Assembler(header()).add(head)
    assert not index.complete
    assert index.warnings == ("2 of 8 lines were not received, their k-space is taken as zero",)


def test_a_flag_on_every_partition_does_not_cut_a_volume() -> None:
    head = heads(64, **lines((8, 8, 8)))
    head["flags"][7::8] = Flag.LAST_IN_SLICE.mask
    (index,) = assembled(header((8, 8, 8)), head)
    assert index.complete and len(index.rows) == 64


def test_the_flag_of_an_early_average_does_not_end_the_frame() -> None:
    head = heads(16, kspace_encode_step_1=np.arange(16) % 8, average=np.arange(16) // 8)
    head["flags"][7::8] = Flag.LAST_IN_SLICE.mask
    (index,) = assembled(header(limits={"average": (0, 1)}), head)
    assert len(index.rows) == 16


def test_readouts_after_a_complete_frame_make_another_one() -> None:
    head = heads(12, kspace_encode_step_1=np.arange(12) % 8)
    first, second = assembled(header(), head)
    assert len(first.rows) == 8 and first.complete
    assert second.rows.tolist() == [8, 9, 10, 11] and not second.complete
    assert second.warnings[-1] == "the readouts repeat counters: this is image 2 of slice 0, repetition 0"


@pytest.mark.parametrize("flag", NOT_IMAGING)
def test_what_is_not_imaging_belongs_to_no_frame(flag: Flag) -> None:
    head = heads(9, kspace_encode_step_1=np.arange(9) % 8)
    head["flags"][8] = flag.mask
    (index,) = assembled(header(), head)
    assert index.rows.tolist() == list(range(8))


def test_a_navigator_of_calibration_lines_calibrates_nothing() -> None:
    """Converters of echo-planar scans set both flags on the navigators of their calibration lines."""
    flags = np.array([Flag.IS_PARALLEL_CALIBRATION.mask | Flag.IS_PHASECORR_DATA.mask], np.uint64)
    assert not is_calibration(flags).any() and not is_imaging(flags).any()


def test_noise_is_remembered_and_calibration_alone_is_no_part_of_a_frame() -> None:
    head = heads(12, kspace_encode_step_1=np.arange(12) % 8)
    head["flags"][:2] = Flag.IS_NOISE_MEASUREMENT.mask
    head["flags"][2:4] = Flag.IS_PARALLEL_CALIBRATION.mask
    both = Flag.IS_PARALLEL_CALIBRATION.mask | Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING.mask
    head["flags"][4:6] = both
    assembler = Assembler(header())
    (index,) = assembler.add(head)
    assert index.rows.tolist() == list(range(4, 12))
    assert assembler.noise_rows.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("mode", "rows"), [("embedded", [0, 1, 2, 3, 4, 5]), ("other", [0, 2, 3, 5]), ("", [0, 2, 3, 5])]
)
def test_embedded_calibration_lines_come_with_their_frame(mode: str, rows: list[int]) -> None:
    head = heads(7, kspace_encode_step_1=[0, 3, 2, 4, 5, 6, 7])
    head["flags"][[1, 4, 6]] = Flag.IS_PARALLEL_CALIBRATION.mask
    head["flags"][5] = Flag.LAST_IN_SLICE.mask  # what comes after it is no part of the frame
    assembler = Assembler(header(acceleration=(2, 1), calibration_mode=mode))
    (index,) = assembler.add(head)
    assert index.complete and index.rows.tolist() == rows
    assert assembler.finish() == []


def test_an_embedded_calibration_line_outside_the_limits_is_refused() -> None:
    scan = header(calibration_mode="embedded")
    head = heads(1, kspace_encode_step_1=8, flags=Flag.IS_PARALLEL_CALIBRATION.mask)
    assert "readout 0 has kspace_encode_step_1 8" in refused(scan, head)


def test_heads_may_lie_anywhere_in_a_buffer() -> None:
    wanted = heads(8, kspace_encode_step_1=np.arange(8))
    stride = 340 + 2 + 7
    buffer = np.zeros(8 * stride + 3, np.uint8)
    view = np.ndarray((8,), wanted.dtype, buffer, offset=3, strides=(stride,))
    view[:] = wanted
    (index,) = Assembler(header()).add(view)
    buffer[:] = 255  # the buffer is used again
    assert index.counters == Counters() and index.rows.tolist() == list(range(8))


def test_the_largest_limits_cost_no_memory() -> None:
    limits = dict.fromkeys(COUNTERS, (0, 65535))
    assembler = Assembler(header(limits=limits, trajectory=Trajectory.RADIAL))
    many = heads(1000, kspace_encode_step_1=np.arange(1000), slice=np.arange(1000), trajectory_dimensions=2)
    assert not list(assembler.add(many))
    assert len(assembler.finish()) == 1000


def refused(scan: ScanHeader, head: NDArray[np.void]) -> str:
    with pytest.raises(ScanError) as caught:
        assembled(scan, head)
    return str(caught.value)


@given(measurements(), st.lists(st.integers(0, 60), max_size=4), st.integers(0, 59), st.integers(0, 3))
def test_what_came_before_a_bad_readout_is_whole(
    measurement: tuple[ScanHeader, NDArray[np.void]], cuts: list[int], place: int, kind: int
) -> None:
    scan, head = measurement
    bad = place % len(head)
    head["flags"][bad] = 0  # an imaging readout, which every check looks at
    field = ("slice", "active_channels", "encoding_space_ref", "set")[kind]
    head[field][bad:] = 9  # several are bad, the first one counts
    head["repetition"][bad + 1 :] = 9
    before = Assembler(scan)
    expected = [described(index) for index in before.add(head[:bad])]
    assembler = Assembler(scan)
    found: list[tuple[object, ...]] = []
    edges = sorted({0, *(cut % len(head) for cut in cuts), len(head)})
    with pytest.raises(ScanError, match=f"readout {bad} (has|refers)"):
        for a, b in pairwise(edges):
            found.extend(map(described, assembler.add(head[a:b])))
    assert found == expected
    assert assembler.readouts == bad
    assert assembler.noise_rows.tolist() == before.noise_rows.tolist()


def test_the_earliest_bad_readout_is_named_whatever_is_wrong_with_it() -> None:
    head = heads(8, kspace_encode_step_1=np.arange(8))
    head["active_channels"][6] = 3
    head["number_of_samples"][4] = 4
    head["slice"][2] = 1
    assert "readout 2 has slice 1" in refused(header(), head)


def test_a_counter_outside_its_limits_is_refused() -> None:
    head = heads(8, kspace_encode_step_1=[0, 1, 2, 9, 4, 5, 6, 7])
    assert refused(header(), head) == (
        "readout 3 has kspace_encode_step_1 9, the header's limits allow 0 to 7: correct the counter or the limits"
    )


def test_a_counter_without_limits_is_zero() -> None:
    assert "readout 1 has slice 1, the header's limits allow 0 to 0" in refused(header(), heads(2, slice=[0, 1]))


def test_a_change_of_coils_is_refused() -> None:
    head = heads(8, kspace_encode_step_1=np.arange(8))
    head["active_channels"][5] = 3
    assert refused(header(), head) == (
        "readout 5 has 3 coils, the header says 2: send the same coils, at least one, in the whole scan"
    )
    assert "readout 5 has 3 coils, readout 0 has 2" in refused(header(coils=None), head)


def test_noise_from_other_coils_is_refused() -> None:
    head = heads(2, coils=2, flags=[Flag.IS_NOISE_MEASUREMENT.mask, 0], active_channels=[4, 2])
    assert "readout 0 has 4 coils, the header says 2" in refused(header(), head)


def test_no_coils_are_refused() -> None:
    assert "readout 0 has 0 coils" in refused(header(coils=None), heads(1, coils=0))


def test_a_change_of_samples_is_refused() -> None:
    head = heads(8, kspace_encode_step_1=np.arange(8))
    head["number_of_samples"][6] = 4
    assert refused(header(), head) == (
        "readout 6 has 4 samples, those before it have 8: send equal readouts in one encoding space"
    )


def test_more_samples_than_the_matrix_are_refused() -> None:
    assert refused(header(), heads(1, samples=12)) == (
        "readout 0 keeps 12 samples after its discards, expected 1 to 8: correct discard_pre, discard_post or the"
        " encoded matrix"
    )
    assert "readout 0 keeps -2 samples" in refused(header(), heads(1, discard_pre=6, discard_post=4))


def test_an_unknown_encoding_space_is_refused() -> None:
    assert refused(header(), heads(2, encoding_space_ref=[0, 1])) == (
        "readout 1 refers to encoding space 1, the header has 1 (counted from 0): correct encoding_space_ref"
    )


@pytest.mark.parametrize("kind", [Trajectory.RADIAL, Trajectory.GOLDEN_ANGLE, Trajectory.SPIRAL, Trajectory.OTHER])
def test_a_missing_trajectory_is_refused(kind: Trajectory) -> None:
    head = heads(2, trajectory_dimensions=[2, 0], kspace_encode_step_1=[0, 1])
    assert refused(header(trajectory=kind), head) == (
        f"readout 1 has a trajectory of 0 axes, a {kind} scan needs 2 to 4 (x, y, z, density): send the trajectory"
        " with every readout"
    )


def test_a_scan_without_imaging_readouts_is_refused() -> None:
    head = heads(3, flags=Flag.IS_NOISE_MEASUREMENT.mask)
    assert refused(header(), head) == (
        "the scan ended without an imaging readout (3 readouts, 3 of them noise), expected at least one: send the"
        " measurement itself"
    )


def test_limits_that_exceed_the_matrix_are_refused() -> None:
    with pytest.raises(HeaderError, match="limits of kspace_encode_step_1 span 9 lines, the encoded matrix has 8"):
        assembled(header(limits={"kspace_encode_step_1": (0, 8)}), heads(1))


def test_falling_limits_are_refused() -> None:
    with pytest.raises(HeaderError, match="limits of slice are 3 to 1, expected a rising range within 0 to 65535"):
        assembled(header(limits={"slice": (3, 1)}), heads(1))


@pytest.mark.parametrize("mode", ["separate", "external"])
def test_separate_calibration_lines_serve_all_later_frames_of_their_slice(mode: str) -> None:
    """Slice 0 is calibrated before its two repetitions, slice 1 only between them."""
    slices = {"slice": (0, 1), "repetition": (0, 1)}
    scan = header((1, 8, 8), limits=slices, acceleration=(4, 1), calibration_mode=mode)
    line = [3, 4, 0, 4, 0, 4, 2, 0, 4, 0, 4]
    slice_ = [0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    head = heads(11, kspace_encode_step_1=line, slice=slice_, repetition=[0] * 7 + [1] * 4)
    head["flags"][[0, 1, 6]] = Flag.IS_PARALLEL_CALIBRATION.mask
    head["flags"][[3, 5, 8, 10]] = Flag.LAST_IN_SLICE.mask
    frames = assembled(scan, head)
    assert [index.rows.tolist() for index in frames] == [[0, 1, 2, 3], [4, 5], [0, 1, 7, 8], [6, 9, 10]]
    assert [index.calibrated for index in frames] == [True, False, True, True]


def test_a_volume_of_spokes_has_no_partitions_unless_the_header_says_so() -> None:
    """A koosh ball counts its spokes by step 1 alone."""
    limits = {"kspace_encode_step_1": Limit(0, 19, 0)}
    ball = header((8, 8, 8), trajectory=Trajectory.RADIAL)
    scan = replace(ball, encodings=(replace(ball.encodings[0], limits=limits),))
    head = heads(20, kspace_encode_step_1=np.arange(20), trajectory_dimensions=3)
    head["flags"][-1] = Flag.LAST_IN_REPETITION.mask
    (index,) = assembled(scan, head)
    assert (len(index.rows), index.complete, index.warnings) == (20, True, ())


# ---- frames that counters do not name ----

SLIDING = Grouping(ignored=("phase", "repetition"), window=5, stride=2)


@given(cuts=st.lists(st.integers(0, 40), max_size=4))
def test_a_window_slides_over_the_readouts_of_each_slice(cuts: list[int]) -> None:
    count = 40
    scan = header(limits={"slice": (0, 1), "phase": (0, 3), "repetition": (0, 1)})
    head = heads(count, slice=np.arange(count) % 2, phase=np.arange(count) % 4, repetition=np.arange(count) // 20)
    assembler = Assembler(scan, SLIDING)
    edges = [0, *sorted(cuts), count]
    found = [index for a, b in pairwise(edges) for index in assembler.add(head[a:b])]
    for number in (0, 1):
        frames = [index for index in found if index.counters.slice == number]
        assert [index.counters for index in frames] == [Counters(slice=number, repetition=i) for i in range(8)]
        for i, index in enumerate(frames):
            np.testing.assert_array_equal(index.rows, number + 2 * np.arange(2 * i, 2 * i + 5))
    assert assembler.finish() == []  # what is left over has been seen


WHOLE = Grouping(ignored=("phase",), whole=True)


def whole_frames(order: list[tuple[int, int]], cuts: list[int]) -> tuple[list[tuple[int, int, int]], list[FrameIndex]]:
    """Feed readouts of (slice, line); what came before the end as (slice, first row, after how many readouts)."""
    scan = header((1, 4, 8), limits={"slice": (0, 2), "phase": (0, 9)})
    slices, lines_ = np.array(order).T
    head = heads(len(order), slice=slices, kspace_encode_step_1=lines_, phase=np.arange(len(order)) % 10)
    assembler, early = Assembler(scan, WHOLE), []
    edges = sorted({0, *cuts, len(order)})
    for a, b in pairwise(edges):
        early += [(index.counters.slice, int(index.rows[0]), b) for index in assembler.add(head[a:b])]
    return early, assembler.finish()


@given(cuts=st.lists(st.integers(1, 35), max_size=6))
def test_a_slice_that_is_gated_is_complete_once_the_next_one_is(cuts: list[int]) -> None:
    """Three slices of twelve readouts, three of each line: the first is sent before the last one is measured."""
    order = [(slice_, i % 4) for slice_ in range(3) for i in range(12)]
    early, last = whole_frames(order, cuts)
    assert [found[:2] for found in early] == [(0, 0), (1, 12)]
    ends = sorted({*cuts, 36})
    assert [found[2] for found in early] == [min(end for end in ends if end >= at) for at in (16, 28)]
    assert [index.rows.tolist() for index in last] == [list(range(24, 36))]


@given(cuts=st.lists(st.integers(1, 35), max_size=6))
def test_slices_that_are_gated_in_turn_are_complete_with_the_scan(cuts: list[int]) -> None:
    order = [(i % 3, i // 3 % 4) for i in range(36)]
    early, last = whole_frames(order, cuts)
    assert (early, [index.counters.slice for index in last]) == ([], [0, 1, 2])
    short = [(0, 0), (0, 1), *((1, i % 4) for i in range(8))]  # the first one lacks lines, and may go on
    assert whole_frames(short, cuts[:1])[0] == []


def test_a_frame_of_a_window_comes_with_its_last_readout() -> None:
    assembler = Assembler(header(), SLIDING)
    ready = [len(list(assembler.add(heads(1)))) for _ in range(11)]
    assert ready == [0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1]


def test_a_series_shorter_than_its_window_is_one_frame() -> None:
    assembler = Assembler(header(), SLIDING)
    assert list(assembler.add(heads(3))) == []
    (index,) = assembler.finish()
    assert (index.rows.tolist(), index.complete) == ([0, 1, 2], False)
    assert index.warnings == ("only 3 readouts came, a window takes 5",)


def test_windows_that_images_cannot_count_are_refused() -> None:
    assembler = Assembler(header(), Grouping(window=1, stride=1))
    with pytest.raises(ScanError, match=r"the windows make more than 65536 frames, .*: choose a larger stride"):
        list(assembler.add(heads(65537)))


def test_trajectories_of_two_kinds_are_refused() -> None:
    """Density with some readouts only, or a third axis: they make no frame, and those before are named."""
    scan = header((1, 8, 8), trajectory=Trajectory.RADIAL, limits={"kspace_encode_step_1": (0, 3)})
    head = heads(4, kspace_encode_step_1=np.arange(4), trajectory_dimensions=[2, 2, 3, 3])
    for pieces in ([head], [head[:2], head[2:]]):
        assembler = Assembler(scan)
        with pytest.raises(ScanError) as caught:
            _ = [list(assembler.add(piece)) for piece in pieces]
        assert str(caught.value) == (
            "readout 2 has a trajectory of 3 axes, those before it have 2: send one kind of trajectory in an encoding"
            " space, with its density or without"
        )


# ---- frames that calibrate each other ----

SHARED = Grouping(shared=True)


def in_turn(frames: int, *, mode: str = "interleaved") -> tuple[ScanHeader, NDArray[np.void]]:
    """Every third of twelve lines, others in each repetition: four readouts to a frame."""
    scan = header((1, 12, 8), limits={"repetition": (0, 9)}, acceleration=(3, 1), calibration_mode=mode)
    repetition, place = np.divmod(np.arange(4 * frames), 4)
    head = heads(4 * frames, kspace_encode_step_1=3 * place + repetition % 3, repetition=repetition)
    head["flags"][3::4] = Flag.LAST_IN_REPETITION.mask
    return scan, head


@given(cuts=st.lists(st.integers(0, 20), max_size=5))
def test_frames_wait_for_no_other_once_all_lines_have_come(cuts: list[int]) -> None:
    """The first two of a threefold series wait for the third; all others come with their own last readout."""
    scan, head = in_turn(5)
    assembler = Assembler(scan, SHARED)
    edges = sorted({0, *cuts, 20})
    found = [(index, b) for a, b in pairwise(edges) for index in assembler.add(head[a:b])]
    assert [index.counters.repetition for index, _ in found] == [0, 1, 2, 3, 4]
    assert [at for _, at in found] == [min(end for end in edges if end >= n) for n in (12, 12, 12, 16, 20)]
    firsts = [(int(index.rows[0]), int(index.rows[-1]), len(index.rows)) for index, _ in found]
    assert firsts == [(0, 11, 12)] * 3 + [(4, 15, 12), (8, 19, 12)]
    assert assembler.finish() == []


def test_a_series_too_short_to_have_all_lines_comes_at_the_end() -> None:
    scan, head = in_turn(2)
    assembler = Assembler(scan, SHARED)
    assert list(assembler.add(head[:-1])) == []
    assert [index.rows.tolist() for index in assembler.finish()] == [list(range(7))] * 2


def test_who_is_not_calibrated_by_others_goes_alone() -> None:
    """Methods that do not calibrate, other modes, frames with calibration lines, and images of the same name."""
    scan, head = in_turn(3)
    assert [len(index.rows) for index in Assembler(scan).add(head)] == [4] * 3
    assert [len(index.rows) for index in Assembler(in_turn(3, mode="embedded")[0], SHARED).add(head)] == [4] * 3
    own = head.copy()
    own["flags"][0] |= np.uint64(Flag.IS_PARALLEL_CALIBRATION.mask)
    first, *others = Assembler(scan, SHARED).add(own)
    assert (len(first.rows), first.calibrated, others) == (4, True, [])
    head["repetition"] = 0
    assert [len(index.rows) for index in Assembler(scan, SHARED).add(head)] == [4] * 3


def test_each_slice_has_neighbours_of_its_own() -> None:
    scan, head = in_turn(6)
    scan = replace(
        scan, encodings=(replace(scan.encodings[0], limits={**scan.encodings[0].limits, "slice": Limit(0, 1, 0)}),)
    )
    head["slice"], head["repetition"] = head["repetition"] % 2, head["repetition"] // 2
    found = list(Assembler(scan, SHARED).add(head))
    assert [(index.counters.slice, index.counters.repetition) for index in found] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)
    ]  # fmt: skip
    assert all(set(head["slice"][index.rows]) == {index.counters.slice} for index in found)

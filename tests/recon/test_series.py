"""Frames that are reconstructed together: collected until the last of them is complete, then dealt out again."""

from __future__ import annotations

import numpy as np
import pytest

from recon.assemble import Assembler, FrameIndex, Grouping
from recon.errors import RecipeError
from recon.gather import select
from recon.recipe import Recipe
from recon.scan import Counters, Encoding, Flag, Limit, Material, Readouts, ScanHeader, Trajectory
from recon.series import COUNTED, by_counters, by_time, frames_of, frames_together
from tests.recon.builders import header, heads, noise
from tests.recon.methods.phantoms import encoding

RNG = np.random.default_rng(3)
ECHOES = {"contrast": (0, 2)}


def run_of(samples: int = 8, *, axes: int = 0, **counters: np.ndarray) -> Readouts:
    """Readouts whose every sample is their number."""
    count = len(next(iter(counters.values())))
    data = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None], (count, 2, samples)).astype(np.complex64)
    path = noise(RNG, (count, samples, axes)).real.clip(-0.5, 0.5) if axes else None
    return Readouts(heads(count, samples=samples, **counters), data, path)


def added(scan: ScanHeader, run: Readouts, grouping: Grouping) -> tuple[list[FrameIndex], list[FrameIndex]]:
    """What comes with the readouts, one by one, and what is left at the end."""
    assembler = Assembler(scan, grouping)
    early = [index for i in range(len(run.head)) for index in assembler.add(run.head[i : i + 1])]
    return early, assembler.finish()


def numbers(parts: list[list[Readouts]]) -> list[list[int]]:
    return [[int(run.samples[i, 0, 0].real) for run in part for i in range(len(run.head))] for part in parts]


def test_a_series_is_out_with_the_last_readout_of_its_last_frame() -> None:
    """Two slices of three echoes: each slice is a series."""
    place = np.indices((2, 8, 3)).reshape(3, -1)
    run = run_of(slice=place[0], kspace_encode_step_1=place[1], contrast=place[2])
    scan = header(limits={**ECHOES, "slice": (0, 1)})
    early, late = added(scan, run, Grouping(joined=("contrast",)))
    assert [(index.counters, len(index.rows), index.complete) for index in early] == [
        (Counters(slice=0), 24, True),
        (Counters(slice=1), 24, True),
    ]
    assert int(early[0].rows[-1]) == 23 and not late


def test_flags_that_end_a_frame_do_not_end_a_series() -> None:
    """Every second line of three repetitions: only the end of the scan says that no more come."""
    place = np.indices((3, 4)).reshape(2, -1)
    run = run_of(repetition=place[0], kspace_encode_step_1=2 * place[1])
    run.head["flags"][3::4] = Flag.LAST_IN_REPETITION.mask
    scan = header(limits={"repetition": (0, 2)}, acceleration=(2, 1))
    early, late = added(scan, run, Grouping(joined=("repetition",)))
    assert not early and [len(index.rows) for index in late] == [12]
    assert late[0].complete
    run.head["flags"][-1] |= np.uint64(Flag.LAST_IN_MEASUREMENT.mask)
    early, late = added(scan, run, Grouping(joined=("repetition",)))
    assert [len(index.rows) for index in early] == [12] and not late


def test_what_a_series_lacks_is_counted_over_all_its_frames() -> None:
    run = run_of(contrast=np.repeat([0, 2], 8), kspace_encode_step_1=np.tile(np.arange(8), 2))
    _, (index,) = added(header(limits=ECHOES), run, Grouping(joined=("contrast",)))
    assert index.warnings == ("8 of 24 lines were not received, their k-space is taken as zero",)


def test_readouts_go_to_the_frame_that_their_counters_name() -> None:
    """In the order of the counters, whatever that of arrival, over several runs."""
    repetition, contrast = np.array([1, 0, 1, 0, 0]), np.array([0, 1, 1, 0, 1])
    run = run_of(repetition=repetition, contrast=contrast)
    runs = select([run], np.array([0, 1, 2])) + select([run], np.array([3, 4]))
    assert numbers(by_counters(runs, encoding((1, 8, 8)), COUNTED)) == [[3], [1, 4], [0], [2]]
    assert numbers(by_counters(runs, encoding((1, 8, 8)), ("contrast",))) == [[0, 3], [1, 2, 4]]


def test_separate_calibration_lines_go_to_every_frame() -> None:
    run = run_of(contrast=np.array([0, 0, 1, 2]))
    run.head["flags"][0] = Flag.IS_PARALLEL_CALIBRATION.mask
    apart = Encoding(*(2 * (encoding((1, 8, 8)).encoded,)), {}, Trajectory.CARTESIAN, calibration_mode="separate")
    assert numbers(by_counters([run], apart, ("contrast",))) == [[0, 1], [0, 2], [0, 3]]


def test_windows_of_time_count_shots_and_the_last_one_takes_what_is_left() -> None:
    recipe = Recipe("grasp", {"window": 3})
    plane = encoding((1, 8, 8), kind=Trajectory.GOLDEN_ANGLE)
    run = run_of(kspace_encode_step_1=np.arange(8))
    assert numbers(by_time([run], plane, recipe)) == [[0, 1, 2], [3, 4, 5, 6, 7]]
    short = run_of(kspace_encode_step_1=np.arange(2))
    assert numbers(by_time([short], plane, recipe)) == [[0, 1]]
    # Each spoke of a stack in two partitions, the second repetition beginning anew with spoke 0.
    stack = run_of(
        repetition=np.repeat([0, 1], 8),
        kspace_encode_step_1=np.tile(np.repeat(np.arange(4), 2), 2),
        kspace_encode_step_2=np.tile([0, 1], 8),
    )
    assert numbers(by_time([stack], encoding((2, 8, 8), kind=Trajectory.RADIAL), recipe)) == [
        list(range(6)),
        list(range(6, 16)),
    ]


def test_frames_of_time_are_numbered_as_repetitions() -> None:
    scan = header(
        (1, 8, 8), trajectory=Trajectory.GOLDEN_ANGLE, limits={"kspace_encode_step_1": (0, 5), "phase": (0, 1)}
    )
    run = run_of(axes=2, kspace_encode_step_1=np.arange(6), phase=np.arange(6) % 2, slice=np.full(6, 4))
    material = Material([run], counters=Counters(slice=4))
    frames = frames_together(scan, material, Recipe("grasp", {"window": 2}), calibration=False)
    assert [frame.counters for frame in frames] == [Counters(slice=4, repetition=i) for i in range(3)]
    assert frames[0].encoding.limits["repetition"] == Limit(0, 2, 0)
    np.testing.assert_array_equal(frames[1].kspace[0, :, 0].real, [2, 3])
    by_phase = frames_together(scan, material, Recipe("grasp", {"over": "phase"}), calibration=False)
    assert [frame.counters for frame in by_phase] == [Counters(slice=4, phase=i) for i in range(2)]


def test_time_without_a_window_is_refused() -> None:
    run = run_of(kspace_encode_step_1=np.arange(8))
    with pytest.raises(RecipeError) as caught:
        by_time([run], encoding((1, 8, 8)), Recipe("grasp", {"window": 0}))
    assert str(caught.value) == "window is 0 but over is time, expected the number of shots of a frame: set window"


def test_how_many_frames_a_header_promises() -> None:
    limits = {"repetition": (0, 3), "contrast": (0, 1), "kspace_encode_step_1": (0, 29)}
    (space,) = header((1, 30, 30), limits=limits, trajectory=Trajectory.RADIAL).encodings
    assert (frames_of(space), frames_of(space, window=10)) == (8, 24)

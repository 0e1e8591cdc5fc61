"""From bytes to frames: the same for every split of the bytes, and what came before bad bytes is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import ClusterConfig
from cluster.events import FrameReady
from cluster.spool import read_readouts, read_waveforms
from cluster.stream import ScanStream, Step
from recon.errors import HeaderError, LimitError, RecipeError, ReconError, ScanError, WireError
from recon.mrd.header import write_header
from recon.mrd.wire import (
    Close,
    HeaderXml,
    Query,
    Text,
    encode_close,
    encode_config_file,
    encode_config_text,
    encode_header,
    encode_query,
    encode_readouts,
    encode_text,
    encode_waveform,
)
from recon.recipe import Recipe
from recon.scan import Counters, Flag, Readouts, Waveform
from tests.cluster import scans

ECG = encode_waveform(Waveform(np.zeros((1, 10), np.uint32), 2500.0, kind=0, time_stamp=1))
FRAMES = scans.frames(3)
DATA = b"".join(
    [
        encode_config_file("fft"),
        encode_header(write_header(scans.header(repetitions=3))),
        encode_text("a remark"),
        encode_readouts(scans.noise()).tobytes(),
        encode_readouts(FRAMES[0]).tobytes(),
        ECG,
        encode_readouts(FRAMES[1]).tobytes()[: scans.LINES // 2 * 822],
        ECG,
        encode_readouts(FRAMES[1]).tobytes()[scans.LINES // 2 * 822 :],
        encode_readouts(FRAMES[2]).tobytes(),
        encode_close(),
    ]
)


def make(path: Path, *, method: str = "auto", **changes: object) -> ScanStream:
    config = replace(ClusterConfig(receive_buffer_bytes=1 << 16), **changes)  # type: ignore[arg-type]
    return ScanStream("s", path, config=config, method=method)


def pour(stream: ScanStream, data: bytes, cuts: Iterable[int] = ()) -> list[Step]:
    """Give `data` in pieces that end at `cuts`, up to the first error."""
    steps: list[Step] = []
    at = 0
    for stop in [*sorted(cuts), len(data)]:
        while at < stop and not (steps and steps[-1].error):
            buffer = stream.get_buffer()
            count = min(len(buffer), stop - at)
            buffer[:count] = data[at : at + count]
            steps.append(stream.received(count))
            at += count
    return steps


def frames_of(steps: Iterable[Step]) -> list[FrameReady]:
    return [frame for step in steps for frame in step.frames]


def messages_of(steps: Iterable[Step]) -> list[type]:
    return [type(message) for step in steps for message in step.messages]


def error_of(stream: ScanStream, data: bytes) -> ReconError | None:
    *_, last = pour(stream, data)
    return last.error or stream.finish().error


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spool") / "s.mrd"
    path.write_bytes(DATA)
    return path


@given(cuts=st.lists(st.integers(1, len(DATA) - 1), max_size=12))
def test_every_split_gives_the_same_frames(spool: Path, cuts: list[int]) -> None:
    whole, split = make(spool), make(spool)
    expected, found = pour(whole, DATA), pour(split, DATA, cuts)
    assert frames_of(found) == frames_of(expected)
    assert messages_of(found) == messages_of(expected)
    assert (split.readouts, split.closed, split.position) == (whole.readouts, True, len(DATA))


def test_feeding_is_the_same_as_receiving(spool: Path) -> None:
    received, fed = make(spool), make(spool)
    steps = [fed.feed(memoryview(DATA)[start : start + 5000]) for start in range(0, len(DATA), 5000)]
    assert frames_of(steps) == frames_of(pour(received, DATA))


def test_extents_lead_back_to_the_readouts(spool: Path) -> None:
    frames = frames_of(pour(make(spool), DATA))
    assert [frame.frame.number for frame in frames] == [0, 1, 2]
    for frame, sent in zip(frames, FRAMES, strict=True):
        samples = np.concatenate([run.samples for run in read_readouts(spool, frame.frame.readouts)])
        assert np.array_equal(samples, sent.samples)
        (noise,) = read_readouts(spool, frame.frame.noise)
        assert np.array_equal(noise.samples, scans.noise().samples)
    assert [len(frame.frame.readouts) for frame in frames] == [1, 2, 1]


def test_frames_of_a_kind_have_one_key(spool: Path) -> None:
    frames = frames_of(pour(make(spool), DATA))
    assert len({frame.key for frame in frames}) == 1
    assert frames[0].key != frames_of(pour(make(spool, method='{"method": "fft", "whiten": false}'), DATA))[0].key
    assert all(frame.bytes_needed > frame.frame.bytes and frame.cost_s > 0 for frame in frames)


DATA_OF_THREE = scans.stream(FRAMES)
HEADER = encode_header(write_header(scans.header()))
BODY = encode_readouts(FRAMES[0]).tobytes()


@pytest.mark.parametrize("method", ["cine", '{"method": "fft", "respiration": "auto"}'])
def test_a_sorted_frame_has_the_waveforms_and_ends_when_the_next_is_complete(tmp_path: Path, method: str) -> None:
    stream = make(tmp_path / "s.mrd", method=method)
    (tmp_path / "s.mrd").write_bytes(DATA)
    early, late = frames_of(pour(stream, DATA)), stream.finish().frames
    assert [frame.frame.counters for frame in early] == [Counters(repetition=i) for i in range(2)]
    assert [frame.frame.counters for frame in late] == [Counters(repetition=2)]
    waveforms = read_waveforms(tmp_path / "s.mrd", late[0].frame.waveforms)
    assert [waveform.samples.shape for waveform in waveforms] == [(1, 10), (1, 10)]
    assert not frames_of(pour(make(tmp_path / "s.mrd"), DATA))[2].frame.waveforms


def test_a_header_that_promises_gating_makes_auto_a_cine_and_says_so(tmp_path: Path) -> None:
    header = encode_header(write_header(replace(scans.header(), user={"RetroGatedImages": 25})))
    stream = make(tmp_path / "s.mrd")
    steps = pour(stream, header + encode_readouts(FRAMES[0]).tobytes() + ECG + encode_readouts(FRAMES[0]).tobytes())
    assert (frames_of(steps), stream.recipe.method) == ([], "cine")
    last = stream.finish()
    (frame,) = last.frames
    assert frame.recipe == Recipe("cine", {"phases": 25}) and len(frame.frame.waveforms) == 1
    assert last.remarks == ["auto takes cine: the header's user parameter RetroGatedImages is 25"]


def test_more_waveforms_than_the_limit_are_refused(tmp_path: Path) -> None:
    data = HEADER + ECG * 3
    assert error_of(make(tmp_path, scan_readouts=2), data).args == (  # type: ignore[union-attr]
        "the scan has more than 2 waveforms, the limit here: send longer ones",
    )


def test_a_window_cuts_frames_that_share_readouts(tmp_path: Path) -> None:
    method = '{"method": "cg-sense", "window": 4, "stride": 3}'
    frames = frames_of(pour(make(tmp_path, method=method), HEADER + BODY))
    assert [frame.frame.counters for frame in frames] == [Counters(repetition=i) for i in range(len(frames))]
    extents = [frame.frame.readouts[0] for frame in frames]
    assert all(extent.count == 4 for extent in extents)
    assert all(b.offset - a.offset == 3 * a.stride for a, b in pairwise(extents))
    assert len(frames) == 1 + (scans.LINES - 4) // 3


@pytest.mark.parametrize(
    ("method", "messages", "chosen"),
    [
        ("auto", [encode_config_file("simplefft")], "fft"),
        ("auto", [encode_config_file("default.xml")], "fft"),
        ("auto", [encode_config_text('{"method": "null"}')], "null"),
        ("null", [encode_config_file("fft")], "null"),  # the request counts more than the stream
        ("auto", [], "fft"),
    ],
)
def test_who_names_the_method(tmp_path: Path, method: str, messages: list[bytes], chosen: str) -> None:
    stream = make(tmp_path, method=method)
    (frame,) = frames_of(pour(stream, b"".join([*messages, HEADER, BODY])))
    assert frame.recipe.method == chosen


def test_text_after_the_header_sets_parameters(tmp_path: Path) -> None:
    texts = [encode_text("scanner says hello"), encode_text('{"parameters": {"whiten": "false"}}')]
    data = b"".join([encode_config_file("fft"), HEADER, *texts, BODY, encode_text('{"combine": "later is a remark"}')])
    (frame,) = frames_of(pour(make(tmp_path), data))
    assert frame.recipe["whiten"] is False


def test_only_questions_are_no_scan(tmp_path: Path) -> None:
    stream = make(tmp_path)
    steps = pour(stream, encode_query("gadgetron::info", correlation=1) + encode_close())
    assert messages_of(steps) == [Query, Close]
    assert stream.silent
    assert messages_of(pour(make(tmp_path), HEADER + encode_text("x"))) == [HeaderXml, Text]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (BODY, ScanError, "a readout came at byte 0 before the header: send the header first"),
        (HEADER + HEADER, ScanError, "a second header came at byte"),
        (encode_config_file("nonsense") + HEADER, RecipeError, "the configuration 'nonsense' is unknown, expected"),
        (encode_header(b"<x/>"), HeaderError, ""),
        (HEADER + b"\x4d\x00", WireError, "77"),
        (HEADER + BODY[:-3], WireError, "the stream stops inside the acquisition message"),
        (HEADER, ScanError, "the scan ended without an imaging readout"),
    ],
)
def test_bad_streams_are_refused_in_words(tmp_path: Path, data: bytes, kind: type, words: str) -> None:
    error = error_of(make(tmp_path), data)
    assert isinstance(error, kind)
    assert words in str(error)


def test_frames_before_bad_bytes_are_kept(tmp_path: Path) -> None:
    two = b"".join(encode_readouts(frame).tobytes() for frame in FRAMES[:2])
    data = encode_header(write_header(scans.header(repetitions=3))) + two + b"\x4d\x00"
    for cuts in ([], [len(data) - 1], range(1, len(data), 997)):
        steps = pour(make(tmp_path), data, cuts)
        assert len(frames_of(steps)) == 2
        assert isinstance(steps[-1].error, WireError)


def test_frames_before_a_bad_readout_of_the_same_piece_are_kept(tmp_path: Path) -> None:
    sent = scans.frames(3)
    sent[2].head["slice"][5] = 1
    data = scans.stream(sent)
    for cuts in ([], range(1, len(data), 997)):
        stream = make(tmp_path)
        steps = pour(stream, data, cuts)
        assert [frame.frame.number for frame in frames_of(steps)] == [0, 1]
        error = steps[-1].error
        assert isinstance(error, ScanError) and f"readout {2 * scans.LINES + 5} has slice 1" in str(error)


def test_frames_within_the_limit_of_readouts_are_kept(tmp_path: Path) -> None:
    (step,) = pour(make(tmp_path, scan_readouts=2 * scans.LINES + 1, receive_buffer_bytes=1 << 18), DATA_OF_THREE)
    assert len(step.frames) == 2
    assert isinstance(step.error, LimitError)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"scan_readouts": 20}, "the scan has more than 20 readouts, the limit here: split it"),
        ({"scan_frames": 1}, "the scan has more than 1 frames, the limit here: split it"),
        ({"acquisition_bytes": 1024}, "acquisition_bytes is 1024"),
        ({"header_bytes": 1024}, "header_bytes is 1024"),
    ],
)
def test_limits_of_the_configuration_hold(tmp_path: Path, limits: dict[str, int], words: str) -> None:
    sent = scans.frames(3, samples=60)
    error = error_of(make(tmp_path, **limits), scans.stream(sent, scans.header(repetitions=3, samples=60)))
    assert isinstance(error, LimitError)
    assert words in str(error)


def test_frames_that_calibrate_each_other_go_on_with_their_last_readout(tmp_path: Path) -> None:
    """Every second line in turn: the first frame waits for the second; each has the lines of two."""
    scan = scans.header(repetitions=4)
    interleaved = replace(scan.encodings[0], acceleration=(2, 1), calibration_mode="interleaved")
    head = encode_header(write_header(replace(scan, encodings=(interleaved,))))
    stream = make(tmp_path / "raw")
    data = [encode_config_file("grappa") + head]
    for number, full in enumerate(scans.frames(4)):
        half = Readouts(full.head[number % 2 :: 2].copy(), full.samples[number % 2 :: 2])
        half.head["flags"][-1] = Flag.LAST_IN_REPETITION.mask
        data.append(encode_readouts(half).tobytes())
    came = [[each.frame for each in frames_of(pour(stream, part))] for part in data]
    assert [len(frames) for frames in came] == [0, 0, 2, 1, 1]
    whole = [(each.counters, sum(extent.count for extent in each.readouts)) for frames in came for each in frames]
    assert whole == [(Counters(repetition=number), scans.LINES) for number in range(4)]

"""The worker: right images, its caches, and a defect that stays with its frame."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kernels
from cluster.config import ClusterConfig
from cluster.events import Batch, Extent, FrameReady, State
from cluster.stream import ScanStream
from cluster.tape import record
from cluster.worker import Worker, WorkerSettings
from recon.errors import DeviceError
from recon.mrd.wire import encode_close, encode_header, encode_readouts
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.simulate import simulate
from tests.cluster import scans

FRAMES = scans.frames(3)


@pytest.fixture
def ready(tmp_path: Path) -> list[FrameReady]:
    """Three frames with noise, in a spool file."""
    data = scans.stream([scans.noise(), *FRAMES], scans.header(repetitions=3), config="fft")
    path = tmp_path / "s.mrd"
    path.write_bytes(data)
    return (
        ScanStream("s", path, config=ClusterConfig(), method='{"method":"fft","whiten":false}')
        .feed(memoryview(data))
        .frames
    )


def batch(ready: list[FrameReady], number: int = 1) -> Batch:
    return Batch(number, "k", ready[0].recipe, tuple(frame.frame for frame in ready))


def test_does_a_batch(ready: list[FrameReady]) -> None:
    done = Worker("w", WorkerSettings()).run(batch(ready, 7))
    assert (done.worker, done.batch) == ("w", 7)
    assert [result.frame for result in done.results] == [frame.frame for frame in ready]
    for result, readouts in zip(done.results, FRAMES, strict=True):
        (image,) = result.images
        scans.assert_true(image.pixels[0, 0], readouts)
        assert image.provenance.worker == "w"
        assert {stage for stage, _ in result.stages_s} == {"read", "reconstruct"}
        assert all(0 <= seconds <= done.seconds for _, seconds in result.stages_s)
    assert dict(done.memory_bytes)["resident"] > 0


def test_a_heartbeat_says_what_it_takes() -> None:
    times, spent = iter([0.0, 10.0, 20.0]), iter([1.0, 6.0, 46.0])
    settings = WorkerSettings(threads=2)
    worker = Worker("w", settings, clock=lambda: next(times), processor=lambda: next(spent))
    first, second = worker.heartbeat(), worker.heartbeat()
    assert (first.worker, first.load, second.load) == ("w", (("cpu", 0.25),), (("cpu", 1.0),))
    assert dict(first.memory_bytes)["resident"] > 10_000_000
    assert Worker("w", settings).heartbeat().load == ()  # a thread's share of its process is not known


def test_every_cache_says_what_it_was_asked_and_holds(ready: list[FrameReady]) -> None:
    worker = Worker("w", WorkerSettings())
    worker.run(batch(ready))
    done = worker.run(batch(ready))
    assert {(cache, result) for cache, result, _ in done.caches} == {
        (cache, result) for cache in ("prepared", "headers", "plans") for result in ("hit", "miss")
    }
    assert ("headers", "hit", 3) in done.caches and ("headers", "miss", 0) in done.caches
    assert dict(done.memory_bytes)["headers"] == ready[0].frame.header.bytes
    assert dict(done.memory_bytes)["plans"] == 0  # an FFT needs none


def test_bad_frame_fails_alone(ready: list[FrameReady]) -> None:
    nowhere = replace(ready[1].frame, readouts=(Extent(1 << 30, 822, 12),))
    missing = replace(ready[2].frame, spool=Path("/nowhere/s.mrd"))
    bad = [ready[0], replace(ready[1], frame=nowhere), replace(ready[2], frame=missing), ready[2]]
    done = Worker("w", WorkerSettings()).run(batch(bad))
    errors = [result.error for result in done.results]
    assert [bool(result.images) for result in done.results] == [True, False, False, True]
    assert errors[0] == errors[3] == ""
    assert "the raw data of scan s end at byte" in errors[1]
    assert "the raw data of scan s cannot be read" in errors[2]


@pytest.mark.parametrize("bad", ["unread", "unmade", "none"])
def test_a_worker_maps_no_raw_data_once_it_is_done(ready: list[FrameReady], bad: str) -> None:
    """Without a collector: an idle worker has none, and what it maps is not freed where an operator deletes it."""
    frames = ready
    if bad == "unread":
        frames = [ready[0], replace(ready[1], frame=replace(ready[1].frame, readouts=(Extent(1 << 30, 822, 12),)))]
    if bad == "unmade":  # its lines have other lengths than the header says
        frames = [ready[0], replace(ready[1], frame=replace(ready[1].frame, readouts=ready[1].frame.noise))]
    worker = Worker("w", WorkerSettings())
    gc.disable()
    try:
        errors = [result.error for result in worker.run(batch(frames)).results]
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8").count(str(ready[0].frame.spool))
    finally:
        gc.enable()
    assert any(errors) == (bad != "none")
    assert mapped == 0


def test_defect_of_ours_is_reported_as_one(ready: list[FrameReady], monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise IndexError("7")

    monkeypatch.setattr("cluster.worker.reconstruct_batch", defect)
    (result,) = Worker("w", WorkerSettings()).run(batch(ready[:1])).results
    assert result.error == "internal error in frame 0 (IndexError): report it with the server's log"
    assert result.trace.startswith("Traceback (most recent call last):") and result.trace.endswith("IndexError: 7")
    assert 'raise IndexError("7")' in result.trace


def test_a_long_traceback_loses_its_middle(ready: list[FrameReady], monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise IndexError("x" * 100_000 + " end")

    monkeypatch.setattr("cluster.worker.reconstruct_batch", defect)
    (result,) = Worker("w", WorkerSettings()).run(batch(ready[:1])).results
    assert len(result.trace) < 17_000
    assert result.trace.startswith("Traceback") and result.trace.endswith("x end") and "characters ..." in result.trace


def test_warnings_of_assembly_stand_in_the_image_once(ready: list[FrameReady]) -> None:
    warned = replace(ready[0], frame=replace(ready[0].frame, warnings=("mind the gap", "mind the gap")))
    (image,) = Worker("w", WorkerSettings()).run(batch([warned])).results[0].images
    assert image.comments.count("mind the gap") == 1


def test_headers_are_kept_and_bounded(ready: list[FrameReady], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    from cluster import worker as module

    real = module.parse_header
    monkeypatch.setattr(module, "parse_header", lambda xml: read.append(xml) or real(xml))
    worker = Worker("w", WorkerSettings(header_cache_bytes=ready[0].frame.header.bytes))
    worker.run(batch(ready))
    assert len(read) == 1
    copy = ready[0].frame.spool.with_name("copy.mrd")
    copy.write_bytes(ready[0].frame.spool.read_bytes())
    other = replace(ready[0], frame=replace(ready[0].frame, spool=copy))
    worker.run(batch([other, ready[0]]))
    assert len(read) == 3


def test_a_header_longer_than_usual_is_read_where_the_server_takes_it(tmp_path: Path) -> None:
    data = encode_header(scans.long_header(9 << 20)) + encode_readouts(FRAMES[0]).tobytes() + encode_close()
    with scans.serving(tmp_path, header_bytes=16 << 20) as service:
        record = scans.run(service, data)
    assert (record.state, record.images) == (State.DONE, 1)


def test_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError):
        Worker("w", WorkerSettings(device="cuda:99"))


def test_a_worker_gates_by_the_waveforms_in_the_spool(tmp_path: Path) -> None:
    """What a worker makes of a cine from the spool is what the scan in memory gives."""
    simulated = simulate("heart-cine", seed=2, coils=2, matrix=16)
    spool = tmp_path / "s.mrd"
    spool.write_bytes(bytes(record(simulated, method="cine").data))
    stream = ScanStream("s", spool, config=ClusterConfig(), method="auto")
    stream.feed(memoryview(spool.read_bytes()))
    (frame,) = stream.finish().frames
    (result,) = Worker("w", WorkerSettings()).run(batch([frame])).results
    expected = list(reconstruct(simulated.scan, Recipe("cine"), kernels.on("cpu")))
    assert result.error == "" and len(result.images) == len(expected) == 20
    for made, wanted in zip(result.images, expected, strict=True):
        np.testing.assert_array_equal(made.pixels, wanted.pixels)
        assert made.counters == wanted.counters and not any("not gated" in text for text in made.comments)

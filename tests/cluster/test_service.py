"""The whole cluster in one process: bytes in, images out, states written down, whatever a sender does."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.events import Batch, Priority, State
from cluster.job import ConflictError, DiskFullError, DuplicateError, EndedError, NotFoundError, ScanRecord, ScanRequest
from cluster.live import LiveScan
from cluster.service import Service
from cluster.workers import Post, ThreadWorkers
from recon.errors import FileError, HeaderError, LimitError, RecipeError, RefusedError, ScanError, WireError
from recon.mrd.header import write_header
from recon.mrd.wire import (
    Decoder,
    ImageMessage,
    encode_close,
    encode_header,
    encode_query,
    encode_readouts,
    encode_text,
)
from recon.scan import Image
from tests.cluster import scans

BAD = b"\x4d\x00"  # a message id that does not exist


class NoWorkers:
    """A cluster whose workers have not come: scans are taken and wait."""

    def start(self, post: Post) -> None:
        """Nothing comes."""

    def submit(self, worker: str, batch: Batch) -> None:
        """Nobody is there."""

    def replace(self, worker: str) -> None:
        """Nobody is there."""

    def stop(self) -> None:
        """Nothing to stop."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with scans.serving(tmp_path) as running:
        yield running


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Service]:
    """A server without workers."""
    with scans.serving(tmp_path, NoWorkers()) as running:
        yield running


def by_repetition(service: Service, scan: str) -> list[Image]:
    return sorted(service.images(scan), key=lambda image: image.counters.repetition)


def log_of(service: Service, scan: str) -> list[str]:
    return [line.text for line in service.log(scan)]


# --- the way of a good scan ---


def test_images_are_the_inverse_transform(service: Service) -> None:
    sent = scans.frames(3)
    record = scans.run(service, scans.stream(sent))
    assert (record.state, record.reason, record.images, record.frames) == (State.DONE, "", 3, 3)
    assert (record.method, record.chosen, record.transport, record.complete) == ("auto", "fft", "tcp", True)
    assert record.readouts == 3 * scans.LINES
    assert record.bytes == service.raw_path(record.id).stat().st_size
    times = [record.created_s, record.header_s, record.received_s, record.first_image_s, record.finished_s]
    assert all(times)
    assert times[0] <= times[1] <= min(times[2:])
    for image, readouts in zip(by_repetition(service, record.id), sent, strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)
        assert image.provenance.worker in ("w0", "w1")


@settings(max_examples=10)
@given(chunk=st.integers(1, 20_000), transport=st.sampled_from(["tcp", "http"]))
def test_any_chunks_over_any_transport_give_the_same(shared: Service, chunk: int, transport: str) -> None:
    sent = scans.frames(2)
    data = scans.stream(sent)
    intake = shared.open_scan(ScanRequest(transport))
    for start in range(0, len(data), chunk):
        intake.feed(data[start : start + chunk])
    intake.finish()
    assert shared.wait(intake.scan_id, 30.0).state is State.DONE
    assert shared.raw_path(intake.scan_id).read_bytes() == data
    for image, readouts in zip(by_repetition(shared, intake.scan_id), sent, strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with scans.serving(tmp_path_factory.mktemp("shared")) as running:
        yield running


def test_noise_whitens(service: Service) -> None:
    """Channels of unequal noise come out with σ = 1 in each part: an image of pure noise has the known mean square."""
    gains = np.array([1.0, 5.0, 0.2], np.float32)[:, None]
    measured = [scans.noise(readouts=400), scans.frame(seed=5)]
    measured = [replace(run, samples=run.samples * gains) for run in measured]
    record = scans.run(service, scans.stream(measured))
    (image,) = service.images(record.id)
    # E|x|² of a coil image is 2, so that of the root-sum-of-squares is 2·coils; 240 pixels × 3 coils: 5 σ are 26 %.
    assert np.mean(image.pixels**2) == pytest.approx(2 * scans.COILS, rel=0.26)


def test_images_can_be_followed_while_the_scan_comes_in(service: Service) -> None:
    first, second = scans.frames(2)
    data = scans.stream([first, second])
    cut = len(data) - 5000  # inside the second frame
    intake = service.open_scan(ScanRequest("tcp"))
    scans.send(intake, data[:cut])
    messages = service.follow(intake.scan_id)
    (early,) = Decoder().feed(next(messages))
    assert isinstance(early, ImageMessage)
    scans.assert_true(early.image.pixels[0, 0], first)
    assert service.scan(intake.scan_id).state is State.RECEIVING
    scans.send(intake, data[cut:])
    intake.finish()
    assert len(list(messages)) == 1
    assert service.wait(intake.scan_id).state is State.DONE
    assert len(list(service.follow(intake.scan_id))) == 2
    assert len(list(service.follow(intake.scan_id, start=1))) == 1


def test_acceptance_is_on_disk(waiting: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def spy(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", spy)
    intake = waiting.open_scan(ScanRequest("http"))
    intake.feed(scans.stream(scans.frames(1)))
    assert intake.finish().state is State.ACCEPTED
    assert f"{intake.scan_id}.mrd" in synced
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        assert other.execute("SELECT state FROM scan WHERE id = ?", (intake.scan_id,)).fetchone() == ("accepted",)
    other.close()


def test_log_tells_the_story_without_the_patient(service: Service) -> None:
    header = replace(scans.header(repetitions=2), patient={"patientName": "CANARY^Mary", "patientID": "4711-CANARY"})
    record = scans.run(service, scans.stream(scans.frames(2), header))
    lines = log_of(service, record.id)
    assert lines[0] == "header accepted, method fft"
    assert f"received 24 readouts, {record.bytes} bytes" in lines
    assert lines[-1] == "done"
    assert "CANARY" not in "".join(lines) + repr(record) + service.metrics_text().decode()


def test_auto_explains_itself_in_the_log(service: Service) -> None:
    record = scans.run(service, scans.stream(scans.frames(2), config="auto"))
    reason = "auto takes fft: the header's trajectory is cartesian, its accelerationFactor 1 × 1"
    assert log_of(service, record.id).count(reason) == 1


def test_events_reach_who_listens(service: Service) -> None:
    listener = service.events()
    record = scans.run(service, scans.stream(scans.frames(2)))
    listener.close()
    seen = list(listener)
    assert {told.values["scan"] for told in seen} == {record.id}
    assert [told.name for told in seen].count("image") == 2
    assert seen[-1].name == "state"
    assert seen[-1].values == {"scan": record.id, "state": "done", "images": 2, "reason": ""}


def test_slow_listener_loses_the_oldest_and_is_told(tmp_path: Path) -> None:
    with scans.serving(tmp_path, subscription_events=2) as service:
        listener = service.events()
        scans.run(service, scans.stream(scans.frames(5)))
        assert listener.lost > 0
        last = [listener.get(1.0), listener.get(1.0)]
        assert last[-1] is not None
        assert last[-1].values["state"] == "done"


# --- bad input ---


def two_frames_then(tail: bytes) -> bytes:
    return scans.stream(scans.frames(2), scans.header(repetitions=3), close=False) + tail


def failing() -> Iterator[tuple[str, bytes, type[Exception], str]]:
    header = encode_header(write_header(scans.header()))
    yield "unknown id", two_frames_then(BAD), WireError, "77"
    yield "second header", two_frames_then(header), ScanError, "a second header came"
    wrong = encode_readouts(scans.frame(seed=1, repetition=2, coils=2)).tobytes()
    yield "coils", two_frames_then(wrong), ScanError, "has 2 coils"
    outside = encode_readouts(scans.frame(seed=1, repetition=7)).tobytes()
    words = "has repetition 7, the header's limits allow 0 to 2"
    yield "counters", two_frames_then(encode_text("a remark") + outside), ScanError, words


@pytest.mark.parametrize(("name", "data", "kind", "words"), list(failing()), ids=lambda value: str(value)[:20])
def test_what_came_before_bad_data_is_kept(
    service: Service, name: str, data: bytes, kind: type[Exception], words: str
) -> None:
    intake = service.open_scan(ScanRequest("tcp"))
    with pytest.raises(kind, match=words) as caught:
        scans.send(intake, data)
    record = service.wait(intake.scan_id, 30.0)
    assert (record.state, record.images, record.reason) == (State.FAILED, 2, str(caught.value))
    assert service.raw_path(record.id).read_bytes() == data
    assert log_of(service, record.id)[-1] == f"failed: {caught.value}"
    assert scans.run(service, scans.stream(scans.frames(1))).state is State.DONE


@pytest.mark.parametrize(
    ("data", "kind", "word"),
    [
        (scans.stream(scans.frames(1), config="nonsense"), RecipeError, "recipe"),
        (encode_header(b"no XML at all"), HeaderError, "header"),
        (encode_close(), HeaderError, "header"),
        (encode_readouts(scans.frame(seed=0)).tobytes(), ScanError, "wire"),
        (encode_header(b" " * (9 << 20))[:100], LimitError, "limits"),
    ],
    ids=["recipe", "header", "close", "readout", "limits"],
)
def test_a_stream_without_a_header_is_refused_and_recorded(
    service: Service, data: bytes, kind: type[Exception], word: str
) -> None:
    intake = service.open_scan(ScanRequest("http"))
    with pytest.raises(kind) as caught:
        intake.feed(data)
        intake.finish()
    record = service.wait(intake.scan_id, 30.0)
    assert (record.state, record.reason) == (State.FAILED, str(caught.value))
    assert service.raw_path(record.id).read_bytes() == data
    text = service.metrics_text().decode()
    assert f'recon_refused_total{{reason="{word}"}} 1.0' in text
    assert "recon_scans_accepted_total 0.0" in text


def test_a_name_that_utf8_cannot_say_holds_nobody_up(service: Service) -> None:
    data = scans.stream(scans.frames(1))
    record = scans.run(service, data, name="half \ud83d")
    assert (record.state, record.name) == (State.DONE, "half \\ud83d")
    assert scans.run(service, data).state is State.DONE


def test_nan_fails_its_frame_alone(service: Service) -> None:
    sent = scans.frames(3)
    sent[1].samples[4, 2, 7] = np.nan
    record = scans.run(service, scans.stream(sent))
    assert (record.state, record.images) == (State.FAILED, 2)
    assert "1 of 3 frames failed: " in record.reason
    assert "coil 2, sample 7" in record.reason


def test_no_readout_is_a_failure(service: Service) -> None:
    record, told = scans.try_run(service, scans.stream([], scans.header()))
    assert record.state is State.FAILED
    assert told == record.reason
    assert "without an imaging readout" in told


@pytest.mark.parametrize("ending", ["finish", "abort"])
def test_sender_that_leaves_gets_the_frames_that_were_complete(service: Service, ending: str) -> None:
    data = scans.stream(scans.frames(2), scans.header(repetitions=3), close=False)
    data += encode_readouts(scans.frame(seed=9, repetition=2)).tobytes()[:4000]
    intake = service.open_scan(ScanRequest("tcp"))
    scans.send(intake, data)
    record = intake.finish() if ending == "finish" else intake.abort("silent for 5 s")
    record = service.wait(intake.scan_id, 30.0)
    assert (record.state, record.images, record.complete) == (State.INCOMPLETE, 2, False)
    left = "the sender left before the CLOSE message, after 28 readouts"
    assert record.reason == (left if ending == "finish" else "silent for 5 s")
    assert service.raw_path(record.id).read_bytes() == data


def test_http_body_needs_no_close_but_whole_messages(service: Service) -> None:
    data = scans.stream(scans.frames(2), close=False)
    assert scans.run(service, data, transport="http").state is State.DONE
    record, told = scans.try_run(service, data[:-7], transport="http")
    assert (record.state, record.images) == (State.FAILED, 1)
    assert "the stream stops inside the acquisition message" in told


def test_questions_alone_leave_nothing(service: Service, tmp_path: Path) -> None:
    intake = service.open_scan(ScanRequest("tcp"))
    messages = intake.feed(encode_query("gadgetron::info", correlation=3) + encode_close())
    assert len(messages) == 2
    intake.finish()
    assert service.scans() == []
    assert [path.name for path in tmp_path.rglob("*.mrd")] == []
    assert service.cluster()["scans_in_flight"] == 0


def test_frame_too_large_for_the_workers_ends_the_scan_while_it_comes_in(tmp_path: Path) -> None:
    workers = ThreadWorkers(["w0"], scans.settings(memory_bytes=1000))
    data = scans.stream(scans.frames(2))
    with scans.serving(tmp_path, workers) as service:
        wait_until(lambda: service.ready)
        intake = service.open_scan(ScanRequest("tcp"))
        scans.send(intake, data[:-5_000])
        record = service.wait(intake.scan_id, 10.0)
        assert record.state is State.FAILED
        assert "bytes of memory, the largest worker has 1000: choose another method" in record.reason
        with pytest.raises(
            EndedError, match=rf"scan {intake.scan_id} has ended .*largest worker.*: send the data as a"
        ):
            intake.feed(data[-5_000:])
        assert service.raw_path(record.id).read_bytes() == data[:-5_000]


def wait_until(condition: object, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


# --- who may come in ---


def test_no_more_scans_than_allowed_are_in_flight(tmp_path: Path) -> None:
    with scans.serving(tmp_path, NoWorkers(), max_scans_in_flight=2) as service:
        held = [service.open_scan(ScanRequest("tcp")) for _ in range(2)]
        with pytest.raises(RefusedError, match="2 scans are in flight, the server takes 2 at once: send it") as caught:
            service.open_scan(ScanRequest("tcp"))
        assert caught.value.retry_after_s
        held[0].finish()  # nothing came
        service.open_scan(ScanRequest("tcp"))


def test_full_queue_slows_the_sender_down(tmp_path: Path) -> None:
    with scans.serving(tmp_path, NoWorkers(), max_frames_queued=3) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        told: list[Exception] = []

        def sender() -> None:
            try:
                scans.send(intake, scans.stream(scans.frames(9)), chunk=12 * 822)
            except EndedError as error:
                told.append(error)

        thread = threading.Thread(target=sender)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert 3 <= service.cluster()["queue"]["routine"] <= 4
        service.cancel(intake.scan_id)
        thread.join(10.0)
        assert not thread.is_alive()
        assert told


def test_draining_takes_no_scan_and_waits_for_those_in_flight(service: Service) -> None:
    data = scans.stream(scans.frames(2))
    intake = service.open_scan(ScanRequest("tcp"))
    scans.send(intake, data[:-100])
    assert not service.drain(0.01)
    assert not service.ready
    with pytest.raises(RefusedError, match="the server is shutting down and takes no new scan: send it to another"):
        service.open_scan(ScanRequest("tcp"))
    scans.send(intake, data[-100:])
    intake.finish()
    assert service.drain(30.0)
    assert service.scan(intake.scan_id).state is State.DONE


def test_full_disk_takes_no_scan(tmp_path: Path) -> None:
    service = Service(replace(scans.config(tmp_path), spool_free_bytes=1 << 45), NoWorkers())
    service.start()
    with pytest.raises(DiskFullError, match="are free in the spool"):
        service.open_scan(ScanRequest("tcp"))
    service.close()


def test_unknown_method_is_refused_before_any_byte(service: Service) -> None:
    with pytest.raises(RecipeError, match="'nonsense' is unknown"):
        service.open_scan(ScanRequest("http", method="nonsense"))
    assert service.scans() == []


def test_key_names_one_scan(service: Service) -> None:
    data = scans.stream(scans.frames(1))
    first = scans.run(service, data, idempotency_key="k")
    assert service.lookup("k") == first
    assert service.lookup("other") is service.lookup("") is None
    with pytest.raises(DuplicateError, match=f"already used by scan {first.id}: use that scan, or another") as caught:
        service.open_scan(ScanRequest("tcp", idempotency_key="k"))
    assert caught.value.record == first


def test_key_of_a_scan_that_never_came_in_whole_may_be_used_again(service: Service) -> None:
    data = scans.stream(scans.frames(1))
    intake = service.open_scan(ScanRequest("http", idempotency_key="k"))
    intake.feed(data[:3000])
    with pytest.raises(DuplicateError):
        service.open_scan(ScanRequest("http", idempotency_key="k"))
    intake.finish(reason="the body ended early")
    assert service.wait(intake.scan_id, 10.0).state is State.INCOMPLETE
    assert service.lookup("k") is None
    assert scans.run(service, data, transport="http", idempotency_key="k").state is State.DONE


# --- what people ask ---


def test_unknown_scan_is_said_to_be_unknown(service: Service) -> None:
    for ask in (service.scan, service.cancel, service.log, service.raw_path, service.images, service.requeue):
        with pytest.raises(NotFoundError, match="there is no scan 'nothing': list the scans to see which there are"):
            ask("nothing")  # type: ignore[operator]


def test_lists_scans_newest_first(service: Service) -> None:
    done = [scans.run(service, scans.stream(scans.frames(1))) for _ in range(3)]
    going = service.open_scan(ScanRequest("tcp", priority=Priority.STAT, name="knee"))
    going.feed(scans.stream([], scans.header(), close=False))
    listed = service.scans()
    assert [record.id for record in listed] == [going.scan_id, *[record.id for record in reversed(done)]]
    assert [record.id for record in service.scans(state=State.DONE, limit=2)] == [done[2].id, done[1].id]
    assert [record.id for record in service.scans(state=State.RECEIVING)] == [going.scan_id]
    assert (listed[0].priority, listed[0].name) == (Priority.STAT, "knee")
    going.finish()


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["nothing", "half", "whole"])
def test_cancel_at_any_time(waiting: Service, part: float) -> None:
    data = scans.stream(scans.frames(2))
    cut = int(part * len(data))
    intake = waiting.open_scan(ScanRequest("tcp"))
    intake.feed(data[:cut])
    if part == 1.0:
        intake.finish()
    record = waiting.cancel(intake.scan_id)
    assert (record.state, record.reason) == (State.CANCELLED, "cancelled on request")
    assert waiting.cancel(intake.scan_id) == record
    if part < 1.0:
        with pytest.raises(EndedError, match="cancelled"):
            intake.feed(data[cut:])
        assert intake.finish().state is State.CANCELLED
    assert waiting.cluster()["queue"] == {"stat": 0, "routine": 0, "research": 0}
    assert waiting.scan(intake.scan_id) == record


def test_requeue_runs_a_scan_again_with_the_same_images(service: Service) -> None:
    sent = scans.frames(2)
    first = scans.run(service, scans.stream(sent))
    service.requeue(first.id)
    second = service.wait(first.id, 30.0)
    unlike = {"first_image_s", "finished_s"}
    assert {name for name in ScanRecord.__slots__ if getattr(first, name) != getattr(second, name)} <= unlike
    assert second.finished_s > first.finished_s
    for image, readouts in zip(by_repetition(service, first.id), sent, strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)
    assert "requeued" in log_of(service, first.id)


def numbers(messages: Iterator[bytes]) -> list[int]:
    decoder = Decoder()
    found = [message for data in messages for message in decoder.feed(data)]
    return sorted(message.image.counters.repetition for message in found if isinstance(message, ImageMessage))


def test_images_stay_while_a_scan_runs_again_and_if_it_is_stopped(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        scan = scans.run(service, scans.stream(scans.frames(3))).id
    with scans.serving(tmp_path, NoWorkers()) as service:
        assert (service.requeue(scan).state, service.scan(scan).images) == (State.ACCEPTED, 3)
        assert numbers(service.stored(scan)) == [0, 1, 2]
        assert numbers(service.stored(scan, start=3)) == []
        assert len(list(service.images(scan))) == 3
        assert list(service.follow(scan, timeout_s=0.05)) == []  # who waits for this run's images gets no others
        record = service.cancel(scan)
        assert (record.state, record.images) == (State.CANCELLED, 3)
        assert record.reason == "cancelled on request; its images (3) are those of the run before"
        assert numbers(service.follow(scan)) == numbers(service.stored(scan)) == [0, 1, 2]


def test_a_later_run_that_fails_leaves_the_images_and_says_why(service: Service) -> None:
    data = scans.stream(scans.frames(3))
    before = scans.run(service, data)
    images = (service.config.results_folder / f"{before.id}.mrd").read_bytes()
    raw = service.raw_path(before.id)
    raw.write_bytes(data[: len(data) // 2])  # one frame, and a half
    waiting = service.follow(before.id)
    service.requeue(before.id)
    record = service.wait(before.id, 30.0)
    assert (record.state, record.images) == (State.FAILED, 3)
    assert record.reason.startswith("the stream stops inside the acquisition message")
    assert record.reason.endswith("; its images (3) are those of the run before")
    assert (service.config.results_folder / f"{before.id}.mrd").read_bytes() == images
    assert numbers(waiting) == [0, 1, 2]
    raw.write_bytes(data)
    service.requeue(before.id)
    record = service.wait(before.id, 30.0)
    assert (record.state, record.images, record.reason) == (State.DONE, 3, "")


def test_a_later_run_that_fails_with_more_images_keeps_those(service: Service) -> None:
    data = two_frames_then(BAD)
    before, _ = scans.try_run(service, data)
    assert (before.state, before.images) == (State.FAILED, 2)
    more = scans.stream(scans.frames(3), close=False) + BAD
    service.raw_path(before.id).write_bytes(more)
    service.requeue(before.id)
    record = service.wait(before.id, 30.0)
    assert (record.state, record.images) == (State.FAILED, 3)
    assert record.reason.startswith("unknown message id 77") and record.reason.endswith("correct the sender")
    assert numbers(service.stored(before.id)) == [0, 1, 2]


def test_an_incomplete_scan_runs_again_with_what_there_is(service: Service) -> None:
    intake = service.open_scan(ScanRequest("tcp"))
    intake.feed(scans.stream(scans.frames(3))[:-3000])
    intake.abort("the sender left")
    before = service.wait(intake.scan_id, 30.0)
    again = service.requeue(before.id)
    assert (again.state, again.complete, again.readouts) == (State.ACCEPTED, False, before.readouts)
    record = service.wait(before.id, 30.0)
    assert (record.state, record.images, record.reason) == (State.INCOMPLETE, 2, "the sender left")
    assert numbers(service.stored(before.id)) == [0, 1]


def test_requeue_needs_an_end_and_raw_data(waiting: Service) -> None:
    intake = waiting.open_scan(ScanRequest("tcp"))
    intake.feed(scans.stream(scans.frames(1)))
    intake.finish()
    with pytest.raises(ConflictError, match="is accepted, only one that has ended can run again: wait for it, or"):
        waiting.requeue(intake.scan_id)
    waiting.cancel(intake.scan_id)
    waiting.raw_path(intake.scan_id).unlink()
    with pytest.raises(FileError, match=r"the raw data of scan .* are gone: send it again"):
        waiting.requeue(intake.scan_id)


def test_requeue_of_a_scan_whose_end_is_not_written_yet(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    done = scans.run(service, scans.stream(scans.frames(1)))
    monkeypatch.setattr("cluster.service._END_WAIT_S", 0.01)
    service._lives[done.id] = LiveScan(done, service._results.resume(done.id))
    with pytest.raises(ConflictError, match=r"is done, but its record is still being written: ask again in a moment$"):
        service.requeue(done.id)
    del service._lives[done.id]
    service.requeue(done.id)
    assert service.wait(done.id, 30.0).state is State.DONE


@pytest.mark.parametrize("fault", ["ledger", "images"])
def test_a_requeue_that_cannot_be_written_down_leaves_the_scan_as_it_was(
    service: Service, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scans.run(service, scans.stream(scans.frames(2)))
    taken = service._results.path(before.id).with_suffix(".part")

    def commit(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        if fault == "ledger":
            patch.setattr(service._ledger, "commit", commit)
            words = r"the ledger cannot be written \(disk I/O error\): check the server's disk, then requeue the scan"
        else:
            taken.mkdir()
            words = r"the images of the scan cannot be kept \(Is a directory\)"
        with pytest.raises(DiskFullError, match=words):
            service.requeue(before.id)
    assert service.scan(before.id) == before
    assert len(list(service.images(before.id))) == 2
    if taken.exists():
        taken.rmdir()
    service.requeue(before.id)
    assert service.wait(before.id, 30.0).state is State.DONE


def test_of_two_who_requeue_at_once_one_is_told_so(tmp_path: Path) -> None:
    """Whatever their threads do, one run is made: each round both start from the same moment."""
    with scans.serving(tmp_path) as service:
        scan = scans.run(service, scans.stream(scans.frames(1))).id
    with scans.serving(tmp_path, NoWorkers()) as service:
        for _ in range(20):
            outcomes: list[str] = []
            together = threading.Barrier(2)

            def ask(outcomes: list[str] = outcomes, together: threading.Barrier = together) -> None:
                together.wait()
                try:
                    outcomes.append(service.requeue(scan).state.value)
                except ConflictError as error:
                    outcomes.append(str(error).partition(",")[0])

            threads = [threading.Thread(target=ask) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10.0)
            assert sorted(outcomes) == ["accepted", f"scan {scan} is accepted"]
            service.cancel(scan)


def test_many_scanners_at_once(service: Service) -> None:
    sent = {number: scans.frames(4) for number in range(8)}
    records: dict[int, ScanRecord] = {}

    def scanner(number: int) -> None:
        records[number] = scans.run(service, scans.stream(sent[number]), priority=Priority(number % 3))

    threads = [threading.Thread(target=scanner, args=(number,)) for number in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    for number, record in records.items():
        assert (record.state, record.images) == (State.DONE, 4)
        for image, readouts in zip(by_repetition(service, record.id), sent[number], strict=True):
            scans.assert_true(image.pixels[0, 0], readouts)


def test_log_is_bounded(tmp_path: Path) -> None:
    with scans.serving(tmp_path, log_lines_per_scan=2, log_line_chars=20) as service:
        record, told = scans.try_run(service, two_frames_then(BAD))
        lines = log_of(service, record.id)
    assert len(lines) == 2
    assert all(len(line) <= 20 for line in lines)
    assert record.reason == told[:20]


# --- disks that fill up ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "recon-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all space of a small disk."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return ballast


def test_spool_that_fills_up_fails_the_scan_and_keeps_what_came(small_disk: Path) -> None:
    with scans.serving(small_disk) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        with pytest.raises(DiskFullError, match="the spool's disk is full after"):
            scans.send(intake, scans.stream(scans.frames(120)))
        raw = service.raw_path(intake.scan_id)
        assert raw.stat().st_size > 500_000
        raw.unlink()  # as an operator would; until then not even the failure can be written down
        assert service.wait(intake.scan_id, 10.0).state is State.FAILED
        assert scans.run(service, scans.stream(scans.frames(1))).state is State.DONE


def test_ledger_that_cannot_be_written_acknowledges_nothing(small_disk: Path) -> None:
    with scans.serving(small_disk) as service:
        intake = service.open_scan(ScanRequest("http"))
        intake.feed(scans.stream(scans.frames(2)))
        wait_until(lambda: service.scan(intake.scan_id).images == 2)
        ballast = fill(small_disk)
        with pytest.raises(DiskFullError, match=r"the ledger cannot be written .*: check the disk and send the scan"):
            intake.finish()
        assert not service.ready
        ballast.unlink()
        assert service.wait(intake.scan_id, 10.0).state is State.FAILED


def test_images_that_cannot_be_kept_fail_the_scan(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "results").symlink_to(small_disk)
    with scans.serving(tmp_path / "data") as service:
        ballast = fill(small_disk)
        record = scans.run(service, scans.stream(scans.frames(2)))
        assert record.state is State.FAILED
        assert "its images cannot be kept" in record.reason
        ballast.unlink()
        service.requeue(record.id)
        assert service.wait(record.id, 10.0).state is State.DONE

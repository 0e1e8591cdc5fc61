"""Scans received straight from a socket: the same as through a buffer, whatever the pieces, ends and failures."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from cluster import splicing
from cluster.events import State
from cluster.intake import Intake
from cluster.job import DiskFullError, EndedError, ScanRequest
from cluster.service import Service
from cluster.splicing import Pipes, Window, map_file
from recon.errors import WireError
from recon.mrd.wire import encode_close, encode_query
from tests.cluster import scans
from tests.cluster.test_service import NoWorkers, by_repetition, small_disk, wait_until

__all__ = ["small_disk"]  # a fixture


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection over loopback: the sender's end, and ours, which does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    with sender, ours:
        yield sender, ours


def take_all(intake: Intake, ours: socket.socket) -> None:
    """Receive until CLOSE, or until the sender ended."""
    while not intake.closed:
        select.select([ours], [], [], 10.0)
        if not intake.receive(ours.fileno())[0]:
            return


def run(service: Service, data: bytes, *, pieces: int = 1 << 20) -> Intake:
    """Send `data` in pieces over a real connection, and receive it."""
    intake = service.open_scan(ScanRequest("tcp"))
    with connection() as (sender, ours):
        ours_done = threading.Event()

        def send() -> None:
            for start in range(0, len(data), pieces):
                sender.sendall(data[start : start + pieces])
            sender.shutdown(socket.SHUT_WR)
            ours_done.wait(30.0)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            take_all(intake, ours)
        finally:
            ours_done.set()
            ours.close()
            thread.join()
    return intake


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with scans.serving(tmp_path) as running:
        yield running


@pytest.mark.parametrize("pieces", [7, 1000, 1 << 20])
def test_images_and_raw_data_are_right(service: Service, pieces: int) -> None:
    sent = scans.frames(3)
    data = scans.stream(sent)
    intake = run(service, data, pieces=pieces)
    intake.finish()
    record = service.wait(intake.scan_id, 30.0)
    assert (record.state, record.images, record.bytes) == (State.DONE, 3, len(data))
    assert service.raw_path(record.id).read_bytes() == data
    for image, readouts in zip(by_repetition(service, record.id), sent, strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)


def test_large_messages_span_many_pieces(service: Service) -> None:
    sent = scans.frames(6, samples=512, coils=32, lines=40)
    header = scans.header(repetitions=6, lines=40, samples=512, coils=32)
    intake = run(service, scans.stream(sent, header))
    intake.finish()
    assert service.wait(intake.scan_id, 30.0).state is State.DONE
    for image, readouts in zip(by_repetition(service, intake.scan_id), sent, strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)


def test_nothing_waits_is_not_an_end(service: Service) -> None:
    data = scans.stream(scans.frames(1))
    intake = service.open_scan(ScanRequest("tcp"))
    with connection() as (sender, ours):
        with pytest.raises(BlockingIOError):
            intake.receive(ours.fileno())
        sender.sendall(data)
        take_all(intake, ours)
    intake.finish()
    assert service.wait(intake.scan_id, 30.0).state is State.DONE


def test_messages_are_handed_on(service: Service) -> None:
    intake = service.open_scan(ScanRequest("tcp"))
    with connection() as (sender, ours):
        sender.sendall(encode_query("gadgetron::info", correlation=1) + encode_close())
        select.select([ours], [], [], 10.0)
        count, messages = intake.receive(ours.fileno())
    assert count == len(encode_query("gadgetron::info", correlation=1)) + 2
    assert [type(message).__name__ for message in messages] == ["Query", "Close"]
    intake.finish()
    assert service.scans() == []


def test_sender_that_leaves_in_the_middle(service: Service) -> None:
    data = scans.stream(scans.frames(2), close=False)[:-10]
    intake = run(service, data)
    intake.finish()
    record = service.wait(intake.scan_id, 30.0)
    assert (record.state, record.images) == (State.INCOMPLETE, 1)
    assert service.raw_path(record.id).read_bytes() == data


def test_body_that_ends_in_a_message_says_what_is_missing(service: Service) -> None:
    data = scans.stream(scans.frames(1), close=False)[:-10]
    intake = service.open_scan(ScanRequest("http"))
    with connection() as (sender, ours):
        sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)
        take_all(intake, ours)
    with pytest.raises(WireError, match="the stream stops inside the acquisition message"):
        intake.finish()


def test_bad_bytes_end_the_scan_and_are_kept(service: Service) -> None:
    data = scans.stream(scans.frames(2), close=False) + b"\x4d\x00" * 50
    with pytest.raises(WireError, match="77"):
        run(service, data)
    (record,) = service.scans()
    record = service.wait(record.id, 30.0)
    assert (record.state, record.images) == (State.FAILED, 2)
    assert service.raw_path(record.id).read_bytes() == data


def test_cancelled_scan_takes_no_more(tmp_path: Path) -> None:
    with scans.serving(tmp_path, NoWorkers()) as service, connection() as (sender, ours):
        intake = service.open_scan(ScanRequest("tcp"))
        sender.sendall(scans.stream(scans.frames(1), close=False))
        select.select([ours], [], [], 10.0)
        intake.receive(ours.fileno())
        service.cancel(intake.scan_id)
        with pytest.raises(EndedError):
            intake.receive(ours.fileno())


def test_full_disk_leaves_no_bytes_for_the_next_scan(small_disk: Path) -> None:
    with scans.serving(small_disk) as service:
        with pytest.raises(DiskFullError, match="the spool's disk is full after"):
            run(service, scans.stream(scans.frames(120)))
        (record,) = service.scans()
        (small_disk / "spool" / f"{record.id}.mrd").unlink()
        data = scans.stream(scans.frames(1))
        intake = run(service, data)
        intake.finish()
        assert service.wait(intake.scan_id, 10.0).state is State.DONE
        assert service.raw_path(intake.scan_id).read_bytes() == data


def test_pipe_of_a_failure_is_not_lent_again() -> None:
    pipes = Pipes()
    seen = []
    for _ in range(20):
        with pytest.raises(ValueError), pipes.borrow() as pipe:
            os.write(pipe.inlet, b"left behind")
            seen.append(pipe)
            raise ValueError
    lent = []
    for _ in range(8):
        with pipes.borrow() as pipe:
            os.set_blocking(pipe.outlet, False)
            with pytest.raises(BlockingIOError):
                os.read(pipe.outlet, 1)
        lent.append(pipe)
    pipes.close()


def test_pipe_that_cannot_be_replaced_is_never_lent_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers may be another file's by then; once pipes can be made again, all eight are there again."""
    pipes = Pipes()
    with monkeypatch.context() as patched, pytest.raises(ValueError), pipes.borrow() as lost:
        patched.setattr(splicing, "_make_pipe", lambda: pytest.fail("a pipe was made before one was needed"))
        raise ValueError
    with ExitStack() as borrowed:
        lent = [borrowed.enter_context(pipes.borrow()) for _ in range(8)]
        assert not any(pipe is lost for pipe in lent)
        for pipe in lent:
            os.fstat(pipe.inlet)  # raises where it is closed
    pipes.close()


def test_window_shows_a_file_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splicing, "_WINDOW_BYTES", 1 << 20)
    monkeypatch.setattr(splicing, "_RELEASE_BYTES", 1 << 16)
    data = np.random.default_rng(0).bytes((1 << 20) + 50_000)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    window = Window(descriptor)
    assert os.fstat(descriptor).st_size == 0
    for start in range(0, len(data), 10_001):
        os.pwrite(descriptor, data[start : start + 10_001], start)
        stop = min(len(data), start + 10_001)
        assert window.view(start, stop) == data[start:stop]  # the last ones lie beyond the window
    assert map_file(descriptor, start=5000, stop=9000) == data[5000:9000]
    os.close(descriptor)


def test_long_scans_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    """300 MB through a server: what it maps to look at heads is let go of on the way."""
    frame = scans.frame(seed=0, lines=64, samples=512, coils=32)
    header = scans.header(repetitions=40, lines=64, samples=512, coils=32)
    data = scans.stream([frame], header, config="null", close=False)
    opening = len(data) - len(frame.head) * (342 + 512 * 32 * 8)
    with scans.serving(tmp_path, NoWorkers()) as service, connection() as (sender, ours):
        intake = service.open_scan(ScanRequest("tcp"))

        def send() -> None:
            sender.sendall(data[:opening])
            for _ in range(36):
                sender.sendall(memoryview(data)[opening:])
            sender.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        take_all(intake, ours)
        thread.join()
        wait_until(lambda: intake.record.readouts == 36 * 64)
        mapped = subprocess.run(
            ["awk", f"/{intake.scan_id}/ {{at=1}} at && /^Rss/ {{print $2; exit}}", f"/proc/{os.getpid()}/smaps"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(mapped.stdout) * 1024 < 80 << 20
        service.cancel(intake.scan_id)

"""What a server leaves behind, the next one finishes: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import pytest

from cluster.events import State
from cluster.job import EndedError, ScanRequest
from cluster.ledger import Ledger
from cluster.results import ResultFile
from cluster.workers import ThreadWorkers
from recon.errors import FileError
from recon.mrd.hdf5 import stream_scan, write_scan
from recon.mrd.header import parse_header, write_header
from recon.mrd.wire import Decoder, HeaderXml, encode_config_file, encode_header, encode_text
from recon.scan import Scan
from tests.cluster import scans
from tests.cluster.test_service import NoWorkers, by_repetition, log_of, wait_until

FRAMES = scans.frames(3)
DATA = scans.stream(FRAMES)


def leave(data: Path, stream: bytes, *, finish: bool, transport: str = "tcp", key: str = "k") -> str:
    """A server without workers takes a stream and ends."""
    with scans.serving(data, NoWorkers()) as service:
        intake = service.open_scan(ScanRequest(transport, idempotency_key=key))
        intake.feed(stream)
        if finish:
            intake.finish()
        return intake.scan_id


@pytest.mark.parametrize("transport", ["tcp", "http"])
def test_accepted_scan_is_reconstructed_by_the_next_server(tmp_path: Path, transport: str) -> None:
    stream = DATA if transport == "tcp" else scans.stream(FRAMES, close=False)  # the end of a body counts as CLOSE
    scan = leave(tmp_path, stream, finish=True, transport=transport)
    with scans.serving(tmp_path) as service:
        record = service.wait(scan, 30.0)
        assert (record.state, record.images, record.complete) == (State.DONE, 3, True)
        for image, readouts in zip(by_repetition(service, scan), FRAMES, strict=True):
            scans.assert_true(image.pixels[0, 0], readouts)
        assert "taken up after a restart" in log_of(service, scan)
        assert service.lookup("k") == record


@pytest.mark.parametrize("transport", ["tcp", "http"])
def test_a_text_of_fire_that_names_another_configuration_counts_whenever_the_scan_runs(
    tmp_path: Path, transport: str
) -> None:
    """When it comes in, when another server takes it up, and when it is asked for once more."""
    head = encode_config_file("null") + encode_header(write_header(scans.header(repetitions=3)))
    text = encode_text('{"version": "1.0", "config": "simplefft", "parameters": {"oversampling": "keep"}}')
    stream = head + text + DATA[len(scans.stream([], scans.header(repetitions=3), close=False)) :]
    scan = leave(tmp_path, stream, finish=True, transport=transport)
    with scans.serving(tmp_path) as service:
        for record in (service.wait(scan, 30.0), scans.run(service, stream, transport=transport)):
            assert (record.state, record.method, record.chosen, record.images) == (State.DONE, "auto", "fft", 3)
        service.requeue(scan)
        record = service.wait(scan, 30.0)
        assert (record.state, record.method, record.chosen, record.images) == (State.DONE, "auto", "fft", 3)


def test_scan_that_had_its_close_but_no_acknowledgement_is_done_as_well(tmp_path: Path) -> None:
    scan = leave(tmp_path, DATA, finish=False)
    with scans.serving(tmp_path) as service:
        assert service.wait(scan, 30.0).state is State.DONE


def test_scan_cut_off_by_the_server_is_incomplete(tmp_path: Path) -> None:
    scan = leave(tmp_path, DATA[:-3000], finish=False)
    with scans.serving(tmp_path) as service:
        record = service.wait(scan, 30.0)
        assert (record.state, record.images) == (State.INCOMPLETE, 2)
        assert record.reason == "the server stopped while the scan was coming in"
        assert service.raw_path(scan).read_bytes() == DATA[:-3000]


def test_scan_that_ended_stays_as_it_is(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        record = scans.run(service, DATA)
        bad, _ = scans.try_run(service, DATA[:5000] + b"\x4d\x00" * 1000)
    results = (tmp_path / "results" / f"{record.id}.mrd").read_bytes()
    with scans.serving(tmp_path) as service:
        assert service.scans() == [bad, record]
        assert len(list(service.images(record.id))) == 3
    assert (tmp_path / "results" / f"{record.id}.mrd").read_bytes() == results


def test_images_made_before_the_end_are_not_there_twice(tmp_path: Path) -> None:
    scan = leave(tmp_path, DATA, finish=True)
    with scans.serving(tmp_path) as service:
        whole = service.wait(scan, 30.0)
    ledger = Ledger(tmp_path / "ledger.sqlite")  # as if the server had died after the images and before their commit
    ledger._database._connection.execute("UPDATE scan SET state = 'running', finished_s = 0 WHERE id = ?", (scan,))
    ledger.close()
    with scans.serving(tmp_path) as service:
        record = service.wait(scan, 30.0)
        assert (record.state, record.images) == (whole.state, 3)
        assert Counter(image.counters.repetition for image in service.images(scan)) == {0: 1, 1: 1, 2: 1}


def test_raw_data_without_a_record_are_taken_up(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "01ORPHAN.mrd").write_bytes(DATA)
    with scans.serving(tmp_path) as service:
        assert service.wait("01ORPHAN", 30.0).state is State.DONE


def test_lost_raw_data_are_said_to_be_lost(tmp_path: Path) -> None:
    scan = leave(tmp_path, DATA, finish=True)
    (tmp_path / "spool" / f"{scan}.mrd").unlink()
    with scans.serving(tmp_path) as service:
        record = service.wait(scan, 30.0)
    assert record.state is State.FAILED
    assert f"the raw data of scan {scan} cannot be read" in record.reason


def test_a_scan_whose_images_have_no_place_ends_and_stops_no_server(tmp_path: Path) -> None:
    spoiled, fine = (leave(tmp_path, DATA, finish=True, key=key) for key in "ab")
    place = tmp_path / "results" / f"{spoiled}.mrd"
    place.unlink(missing_ok=True)
    place.mkdir()
    with scans.serving(tmp_path) as service:
        assert service.wait(fine, 30.0).state is State.DONE
        record = service.scan(spoiled)
        assert (record.state, record.images, record.complete) == (State.FAILED, 0, True)
        assert record.reason.startswith(
            "the images of the scan cannot be kept (Is a directory): check the server's disk"
        )
        assert log_of(service, spoiled)[-1] == f"failed: {record.reason}"
        place.rmdir()  # as an operator would
        service.requeue(spoiled)
        assert (service.wait(spoiled, 30.0).state, len(list(service.images(spoiled)))) == (State.DONE, 3)


def test_a_scan_cancelled_while_its_file_is_read_keeps_the_file_alone(tmp_path: Path) -> None:
    content = other_group(tmp_path / "scan.h5", 3)
    with scans.serving(tmp_path / "data", NoWorkers()) as service:
        intake = service.open_scan(ScanRequest("http"))
        spool, scan = service.config.spool_folder, intake.scan_id
        intake.keep("other")
        (spool / f"{scan}.h5").write_bytes(content)
        scans.send(intake, DATA[: len(DATA) // 2])
        before = (spool / f"{scan}.mrd").stat().st_size
        service.cancel(scan)
        with pytest.raises(EndedError):
            intake.feed(DATA[len(DATA) // 2 :])
        _, head = Decoder().feed((spool / f"{scan}.mrd").read_bytes())
        assert isinstance(head, HeaderXml)
        assert (spool / f"{scan}.mrd").stat().st_size < before / 2
        assert service.raw_path(scan).read_bytes() == content
    with scans.serving(tmp_path / "data") as service:
        service.requeue(scan)
        assert service.wait(scan, 30.0).images == 3


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), ValueError("ours")])
def test_reading_a_file_again_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever goes wrong behind its first bytes: the scan has failed, and the server holds no file of it."""

    def breaking(_path: Path, buffer: Callable[[], memoryview], *_: object, **_group: object) -> Iterator[int]:
        buffer()[:100] = DATA[:100]
        yield 100
        raise error

    content = other_group(tmp_path / "scan.h5", 3)
    scan = child(CONVERTING, tmp_path / "data", tmp_path / "scan.h5").strip()
    monkeypatch.setattr("cluster.replay.convert", breaking)
    with scans.serving(tmp_path / "data", NoWorkers()) as service:
        assert service.wait(scan, 30.0).state is State.FAILED
        held = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert not [path for path in held if scan in path.name]
        assert service.raw_path(scan).read_bytes() == content


REQUEUE = """
import os, signal, sys
from pathlib import Path
from cluster.ledger import Ledger
from tests.cluster import scans
from tests.cluster.test_recovery import DATA
from tests.cluster.test_service import NoWorkers
when, commit = sys.argv[2], Ledger.commit
def dying(ledger, records, lines=()):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    commit(ledger, records, lines)
    os.kill(os.getpid(), signal.SIGKILL)
with scans.serving(Path(sys.argv[1]), NoWorkers()) as service:
    (record,) = service.scans()
    Ledger.commit = dying
    service.requeue(record.id)
"""


def child(program: str, *words: object, status: int = -signal.SIGKILL) -> str:
    """What a Python process says before it ends with `status`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == status, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_while_a_scan_is_requeued(tmp_path: Path, when: str, caplog: pytest.LogCaptureFixture) -> None:
    """`before` or `after` it is written down that it runs again: it is as it was, or it does run again."""
    with scans.serving(tmp_path, ThreadWorkers(["first"], scans.settings())) as service:
        before = scans.run(service, DATA)
    child(REQUEUE, tmp_path, when)
    part = tmp_path / "results" / f"{before.id}.part"
    assert part.exists()
    with caplog.at_level("INFO"), scans.serving(tmp_path, NoWorkers()) as service:
        left = service.scan(before.id)
        assert (left.state, left.images) == (State.DONE if when == "before" else State.ACCEPTED, 3)
        assert [image.provenance.worker for image in service.images(before.id)] == ["first"] * 3
    swept = f"scan {before.id}: the empty file of a run that never began is removed"
    assert (swept in caplog.messages, part.exists()) == (when == "before", when == "after")
    with scans.serving(tmp_path, ThreadWorkers(["second"], scans.settings())) as service:
        record = service.wait(before.id, 30.0)
        workers = {image.provenance.worker for image in service.images(before.id)}
        assert (record.state, record.images) == (State.DONE, 3)
        assert workers == {"first" if when == "before" else "second"}
    assert not part.exists()


PROGRAM = """
import os, signal, sys
from pathlib import Path
from cluster.job import ScanRequest
from tests.cluster import scans
from tests.cluster.test_recovery import DATA
from tests.cluster.test_service import NoWorkers
with scans.serving(Path(sys.argv[1]), NoWorkers()) as service:
    for part in (len(DATA), len(DATA) - 3000):
        intake = service.open_scan(ScanRequest("tcp"))
        intake.feed(DATA[:part])
        if part == len(DATA):
            intake.finish()
        print(intake.scan_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    accepted, cut = child.stdout.split()
    assert child.returncode == -9, child.stderr
    with scans.serving(tmp_path) as service:
        assert service.wait(accepted, 30.0).state is State.DONE
        assert len(list(service.images(accepted))) == 3
        record = service.wait(cut, 30.0)
        assert (record.state, record.images) == (State.INCOMPLETE, 2)


UPLOAD = """
import os, signal, sys
from pathlib import Path
from cluster.gateway.upload import Hdf5Upload, feed
from cluster.job import ScanRequest
from tests.cluster import scans
from tests.cluster.test_service import NoWorkers, wait_until
with scans.serving(Path(sys.argv[1]), NoWorkers()) as service:
    intake = service.open_scan(ScanRequest("http", name="a file"))
    upload = Hdf5Upload(intake, service.config.spool_folder / f"{intake.scan_id}.h5", service.config)
    feed(upload, b"x" * 1000)
    wait_until(lambda: service.log(intake.scan_id))
    print(intake.scan_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("known", [True, False], ids=["recorded", "orphan"])
def test_a_file_whose_upload_was_cut_off_is_an_incomplete_scan(tmp_path: Path, known: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", UPLOAD, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert child.returncode == -9, child.stderr
    scan = child.stdout.strip()
    if not known:  # as if the server had died before the record was written
        for path in tmp_path.glob("ledger*"):
            path.unlink()
    with scans.serving(tmp_path) as service:
        record = service.wait(scan, 30.0)
        raw = service.raw_path(scan)
        with pytest.raises(FileError, match=f"only a part of the file of scan {scan} came, which nobody can read: "):
            service.requeue(scan)
    assert (record.state, record.transport, record.name) == (State.INCOMPLETE, "http", "a file" if known else "")
    assert record.reason == "the server stopped while the scan was coming in"
    assert (raw.name, raw.read_bytes()) == (f"{scan}.part.h5", b"x" * 1000)


CONVERTING = """
import os, signal, sys
from pathlib import Path
from cluster.gateway.upload import Hdf5Upload, feed
from cluster.job import ScanRequest
from cluster.spool import SpoolFile
from tests.cluster import scans
from tests.cluster.test_service import NoWorkers
with scans.serving(Path(sys.argv[1]), NoWorkers()) as service:
    intake = service.open_scan(ScanRequest("http"))
    upload = Hdf5Upload(intake, service.config.spool_folder / f"{intake.scan_id}.h5", service.config, group="other")
    feed(upload, Path(sys.argv[2]).read_bytes())
    append = SpoolFile.append
    def dying(file, data):
        append(file, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    SpoolFile.append = dying
    print(intake.scan_id, flush=True)
    upload.finish()
"""


def other_group(path: Path, count: int) -> bytes:
    """An ISMRMRD file of `count` frames whose scan stands in the group `other`."""
    header = parse_header(write_header(scans.header(repetitions=count)))
    write_scan(path, Scan(header, tuple(scans.frames(count))))
    with h5py.File(path, "a") as file:
        file.move("dataset", "other")
    return path.read_bytes()


@pytest.mark.parametrize("fate", ["ended", "spoiled"])
def test_a_file_that_was_half_read_is_read_again(tmp_path: Path, fate: str) -> None:
    content = other_group(tmp_path / "scan.h5", 3)
    data = tmp_path / "data"
    scan = child(CONVERTING, data, tmp_path / "scan.h5").strip()
    spool = data / "spool"
    half = (spool / f"{scan}.mrd").read_bytes()
    whole = b"".join(bytes(piece) for piece in stream_scan(tmp_path / "scan.h5", group="other"))
    assert 0 < len(half) < len(whole) and whole.startswith(half)
    if fate == "spoiled":
        (spool / f"{scan}.h5").write_bytes(content[: len(content) // 2])
    with scans.serving(data) as service:
        record = service.wait(scan, 30.0)
        found = by_repetition(service, scan)
        raw = service.raw_path(scan).read_bytes()
        counted = service.metrics_text().decode()
    assert record.group == "other"
    if fate == "spoiled":
        assert (record.state, record.images) == (State.FAILED, 0)
        assert "HDF5" in record.reason
        return
    assert (record.state, record.complete, record.images, record.bytes) == (State.DONE, True, 3, len(whole))
    assert raw == content
    assert "recon_readouts_total 0.0" in counted  # it was received before
    for image, readouts in zip(found, FRAMES, strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)


POWER = """
import json, os, signal, sys
from pathlib import Path
from cluster.job import ScanRequest
from cluster.ledger import Ledger
from cluster.workers import ThreadWorkers
from recon.mrd.wire import encode_readouts
from tests.cluster import scans
from tests.cluster.test_recovery import FIVE, repetitions
from tests.cluster.test_service import wait_until
data = Path(sys.argv[1])
with scans.serving(data, ThreadWorkers(["before"], scans.settings()), tick_s=60.0) as service:
    intake = service.open_scan(ScanRequest("tcp"))
    messages = service.follow(intake.scan_id)
    stream = scans.stream(FIVE, close=False)
    cut = len(stream) - sum(len(encode_readouts(run).tobytes()) for run in FIVE[3:])
    intake.feed(stream[:cut])
    wait_until(lambda: service.scan(intake.scan_id).images == 3)
    service._recorder.write_through(service._lives[intake.scan_id])  # the ledger counts three
    intake.feed(stream[cut:])
    wait_until(lambda: service.scan(intake.scan_id).images == 5)
    results = service._lives[intake.scan_id].results
    seen = repetitions(next(messages) for _ in range(5))
    print(json.dumps([intake.scan_id, seen, results.synced, results._edges]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
FIVE = scans.frames(5)


def repetitions(messages: Iterable[bytes]) -> list[int]:
    """Which images `messages` are."""
    decoder = Decoder()
    return [found.image.counters.repetition for message in messages for found in decoder.feed(message)]


@pytest.mark.parametrize("lost", ["all", "pages", "nothing"])
def test_images_that_the_ledger_counts_keep_their_numbers_when_the_machine_stops(tmp_path: Path, lost: str) -> None:
    """What was not synced is gone, or is there in parts: a client that goes on by number gets each image once."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", POWER, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert child.returncode == -9, child.stderr
    scan, seen, synced, edges = json.loads(child.stdout)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    counted = ledger.scan(scan)
    ledger.close()
    assert counted is not None
    assert (counted.images, synced, len(seen)) == (3, 3, 5)
    path = tmp_path / "results" / f"{scan}.mrd"
    before = path.read_bytes()
    kept = {"all": before[: edges[3]], "pages": before[: edges[4] - 400] + bytes(400), "nothing": before}[lost]
    path.write_bytes(kept)
    (tmp_path / "boot").write_text("of yesterday", encoding="ascii")
    with scans.serving(tmp_path, ThreadWorkers(["after"], scans.settings())) as service:
        rest = repetitions(service.follow(scan, start=counted.images))
        record = service.wait(scan, 30.0)
        images = list(service.images(scan))
    assert (record.state, record.images) == (State.INCOMPLETE, 5)
    assert sorted(seen[: counted.images] + rest) == [0, 1, 2, 3, 4]
    assert [image.provenance.worker for image in images] == ["before"] * 3 + ["after"] * 2
    assert path.read_bytes()[: edges[3]] == before[: edges[3]]
    for image in images:
        scans.assert_true(image.pixels[0, 0], FIVE[image.counters.repetition])


def test_the_ledger_counts_images_while_a_scan_comes_in(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        intake.feed(DATA[:-3000])
        ledger = Ledger(tmp_path / "ledger.sqlite")
        wait_until(lambda: (record := ledger.scan(intake.scan_id)) is not None and record.images == 2)
        assert service._lives[intake.scan_id].results.synced == 2
        ledger.close()
        intake.abort("enough")


def test_a_record_never_counts_images_that_the_disk_did_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: ResultFile) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ResultFile, "sync", fails)
    with scans.serving(tmp_path) as service:
        record = scans.run(service, DATA)
    assert (record.state, record.images) == (State.FAILED, 0)
    assert "its images cannot be kept ([Errno 5] Input/output error)" in record.reason

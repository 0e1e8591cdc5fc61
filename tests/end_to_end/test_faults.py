"""A server that can make no more files says so to whoever sends a scan, and writes it down; then it goes on."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cluster.events import State
from cluster.gateway.tcp import ImageSender, Sender
from cluster.job import BusyError
from cluster.spool import Spool
from recon.mrd.hdf5 import write_scan
from recon.mrd.header import parse_header, write_header
from recon.scan import Scan
from tests.cluster import scans
from tests.end_to_end.running import Running, converse, eventually, running

MRD, HDF5 = "application/x-mrd", "application/x-hdf5"
STREAM = scans.stream(scans.frames(1))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for few files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=40", "recon-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, spare: int) -> Path:
    """Leave room for `spare` more files; what to remove to make room for all again."""
    ballast = disk / "ballast"
    ballast.mkdir()
    made: list[Path] = []
    while True:
        path = ballast / str(len(made))
        try:
            path.touch()
        except OSError as error:
            assert error.errno == errno.ENOSPC
            break
        made.append(path)
    for path in made[:spare]:
        path.unlink()
    return ballast


def hdf5(path: Path) -> bytes:
    """An ISMRMRD file."""
    write_scan(path, Scan(parse_header(write_header(scans.header())), tuple(scans.frames(1))))
    return path.read_bytes()


def send(server: Running, kind: str, content: bytes) -> tuple[int, str, str]:
    """Send a scan by a door; HTTP status (0 over TCP), reason and scan, as far as the sender is told."""
    if kind == "tcp":
        heard = converse(server.mrd, content)
        assert (heard.images, heard.closed, len(heard.texts)) == ([], True, 1)
        return 0, heard.texts[0].removeprefix("ERROR "), ""
    answer = httpx.post(f"{server.http}/v1/scans", content=content, headers={"content-type": kind}, timeout=30.0)
    return answer.status_code, answer.json()["detail"], answer.json().get("scan", "")


def check_works(server: Running) -> None:
    """A scan that comes now is done."""
    heard = converse(server.mrd, STREAM)
    assert (len(heard.images), heard.texts, heard.closed) == (1, [], True)


@pytest.mark.parametrize("kind", ["tcp", MRD, HDF5])
def test_no_file_for_the_raw_data(disk: Path, tmp_path: Path, kind: str) -> None:
    content = hdf5(tmp_path / "scan.h5") if kind == HDF5 else STREAM
    with running(disk / "data") as server:
        check_works(server)
        ballast = fill(disk, spare=1)  # for the images
        status, told, _ = send(server, kind, content)
        record = server.service.wait(server.service.scans()[0].id, 10.0)
        shutil.rmtree(ballast)
        check_works(server)
        assert 'recon_refused_total{reason="disk"} 1.0' in server.service.metrics_text().decode()
    assert status == (0 if kind == "tcp" else 507)
    assert (record.state, record.reason) == (State.FAILED, told)
    assert told.startswith("the spool's disk is full")
    assert str(disk) not in told


@pytest.mark.parametrize("kind", ["tcp", MRD])
def test_no_file_for_the_images(disk: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with running(disk / "data") as server, caplog.at_level(logging.ERROR):
        check_works(server)
        ballast = fill(disk, spare=0)
        status, told, _ = send(server, kind, STREAM)
        assert len(server.service.scans()) == 1
        shutil.rmtree(ballast)
        check_works(server)
        assert 'recon_refused_total{reason="disk"} 1.0' in server.service.metrics_text().decode()
    assert status == (0 if kind == "tcp" else 507)
    words = f"the images of the scan cannot be kept ({os.strerror(errno.ENOSPC)}): check the server's disk, send it"
    assert told.startswith(words)
    assert "the images of scan" in caplog.text
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize("spare", [0, 1], ids=["folder", "file"])
def test_no_file_for_images_as_hdf5(disk: Path, spare: int) -> None:
    with running(disk / "data") as server:
        check_works(server)
        url = f"{server.http}/v1/scans/{server.service.scans()[0].id}/images"
        ballast = fill(disk, spare=spare)
        answer = httpx.get(url, headers={"accept": HDF5})
        left = list((disk / "data").glob("images-*"))
        shutil.rmtree(ballast)
        assert httpx.get(url, headers={"accept": HDF5}).status_code == 200
    words = (
        f"the file cannot be made ({os.strerror(errno.ENOSPC)}): check the server's disk, or ask for application/x-mrd"
    )
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["detail"]) == (507, "60", words)
    assert not left


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Inside, the kernel gives this process `spare` more file descriptors."""
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(spare + 1)]
    for number in free:
        os.close(number)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_spool_without_file_descriptors(tmp_path: Path) -> None:
    spool = Spool(tmp_path, sync_bytes=1 << 20, unsynced_bytes=1 << 22, free_bytes=0)
    words = r"the server cannot keep scan a now \(Too many open files\): try again later, or have it started with more"
    with few_descriptors(0), pytest.raises(BusyError, match=words):
        spool.create("a")
    spool.create("a").remove()
    spool.close()


def test_a_connection_without_file_descriptors_stops_no_other(tmp_path: Path) -> None:
    with running(tmp_path, max_connections=1) as server:
        assert eventually(lambda: server.service.ready)  # what starts opens files
        with socket.socket() as client:
            client.settimeout(10.0)
            with few_descriptors(0):  # the kernel has set one aside for the connection that is accepted next
                client.connect(server.mrd)
                assert client.recv(1) == b""
        check_works(server)  # nor does it keep its place


def test_images_that_cannot_be_sent_are_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that got CLOSE alone would take the images so far for all."""
    ours, theirs = socket.socketpair()
    with scans.serving(tmp_path) as service, ours, theirs, Sender(ours, timeout_s=1.0) as sender:
        images = ImageSender(service, "nothing", sender)
        images.start()
        images.join()
    assert images.fault == "internal error NotFoundError while sending images: fetch them over HTTP"
    assert "scan nothing: its images cannot be sent" in caplog.text

"""A disk that takes writes and then cannot keep them: a real file system whose fsync fails, as on a dying device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from cluster.events import State
from cluster.job import DiskFullError, ScanRequest
from recon.mrd.hdf5 import write_scan
from recon.mrd.header import parse_header, write_header
from recon.scan import Scan
from tests.cluster import scans
from tests.end_to_end.running import Running, converse, eventually, running

MRD, HDF5 = "application/x-mrd", "application/x-hdf5"
SIZES = {"lines": 64, "samples": 256, "coils": 16}
LARGE = scans.header(**SIZES), scans.frames(1, **SIZES)  # 2 MiB
STREAM = scans.stream(LARGE[1], LARGE[0])
SMALL = scans.stream(scans.frames(1))
FAILED = "the spool failed (No space left on device): check the disk and restart the server"


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose spool promises 8 MiB and has room for one: what does not fit is found when it is synced."""
    backing, spool = tmp_path / "backing", tmp_path / "data" / "spool"
    backing.mkdir()
    spool.mkdir(parents=True)
    image = backing / "image"
    with ExitStack() as mounted:
        _do(["mount", "-t", "tmpfs", "-o", "size=1m", "recon-test", str(backing)])
        mounted.callback(_do, ["umount", "--lazy", str(backing)])
        with image.open("wb") as file:
            file.truncate(8 << 20)
        # Without a journal, so that the file system goes on after the failure; its own blocks are all there already.
        _do(["mkfs.ext4", "-q", "-O", "^has_journal", "-b", "1024", str(image)])
        _do(["mount", "-o", "loop", str(image), str(spool)])
        mounted.callback(_do, ["umount", "--lazy", str(spool)])
        yield spool.parent


def _do(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"needs the right to mount a small file system, and {error.filename}")
    if done.returncode:
        pytest.skip(f"needs the right to mount a small file system: {done.stderr.strip()}")


def send(server: Running, kind: str, content: bytes) -> tuple[int, str]:
    """Send a scan by a door; HTTP status (0 over TCP) and what its sender is told."""
    if kind == "tcp":
        return 0, converse(server.mrd, content).texts[-1].removeprefix("ERROR ")
    answer = httpx.post(f"{server.http}/v1/scans", content=content, headers={"content-type": kind}, timeout=30.0)
    return answer.status_code, answer.json()["detail"]


@pytest.mark.parametrize("kind", ["tcp", MRD, HDF5])
def test_nothing_is_acknowledged_after_a_failed_fsync(failing: Path, tmp_path: Path, kind: str) -> None:
    content = STREAM
    if kind == HDF5:
        write_scan(tmp_path / "scan.h5", Scan(parse_header(write_header(LARGE[0])), tuple(LARGE[1])))
        content = (tmp_path / "scan.h5").read_bytes()
    with running(failing) as server:
        assert eventually(lambda: server.service.ready)
        under_way = server.service.open_scan(ScanRequest("http"))
        under_way.feed(SMALL)
        status, told = send(server, kind, content)
        assert status == (0 if kind == "tcp" else 507)
        assert told.startswith("the spool's disk is full")
        with pytest.raises(DiskFullError):
            under_way.finish()
        ready = httpx.get(f"{server.http}/readyz")
        assert (ready.status_code, ready.text) == (503, f"not ready: {FAILED}\n")
        assert httpx.get(f"{server.http}/v1/cluster").json()["troubles"] == [FAILED]
        for door in ("tcp", MRD, HDF5):
            status, told = send(server, door, SMALL)
            assert (status, told) == (0 if door == "tcp" else 507, FAILED)
        assert eventually(lambda: all(record.state is State.FAILED for record in server.service.scans()))
        assert len(server.service.scans()) == 2

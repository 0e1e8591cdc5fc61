"""The spool: bytes exactly as they came, on the disk before anyone says so, and a full or failing disk."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.events import Extent
from cluster.job import DiskFullError
from cluster.spool import Spool, map_extents, read_readouts
from recon.errors import RefusedError
from recon.mrd.wire import encode_readouts
from tests.cluster import scans

MIB = 1 << 20


def make(folder: Path, *, sync_bytes: int = MIB, unsynced_bytes: int = 4 * MIB, free_bytes: int = 0) -> Spool:
    return Spool(folder, sync_bytes=sync_bytes, unsynced_bytes=unsynced_bytes, free_bytes=free_bytes)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = make(tmp_path / "spool")
    yield made
    made.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "recon-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files and folders that were sent to the disk, in order; the real calls are made."""
    seen: list[str] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def spy(fd: int, real: object = real) -> None:
            seen.append(Path(f"/proc/self/fd/{fd}").readlink().name)
            real(fd)  # type: ignore[operator]

        monkeypatch.setattr(os, name, spy)
    return seen


def test_keeps_the_bytes_as_they_came(spool: Spool) -> None:
    data = np.random.default_rng(1).bytes(3 * MIB + 17)
    file = spool.create("a")
    for start in range(0, len(data), 100_001):
        file.append(memoryview(data)[start : start + 100_001])
    file.sync()
    file.close()
    assert spool.path("a").read_bytes() == data
    assert spool.used_bytes() == len(data)


def test_file_and_folder_are_on_the_disk_when_sync_returns(spool: Spool, syncs: list[str]) -> None:
    file = spool.create("a")
    file.append(memoryview(b"x"))
    assert syncs == []
    file.sync()
    assert syncs == ["a.mrd", "spool"]
    file.close()


def test_long_scans_are_synced_while_they_come_in(spool: Spool, syncs: list[str]) -> None:
    file = spool.create("a")
    for _ in range(8):
        file.append(memoryview(bytes(MIB // 2)))
    file.close()  # waits for the background
    assert syncs == ["a.mrd"] * 4


def test_writer_waits_while_too_much_is_not_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda fd: disk.wait())
    spool = make(tmp_path / "spool", sync_bytes=MIB, unsynced_bytes=2 * MIB)
    file = spool.create("a")
    writer = threading.Thread(target=lambda: [file.append(memoryview(bytes(MIB))) for _ in range(3)], daemon=True)
    writer.start()
    writer.join(0.3)
    assert writer.is_alive()
    assert file.size == 3 * MIB  # the write that crossed the bound is the one that waits
    disk.set()
    writer.join(10.0)
    assert not writer.is_alive()
    file.close()
    spool.close()


def test_failed_fsync_ends_all_acknowledging(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    file, other = spool.create("a"), spool.create("b")
    file.append(memoryview(b"x"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(RefusedError, match=r"cannot keep scan a .*Input/output error.*: check the disk and send"):
            file.sync()
    with pytest.raises(RefusedError, match="cannot keep scan a"):
        file.sync()  # a later success would prove nothing
    upload = (tmp_path / "upload").open("wb")
    for acknowledge in (
        lambda: spool.create("c"),
        other.sync,
        lambda: spool.settle("d", upload.fileno(), whole=False),
    ):
        with pytest.raises(
            RefusedError, match=r"the spool failed \(Input/output error\): check the disk and restart the"
        ):
            acknowledge()
    upload.close()
    file.close()
    other.close()


def test_full_disk_is_refused_and_what_came_is_kept(small_disk: Path) -> None:
    spool = make(small_disk / "spool")
    file = spool.create("a")
    with pytest.raises(DiskFullError, match=r"the spool's disk is full after \d+ bytes of scan a: free space and send"):
        for _ in range(30):
            file.append(memoryview(bytes(100_000)))
    assert 1_000_000 < file.size <= spool.path("a").stat().st_size
    file.sync()
    file.close()
    spool.close()


def test_no_new_scan_below_the_watermark(tmp_path: Path) -> None:
    spool = make(tmp_path / "spool", free_bytes=1 << 60)
    with pytest.raises(DiskFullError, match=r"only \d+ bytes are free in the spool, expected at least .*: remove old"):
        spool.check()
    spool.close()


def test_two_files_of_one_name_are_never_mixed(spool: Spool) -> None:
    file = spool.create("a")
    with pytest.raises(DiskFullError, match=r"the spool cannot keep scan a \(File exists\): check the disk"):
        spool.create("a")
    file.close()


def test_removed_file_counts_no_more(spool: Spool) -> None:
    file = spool.create("a")
    file.append(memoryview(b"abc"))
    file.remove()
    assert spool.used_bytes() == 0
    assert not spool.path("a").exists()


def test_earlier_files_count(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "old.mrd").write_bytes(b"12345")
    spool = make(tmp_path / "spool")
    assert spool.used_bytes() == 5
    spool.close()


def test_mapped_extents_are_the_bytes_of_the_file(tmp_path: Path) -> None:
    data = np.random.default_rng(2).bytes(1_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    extents = (Extent(5000, 100, 10), Extent(999_000, 1000, 1), Extent(70_001, 3, 7))
    views = map_extents(path, extents)
    assert [bytes(view) for view in views] == [data[extent.offset : extent.offset + extent.bytes] for extent in extents]
    assert all(view.readonly for view in views)


def test_readouts_are_views_of_the_mapping(tmp_path: Path) -> None:
    sent = scans.frame(seed=3, lines=24)
    data = encode_readouts(sent).tobytes()
    size = len(data) // 24
    path = tmp_path / "file"
    path.write_bytes(b"abc" + data)
    every, third = read_readouts(path, (Extent(3, size, 24), Extent(3 + size, 3 * size, 8)))
    assert np.array_equal(every.samples, sent.samples)
    assert np.array_equal(every.head, sent.head)
    assert np.array_equal(third.samples, sent.samples[1::3])
    assert every.samples.base is not None
    assert not every.samples.flags.writeable


def test_reading_maps_instead_of_copying(tmp_path: Path) -> None:
    """Memory of our own does not grow by the frame: its pages stay those of the page cache."""
    sent = scans.frame(seed=3, lines=64, samples=512, coils=32)
    data = encode_readouts(sent)
    path = tmp_path / "file"
    path.write_bytes(data.tobytes())
    before = own_bytes()
    (readouts,) = read_readouts(path, (Extent(0, len(data) // 64, 64),))
    assert np.isfinite(readouts.samples).all()
    assert own_bytes() - before < len(data) // 2


def own_bytes() -> int:
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous"))

"""HDF5 from strangers is read elsewhere: same stream, bounded memory and time, reasons that survive the process."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from cluster import convert as module
from cluster.config import ClusterConfig
from cluster.convert import convert
from recon.errors import FileError, LimitError
from recon.mrd.hdf5 import stream_scan, write_scan
from recon.mrd.header import parse_header, write_header
from recon.scan import Scan
from tests.cluster import scans


def run(path: Path, config: ClusterConfig, *, group: str = "") -> bytes:
    """The stream that comes out."""
    buffer = memoryview(bytearray(1000))  # small on purpose
    return b"".join(bytes(buffer[:count]) for count in convert(path, lambda: buffer, config, group=group))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An ISMRMRD file."""
    header = parse_header(write_header(scans.header(repetitions=2)))
    write_scan(tmp_path / "scan.h5", Scan(header, tuple(scans.frames(2))))
    return tmp_path / "scan.h5"


def test_the_stream_is_the_files(file: Path) -> None:
    assert run(file, ClusterConfig()) == b"".join(bytes(piece) for piece in stream_scan(file))


def test_a_file_that_is_no_scan(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.arange(3)
    with pytest.raises(FileError) as caught:
        run(tmp_path / "other.h5", ClusterConfig())
    assert str(caught.value) == (
        "the file holds x, expected the group 'dataset' of an ISMRMRD file: check its origin"  # and no folder of ours
    )


def test_the_group_can_be_named(file: Path) -> None:
    expected = run(file, ClusterConfig())
    with h5py.File(file, "a") as edited:
        edited.move("dataset", "--other")
    assert run(file, ClusterConfig(), group="--other") == expected
    with pytest.raises(FileError, match=r"^the file has no group 'dataset', but '--other' looks like a scan"):
        run(file, ClusterConfig())


def larger(file: Path) -> Path:
    """A file of 20 MB."""
    sizes = {"lines": 128, "samples": 1024}
    header = parse_header(write_header(scans.header(**sizes)))
    write_scan(file, Scan(header, (scans.frame(seed=1, coils=20, **sizes),)))
    return file


def test_memory_is_bounded(file: Path) -> None:
    config = ClusterConfig()
    # Below what may be configured, so that a test need not write a file of gigabytes.
    object.__setattr__(config, "upload_memory_bytes", 1_000_000)
    with pytest.raises(LimitError, match="needs more than 1000000 bytes of memory, the limit here: split the scan"):
        run(larger(file), config)


def test_time_is_bounded(file: Path) -> None:
    buffer = memoryview(bytearray(1000))
    counts = convert(larger(file), lambda: buffer, ClusterConfig(upload_timeout_s=1.0))
    next(counts)
    time.sleep(1.2)  # as when the spool is slow: the child waits for its pipe
    with pytest.raises(LimitError, match="reading the file took longer than 1 s"):
        list(counts)


def test_limits_are_those_of_the_server(tmp_path: Path) -> None:
    """A header longer than the limits that apply where none are configured."""
    header = parse_header(scans.long_header(9 << 20))
    write_scan(tmp_path / "scan.h5", Scan(header, tuple(scans.frames(1))))
    with pytest.raises(LimitError, match="header"):
        run(tmp_path / "scan.h5", ClusterConfig())
    stream = run(tmp_path / "scan.h5", ClusterConfig(header_bytes=16 << 20))
    assert len(stream) > 9 << 20
    assert header.xml in stream


def test_a_child_that_dies_is_a_reason_too() -> None:
    error = module._error(-signal.SIGSEGV, b"", ClusterConfig(), expired=False)
    assert isinstance(error, FileError)
    assert str(error) == "the process that read the file ended with status -11: check the file with h5dump"
    nonsense = module._error(1, b'{"kind": "KeyboardInterrupt", "detail": "x"}', ClusterConfig(), expired=False)
    assert "ended with status 1" in str(nonsense)


def test_a_reader_that_stops_ends_the_child(file: Path) -> None:
    buffer = memoryview(bytearray(10))
    counts = convert(file, lambda: buffer, ClusterConfig())
    assert next(counts) == 10
    counts.close()  # type: ignore[attr-defined]  # it is a generator; it returns when the child has gone

"""`recon-cluster images`: scans that ended, that are under way, that failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.__main__ import main
from cluster.client import Client
from cluster.commands import collect
from cluster.job import ScanRecord
from recon.mrd.hdf5 import read_images
from tests.cluster import scans
from tests.cluster.test_service import NoWorkers
from tests.end_to_end.running import Running, eventually, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


def send(server: Running, content: bytes) -> str:
    """The id of a scan that has ended."""
    with Client(server.http) as client:
        scan = client.submit(content)
        scan.wait(timeout_s=30.0)
        return scan.id


def test_images_of_scans_that_have_ended(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (send(server, scans.stream(scans.frames(count))) for count in (1, 2))
    assert main(["images", one, "--server", server.http, "--out", str(tmp_path / "images.h5")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{one}: 1 image by fft in ")
    assert said.out.endswith(f" s → {tmp_path / 'images.h5'}\n")
    assert said.err == ""
    assert len(read_images(tmp_path / "images.h5")) == 1
    assert main(["images", one, two, "--server", server.http, "--out", str(tmp_path / "dicom")]) == 0
    assert [len([*(tmp_path / "dicom" / scan).rglob("*.dcm")]) for scan in (one, two)] == [1, 2]


def test_a_scan_under_way_is_waited_for(server: Running, tmp_path: Path) -> None:
    stream, gate = scans.stream(scans.frames(2)), threading.Event()

    def slow() -> Iterator[bytes]:
        yield stream[:-3000]
        gate.wait(30.0)
        yield stream[-3000:]

    with Client(server.http) as client:
        sender = threading.Thread(target=client.submit, args=(slow(),), kwargs={"key": "slow"})
        sender.start()
        assert eventually(lambda: client.find("slow") is not None)
        scan = client.find("slow")
        assert scan is not None
        threading.Timer(0.3, gate.set).start()
        assert main(["images", scan.id, "--server", server.http, "--out", str(tmp_path / "images.h5")]) == 0
        sender.join()
        assert client.find("another") is None
    assert len(read_images(tmp_path / "images.h5")) == 2


def test_a_scan_that_failed_gives_the_images_it_has(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readouts = scans.frames(2)
    readouts[1].samples[0, 0, 0] = np.nan
    scan, whole = send(server, scans.stream(readouts)), send(server, scans.stream(scans.frames(1)))
    out = tmp_path / "images.h5"
    assert main(["images", scan, whole, "nowhere", "--server", server.http, "--out", str(out)]) == 4
    complaints = capsys.readouterr().err.splitlines()
    assert complaints[0].startswith(f"{scan}: scan {scan} is failed: 1 of 2 frames failed")
    assert complaints[0].endswith(f"; 1 image → {tmp_path / f'images-{scan}.h5'}")
    assert "nowhere" in complaints[1]
    assert [len(read_images(tmp_path / f"images-{each}.h5")) for each in (scan, whole)] == [1, 1]


def test_a_scan_without_images(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Client(server.http) as client:
        scan = client.submit(scans.stream(scans.frames(1)), method="null").id
    assert main(["images", scan, "--server", server.http, "--out", str(tmp_path / "x.h5")]) == 2
    complaint = capsys.readouterr().err
    assert f"scan {scan} is done by null and has no images: nothing is in {tmp_path / 'x.h5'}" in complaint
    assert not [*tmp_path.iterdir()]


def test_who_stops_waiting_is_told_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_name: str, _record: ScanRecord) -> str:
        raise KeyboardInterrupt  # while it waits, as by Ctrl-C

    monkeypatch.setattr(collect, "_words", interrupt)
    with running(tmp_path / "data", NoWorkers()) as server:
        (tmp_path / "scan.mrd").write_bytes(scans.stream(scans.frames(1)))
        assert main(["submit", str(tmp_path / "scan.mrd"), "--server", server.http]) == 130
        (scan,) = server.service.scans()
    at = f"--server {server.http}"
    assert capsys.readouterr().err == (
        f"{tmp_path}/scan.mrd: scan {scan.id} goes on; `recon-cluster cancel {scan.id} {at}` stops it,"
        f" `recon-cluster images {scan.id} --out PATH {at}` fetches its images\n"
    )

"""Every way not to take a scan is counted under its own word, and only there."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from cluster.events import Refused
from cluster.job import ScanRequest
from cluster.service import Clocks, Service
from cluster.workers import ThreadWorkers
from recon.errors import ReconError
from recon.mrd.wire import encode_close, encode_config_file, encode_header, encode_readouts
from tests.cluster import scans
from tests.end_to_end.running import Running, converse, eventually, running

READOUTS = encode_readouts(scans.frame(seed=0)).tobytes()
BYTES = {  # whole streams that end before a header is accepted
    Refused.LIMITS: encode_header(b" " * (9 << 20))[:100],
    Refused.RECIPE: encode_config_file("nonsense"),
    Refused.HEADER: encode_header(b"no XML at all"),
    Refused.WIRE: b"\x67\x12",
    Refused.LEFT: encode_config_file("fft"),
}


def counts(service: Service) -> dict[str, float]:
    """`recon_refused_total` by reason."""
    found = re.findall(r'recon_refused_total\{reason="(.*)"\} (.*)', service.metrics_text().decode())
    return {word: float(count) for word, count in found}


def check_counted(service: Service, word: Refused, times: int = 1) -> None:
    """`word` and no other was counted."""
    assert eventually(lambda: counts(service) == {word.value: times}), counts(service)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as server:
        yield server


def leave(server: Running, data: bytes) -> None:
    """Send `data` over MRD/TCP and no more."""
    with socket.create_connection(server.mrd, timeout=30.0) as connection, suppress(OSError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)


@pytest.mark.parametrize("word", BYTES, ids=str)
def test_streams(server: Running, word: Refused) -> None:
    leave(server, BYTES[word])
    check_counted(server.service, word)


def test_a_readout_before_the_header_breaks_the_protocol(server: Running) -> None:
    converse(server.mrd, READOUTS)
    check_counted(server.service, Refused.WIRE)


def test_an_end_without_a_header_is_one_that_is_missing(server: Running) -> None:
    converse(server.mrd, encode_config_file("fft") + encode_close())
    check_counted(server.service, Refused.HEADER)


def test_a_scan_whose_header_came_is_not_refused(server: Running) -> None:
    leave(server, scans.stream(scans.frames(1), close=False))
    assert eventually(lambda: b'outcome="incomplete"} 1.0' in server.service.metrics_text())
    assert counts(server.service) == {}


def test_an_unknown_method(server: Running) -> None:
    answer = httpx.post(
        f"{server.http}/v1/scans?method=nonsense", content=b"", headers={"content-type": "application/x-mrd"}
    )
    assert answer.status_code == 422
    check_counted(server.service, Refused.RECIPE)


def test_a_file_that_is_not_ismrmrd(server: Running) -> None:
    headers = {"content-type": "application/x-hdf5"}
    assert httpx.post(f"{server.http}/v1/scans", content=b"not HDF5 " * 100, headers=headers).status_code == 400
    check_counted(server.service, Refused.FILE)


def refused(service: Service) -> None:
    with pytest.raises(ReconError):
        service.open_scan(ScanRequest("tcp"))


def test_too_many_scans(tmp_path: Path) -> None:
    with scans.serving(tmp_path, max_scans_in_flight=1) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        refused(service)
        check_counted(service, Refused.FULL)
        scans.send(intake, scans.stream(scans.frames(1)))
        intake.finish()


def test_too_many_connections(tmp_path: Path) -> None:
    with running(tmp_path, max_connections=1) as server, socket.create_connection(server.mrd, timeout=30.0) as first:
        first.sendall(encode_config_file("fft"))
        assert eventually(lambda: bool(server.service.scans()))
        converse(server.mrd, b"")
        check_counted(server.service, Refused.FULL)


def test_a_server_that_ends(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        service.drain(0.0)
        refused(service)
        check_counted(service, Refused.DRAINING)


def test_too_little_room(tmp_path: Path) -> None:
    with scans.serving(tmp_path, spool_free_bytes=1 << 46) as service:
        refused(service)
        check_counted(service, Refused.DISK)


def test_a_fault_of_ours(tmp_path: Path) -> None:
    def broken(_count: int) -> bytes:
        raise ZeroDivisionError("no chance left")

    workers = ThreadWorkers(["w0"], scans.settings())
    service = Service(scans.config(tmp_path), workers, clocks=Clocks(noise=broken))
    service.start()
    try:
        with pytest.raises(ZeroDivisionError):
            service.open_scan(ScanRequest("tcp"))
        check_counted(service, Refused.FAULT)
    finally:
        service.close()


def test_the_readme_names_every_word() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith("| `recon_refused_total")]
    assert re.findall(r"`([a-z]+)`", row) == [word.value for word in Refused]

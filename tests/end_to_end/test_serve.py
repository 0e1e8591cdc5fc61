"""`recon-cluster serve` as its users run it: a process of its own, its ready line, its signals, its restarts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from cluster.__main__ import main
from cluster.client import Client
from cluster.events import State
from recon.mrd.hdf5 import write_scan
from recon.mrd.header import parse_header, write_header
from recon.mrd.wire import encode_close, encode_config_file, encode_header, encode_readouts
from recon.scan import Scan
from tests.cluster import scans
from tests.end_to_end.running import converse, eventually, listen

READY_S = 60.0  # a loaded machine starts interpreters slowly
LAW = re.compile(r"^(recon_scans_accepted_total|recon_scans_in_flight|recon_scans_total)(?:\{[^}]*\})? (\S+)$", re.M)


class Served:
    """A server process and what its ready line said."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, object]) -> None:
        self.process = process
        self.ready = ready
        host, _, port = str(ready["mrd"]).rpartition(":")
        self.mrd = (host, int(port))
        self.http = str(ready["http"])

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)


@contextmanager
def served(data: Path, *options: str, log: Path | None = None) -> Iterator[Served]:
    """`recon-cluster serve` on free ports; standard error goes to `log`."""
    words = ("serve", "--data", str(data), "--mrd", "127.0.0.1:0", "--http", "127.0.0.1:0", *options)
    command = [sys.executable, "-m", "cluster", *words]
    with (
        (log or Path(os.devnull)).open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors if log else None, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the server ended with status {process.wait()} before it was ready"
            yield Served(process, json.loads(line))
        finally:
            process.kill()


OFF = ("--ray", "off", "--workers", "1", "--device", "cpu")


def check_images(images: list[object], count: int) -> None:
    """As many images, all right."""
    assert len(images) == count
    ordered = sorted(images, key=lambda image: image.counters.repetition)  # type: ignore[attr-defined]
    for image, readouts in zip(ordered, scans.frames(count), strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)  # type: ignore[attr-defined]


def check_law(url: str) -> None:
    """Accepted = Σ outcomes + in flight."""
    sums = dict.fromkeys(("recon_scans_accepted_total", "recon_scans_in_flight", "recon_scans_total"), 0.0)
    for name, value in LAW.findall(httpx.get(f"{url}/metrics").text):
        sums[name] += float(value)
    assert sums["recon_scans_accepted_total"] == sums["recon_scans_total"] + sums["recon_scans_in_flight"] > 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all that leave it running."""
    with served(tmp_path_factory.mktemp("shared"), *OFF) as server:
        yield server


def check_both_doors(server: Served) -> None:
    """The ready line, a scan through each door, and the counts after them."""
    assert server.ready == {
        "ready": True,
        "mrd": "{}:{}".format(*server.mrd),
        "http": server.http,
        "device": "cpu",
        "workers": 1,
    }
    check_images(list(converse(server.mrd, scans.stream(scans.frames(2))).images), 2)
    with Client(server.http) as client:
        check_images(list(client.submit(scans.stream(scans.frames(3))).images()), 3)
    check_law(server.http)


def test_scans_through_both_doors(shared: Served) -> None:
    check_both_doors(shared)


@pytest.mark.timeout(240)
def test_ray_works_as_well_and_listens_on_loopback_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served(tmp_path / "data", "--ray", "local", "--workers", "1", "--device", "cpu", log=log) as server:
        check_both_doors(server)
        mine = _descendants(server.process.pid)
        modes = {line for pid in mine for line in _environment(pid) if line.startswith(b"RAY_AUTH_MODE")}
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {fields[9]: fields[1] for fields in listening if fields[3] == "0A"}
        open_here = {inode for pid in mine for inode in _inodes(pid)}
        addresses = {sockets[inode].partition(":")[0] for inode in open_here & sockets.keys()}
        server.signal(signal.SIGTERM)
        assert server.process.wait(30.0) == 0
    assert modes == {b"RAY_AUTH_MODE=token"}
    # Of Ray's own words only that it started: its advice about tokens is for clusters that others can reach.
    said = log.read_text(encoding="utf-8").splitlines()
    assert [line for line in said if "WARNING" in line or "oken" in line] == []
    assert addresses == {"0100007F"}  # 127.0.0.1 in the kernel's byte order


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended while we looked
        if parent == pid:
            found += _descendants(int(entry.parent.name))
    return found


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []  # it ended while we looked


def _inodes(pid: int) -> Iterator[str]:
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return  # it ended while we looked
    yield from (link[8:-1] for link in links if link.startswith("socket:["))


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held since it was last told to forget its peak."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) << 10


@pytest.mark.parametrize("known_length", [True, False])
def test_an_upload_is_never_held_in_memory(shared: Served, known_length: bool) -> None:
    frame = encode_readouts(scans.frame(seed=1, lines=256, samples=256, coils=8)).tobytes()
    header = replace(scans.header(repetitions=32, lines=256, samples=256), coils=8)
    start, end = encode_config_file("null") + encode_header(write_header(header)), encode_close()
    size = {"content-length": str(len(start) + 32 * len(frame) + 2)} if known_length else {}

    def body() -> Iterator[bytes]:
        yield start
        for _ in range(32):
            yield from (frame[at : at + (1 << 20)] for at in range(0, len(frame), 1 << 20))
        yield end

    with Client(shared.http) as client:
        client.submit(start + frame + end).wait(timeout_s=30.0)  # what a first scan costs is not its size
    Path(f"/proc/{shared.process.pid}/clear_refs").write_text("5")  # forget the peak of earlier scans
    before = peak_bytes(shared.process.pid)
    headers = {"content-type": "application/x-mrd", **size}
    answer = httpx.post(f"{shared.http}/v1/scans", content=body(), headers=headers, timeout=60.0)
    assert answer.status_code == 201, answer.text
    assert answer.json()["bytes"] == len(start) + 32 * len(frame) + 2  # 140 MB
    assert peak_bytes(shared.process.pid) - before < 24 << 20


def test_sigterm_lets_a_scan_in_flight_finish(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(2))
    with served(tmp_path, *OFF) as server, socket.create_connection(server.mrd, timeout=30.0) as connection:
        connection.sendall(stream[: len(stream) // 2])
        with Client(server.http) as client:
            assert eventually(lambda: bool(client.scans()))
            server.signal(signal.SIGTERM)
            assert eventually(lambda: httpx.get(f"{server.http}/readyz").status_code == 503)
            refused = converse(server.mrd, stream)
            assert refused.texts[0].startswith("ERROR the server is shutting down")
            assert server.process.poll() is None
            connection.sendall(stream[len(stream) // 2 :])
            check_images(listen(connection).images, 2)
        assert server.process.wait(30.0) == 0


def test_a_second_signal_does_not_wait_and_loses_nothing(tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(2), close=False)
    with served(tmp_path, *OFF) as server, socket.create_connection(server.mrd, timeout=30.0) as connection:
        connection.sendall(stream)
        with Client(server.http) as client:
            assert eventually(lambda: bool(client.scans()) and client.scans()[0].images == 2)
            scan = client.scans()[0].id
        server.signal(signal.SIGTERM)
        time.sleep(0.2)
        start = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.process.wait(30.0) == 0
        assert time.monotonic() - start < 15.0  # far less than the drain timeout
    assert (tmp_path / "spool" / f"{scan}.mrd").read_bytes() == stream


@pytest.mark.timeout(240)
def test_images_keep_their_numbers_when_the_server_is_killed_between_them(tmp_path: Path) -> None:
    options = ("--ray", "off", "--workers", "2", "--device", "cpu")
    sent = scans.stream(scans.frames(6))
    with served(tmp_path, *options) as server, Client(server.http) as client:
        assert eventually(lambda: len(client.cluster()["workers"]) == 2)  # ready means that one of them is there
        _, stopped, _ = _descendants(server.process.pid)
        os.kill(stopped, signal.SIGSTOP)  # what it is given waits, and images are made in another order
        with socket.create_connection(server.mrd, timeout=30.0) as connection:
            connection.sendall(sent)
            assert eventually(lambda: any(record.images for record in client.scans()))
            time.sleep(0.2)  # further images of the worker that runs: the more there are, the more may move
            (record,) = client.scans()
            before = list(client.scan(record.id).images(follow=False))
            server.signal(signal.SIGKILL)
            server.process.wait(30.0)
        os.kill(stopped, signal.SIGKILL)
    assert 0 < len(before) < 6
    with served(tmp_path, *options) as server, Client(server.http) as client:
        scan = client.scan(record.id)
        after = list(scan.images(start=len(before)))
        check_images(before + after, 6)
        whole = list(scan.images())
    assert [image.counters for image in whole] == [image.counters for image in before + after]


@pytest.mark.timeout(240)
def test_a_file_is_read_again_when_the_server_is_killed_while_it_reads(tmp_path: Path) -> None:
    """With its worker stopped the server cannot read on: in the spool stands a part of the stream."""
    sent = scans.frames(60)
    write_scan(tmp_path / "scan.h5", Scan(parse_header(write_header(scans.header(repetitions=60))), tuple(sent)))
    content, data = (tmp_path / "scan.h5").read_bytes(), tmp_path / "data"
    (tmp_path / "narrow.toml").write_text("max_frames_queued = 1\n", encoding="utf-8")
    with served(data, *OFF, "--config", str(tmp_path / "narrow.toml")) as server, Client(server.http) as client:
        _, worker = _descendants(server.process.pid)
        os.kill(worker, signal.SIGSTOP)
        headers = {"content-type": "application/x-hdf5"}

        def post() -> None:
            with suppress(httpx.HTTPError):  # the server is killed meanwhile
                httpx.post(f"{server.http}/v1/scans", content=content, headers=headers, timeout=60.0)

        sender = threading.Thread(target=post)
        sender.start()
        assert eventually(lambda: client.cluster()["queue"]["routine"] == 1, within_s=60.0)
        (record,) = client.scans()
        server.signal(signal.SIGKILL)
        server.process.wait(30.0)
        os.kill(worker, signal.SIGKILL)
        sender.join(30.0)
    half = (data / "spool" / f"{record.id}.mrd").stat().st_size
    with served(data, *OFF) as server, Client(server.http) as client:
        scan = client.scan(record.id)
        after = scan.wait(timeout_s=60.0)
        assert (after.state, after.complete) == (State.DONE, True)
        assert 0 < half < after.bytes
        check_images(list(scan.images()), 60)
        assert b"".join(scan.raw()) == content


def test_a_killed_server_is_followed_by_one_that_knows_all(tmp_path: Path) -> None:
    with served(tmp_path, *OFF) as server, Client(server.http) as client:
        done = client.submit(scans.stream(scans.frames(2)))
        done.wait(timeout_s=30.0)
        # Accepted, and perhaps not yet reconstructed when the server dies.
        accepted = [client.submit(scans.stream(scans.frames(3))) for _ in range(3)]
        server.signal(signal.SIGKILL)
        server.process.wait(30.0)
    with served(tmp_path, *OFF) as server, Client(server.http) as client:
        check_images(list(client.scan(done.id).images()), 2)
        for scan in accepted:
            again = client.scan(scan.id)
            assert again.wait(timeout_s=60.0).state is State.DONE
            check_images(list(again.images()), 3)


def fails(*words: str) -> subprocess.CompletedProcess[str]:
    """`recon-cluster serve` with what it cannot take."""
    command = [sys.executable, "-m", "cluster", "serve", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_an_open_address_without_more_is_refused_in_one_line(tmp_path: Path) -> None:
    answer = fails("--data", str(tmp_path), "--http", "127.0.0.1:0", "--ray", "off", "--mrd", "0.0.0.0:0")
    assert answer.returncode == 2
    assert answer.stderr.startswith("0.0.0.0 can be reached from other machines and there is no TLS and no token yet")
    assert answer.stderr.count("\n") == 1


def test_what_it_refuses_to_start_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "--data", str(tmp_path), "--http", "127.0.0.1:0", "--ray", "off"]
    (tmp_path / "bad.toml").write_text("idle_timeout = 3")
    assert main([*words, "--config", str(tmp_path / "bad.toml")]) == 2
    assert "idle_timeout_s" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main([*words, "--mrd", f"127.0.0.1:{taken.getsockname()[1]}"]) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_a_ray_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    words = ("--data", str(tmp_path), "--mrd", "127.0.0.1:0", "--http", "127.0.0.1:0", "--device", "cpu")
    answer = fails(*words, "--ray", "127.0.0.1:1")
    assert answer.returncode == 2
    assert answer.stderr.startswith("Ray at '127.0.0.1:1' cannot be used")
    assert answer.stderr.count("\n") == 1


def test_an_open_address_is_served_when_that_is_wanted(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text('mrd = "0.0.0.0:0"\nworkers = 1\nray = "off"\ndevice = "cpu"\nexposure = "open"\n')
    words = ("serve", "--config", str(config), "--data", str(tmp_path / "data"), "--http", "127.0.0.1:0")
    with subprocess.Popen(
        [sys.executable, "-m", "cluster", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = json.loads(process.stdout.readline())
        assert ready["mrd"].startswith("0.0.0.0:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30.0) == 0
        log = process.stderr.read()
    assert "listening on 0.0.0.0 without TLS and tokens" in log

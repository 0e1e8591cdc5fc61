"""The command `recon-cluster scan`, as its parser and `run` are used by the command line."""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.commands import scan
from cluster.config import ConfigError
from cluster.events import State
from recon.errors import LostError, ReconError
from recon.mrd.hdf5 import read_scan
from recon.simulate import PROTOCOLS, REALISTIC, simulate
from tests.end_to_end.running import Running, eventually, running


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    scan.add_parser(parser.add_subparsers())
    return scan.run(parser.parse_args(["scan", *words]))


def test_list_names_every_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^ *{name} ", shown, re.MULTILINE) for name in (*PROTOCOLS, *REALISTIC))


def test_save_writes_the_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("brain-se", "--seed", "4", "--save", str(tmp_path / "brain.h5")) == 0
    assert "1088 readouts of brain-se" in capsys.readouterr().out
    expected, found = simulate("brain-se", seed=4).scan, read_scan(tmp_path / "brain.h5")
    assert found.header == expected.header
    assert found.readouts[-1].samples.tobytes() == expected.readouts[-1].samples.tobytes()


def test_several_scanners_save_several_files(tmp_path: Path) -> None:
    assert run("brain-se", "--scanners", "2", "--save", str(tmp_path / "brain.h5")) == 0
    names = [read_scan(tmp_path / f"brain-{n}.h5").header.patient["patientID"] for n in (1, 2)]
    assert names == ["SIM-0000", "SIM-0001"]


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(LostError, match=f"127.0.0.1:{port} cannot be reached"):
        run("brain-se", "--scanners", "2", "--speed", "0", "--wait", "0", "--mrd", f"127.0.0.1:{port}")
    captured = capsys.readouterr()
    assert captured.err.count(f"no server at 127.0.0.1:{port} yet, trying for 7 s") == 2
    assert captured.out.count("failed") == 2
    assert captured.err.count("cannot be reached") == 1  # the second scanner's; the first is the command's own error


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        assert eventually(lambda: server.service.ready)
        yield server


@pytest.mark.parametrize("door", ["--mrd", "--server"])
def test_scanners_stream_through_both_doors(server: Running, door: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {record.id for record in server.service.scans(limit=1000)}
    place = server.http if door == "--server" else "{}:{}".format(*server.mrd)
    assert run("brain-se", "--scanners", "2", "--speed", "0", "--method", "simplefft", door, place) == 0
    new = [record for record in server.service.scans(limit=1000) if record.id not in known]
    assert [(record.state, record.images) for record in new] == [(State.DONE, 5)] * 2
    assert {record.transport for record in new} == {"http" if door == "--server" else "tcp"}
    assert {record.chosen for record in new} == {"fft"}
    shown = capsys.readouterr().out
    assert shown.count("5/5") == 2
    assert shown.count("1088/1088") == 2


def test_the_method_reaches_the_server(server: Running) -> None:
    for door, place in (("--server", server.http), ("--mrd", "{}:{}".format(*server.mrd))):
        with pytest.raises(ReconError, match=r"gridding needs a trajectory|'gridding'"):
            run("brain-se", "--speed", "0", "--method", "gridding", door, place)
        (record,) = server.service.scans(limit=1)
        assert record.state is State.FAILED
        assert "gridding" in record.reason


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a PROTOCOL, or ask for --list"),
        (("knee",), "invalid choice: 'knee'"),
        (("brain-se", "--scanners", "0"), "0 scanners, expected 1 to 64"),
        (("brain-se", "--speed", "-1"), "the speed is -1, expected 0 or a positive number"),
        (("brain-se", "--seed", "-1"), "the seed is -1, expected 0 to 2147483647"),
        (("brain-se", "--mrd", "a:1", "--server", "http://b"), "not allowed with argument"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*words)
    assert message in capsys.readouterr().err


def test_an_address_without_a_port() -> None:
    with pytest.raises(ConfigError, match="the address is 'somewhere', expected HOST:PORT"):
        run("brain-se", "--mrd", "somewhere")

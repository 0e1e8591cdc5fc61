"""The command line against a running server: what it prints, where, and its exit status."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import h5py
import numpy as np
import pytest

from cluster.__main__ import GROUP, main, make_parser
from cluster.exits import status_of
from cluster.job import FailedError, NotFoundError, ScanRequest
from recon import __version__
from recon.errors import (
    DeviceError,
    FileError,
    LimitError,
    LostError,
    RecipeError,
    ReconError,
    RefusedError,
    ScanError,
)
from recon.mrd.hdf5 import read_images
from recon.mrd.wire import MessageId, encode_close
from recon.scan import READOUT_HEAD
from recon.simulate import save, simulate
from tests.cluster import scans
from tests.end_to_end.running import Running, eventually, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        assert eventually(lambda: server.service.ready)
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A scan of two frames."""
    path = tmp_path / "scan.mrd"
    path.write_bytes(scans.stream(scans.frames(2)))
    return path


def submit(server: Running, file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Submit without waiting; the id that is printed."""
    assert main(["submit", str(file), "--server", server.http, "--no-wait"]) == 0
    scan = capsys.readouterr().out.strip()
    assert re.fullmatch("[0-9A-Z]{26}", scan)
    server.service.wait(scan, 30.0)
    return scan


@pytest.mark.parametrize("ending", ["images.h5", "images.mrd", "images.png", "dicom"])
def test_submit_writes_images_by_ending(
    server: Running, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    out = tmp_path / ending
    assert main(["submit", str(file), "--server", server.http, "--method", "fft", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert re.match(rf"{file}: 2 images by fft in [\d.]+ s, scan [0-9A-Z]{{26}} → {out}\n$", said.out)
    assert said.err == ""
    assert out.exists()


def test_submit_of_several_files(
    server: Running, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.mrd"
    other.write_bytes(scans.stream(scans.frames(1)))
    words = ["submit", str(file), str(other), "--server", server.http, "--priority", "stat"]
    assert main([*words, "--out", str(tmp_path / "images.h5")]) == 0
    assert len(read_images(tmp_path / "images-scan.h5")) == 2
    assert len(read_images(tmp_path / "images-other.h5")) == 1
    assert main([*words, "--out", str(tmp_path / "dicom")]) == 0
    assert len(list((tmp_path / "dicom" / "scan").rglob("*.dcm"))) == 2
    assert {record.priority.name for record in server.service.scans(limit=4)} == {"STAT"}


def check_failure(
    words: list[str], status: int, capsys: pytest.CaptureFixture[str], *parts: str, said: list[str] | None = None
) -> None:
    """`words` end with `status` and say why in one sentence on standard error, which goes into `said`."""
    assert main(words) == status
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1, complaint
    for part in parts:
        assert part in complaint
    if said is not None:
        said.append(complaint)


def test_exit_statuses(server: Running, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--server", server.http]
    check_failure(["submit", str(tmp_path / "no.h5"), *at], 2, capsys, "no.h5", "cannot be read")
    check_failure(["submit", str(file), "--method", "magic", *at], 2, capsys, "'magic'", "expected one of")
    check_failure(["submit", str(file), "--out", "x.gif", *at], 2, capsys, "'x.gif'", ".png")
    (tmp_path / "cut.mrd").write_bytes(file.read_bytes()[:-60])
    check_failure(["submit", str(tmp_path / "cut.mrd"), *at], 2, capsys, "the stream stops inside the acquisition")
    (tmp_path / "other.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 100)
    check_failure(["submit", str(tmp_path / "other.h5"), *at], 2, capsys, "HDF5")
    check_failure(["submit", str(file), "--token-file", str(tmp_path / "no"), *at], 2, capsys, "token file")
    check_failure(["log", "nowhere", *at], 2, capsys, "there is no scan 'nowhere'")
    readouts = scans.frames(1)
    readouts[0].samples[0, 0, 0] = np.nan
    (tmp_path / "nan.mrd").write_bytes(scans.stream(readouts))
    check_failure(["submit", str(tmp_path / "nan.mrd"), *at], 4, capsys, "nan.mrd", "is failed", "finite")


def test_the_same_error_has_the_same_status_with_and_without_a_server(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = np.zeros(1, READOUT_HEAD)
    head["version"], head["number_of_samples"], head["active_channels"] = 1, 65535, 1024
    opening = scans.stream([], scans.header())[: -len(encode_close())]
    readouts = scans.frames(1)
    readouts[0].samples[0, 0, 0] = np.nan
    bad = {
        "large": (3, opening + struct.pack("<H", MessageId.ACQUISITION) + head.tobytes() + bytes(1000), "67108864"),
        "foreign": (2, b"no stream at all", ""),
        "nan": (4, scans.stream(readouts), "finite"),
    }
    for name, (status, content, part) in bad.items():
        file = tmp_path / f"{name}.mrd"
        file.write_bytes(content)
        check_failure(["submit", str(file), "--server", server.http], status, capsys, part)
        check_failure(["reconstruct", str(file), "--device", "cpu"], status, capsys, part)


@pytest.mark.parametrize("content", [b"no stream at all", b"\x00\xff" * 50, b"x", b""])
def test_a_file_of_something_else_is_refused_before_it_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "scan.h5"
    path.write_bytes(content)
    said = []
    for words in (["submit", str(path), "--server", "http://127.0.0.1:1"], ["reconstruct", str(path)]):
        check_failure(words, 2, capsys, said=said)
    begins = f"neither ISMRMRD HDF5 nor an MRD stream (it begins with {content[:8]!r})"
    expected = begins if content else "empty, expected an ISMRMRD HDF5 file or an MRD stream"
    assert said == [f"{path} is {expected}: name another\n"] * 2


def test_a_group_of_another_name(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.h5"
    save(path, simulate("brain-se", coils=2, matrix=32))
    with h5py.File(path, "a") as file:
        file.move("dataset", "second scan")
    for words in (["submit", str(path), "--server", server.http], ["reconstruct", str(path)]):
        check_failure(words, 2, capsys, f"{path}", "ask for it by name (--group 'second scan')")
        assert main([*words, "--group", "second scan"]) == 0
        assert "5 images" in capsys.readouterr().out


def test_a_refusal_is_3(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path / "data", spool_free_bytes=1 << 46) as server:
        check_failure(["submit", str(file), "--server", server.http], 3, capsys, "bytes are free")


def test_a_server_that_is_not_there_is_5(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the pauses between attempts
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for words in (["submit", str(file)], ["jobs"]):
        assert main([*words, "--server", nobody]) == 5
        waiting, complaint = capsys.readouterr().err.splitlines()
        assert waiting == f"no server at {nobody} yet, trying for 60 s"
        assert nobody in complaint
        assert "cannot be reached" in complaint


def test_a_server_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    """Also where standard error is no terminal; the command says so before the server is there."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    words = [sys.executable, "-m", "cluster", "jobs", "--json", "--server", f"http://127.0.0.1:{port}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"no server at http://127.0.0.1:{port} yet, trying for 60 s\n"
        with running(tmp_path, http_port=port):
            said, complaint = process.communicate(timeout=30.0)
    assert (process.returncode, json.loads(said), complaint) == (0, [], "")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FileError("x"), 2),
        (RecipeError("x"), 2),
        (NotFoundError("x"), 2),
        (DeviceError("x"), 2),
        (RefusedError("x"), 3),
        (LimitError("x"), 3),
        (ScanError("x"), 4),
        (FailedError("x"), 4),
        (LostError("x"), 5),
    ],
)
def test_the_status_of_an_error(error: ReconError, status: int) -> None:
    assert status_of(error) == status


def test_jobs_and_status(server: Running, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = submit(server, file, capsys)
    assert main(["jobs", "--server", server.http, "--limit", "1"]) == 0
    said = capsys.readouterr().out
    assert scan in said
    assert "done" in said
    assert main(["jobs", "--server", server.http, "--state", "dead", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["jobs", "--server", server.http, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["scan"] == scan
    assert main(["status", "--server", server.http]) == 0
    said = capsys.readouterr().out
    assert "ready; 0 scans in flight" in said
    assert "w0" in said
    assert main(["status", "--server", server.http, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True


def test_log_cancel_and_requeue(server: Running, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = submit(server, file, capsys)
    assert main(["log", scan, "--server", server.http]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(" done")
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in lines)
    assert main(["cancel", scan, "--server", server.http]) == 0
    assert capsys.readouterr().out == f"{scan} done\n"
    assert main(["requeue", scan, "--server", server.http]) == 0
    assert capsys.readouterr().out == f"{scan} accepted\n"
    assert server.service.wait(scan, 30.0).images == 2


def test_requeue_says_what_there_is_of_an_incomplete_scan(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    intake = server.service.open_scan(ScanRequest("tcp"))
    intake.feed(scans.stream(scans.frames(3))[:-3000])
    intake.abort("the sender left")
    record = server.service.wait(intake.scan_id, 30.0)
    assert main(["requeue", record.id, "--server", server.http]) == 0
    said = f"incomplete: {record.readouts} readouts came; reconstructing what there is"
    assert capsys.readouterr().out == f"{record.id} accepted, {said}\n"
    assert server.service.wait(record.id, 30.0).state.value == "incomplete"


def test_each_subcommand_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in entry_points(group=GROUP):
        with pytest.raises(SystemExit) as caught:
            main([command.name, "--help"])
        assert caught.value.code == 0
        assert command.name in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(command.name in said for command in entry_points(group=GROUP))


def test_version_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"recon-cluster {__version__}\n"
    for words in ([], ["dance"], ["submit"], ["submit", "x", "--priority", "now"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2


@pytest.mark.parametrize(
    ("words", "usage", "error"),
    [
        (["submit", "x", "--metod", "fft"], "submit [-h]", "unrecognized arguments: --metod fft"),
        (["jobs", "now"], "jobs [-h]", "unrecognized arguments: now"),
        (["bench", "report", "x", "--fast"], "bench report [-h]", "unrecognized arguments: --fast"),
        (["submit"], "submit [-h]", "the following arguments are required: FILE"),
        (["dance"], "[-h] [--version] COMMAND", "invalid choice: 'dance'"),
    ],
)
def test_wrong_arguments_show_the_usage_of_their_subcommand(
    words: list[str], usage: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: recon-cluster {usage}")
    assert error in said


def test_a_subcommand_that_lacks_a_package_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "needy.py").write_text("import a_package_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    missing = EntryPoint("needy", "needy", GROUP)
    with pytest.raises(ReconError, match="needy needs the package a_package_that_nobody_has, which is not installed"):
        make_parser([missing], ["needy", "--any", "thing"])
    with pytest.raises(SystemExit):
        make_parser([missing], ["--help"]).parse_args(["--help"])
    assert "needs the package a_package_that_nobody_has" in capsys.readouterr().out


def test_only_the_subcommand_asked_for_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "explosive.py").write_text("raise SystemExit('loaded')")
    monkeypatch.syspath_prepend(tmp_path)
    commands = [EntryPoint("boom", "explosive", GROUP), EntryPoint("log", "cluster.commands.log", GROUP)]
    assert make_parser(commands, ["log", "x"]).parse_args(["log", "x"]).scan == "x"
    with pytest.raises(SystemExit, match="loaded"):
        make_parser(commands, ["--help"])


def test_output_nobody_reads_any_more(server: Running, file: Path) -> None:
    ours = f"{sys.executable} -m cluster jobs --json --server {server.http}"
    command = f"{ours} | head -c 1 > {file}.out; echo ${{PIPESTATUS[0]}}"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stderr == ""
    assert answer.stdout == "0\n"


def test_blas_is_told_to_use_one_thread_before_numpy_is_loaded() -> None:
    code = (
        "import os, sys; from cluster.__main__ import main; loaded = 'numpy' in sys.modules;"
        "main(['reconstruct', 'no-such-scan.h5']);"
        "print(loaded, os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules)"
    )
    free = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    found = subprocess.run([sys.executable, "-c", code], env=free, capture_output=True, text=True, check=True)
    assert found.stdout == "False 1 True\n"

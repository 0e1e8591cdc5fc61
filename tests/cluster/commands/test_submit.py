"""`recon-cluster submit` of several files, and what it refuses before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.__main__ import main
from cluster.commands import collect, submit
from cluster.events import State
from cluster.job import ScanRecord
from recon.errors import LostError
from recon.mrd.hdf5 import read_images
from tests.cluster import scans
from tests.cluster.proxy import proxy
from tests.cluster.test_service import NoWorkers
from tests.end_to_end.running import Running, eventually, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


def test_a_file_that_fails_does_not_take_the_others_with_it(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = scans.frames(1)
    broken[0].samples[0, 0, 0] = np.nan
    contents = {
        "missing": None,
        "first": scans.stream(scans.frames(1)),
        "cut": scans.stream(scans.frames(1))[:-60],
        "nan": scans.stream(broken),
        "last": scans.stream(scans.frames(2)),
    }
    for name, content in contents.items():
        if content is not None:
            (tmp_path / f"{name}.mrd").write_bytes(content)
    files = [str(tmp_path / f"{name}.mrd") for name in contents]
    assert main(["submit", *files, "--server", server.http, "--out", str(tmp_path / "images.h5")]) == 2  # the first's
    said = capsys.readouterr()
    assert [len(read_images(tmp_path / f"images-{name}.h5")) for name in ("first", "last")] == [1, 2]
    assert [line.partition(":")[0] for line in said.out.splitlines()] == [files[1], files[4]]
    complaints = said.err.splitlines()
    assert len(complaints) == 3
    for complaint, name in zip(complaints, ("missing", "cut", "nan"), strict=True):
        assert f"{name}.mrd" in complaint
    assert main(["submit", files[3], files[1], "--server", server.http]) == 4


def test_without_waiting_each_scan_that_was_taken_is_named(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scan.mrd").write_bytes(scans.stream(scans.frames(1)))
    words = ["submit", str(tmp_path / "no.mrd"), str(tmp_path / "scan.mrd"), "--server", server.http, "--no-wait"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert server.service.wait(said.out.strip(), 30.0).images == 1
    assert said.err.count("\n") == 1


def test_who_loses_the_server_hears_last_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(_name: str, _record: ScanRecord) -> str:
        raise LostError("the server went away: check it")  # while it waits, after the last attempt

    monkeypatch.setattr(collect, "_words", lose)
    with running(tmp_path / "data", NoWorkers()) as server:
        files = [tmp_path / name for name in ("a.mrd", "b.mrd")]
        for file in files:
            file.write_bytes(scans.stream(scans.frames(1)))
        assert main(["submit", *map(str, files), "--server", server.http]) == 5
        found = [scan.id for scan in reversed(server.service.scans())]
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "the server went away: check it"
    for line, file, scan in zip(rest, files, found, strict=True):
        assert line.startswith(f"{file}: scan {scan} goes on; `recon-cluster cancel {scan} ")
        assert f"`recon-cluster images {scan} --out PATH --server {server.http}` fetches its images" in line


@pytest.mark.parametrize("part", [0.5, 1.0])
def test_who_is_interrupted_while_sending_hears_what_the_server_has(
    part: float, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"lines": 256, "samples": 256}
    stream = scans.stream(scans.frames(6, **size), scans.header(repetitions=6, **size))
    (tmp_path / "scan.mrd").write_bytes(stream)
    look = submit.Herald.look

    def interrupt(self: submit.Herald, sent: int, *, last: bool) -> None:
        look(self, sent, last=last)
        if sent >= part * len(stream):
            assert eventually(lambda: {record.id for record in server.service.scans(limit=1000)} > before)
            raise KeyboardInterrupt

    before = {record.id for record in server.service.scans(limit=1000)}
    monkeypatch.setattr(submit.Herald, "look", interrupt)
    assert main(["submit", str(tmp_path / "scan.mrd"), "--server", server.http]) == 130
    (scan,) = {record.id for record in server.service.scans(limit=1000)} - before
    words = "was not sent to its end; `recon-cluster images" if part < 1 else "goes on; `recon-cluster cancel"
    assert capsys.readouterr().err.startswith(f"{tmp_path}/scan.mrd: scan {scan} {words} {scan} ")


NOBODY = ["--server", "http://127.0.0.1:1"]


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["submit", "a.h5", "--no-wait", "--out", "x.h5", *NOBODY])
    assert "--no-wait leaves before there are images, --out wants them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("one/a.h5", "two/a.h5", "--out", "x.h5"),
            "the images of 2 scans would all go to x-a.h5: fetch them one by one",
        ),
        (("one/a.h5", "two/a.h5", "--out", "dicom"), "the images of 2 scans would all go to dicom/a"),
        (("a.h5", "--out", "x.gif"), "images cannot be written as 'x.gif'"),
        (
            ("a.h5", "--out", "/"),
            "/ is the root of the file system, images need a file or folder of their own: name one",
        ),
        (("a.h5", "--out", "{here}"), "{here} already exists and is not an empty folder, DICOM needs one of its own"),
        (("a.h5", "--out", "{here}/folder.h5"), "folder.h5 is a folder, images as .h5 need a file: name another"),
        (("a.h5", "--out", "{here}/file/x.h5"), "x.h5 cannot be written (Not a directory): choose another place"),
        (("a.h5", "--out", "/proc/new/x.png"), "/proc/new/x.png cannot be written"),
        (("a.h5", "--method", "null", "--out", "x.h5"), "the method null makes no images, --out wants them"),
        (("a.h5", "--method", '{"method": "savedataonly"}', "--out", "x.h5"), "the method null makes no images"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "file").touch()
    given = [word.replace("{here}", str(tmp_path)) for word in words]
    expected = message.replace("{here}", str(tmp_path))
    assert main(["submit", *given, *NOBODY]) == 2
    assert expected in capsys.readouterr().err
    if words.count("a.h5"):
        assert main(["reconstruct", *given]) == 2
        assert expected in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.h5"]


def test_the_current_folder_as_a_place_for_dicom(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scan.mrd").write_bytes(scans.stream(scans.frames(2)))
    for name in (".", ".."):
        here = tmp_path / f"dicom{len(name)}"
        (here / "below").mkdir(parents=True) if name == ".." else here.mkdir()
        monkeypatch.chdir(here / "below" if name == ".." else here)
        words = ["submit", str(tmp_path / "scan.mrd"), "--server", server.http, "--out", name]
        if name == "..":
            assert main(words) == 2
            assert f"{here} already exists and is not an empty folder" in capsys.readouterr().err
        else:
            assert main(words) == 0
            assert len([*here.rglob("*.dcm")]) == 2


def test_the_id_is_said_before_the_upload_ends(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "QUIET_S", 0.0)
    size = {"lines": 256, "samples": 256}
    stream = scans.stream(scans.frames(6, **size), scans.header(repetitions=6, **size))
    assert len(stream) > 6 << 20  # several pieces
    (tmp_path / "scan.mrd").write_bytes(stream)
    with proxy(server.http, up=lambda number: 5 << 20 if number == 0 else float("inf")) as broken:
        assert main(["submit", str(tmp_path / "scan.mrd"), "--server", broken.url]) == 0
    said = capsys.readouterr()
    ids = re.findall(rf"^{tmp_path}/scan.mrd: scan ([0-9A-Z]{{26}}) is coming in$", said.err, re.MULTILINE)
    assert len(set(ids)) == len(ids) == 2  # the first broke off in the middle
    assert said.out.endswith(f"scan {ids[1]}\n")
    assert server.service.scan(ids[0]).state is State.INCOMPLETE

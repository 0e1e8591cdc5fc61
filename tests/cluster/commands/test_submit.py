"""`recon-cluster submit` of several files, and what it refuses before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.__main__ import main
from recon.mrd.hdf5 import read_images
from tests.cluster import scans
from tests.end_to_end.running import Running, running


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.h5", "--no-wait", "--out", "x.h5"), "--no-wait leaves before there are images, --out wants them"),
        (("one/a.h5", "two/a.h5", "--out", "x.h5"), "the images of 2 files would all go to x-a.h5"),
        (("one/a.h5", "two/a.h5", "--out", "dicom"), "the images of 2 files would all go to dicom/a"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["submit", *words, "--server", "http://127.0.0.1:1"])
    assert message in capsys.readouterr().err

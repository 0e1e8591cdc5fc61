"""The data folder belongs to one server, and one that cannot be used is said to be so in one sentence."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.config import ConfigError
from cluster.folder import DataFolder, unusable
from tests.cluster import scans


def test_one_server_at_a_time(tmp_path: Path) -> None:
    first = DataFolder(scans.config(tmp_path))
    with pytest.raises(ConfigError, match=f"another server uses the data folder {tmp_path}: stop it, or give this"):
        DataFolder(scans.config(tmp_path))
    first.close()
    DataFolder(scans.config(tmp_path)).close()


def test_a_server_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.cluster import scans; from cluster.folder import DataFolder;"
        "folder = DataFolder(scans.config(Path(sys.argv[1]))); print('mine', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(ConfigError, match="another server uses the data folder"):
            DataFolder(scans.config(tmp_path))
        process.kill()
    DataFolder(scans.config(tmp_path)).close()


def test_every_name_on_the_way_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    data = tmp_path / "new" / "data"
    DataFolder(scans.config(data)).close()
    assert {tmp_path.parent, tmp_path, data.parent, data} <= set(synced)
    synced.clear()
    DataFolder(scans.config(data)).close()  # the first may have been stopped in between
    assert {data.parent, data} <= set(synced)


@pytest.mark.parametrize("place", ["", "/deeper", "/spool"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "spool").write_bytes(b"")
    data = tmp_path if place == "/spool" else Path(f"{tmp_path}/spool{place}")
    with pytest.raises(ConfigError, match=r"the data folder .* cannot be used \(.*\): give one that can be written"):
        DataFolder(scans.config(data))
    (tmp_path / "spool").unlink()
    DataFolder(scans.config(data)).close()  # the failure held nothing


@contextmanager
def powerless() -> Iterator[None]:
    """As a user who may write nothing of ours."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_that_this_user_may_not_write(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o500)
    for wanted in (data, data / "deeper"):
        with powerless(), pytest.raises(ConfigError) as caught:
            DataFolder(scans.config(wanted))
        said = rf"the user \d+ may not write {data}\S*, which the data folder {wanted} needs: change its owner"
        assert re.match(said, str(caught.value))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "the disk of the data folder /data is mounted read-only: give another folder with --data"),
        (errno.ENOSPC, "the disk of the data folder /data is full: free space there, or give another with --data"),
        (errno.EDQUOT, "the disk of the data folder /data is full: free space there, or give another with --data"),
        (
            errno.ELOOP,
            "the data folder /data cannot be used (Too many levels of symbolic links: /data/lock): give one that can be"
            " written with --data",
        ),
    ],
)
def test_what_is_wrong_with_a_disk_is_said_with_what_helps(number: int, words: str) -> None:
    assert unusable(Path("/data"), OSError(number, os.strerror(number), "/data/lock")) == words


def test_a_ledger_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(ConfigError, match=r"cannot be used \(file is not a database\)"):
        DataFolder(scans.config(tmp_path))


def test_serve_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    words = ("--data", str(tmp_path / "taken"), "--mrd", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ray", "off")
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "serve", *words, "--workers", "1", "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"the data folder {tmp_path / 'taken'} cannot be used (")


def test_scans_are_named_by_their_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of another node, and those that Ray starts, run in another folder."""
    monkeypatch.chdir(tmp_path)
    with scans.serving(Path("here")) as service:
        record = scans.run(service, scans.stream(scans.frames(1)))
        assert service.raw_path(record.id) == tmp_path / "here" / "spool" / f"{record.id}.mrd"


def test_knows_whether_the_machine_was_restarted_in_between(tmp_path: Path) -> None:
    """Only within one boot of the kernel is what a killed server wrote certainly there."""
    config = scans.config(tmp_path)
    # Of a server killed before it sorted out what was there, the next must not take that for whole.
    for expected, taken_up in ((False, False), (False, True), (True, True)):
        folder = DataFolder(config)
        assert folder.intact is expected
        if taken_up:
            folder.taken_up()
        folder.close()
    (tmp_path / "boot").write_text("another\n")
    folder = DataFolder(config)
    assert folder.intact is False
    folder.close()

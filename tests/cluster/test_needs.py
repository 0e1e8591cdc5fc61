"""A client's installation, with four packages and what they need: its commands work or say what to install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from cluster.needs import sentence
from tests.cluster import scans
from tests.end_to_end.running import Running, running

ROOT = Path(__file__).parents[2]
CLIENT = ("numpy", "h5py", "httpx", "rich")  # what the README names

# Each line of words is a command; what it ends with goes to standard output as JSON.
DRIVER = """
import contextlib, io, json, sys
from cluster.__main__ import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(json.loads(line))
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def closure(names: tuple[str, ...]) -> Iterator[str]:
    """The distributions `names` and all that they require, those that are installed."""
    wanted, seen = list(names), set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        yield name
        wanted += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds, as links, what a client's host has installed and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    for name in closure(CLIENT):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or () if ".." not in file.parts}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(installed.locate_file(top))))
    own = distribution("recon-cluster")
    info = folder / "recon_cluster-0.dist-info"
    info.mkdir()
    for file in ("METADATA", "entry_points.txt"):
        (info / file).write_text(own.read_text(file) or "", encoding="utf-8")
    return folder


def talk(site: Path, *commands: list[str], cwd: Path) -> list[tuple[int, str, str]]:
    """How each command ends in a process that sees `site` only: status, standard output, standard error."""
    answer = subprocess.run(
        [sys.executable, "-S", "-c", DRIVER],
        input="".join(json.dumps(words) + "\n" for words in commands),
        capture_output=True,
        text=True,
        timeout=100,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"},
        check=True,
    )
    return [tuple(json.loads(line)) for line in answer.stdout.splitlines()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


def test_a_clients_commands_work_with_its_four_packages(server: Running, site: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.mrd").write_bytes(scans.stream(scans.frames(2)))
    at = ["--server", server.http]
    (submitted,) = talk(site, ["submit", "scan.mrd", "--out", "images.h5", *at], cwd=tmp_path)
    assert submitted[::2] == (0, "")
    scan = submitted[1].split()[-3]
    rest = [
        ["images", scan, "--out", "dicom"],
        ["status"],
        ["jobs"],
        ["log", scan],
        ["requeue", scan],
        ["cancel", scan],
    ]
    for status, _, complaint in talk(site, *([*words, *at] for words in rest), cwd=tmp_path):
        assert (status, complaint) == (0, "")
    assert len([*tmp_path.rglob("*.dcm")]) == 2


NEEDS = {
    "serve": ["serve", "--data", "data", "--mrd", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ray", "off"],
    "reconstruct": ["reconstruct", "scan.mrd", "--device", "cpu:scipy"],
    "scan": ["scan", "brain-se"],
    "demo": ["demo"],
    "bench": ["bench", "ingest"],
}

EXTRAS = {"bench": r"\[dev\]"}  # it measures other packages in turn


def test_the_others_say_in_one_sentence_what_to_install(site: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.mrd").write_bytes(scans.stream(scans.frames(1)))
    for command, (status, said, complaint) in zip(NEEDS, talk(site, *NEEDS.values(), cwd=tmp_path), strict=True):
        assert (status, said) == (2, ""), complaint
        assert re.fullmatch(
            rf"{command} needs the package \w+, which is not installed; this installation lacks [\w, -]+:"
            rf" pip install 'recon-cluster{EXTRAS.get(command, '')}'\n",
            complaint,
        ), complaint
        assert {"scipy", "fastapi", "ray"} <= set(re.split(r"[ ,:]+", complaint))
        assert not {"numpy", "h5py", "httpx", "rich"} & set(re.split(r"[ ,:]+", complaint))


def test_a_device_that_lacks_its_package_says_so(site: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.mrd").write_bytes(scans.stream(scans.frames(1)))
    ((status, said, complaint),) = talk(site, ["reconstruct", "scan.mrd"], cwd=tmp_path)
    assert (status, said) == (2, "")
    assert complaint == "device cpu needs the package pyfftw, which is not installed: install it or use cpu:scipy\n"


def test_help_names_every_command_all_the_same(site: Path, tmp_path: Path) -> None:
    ((status, said, _),) = talk(site, ["--help"], cwd=tmp_path)
    assert status == 0
    assert all(f"    {command} " in said for command in [*NEEDS, "submit", "images", "status"])


def test_what_an_extra_brings_is_named_with_it() -> None:
    """In this installation, nothing but CuPy of the extra `gpu` may be missing."""
    try:
        distribution("cupy-cuda13x")
    except PackageNotFoundError:
        error = ModuleNotFoundError("No module named 'cupy'", name="cupy.cuda")
        assert sentence("bench", error).endswith("lacks cupy-cuda13x: pip install 'recon-cluster[gpu]'")
    assert sentence("x", ModuleNotFoundError(name="nobody_has_it")) == (
        "x needs the package nobody_has_it, which is not installed: install it"
    )
    assert sentence("x", ImportError("cannot import name 'y' from 'numpy'", name="numpy")) == ""

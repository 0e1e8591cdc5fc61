"""The README's examples do what they say, word for word but for the server's address."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recon.mrd.hdf5 import read_images
from recon.simulate import save, simulate
from tests.end_to_end.running import eventually, running

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    simulated = simulate("brain-se", coils=2, matrix=32)
    save(tmp_path / "scan.h5", simulated)
    monkeypatch.chdir(tmp_path)
    with running(tmp_path / "data") as server:
        assert eventually(lambda: server.service.ready)
        assert example.count("http://127.0.0.1:8080") == 1
        exec(compile(example.replace("http://127.0.0.1:8080", server.http), "README.md", "exec"), {})
        (record,) = server.service.scans()
    assert (record.priority.name, record.method) == ("STAT", "auto")
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["(1, 1, 32, 32) (5.0, 7.5, 7.5)"] * len(simulated.truth)


def test_the_first_five_minutes_run(tmp_path: Path) -> None:
    start, *rest = first_minutes()
    assert start == "recon-cluster serve --data ./recon-data &"
    program = tmp_path / "bin" / "recon-cluster"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cluster "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    modules = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    with running(tmp_path / "recon-data") as server:
        assert eventually(lambda: server.service.ready)
        script = "\n".join(
            re.sub(f"recon-cluster ({TALKING})", rf"\g<0> --server {server.http}", line) for line in rest
        )
        answer = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PYTHONPATH": modules},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        records = server.service.scans()
    assert (answer.returncode, answer.stderr) == (0, "")
    assert [record.state.value for record in records] == ["done"] * 3
    assert answer.stdout.count("5 images by fft in ") == 3
    assert len(read_images(tmp_path / "images.h5")) == len([*(tmp_path / "dicom").rglob("*.dcm")]) == 5
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("images.png", "local.png"))


TALKING = "submit|status|jobs|log|images"  # to a server


def first_minutes() -> list[str]:
    """The commands of the section Use."""
    use = README[README.index("## Use") :]
    return re.findall(r"```\n(.*?)```", use, re.DOTALL)[0].splitlines()

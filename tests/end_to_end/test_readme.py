"""The README's Python example does what it says, word for word but for the address."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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

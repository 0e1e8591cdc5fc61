"""`make gpu`: refuses without a GPU, and reports exactly what pytest counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import gpu

MARK = re.compile(r"^@pytest\.mark\.gpu$", re.MULTILINE)
JUNIT = (
    """<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="9" time="1.5"/></testsuites>"""
)


def test_counts_are_those_of_pytest(tmp_path: Path) -> None:
    junit = tmp_path / "outcome.xml"
    junit.write_text(JUNIT, encoding="utf-8")
    rows = {row.id: row.value for row in gpu.count_outcomes(junit)}
    assert rows == {"gpu.tests": 9, "gpu.failures": 2, "gpu.errors": 1, "gpu.skipped": 3, "gpu.seconds": 1.5}


def test_without_a_gpu_it_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert gpu.main([]) == 2
    expected = "nvidia-smi shows no GPU here, one is needed: run this on a machine with an NVIDIA GPU\n"
    assert capsys.readouterr().err == expected


def test_every_test_marked_gpu_is_where_it_looks() -> None:
    root = Path(__file__).parents[2]
    marked = [path for path in (root / "tests").rglob("test_*.py") if MARK.search(path.read_text("utf-8"))]
    places = [root / place for place in gpu.PLACES]
    assert all(any(path.is_relative_to(place) for place in places) for path in marked)
    assert marked

"""What `make` would do for a newcomer, without doing it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def plan(target: str, venv: Path) -> list[str]:
    """What `make TARGET` would run with this environment."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    command = [make, "--dry-run", "--no-print-directory", target, f"VENV={venv}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.splitlines()


def installed(lines: list[str]) -> list[str]:
    """What pip would install."""
    return [found[1] for line in lines if (found := re.search(r"pip install .* -e (\S+)$", line))]


@pytest.mark.parametrize(
    ("target", "wanted"), [("demo", "."), ("bench", "'.[dev]'"), ("test", "'.[dev]'"), ("check", "'.[dev]'")]
)
def test_each_target_installs_what_it_needs(tmp_path: Path, target: str, wanted: str) -> None:
    assert installed(plan(target, tmp_path)) == [wanted]


def test_what_was_installed_for_tests_serves_the_demo(tmp_path: Path) -> None:
    """Not the other way round: the demo's environment lacks pytest."""
    (tmp_path / ".installed").touch()
    assert installed(plan("demo", tmp_path)) == []
    assert installed(plan("test", tmp_path)) == ["'.[dev]'"]
    (tmp_path / ".installed-dev").touch()
    assert installed(plan("test", tmp_path)) == []

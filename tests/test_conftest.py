"""What the test run says of itself: skips are told with their reasons, and fail where judges are required."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = """
import pytest

def test_passes():
    pass

def test_judge():
    pytest.skip("bart is not installed: apt-get install bart")

@pytest.mark.skipif(True, reason="g++ is not installed: no source is executed here")
def test_marked():
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_tools(number):
    pytest.skip("needs Debian's ismrmrd-tools")

def test_package():
    pytest.importorskip("a_package_that_nobody_has")

def test_right():
    pytest.skip("needs the right to mount a small file system")

mark = pytest.mark  # a line of this file that marks a test is looked for elsewhere

@mark.parametrize("number", [1, 2, 3])
@mark.gpu
def test_device(number):
    assert False

@mark.long
def test_hours():
    assert False
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tests with our conftest.py."""
    conftest = Path(__file__).with_name("conftest.py")
    (tmp_path / "conftest.py").write_text(conftest.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "test_cases.py").write_text(CASES, encoding="utf-8")
    (tmp_path / "test_whole.py").write_text(
        'import pytest\npytest.skip("x is not installed", allow_module_level=True)', encoding="utf-8"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu\n    long\n", encoding="utf-8")
    return tmp_path


def run(folder: Path, required: str, *, processes: int = 0) -> tuple[int, str]:
    """The status and the words of a run."""
    environment = {**os.environ, "RECON_REQUIRE_JUDGES": required}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not long and not gpu"]
    command += ["-n", str(processes)] if processes else []
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("required", "processes"), [("", 0), ("0", 0), ("", 2)])
def test_skips_are_told_with_their_reasons(folder: Path, required: str, processes: int) -> None:
    if processes:
        pytest.importorskip("xdist")
    status, said = run(folder, required, processes=processes)
    assert status == 0, said
    for line in (
        "skipped 1: bart is not installed: apt-get install bart",
        "skipped 1: g++ is not installed: no source is executed here",
        "skipped 2: needs Debian's ismrmrd-tools",
        "skipped 1: needs the right to mount a small file system",
        "skipped 1: x is not installed",
        "not run, needs a GPU (make gpu): 3",
        "not run, marked long (make test ARGS='-m long'): 1",
    ):
        assert line in said.splitlines(), said
    assert "1 passed, 7 skipped" in said


@pytest.mark.parametrize("processes", [0, 2])
def test_where_judges_are_required_their_absence_fails(folder: Path, processes: int) -> None:
    if processes:
        pytest.importorskip("xdist")
    (folder / "test_whole.py").unlink()
    status, said = run(folder, "1", processes=processes)
    assert status == 1, said
    # The marked one does not begin; pytest-xdist does not count the deselected.
    assert re.search("4 failed, 1 passed, 1 skipped, (4 deselected, )?1 error", said), said
    assert "RECON_REQUIRE_JUDGES is set, and this was skipped: needs Debian's ismrmrd-tools" in said
    assert "skipped 1: needs the right to mount a small file system" in said


def test_a_whole_file_without_its_judge_fails_too(folder: Path) -> None:
    status, said = run(folder, "1")
    assert status == 2, said  # as for a file that cannot be collected
    assert "RECON_REQUIRE_JUDGES is set, and this was skipped: x is not installed" in said


def test_continuous_integration_requires_them() -> None:
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text(encoding="utf-8")
    assert "RECON_REQUIRE_JUDGES=1 make test" in script

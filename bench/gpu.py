"""Run the tests marked `gpu` with this interpreter and store how they ended beside the benchmarks' results."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from bench import report

RESULTS = Path("bench/results")
# Where the tests marked gpu are; the others' imports need more than a GPU machine's own Python has.
PLACES = ("tests/kernels", "tests/cuda", "tests/test_house.py")
OUTCOMES = ("tests", "failures", "errors", "skipped")


def main(arguments: Sequence[str]) -> int:
    """Run `pytest -m gpu` with `arguments`, store `bench/results/<date>-<device>-<commit>-gpu.json`; its status."""
    device = find_device()
    if device is None:
        print("nvidia-smi shows no GPU here, one is needed: run this on a machine with an NVIDIA GPU", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        outcome = Path(folder) / "outcome.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", f"--junitxml={outcome}", *PLACES, *arguments]
        status = subprocess.run(command, check=False).returncode
        rows = count_outcomes(outcome) if outcome.exists() else []
    if rows:
        about = report.environment() | {"device": device}
        report.write(rows, result_path(device, str(about["commit"])), about=about)
    return status


def find_device() -> str | None:
    """Name of the first NVIDIA GPU, None without one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        return None
    return names[0].strip() or None


def count_outcomes(junit: Path) -> list[report.Row]:
    """Rows `gpu.tests`, `gpu.failures`, `gpu.errors`, `gpu.skipped` and `gpu.seconds` from pytest's XML."""
    suite = next(ElementTree.parse(junit).iter("testsuite"))
    counts = [report.row(f"gpu.{name}", [float(suite.get(name, 0))], "1") for name in OUTCOMES]
    return [*counts, report.row("gpu.seconds", [float(suite.get("time", 0))], "s")]


def result_path(device: str, commit: str) -> Path:
    """Where the result of `device` at `commit` goes, today."""
    return RESULTS / f"{datetime.now(UTC).date().isoformat()}-{device.lower().replace(' ', '-')}-{commit}-gpu.json"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

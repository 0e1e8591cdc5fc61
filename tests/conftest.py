"""What every test run shares: one thread per numerical library, property tests without a clock, an honest last word."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import settings

# Two OpenMP threads collapse when the cores are shared with workers; set before NumPy is first imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A loaded machine makes an example slow without making it wrong; derandomised, CI fails on what a person can repeat.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

left_out = pytest.StashKey[Counter[str]]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count what the marker expression left out, by marker."""
    for item in items:
        counts = item.config.stash.setdefault(left_out, Counter())
        counts.update(mark for mark in ("gpu", "long") if item.get_closest_marker(mark))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many tests were left out and how to run them."""
    counts = config.stash.get(left_out, Counter())
    if counts["gpu"]:
        terminalreporter.write_line(f"not run, needs a GPU (make gpu): {counts['gpu']}")
    if counts["long"]:
        terminalreporter.write_line(f"not run, marked long (make test ARGS='-m long'): {counts['long']}")

"""What every test run shares: one thread per numerical library, property tests without a clock, an honest last word."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, TypeVar

import pytest

# Two OpenMP threads collapse when the cores are shared with workers; set before NumPy is first imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A loaded machine makes an example slow without making it wrong; derandomised, CI fails on what a person can repeat.
# A GPU machine's own Python may lack hypothesis: no test marked gpu needs it.
with suppress(ModuleNotFoundError):
    from hypothesis import settings

    settings.register_profile("house", deadline=None, derandomize=True)
    settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let pyproject.toml set a time limit where pytest-timeout, which reads it, is not installed."""
    if find_spec("pytest_timeout") is None:
        parser.addini("timeout", "seconds, for pytest-timeout")


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
left_out = pytest.StashKey[Counter[str]]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count what the marker expression left out, by marker."""
    for item in items:
        counts = item.config.stash.setdefault(left_out, Counter())
        counts.update(mark for mark in ("gpu", "long") if item.get_closest_marker(mark))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand on what was left out, where this is one of several processes and another has the last word."""
    output = getattr(session.config, "workeroutput", None)  # pytest-xdist's
    if output is not None:
        output["left_out"] = dict(session.config.stash.get(left_out, Counter()))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take it over: each process collects every test, so one of them tells for all; one that died tells nothing."""
    if told := getattr(node, "workeroutput", {}).get("left_out"):
        node.config.stash[left_out] = Counter(told)


# What the reasons of our skips say where a program or package that judges the results is missing.
MISSING = re.compile(r"not installed|needs Debian's|could not import")
REQUIRED = os.environ.get("RECON_REQUIRE_JUDGES", "") not in ("", "0")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where judges are required, make a test that misses one fail."""
    report = yield
    return judged(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file that is skipped."""
    report = yield
    return judged(report)


def judged(report: Report) -> Report:
    """`report`, a failure if it is a skip for want of a judge and judges are required."""
    if REQUIRED and report.skipped and MISSING.search(reason_of(report)):
        report.outcome = "failed"
        report.longrepr = f"RECON_REQUIRE_JUDGES is set, and this was skipped: {reason_of(report)}"
    return report


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why it was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which tests were skipped and why, how many were left out, and how to run them."""
    for reason, count in sorted(Counter(map(reason_of, terminalreporter.stats.get("skipped", []))).items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")
    counts = config.stash.get(left_out, Counter())
    if counts["gpu"]:
        terminalreporter.write_line(f"not run, needs a GPU (make gpu): {counts['gpu']}")
    if counts["long"]:
        terminalreporter.write_line(f"not run, marked long (make test ARGS='-m long'): {counts['long']}")

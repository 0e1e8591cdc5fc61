"""`recon-cluster jobs` and `status`: what their tables show on a terminal and where they are piped to."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from cluster.commands import jobs, status
from cluster.commands.remote import console
from cluster.events import State
from cluster.job import ScanRecord

REASON = "the scan failed because " + "of one thing and another, " * 30 + "and so on: send it again"
RECORD = ScanRecord("01JD0000000000000000000000", State.FAILED, "http", reason=REASON, created_s=1e9)


def on_a_terminal(shown: RenderableType) -> list[str]:
    """The lines of a terminal of 80 columns."""
    screen = io.StringIO()
    Console(file=screen, width=80, force_terminal=True, color_system=None).print(shown)
    return [line.rstrip() for line in screen.getvalue().splitlines()]


def test_a_long_reason_is_wrapped_on_a_terminal_and_one_line_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, *lines = on_a_terminal(jobs.table([RECORD]))
    assert lines[0].startswith(f"{RECORD.id} the scan failed because of one thing")
    assert all(len(line) <= 80 for line in lines)
    beside = " " * (len(RECORD.id) + 1)
    assert all(line.startswith(beside) for line in lines[1:])
    assert " ".join(line[len(beside) :] for line in lines) == REASON
    console().print(jobs.table([RECORD]))
    assert capsys.readouterr().out.splitlines()[2] == f"{RECORD.id} {REASON}"


def test_a_name_of_several_lines_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(jobs.table([replace(RECORD, reason="", name="one\ntwo")]))
    assert capsys.readouterr().out.splitlines()[2] == f"{RECORD.id} one two"


def test_worker_columns_say_what_they_count_and_in_which_unit() -> None:
    worker = {"worker": "w0", "device": "cpu", "memory_bytes": 3_500_000_000, "batches": 2, "frames": 5}
    cluster = {"queue": {"stat": 1}, "draining": False, "ready": True, "scans_in_flight": 1}
    shown = on_a_terminal(status.view({**cluster, "workers": [{**worker, "running_s": 1.234}]}, []))
    assert shown[0] == "ready; 1 scans in flight; frames waiting: 1 stat"
    assert shown[2].split("  ") == [" worker", "device", "memory, GB", "batches held", "frames held", "running for, s"]
    assert shown[3].split() == ["w0", "cpu", "3.5", "2", "5", "1.23"]

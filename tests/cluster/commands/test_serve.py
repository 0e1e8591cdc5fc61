"""Options of `recon-cluster serve` that decide how many workers there are, and where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.__main__ import main


def command(data: Path, *options: str) -> list[str]:
    """The command line of a server on free ports."""
    words = ("serve", "--data", str(data), "--mrd", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ray", "off")
    return [sys.executable, "-m", "cluster", *words, *options]


def test_workers_auto_is_one_per_core(tmp_path: Path) -> None:
    options = ("--workers", "auto", "--device", "cpu")
    with subprocess.Popen(command(tmp_path, *options), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = json.loads(server.stdout.readline())
            assert ready["workers"] == len(os.sched_getaffinity(0))
            assert ready["device"] == "cpu"
            server.send_signal(signal.SIGTERM)
            assert server.wait(30.0) == 0
        finally:
            server.kill()


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command(tmp_path, "--device", "cuda"), capture_output=True, text=True, env=hidden, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (reason,) = [line for line in done.stderr.splitlines() if "WARNING" not in line]
    assert "cuda" in reason.lower()


@pytest.mark.parametrize("workers", ["none", "0", "-1", "1.5", "٣"])
def test_a_number_of_workers_that_is_none(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", f"--workers={workers}"]) == 2
    assert f"--workers is {workers!r}, expected auto or a number from 1 on: correct it" in capsys.readouterr().err

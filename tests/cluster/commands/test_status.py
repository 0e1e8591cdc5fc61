"""`recon-cluster status --watch`: it looks again and again, and leaves at an interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.running import Running, eventually, running


def test_watching_sees_what_changes_and_ends_at_an_interrupt(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        assert eventually(lambda: server.service.ready)
        _watch(server, tmp_path / "shown")


def _watch(server: Running, shown: Path) -> None:
    # As in a terminal: what a shell starts in the background ignores interrupts, and so would this one there.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "cluster", "status", "--watch"]
    command += ["--server", server.http]
    with (
        shown.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, env=_environment()) as process,
    ):
        try:
            assert eventually(lambda: b"ready; " in shown.read_bytes(), within_s=30.0)
            server.service.drain(0.1)
            assert eventually(lambda: b"draining; " in shown.read_bytes(), within_s=30.0)
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=30.0)
        finally:
            process.kill()
    assert process.returncode == 130
    assert complaints == b""


def _environment() -> dict[str, str]:
    return {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}  # rich then takes a file for a terminal

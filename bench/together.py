"""Processes of the load generator that begin at the same moment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any


def run(commands: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Start all `commands`, wait for a line of each, tell all to go, and return the JSON object that each prints.

    Raises RuntimeError when one of them fails; its reason is on standard error.
    """
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    try:
        if all(_ready(process) for process in processes):
            for process in processes:
                _tell(process, "go\n")
            said = [process.communicate()[0] for process in processes]
            if not any(process.returncode for process in processes):
                return [json.loads(words) for words in said]
        raise RuntimeError("a scanner of the load generator failed: see its message above")
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _ready(process: subprocess.Popen[str]) -> bool:
    """Whether the process said a line before it ended."""
    assert process.stdout is not None
    return bool(process.stdout.readline())


def _tell(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdin is not None
    process.stdin.write(words)
    process.stdin.flush()

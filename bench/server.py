"""Servers under test, started as their users start them: processes of their own, stopped at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens for MRD, its HTTP address where it has one, and its process id."""

    host: str
    port: int
    http: str
    pid: int


@contextmanager
def recon_cluster(data: Path, *options: str) -> Iterator[Endpoint]:
    """Our server on free ports with its data under `data`; `options` as for `recon-cluster serve`."""
    command = [
        sys.executable,
        "-m",
        "cluster",
        "serve",
        "--data",
        str(data),
        "--mrd",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]
    with _process([*command, *options]) as process:
        ready = json.loads(_line(process))
        host, _, port = ready["mrd"].rpartition(":")
        yield Endpoint(host, int(port), ready["http"], process.pid)


@contextmanager
def peer(mode: str, *path: Path) -> Iterator[Endpoint]:
    """The minimal per-acquisition server; `mode` is `drop`, `fft`, or `keep` with the file's path."""
    with _process([sys.executable, "-m", "bench.peer", mode, *map(str, path)]) as process:
        yield Endpoint("127.0.0.1", int(_line(process)), "", process.pid)


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the server ended with status {process.wait()} before it was ready: see its messages above")
    return line

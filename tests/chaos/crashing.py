"""Servers that end behind a write, sync, rename or commit, and what a loss of power would leave of their files.

    python -c "from tests.chaos import crashing; crashing.main()" FOLDER lies|honest

The first server, in FOLDER/0, comes to its end and names the points (its threads take turns as they like, so numbers
would not do); then there is one for each point, in FOLDER/1, FOLDER/2, ... A line of JSON tells of each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.job import ScanRequest
from cluster.ledger import Ledger
from cluster.spool import SpoolFile
from cluster.workers import ThreadWorkers
from tests.cluster import scans

FRAMES = scans.frames(3)
DATA = scans.stream(FRAMES)
_PIECES = 3


@dataclass
class Fate:
    """How far a server came, and what of its files the disk had promised to keep."""

    ended: bool = False
    scan: str = ""
    acknowledged: bool = False
    aim: str = ""  # the step behind which it was to end
    steps: list[str] = field(default_factory=list)  # so far: what, in which folder, for which time
    synced: dict[int, int] = field(default_factory=dict)  # bytes by inode
    named: dict[str, list[str]] = field(default_factory=dict)  # names by folder


class Disk:
    """Counts what this process does to its files, and ends it behind one step, saying before what was synced."""

    def __init__(self, aim: str, told: int) -> None:
        self.fate = Fate(aim=aim)
        self._told = told
        self._counts = Counter[str]()
        self._lock = threading.RLock()  # nothing happens to the files while the last word is said

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        """Do it, then perhaps end."""
        with self._lock:
            result = do()
            self._counts[name] += 1
            self.fate.steps.append(f"{name} {self._counts[name]}")
            if self.fate.steps[-1] == self.fate.aim:
                self.tell()
                os.kill(os.getpid(), signal.SIGKILL)
            return result

    def tell(self) -> None:
        """Say how far it came."""
        _write(self._told, json.dumps(asdict(self.fate)).encode())

    def acknowledge(self) -> None:
        """The sender hears that the scan is kept."""
        self.fate.acknowledged = True

    def watch(self) -> None:
        """Stand between the server and its files."""
        for name in ("write", "pwrite"):
            setattr(os, name, self._writing(name, getattr(os, name)))
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._syncing(name, getattr(os, name)))
        for name in ("replace", "rename", "unlink"):
            setattr(os, name, self._changing(name, getattr(os, name)))
        Ledger.commit = self._changing("commit", Ledger.commit)  # type: ignore[method-assign]

    def _writing(self, name: str, real: Callable[..., int]) -> Callable[..., int]:
        def write(descriptor: int, data: Any, *offset: int) -> int:
            # In two parts, so that it may also end in between.
            view = memoryview(data).cast("B")
            half = len(view) // 2
            place = _place(descriptor)
            self.step(f"half a {name} {place}", lambda: real(descriptor, view[:half], *offset))
            self.step(f"{name} {place}", lambda: real(descriptor, view[half:], *(start + half for start in offset)))
            return len(view)

        return write

    def _syncing(self, name: str, real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            real(descriptor)
            self._promise(descriptor)

        return lambda descriptor: self.step(f"{name} {_place(descriptor)}", lambda: sync(descriptor))

    def _promise(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.fate.named[path.name] = sorted(entry.name for entry in path.iterdir())
        else:
            state = os.fstat(descriptor)
            self.fate.synced[state.st_ino] = state.st_size

    def _changing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: self.step(name, lambda: real(*arguments, **options))


_write = os.write


def _place(descriptor: int) -> str:
    """The folder that an open file or folder is, or is in."""
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return path.name if path.is_dir() else path.parent.name


def serve(data: Path, disk: Disk) -> None:
    """Take one scan, reconstruct it."""
    with scans.serving(data, ThreadWorkers(["before"], scans.settings())) as service:
        disk.watch()
        intake = service.open_scan(ScanRequest("http"))
        disk.fate.scan = intake.scan_id
        size = len(DATA) // _PIECES + 1
        for start in range(0, len(DATA), size):
            intake.feed(DATA[start : start + size])
        intake.finish()
        disk.step("acknowledge", disk.acknowledge)
        service.wait(intake.scan_id, 30.0)
        with disk._lock:
            disk.fate.ended = True
            disk.tell()
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """One server that comes to its end, then one for each of its steps."""
    folder = Path(sys.argv[1])
    if sys.argv[2] == "lies":
        SpoolFile.sync = lambda file: None  # type: ignore[method-assign]  # as a server that does not wait for its disk
    aims = [""]
    for number, aim in enumerate(aims):
        fate = run(folder / str(number), aim)
        print(json.dumps(fate), flush=True)
        if not aim:
            aims += fate["steps"]


def run(data: Path, aim: str) -> dict[str, Any]:
    """The fate of a server that ends behind the step `aim`."""
    heard, told = os.pipe()
    child = os.fork()
    if not child:
        serve(data, Disk(aim, told))
    os.close(told)
    with os.fdopen(heard, "rb") as words:
        fate: dict[str, Any] = json.load(words)
    os.waitpid(child, 0)
    return fate


def lose_power(data: Path, fate: Fate) -> None:
    """Leave of the raw data and images only what was synced, and only under names that were."""
    for folder in ("spool", "results"):
        for path in (data / folder).iterdir():
            if path.name in fate.named.get(folder, ()):
                os.truncate(path, min(path.stat().st_size, fate.synced.get(path.stat().st_ino, 0)))
            else:
                path.unlink()
    (data / "boot").write_text("of yesterday", encoding="ascii")

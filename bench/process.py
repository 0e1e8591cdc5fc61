"""What a server's own process uses, read from outside: CPU time and memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cpu_s(pid: int) -> float:
    """CPU seconds that the process has used, its children's left out."""
    # The second field is a name in brackets that may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory of the process that is its own: files that it maps or others share are left out."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


@contextmanager
def watched(pid: int, *, every_s: float = 0.1) -> Iterator[list[int]]:
    """A list that grows by the resident bytes of the process while the block runs."""
    seen, ended = [resident_bytes(pid)], threading.Event()

    def watch() -> None:
        while not ended.wait(every_s):
            seen.append(resident_bytes(pid))

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()

"""Reads an HDF5 file from a client in a process of its own, with limited memory and time, into an MRD stream.

    python -m cluster.convert FILE GROUP MEMORY_BYTES LIMITS

LIMITS are those of messages, a JSON object. The child writes the stream to standard output and, when it cannot, one
JSON object to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import IO

from cluster.config import ClusterConfig
from recon.errors import FileError, HeaderError, LimitError, ReconError

_MESSAGE_BYTES = 1 << 16  # no more of what the child says about itself is read
_ERRORS: dict[str, type[ReconError]] = {kind.__name__: kind for kind in (FileError, HeaderError, LimitError)}


def convert(
    path: Path, buffer: Callable[[], memoryview], config: ClusterConfig, *, group: str = ""
) -> Generator[int, None, None]:
    """Put the MRD stream of the file at `path` into `buffer()` again and again; yields how many bytes each time.

    `group` names the group that holds the scan, where it is not the usual one. Raises FileError, HeaderError or
    LimitError, for the file's own faults and for too much memory or time.
    """
    from cluster.stream import wire_limits  # not in the child, whose environment must be set before NumPy comes

    limits = json.dumps(asdict(wire_limits(config)))
    command = [sys.executable, "-m", "cluster.convert", str(path), group]
    command += [str(config.upload_memory_bytes), limits]
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)}
    with subprocess.Popen(
        command, bufsize=0, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
    ) as child:
        assert child.stdout is not None and child.stderr is not None  # pipes were asked for
        late = threading.Timer(config.upload_timeout_s, child.kill)
        late.start()
        try:
            while count := child.stdout.readinto(buffer()):  # type: ignore[attr-defined]  # a raw file has it
                yield count
            words = child.stderr.read(_MESSAGE_BYTES)
            child.wait()
        finally:
            child.kill()  # does nothing to one that has ended
            expired = not late.is_alive()
            late.cancel()
    if child.returncode:
        raise _error(child.returncode, words, config, expired=expired)


def _error(status: int, words: bytes, config: ClusterConfig, *, expired: bool) -> ReconError:
    if expired:
        return LimitError(
            f"reading the file took longer than {config.upload_timeout_s:g} s: send it as an MRD stream,"
            " or raise upload_timeout_s"
        )
    try:
        said = json.loads(words.splitlines()[-1])
        return _ERRORS[said["kind"]](said["detail"])
    except (IndexError, KeyError, ValueError, TypeError):
        return FileError(f"the process that read the file ended with status {status}: check the file with h5dump")


def main() -> int:
    """The child."""
    path, group, memory_bytes, limits = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # their threads' stacks would count as memory
    try:
        _write(path, sys.stdout.buffer, group=group, memory_bytes=memory_bytes, limits=limits)
    except (ReconError, MemoryError) as error:
        kind, detail = type(error).__name__, str(error)
        if isinstance(error, MemoryError) or "memory allocation failed" in detail:  # as the HDF5 library says it
            kind = "LimitError"
            detail = f"reading the file needs more than {memory_bytes} bytes of memory, the limit here: split the scan"
        # Whoever sent the file knows it by another name, and our folders are nobody's business.
        print(json.dumps({"kind": kind, "detail": detail.replace(str(path), "the file")}), file=sys.stderr)
        return 1
    return 0


def _write(path: Path, output: IO[bytes], *, group: str, memory_bytes: int, limits: dict[str, int]) -> None:
    from recon.mrd.hdf5 import GROUP, stream_scan  # after the environment is set, which NumPy reads when it is imported
    from recon.mrd.wire import WireLimits

    limit = _address_space() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for piece in stream_scan(path, group=group or GROUP, limits=WireLimits(**limits)):
        output.write(piece if isinstance(piece, bytes) else piece.data)
    output.flush()


def _address_space() -> int:
    """Bytes of address space that the interpreter and its libraries take already."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())

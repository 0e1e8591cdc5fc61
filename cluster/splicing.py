"""Bytes from a socket to a file without passing through our memory, and a look at the file while it grows.

`recv` into a buffer and `write` copy every byte twice; `splice` moves the socket's pages into a pipe and copies once,
into the page cache. Measured: docs/decisions/005-ingest-by-splice.md.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

PIPE_BYTES = 1 << 20  # what the kernel allows an ordinary user for one pipe
_PIPES = 8
_WINDOW_BYTES = 1 << 36  # of address space, not of memory
_RELEASE_BYTES = 64 << 20
_PAGE = mmap.ALLOCATIONGRANULARITY


@dataclass(frozen=True, slots=True)
class Pipe:
    """Both ends of a pipe."""

    outlet: int
    inlet: int

    def fill(self, source: int) -> int:
        """Take what waits in the socket `source`; 0 if its sender has ended. Raises OSError as the socket does."""
        return os.splice(source, self.inlet, PIPE_BYTES, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)

    def empty(self, target: int, *, offset: int, count: int) -> None:
        """Put the `count` bytes in the pipe at byte `offset` of the file `target`. Raises OSError as the file does."""
        moved = 0
        while moved < count:
            moved += os.splice(self.outlet, target, count - moved, offset_dst=offset + moved)


class Pipes:
    """A few large pipes for all connections: the kernel bounds the memory of one user's pipes."""

    def __init__(self) -> None:
        self._free: queue.LifoQueue[Pipe | None] = queue.LifoQueue()
        for _ in range(_PIPES):
            self._free.put(_make_pipe())

    @contextmanager
    def borrow(self) -> Iterator[Pipe]:
        """An empty pipe."""
        pipe = self._free.get()
        try:
            if pipe is None:
                pipe = _make_pipe()
            yield pipe
        except BlockingIOError:
            raise  # nothing waited, so nothing is in the pipe
        except BaseException:
            # Bytes of this scan may be in the pipe, whatever went wrong: no other scan must get them. The next borrower
            # makes a new one: a closed pipe's numbers may belong to another file by then.
            if pipe is not None:
                _close(pipe)
            pipe = None
            raise
        finally:
            self._free.put(pipe)

    def close(self) -> None:
        """Close all pipes; none is borrowed any more."""
        while not self._free.empty():
            if (pipe := self._free.get()) is not None:
                _close(pipe)


class Window:
    """A growing file's bytes, mapped once while it is empty: mapping every piece would cost more than reading it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._released = 0
        # Python maps no more than the file has; cutting it back to nothing leaves the mapping as it is.
        os.ftruncate(descriptor, _WINDOW_BYTES)
        try:
            self._map = mmap.mmap(descriptor, _WINDOW_BYTES, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        finally:
            os.ftruncate(descriptor, 0)
        self._map.madvise(mmap.MADV_RANDOM)  # only heads are looked at: neighbouring pages are not wanted

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop`, which the file has; those before `start` are not asked for again."""
        if stop > _WINDOW_BYTES:
            return map_file(self._descriptor, start=start, stop=stop)
        if start - self._released >= _RELEASE_BYTES:
            length = (start - self._released) // _PAGE * _PAGE
            self._map.madvise(mmap.MADV_DONTNEED, self._released, length)
            self._released += length
        return memoryview(self._map)[start:stop]


def map_file(descriptor: int, *, start: int, stop: int, populate: bool = False) -> memoryview:
    """Bytes `start` to `stop` of a file that has them, mapped read-only; valid as long as the view is held."""
    first = start // _PAGE * _PAGE
    # Populating maps every page in one system call.
    flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0)
    return memoryview(mmap.mmap(descriptor, stop - first, flags=flags, prot=mmap.PROT_READ, offset=first))[
        start - first :
    ]


def _make_pipe() -> Pipe:
    pipe = Pipe(*os.pipe())
    with suppress(PermissionError):  # where the user's pipes take too much already, a small one does as well
        fcntl.fcntl(pipe.inlet, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return pipe


def _close(pipe: Pipe) -> None:
    os.close(pipe.outlet)
    os.close(pipe.inlet)

"""Raw bytes of scans on disk, exactly as received, synced in the background while they come in.

Copies of a byte here: one, into the page cache, from a receive buffer (`append`) or from the socket (`splice`).
Readers map the file.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.durable import make_folder, sync_folder
from cluster.events import Extent
from cluster.job import DiskFullError, no_descriptor
from cluster.splicing import Pipes, Window, map_file
from recon.errors import FileError, RefusedError
from recon.mrd.wire import Decoder, WaveformMessage, WireLimits, view_run
from recon.scan import READOUT_HEAD, Readouts, Waveform

_COPY_BYTES = 1 << 20
_PART = ".part"  # ending of what is being made
_MESSAGE_BYTES = 2 + READOUT_HEAD.itemsize  # id and head of an acquisition message


class Spool:
    """The folder of raw scans; one thread sends written bytes to the disk for all open files."""

    def __init__(self, folder: Path, *, sync_bytes: int, unsynced_bytes: int, free_bytes: int) -> None:
        make_folder(folder)
        self.folder = folder
        self.sync_bytes = sync_bytes
        self.unsynced_bytes = unsynced_bytes
        self.failure = ""  # a sentence, set by the first failed fsync; from then on nothing is acknowledged
        self._free_bytes = free_bytes
        self._closed_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        self._open: dict[str, SpoolFile] = {}
        self._counting = threading.Lock()
        self._asked: queue.SimpleQueue[SpoolFile | None] = queue.SimpleQueue()
        self.pipes = Pipes()
        self._thread = threading.Thread(target=self._run, name="spool-sync", daemon=True)
        self._thread.start()

    def path(self, scan: str) -> Path:
        """Where the raw bytes of `scan` are."""
        return self.folder / f"{scan}.mrd"

    def upload(self, scan: str) -> Path:
        """Where the file is that was sent as `scan`, if it was one and came in whole."""
        return self.folder / f"{scan}.h5"

    def upload_part(self, scan: str) -> Path:
        """Where that file is while it comes in, and for ever if the rest never came."""
        return self.folder / f"{scan}.part.h5"

    def raw(self, scan: str, *, file: bool = False) -> Path:
        """Where the data of `scan` are as received; of a scan sent as a `file` never the stream made of it."""
        places = [self.upload(scan), self.upload_part(scan)] + ([] if file else [self.path(scan)])
        return next((path for path in places if path.exists()), places[-1])

    def create(self, scan: str, *, again: bool = False) -> SpoolFile:
        """A new file for `scan`, or its old one, to be written `again` from its start with the same bytes.

        Raises RefusedError when the disk cannot be trusted, is full, or refuses.
        """
        self.check()
        try:
            file = SpoolFile(self, scan, again=again)
        except OSError as error:
            raise _refusal(error, scan) from error
        self._open[scan] = file
        return file

    def discard(self, scan: str) -> None:
        """Remove all that is here of a scan that has ended; raises OSError. Whoever has mapped it keeps it."""
        for path in (self.path(scan), self.upload(scan), self.upload_part(scan)):
            if path.exists():
                size = path.stat().st_size
                path.unlink()
                self.kept(-size)

    def check(self) -> None:
        """Raise DiskFullError below the free-space mark and after a failed fsync."""
        self.trust()
        free = self.free_bytes()
        if free < self._free_bytes:
            raise DiskFullError(
                f"only {free} bytes are free in the spool, expected at least {self._free_bytes}: remove old scans",
                retry_after_s=60.0,
            )

    def trust(self) -> None:
        """Raise DiskFullError after a failed fsync, whichever file's: nothing is acknowledged any more."""
        if self.failure:
            raise DiskFullError(self.failure)

    def free_bytes(self) -> int:
        """Bytes that may still be written to the spool's disk."""
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize

    def used_bytes(self) -> int:
        """Bytes of all raw scans here."""
        return self._closed_bytes + sum(file.size for file in tuple(self._open.values()))

    def kept(self, count: int) -> None:
        """`count` bytes were written to a file here that a transport keeps itself."""
        with self._counting:
            self._closed_bytes += count

    def sync(self, descriptor: int) -> None:
        """Return when what is written to a file here is on the disk; raises OSError, and then the spool has failed."""
        with self._failing():
            os.fdatasync(descriptor)

    def sync_names(self) -> None:
        """Return when the names of the files here are on the disk; raises OSError, and then the spool has failed."""
        with self._failing():
            sync_folder(self.folder)

    def settle(self, scan: str, descriptor: int, *, whole: bool) -> None:
        """Have the file sent as `scan` on the disk; by its name the next server knows whether it is `whole`.

        Raises OSError, and DiskFullError when the disk cannot be trusted.
        """
        self.sync(descriptor)
        if whole:
            self.upload_part(scan).replace(self.upload(scan))
        self.sync_names()
        self.trust()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """The block syncs: after it failed the kernel may have dropped what was written, so success proves nothing."""
        try:
            yield
        except OSError as error:
            if not no_descriptor(error, "open the folder"):
                words = f"the spool failed ({error.strerror}): check the disk and restart the server"
                self.failure = self.failure or words
            raise

    def trim(self, scan: str, keep_bytes: int) -> None:
        """Keep only the start of a stream that can be made again from the scan's file; raises OSError.

        Whoever has mapped the whole one keeps it.
        """
        path = self.path(scan)
        if self.failure or scan in self._open or not self.upload(scan).exists() or not path.exists():
            return
        excess = path.stat().st_size - keep_bytes
        if keep_bytes and excess > 0:
            self._copy_start(path, path.with_suffix(_PART), count=keep_bytes)
            path.with_suffix(_PART).replace(path)
            self.kept(-excess)

    def _copy_start(self, path: Path, target: Path, *, count: int) -> None:
        """The first `count` bytes of `path`, on the disk as `target`."""
        with path.open("rb") as source, target.open("wb") as copy:
            while count and (piece := source.read(min(count, _COPY_BYTES))):
                copy.write(piece)
                count -= len(piece)
            copy.flush()
            self.sync(copy.fileno())

    def sweep(self) -> list[str]:
        """Remove what a server that was killed left half made, none may be in use; the names."""
        left = sorted(self.folder.glob(f"*{_PART}"))
        for path in left:
            self.kept(-path.stat().st_size)
            path.unlink()
        return [path.name for path in left]

    def request_sync(self, file: SpoolFile) -> None:
        """Have `file`'s written bytes sent to the disk by the background thread."""
        self._asked.put(file)

    def released(self, file: SpoolFile, *, removed: bool) -> None:
        """`file` was closed, and perhaps removed."""
        if self._open.pop(file.scan, None) is not None and not removed:
            self.kept(file.size)

    def close(self) -> None:
        """Stop the background thread after what it was asked for."""
        self._asked.put(None)
        self._thread.join()
        self.pipes.close()

    def _run(self) -> None:
        while (file := self._asked.get()) is not None:
            file.sync_written()


class SpoolFile:
    """One scan's raw bytes; used by the one thread that receives the scan."""

    def __init__(self, spool: Spool, scan: str, *, again: bool = False) -> None:
        self.scan = scan
        self.path = spool.path(scan)
        self.size = 0
        self._spool = spool
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if again else os.O_EXCL), 0o640)
        spool.kept(-os.fstat(self._fd).st_size)  # it counts as an open one from now on
        self._asked = 0  # bytes whose sync was asked for
        self._durable = 0
        self._pending = 0  # requests that the background thread has not answered
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._window: Window | None = None

    def append(self, data: memoryview) -> None:
        """Write `data` at the end; waits while too much is not on the disk. Raises DiskFullError."""
        try:
            written = os.pwrite(self._fd, data, self.size)
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self.size + written)
        except OSError as error:
            raise self._refusal(error) from error
        self._grown(written)

    def splice(self, source: int, *, most: int) -> None:
        """Move what waits in the socket `source` to the end, inside the kernel, until there are `most` bytes or more.

        Moves nothing if its sender has ended. Raises BlockingIOError when nothing waits, OSError as the socket does,
        and what `append` raises.
        """
        if self._window is None:
            self._window = self._open_window()
        stop = self.size + most
        moved = self._splice(source)
        with suppress(BlockingIOError):
            while moved and self.size < stop:
                moved = self._splice(source)

    def _splice(self, source: int) -> int:
        with self._spool.pipes.borrow() as pipe:
            count = pipe.fill(source)
            try:
                pipe.empty(self._fd, offset=self.size, count=count)
            except OSError as error:
                raise self._refusal(error) from error
        self._grown(count)
        return count

    def view(self, start: int) -> memoryview:
        """The spliced bytes from `start` on, read-only; those before are not asked for again."""
        assert self._window is not None
        try:
            return self._window.view(start, self.size)
        except OSError as error:
            raise self._refusal(error) from error

    def _open_window(self) -> Window:
        try:
            return Window(self._fd)
        except OSError as error:
            raise self._refusal(error) from error

    def _grown(self, count: int) -> None:
        self.size += count
        if self.size - self._asked >= self._spool.sync_bytes:
            self._ask()

    def sync(self) -> None:
        """Return when all bytes and the file's name are on the disk; raises RefusedError otherwise.

        And where another file here could not be synced.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._pending == 0)
        self.sync_written()
        self._check()
        try:
            self._spool.sync_names()
        except OSError as error:
            raise self._refusal(error) from error
        self._spool.trust()

    def _check(self) -> None:
        if self._error is not None:
            raise self._refusal(self._error)
        self._spool.trust()

    def close(self) -> None:
        """Close the file once the background thread has let go of it."""
        self._end(removed=False)

    def remove(self) -> None:
        """Close and delete the file: nothing in it is worth keeping."""
        self._end(removed=True)
        self.path.unlink(missing_ok=True)

    def sync_written(self) -> None:
        """Send what is written to the disk and wake who waits for it."""
        written = self.size
        try:
            self._spool.sync(self._fd)
        except OSError as error:
            self._error = error
        with self._changed:
            self._pending = max(0, self._pending - 1)
            self._durable = written
            self._changed.notify_all()

    def _ask(self) -> None:
        self._asked = self.size
        with self._changed:
            self._pending += 1
        self._spool.request_sync(self)
        with self._changed:
            self._changed.wait_for(lambda: self._error or self.size - self._durable <= self._spool.unsynced_bytes)
        self._check()

    def _refusal(self, error: OSError) -> RefusedError:
        return _refusal(error, self.scan, size=self.size)

    def _end(self, *, removed: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending == 0)
        if self._fd >= 0:
            self.size = os.fstat(self._fd).st_size  # of one that is written again the end may be an older one
            os.close(self._fd)
            self._fd = -1
            self._spool.released(self, removed=removed)


def _refusal(error: OSError, scan: str, *, size: int = 0) -> RefusedError:
    if busy := no_descriptor(error, f"keep scan {scan}"):
        return busy
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        words = f"the spool's disk is full after {size} bytes of scan {scan}: free space and send it again"
        return DiskFullError(words, retry_after_s=60.0)
    # Not the error itself, which names a path of the server's.
    return DiskFullError(f"the spool cannot keep scan {scan} ({error.strerror}): check the disk and send it again")


def map_extents(path: Path, extents: tuple[Extent, ...]) -> list[memoryview]:
    """Read-only views of `extents` in the file at `path`, of one mapping; they stay valid as long as they are held.

    Raises FileError where the file does not hold them.
    """
    first = min(extent.offset for extent in extents)
    # What follows the last message of an extent with gaps is not needed, and may not be there.
    last = max(extent.offset + extent.stride * (extent.count - 1) + 1 for extent in extents)
    wanted = sum(extent.bytes for extent in extents)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < last:
                raise FileError(
                    f"the raw data of scan {path.stem} end at byte {size}, a frame needs byte {last}: send it again"
                )
            last = min(size, max(extent.offset + extent.bytes for extent in extents))
            # Not worth it where most of the span is other frames.
            view = map_file(file.fileno(), start=first, stop=last, populate=2 * wanted > last - first)
    except OSError as error:
        raise FileError(f"the raw data of scan {path.stem} cannot be read ({error}): send it again") from error
    return [view[extent.offset - first : extent.offset - first + extent.bytes] for extent in extents]


def read_readouts(path: Path, extents: tuple[Extent, ...]) -> list[Readouts]:
    """The readouts of `extents` as views of the mapped file; those of an extent with gaps are evenly spaced views."""
    if not extents:
        return []
    return [_view(data, extent) for data, extent in zip(map_extents(path, extents), extents, strict=True)]


def read_waveforms(path: Path, extents: tuple[Extent, ...]) -> list[Waveform]:
    """The waveforms whose messages are `extents`."""
    if not extents:
        return []
    # Who received them has checked them against the limits in force.
    decoder = Decoder(WireLimits(waveform_bytes=max(extent.bytes for extent in extents)))
    messages = [message for data in map_extents(path, extents) for message in decoder.read(data)]
    return [message.waveform for message in messages if isinstance(message, WaveformMessage)]


def _view(data: memoryview, extent: Extent) -> Readouts:
    first = view_run(data, count=1)
    size = _MESSAGE_BYTES + first.samples.nbytes + (0 if first.trajectory is None else first.trajectory.nbytes)
    step = extent.stride // size
    run = view_run(data, count=(extent.count - 1) * step + 1)
    return run if step == 1 else Readouts(run.head[::step], run.samples[::step], _every(run.trajectory, step))


def _every(trajectory: NDArray[np.float32] | None, step: int) -> NDArray[np.float32] | None:
    return None if trajectory is None else trajectory[::step]

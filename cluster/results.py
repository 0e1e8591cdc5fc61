"""Images of scans on disk as MRD image messages, appended as they are made and followed by any number of readers."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

from cluster.durable import make_folder, sync_folder
from recon.errors import LimitError, WireError
from recon.mrd.wire import Decoder, ImageMessage, WireLimits, encode_image
from recon.scan import Image

_CHUNK_BYTES = 1 << 20
_PART = ".part"  # ending of a file that is to replace another


class ResultStore:
    """The folder of image files."""

    def __init__(self, folder: Path, limits: WireLimits) -> None:
        make_folder(folder)
        self.folder = folder
        self._limits = limits

    def path(self, scan: str) -> Path:
        """Where the images of `scan` are."""
        return self.folder / f"{scan}.mrd"

    def create(self, scan: str) -> ResultFile:
        """An empty file for the images of `scan`, a new one; raises OSError."""
        return ResultFile(self.path(scan))

    def replace(self, scan: str, *, earlier: int) -> Replacement:
        """An empty file whose images are to take the place of the `earlier` ones of `scan`; raises OSError.

        Its name is on the disk: whatever happens, the next server knows that the scan was to run again.
        """
        file = Replacement(self._part(scan), self.path(scan), earlier=earlier)
        try:
            sync_folder(self.folder)
        except OSError:
            file.remove()
            raise
        return file

    def discard(self, scan: str) -> None:
        """Remove the images of a scan that has ended; raises OSError. Whoever reads them reads on."""
        self.path(scan).unlink(missing_ok=True)

    def replacing(self, scan: str) -> bool:
        """Whether a server left a file that was to replace the images of `scan`."""
        return self._part(scan).exists()

    def sweep(self, unfinished: Container[str]) -> list[str]:
        """Remove what would replace the images of scans that are not `unfinished`; names the scans."""
        left = [path for path in sorted(self.folder.glob(f"*{_PART}")) if path.stem not in unfinished]
        for path in left:
            path.unlink()
        return [path.stem for path in left]

    def _part(self, scan: str) -> Path:
        return self.path(scan).with_suffix(_PART)

    def resume(self, scan: str, *, most: int = sys.maxsize) -> ResultFile:
        """The file that a server left as it ended, to go on with: its images stay, and are not kept twice when remade.

        So the number of an image is the same before and after, whatever the order in which they are made again. All
        behind the first `most` images goes: after a restart of the machine, those known to have been on the disk.
        """
        edges, known = [0], Counter[Hashable]()
        if self.path(scan).exists():
            decoder = Decoder(self._limits, buffer_bytes=_CHUNK_BYTES)
            # What the server was writing as it ended may have broken off.
            with self.path(scan).open("rb", buffering=0) as file, suppress(WireError, LimitError):
                while len(edges) <= most and (count := file.readinto(decoder.get_buffer())):
                    for message in decoder.received(count):
                        if isinstance(message, ImageMessage) and len(edges) <= most:
                            edges.append(decoder.position)
                            known[_name(message.image)] += 1
        return ResultFile(self.path(scan), edges=edges, known=known)

    def images(self, scan: str) -> Iterator[Image]:
        """The stored images of `scan`, in the order in which they were made."""
        with suppress(FileNotFoundError), self.path(scan).open("rb", buffering=0) as file:
            for message in self._messages(file):
                yield message.image

    def encoded(self, scan: str, *, start: int = 0) -> Iterator[bytes]:
        """The stored image messages of `scan` from number `start` on."""
        with suppress(FileNotFoundError), self.path(scan).open("rb", buffering=0) as file:
            edges = [message.offset for message in self._messages(file)]
            edges.append(os.fstat(file.fileno()).st_size)
            for first, last in zip(edges[start:-1], edges[start + 1 :], strict=True):
                yield os.pread(file.fileno(), last - first, first)

    def _messages(self, file: FileIO) -> Iterator[ImageMessage]:
        decoder = Decoder(self._limits, buffer_bytes=_CHUNK_BYTES)
        while count := file.readinto(decoder.get_buffer()):
            for message in decoder.received(count):
                if isinstance(message, ImageMessage):
                    yield message


class ResultFile:
    """Images of one scan while they are made: one writer, any number of readers."""

    def __init__(self, path: Path, *, edges: Iterable[int] = (0,), known: Counter[Hashable] | None = None) -> None:
        """`edges` are those of the messages that are there, `known` the names of their images."""
        self.path = path
        self._edges = list(edges)  # first byte of each message, and the end of the last
        self._known = Counter[Hashable]() if known is None else known
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        os.ftruncate(self._fd, self._edges[-1])
        self._changed = threading.Condition()
        self._ended = False
        self._named = False  # the file's name is on the disk
        self._synced = 0

    @property
    def made(self) -> int:
        """Images in the file so far."""
        return len(self._edges) - 1

    @property
    def count(self) -> int:
        """Images of the scan that can be read."""
        return self.made

    @property
    def synced(self) -> int:
        """Of these, known to be on the disk."""
        return self._synced

    @property
    def hidden(self) -> bool:
        """Whether nobody can read the images of this file yet."""
        return False

    def append(self, images: Iterable[Image]) -> int:
        """Write `images` at the end, less those known already, and wake the readers; how many were written.

        Raises OSError and then holds none of them.
        """
        end = self._edges[-1]
        edges = []
        try:
            for image in filter(self._is_new, images):
                end += _write(self._fd, encode_image(image), offset=end)
                edges.append(end)
        except OSError:
            with suppress(OSError):  # the first one counts
                os.ftruncate(self._fd, self._edges[-1])
            raise
        with self._changed:
            self._edges += edges
            self._changed.notify_all()
        return len(edges)

    def _is_new(self, image: Image) -> bool:
        name = _name(image)
        known = self._known[name] > 0
        self._known[name] -= known
        return not known

    def sync(self) -> None:
        """Return when the images so far, and the file's name, are on the disk; raises OSError."""
        made = self.made
        os.fdatasync(self._fd)
        if not self._named:
            sync_folder(self.path.parent)
            self._named = True
        self._synced = made

    def follow(self, *, start: int = 0, timeout_s: float | None = None) -> Iterator[bytes]:
        """Image messages from number `start` on as they are made, until the end or `timeout_s` without one."""
        with self._changed:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC) if self._fd < 0 else os.dup(self._fd)
        try:
            while self._wait(start, timeout_s):
                first, last = self._edges[start : start + 2]
                yield os.pread(fd, last - first, first)
                start += 1
        finally:
            os.close(fd)

    def close(self) -> None:
        """No more images come: readers stop after the last."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def remove(self) -> None:
        """Close and delete the file: the scan never was one."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _wait(self, number: int, timeout_s: float | None) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self.made > number, timeout_s)
            return self.made > number


class Replacement(ResultFile):
    """Images of a scan that runs again: nobody sees them before all are there and take the place of the earlier ones.

    `place` or `drop` comes once, before `close`.
    """

    def __init__(self, path: Path, target: Path, *, earlier: int) -> None:
        super().__init__(path)
        self._target = target
        self._earlier = earlier
        self._placed = False

    @property
    def count(self) -> int:
        """Images of the scan that can be read."""
        return self.made if self._placed else self._earlier

    @property
    def synced(self) -> int:
        """Of these, known to be on the disk."""
        return self._synced if self._placed else self._earlier

    @property
    def hidden(self) -> bool:
        """Whether nobody can read the images of this file yet."""
        return not self._placed

    def place(self) -> None:
        """Have these images replace the earlier ones, on the disk too; raises OSError."""
        self.sync()
        self.path.replace(self._target)
        self.path, self._placed = self._target, True
        sync_folder(self.path.parent)

    def drop(self) -> None:
        """The earlier images stay."""
        with suppress(OSError):  # the next server sweeps it away
            self.path.unlink()

    def follow(self, *, start: int = 0, timeout_s: float | None = None) -> Iterator[bytes]:
        """Image messages from number `start` on once these have replaced the earlier ones; none if they never do."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, timeout_s)
        if self._placed:  # all are there, also while the end of the scan is still being written down
            yield from super().follow(start=start, timeout_s=timeout_s)


def _name(image: Image) -> Hashable:
    """What tells an image from the others of its scan, and is the same when it is made again."""
    counters, quantity, comments = image.counters, image.quantity, image.comments
    return counters, image.series, image.index, quantity, image.time_stamp, comments


def _write(fd: int, data: bytes, *, offset: int) -> int:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)
    return done

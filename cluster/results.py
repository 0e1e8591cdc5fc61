"""Images of scans on disk as MRD image messages, appended as they are made and followed by any number of readers."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from recon.errors import LimitError, WireError
from recon.mrd.wire import Decoder, ImageMessage, WireLimits, encode_image
from recon.scan import Image

_CHUNK_BYTES = 1 << 20


class ResultStore:
    """The folder of image files."""

    def __init__(self, folder: Path, limits: WireLimits) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._limits = limits

    def path(self, scan: str) -> Path:
        """Where the images of `scan` are."""
        return self.folder / f"{scan}.mrd"

    def create(self, scan: str) -> ResultFile:
        """An empty file for the images of `scan`; an older one is replaced, whoever reads it keeps it.

        Raises OSError and then leaves the older one.
        """
        file = ResultFile(self.path(scan).with_suffix(".part"))
        try:
            file.rename(self.path(scan))
        except OSError:
            file.remove()
            raise
        return file

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
        for message in self._messages(scan):
            yield message.image

    def encoded(self, scan: str, *, start: int = 0) -> Iterator[bytes]:
        """The image messages of a scan that ended, from number `start` on."""
        path = self.path(scan)
        if not path.exists():
            return
        with path.open("rb") as file:
            for first, last in _spans((message.offset for message in self._messages(scan)), path, start=start):
                yield os.pread(file.fileno(), last - first, first)

    def _messages(self, scan: str) -> Iterator[ImageMessage]:
        if not self.path(scan).exists():
            return
        decoder = Decoder(self._limits, buffer_bytes=_CHUNK_BYTES)
        with self.path(scan).open("rb", buffering=0) as file:
            while count := file.readinto(decoder.get_buffer()):
                for message in decoder.received(count):
                    if isinstance(message, ImageMessage):
                        yield message


def _spans(offsets: Iterable[int], path: Path, *, start: int) -> list[tuple[int, int]]:
    """First and last byte of each message from number `start` on."""
    edges = [*offsets, path.stat().st_size]
    return list(zip(edges[start:-1], edges[start + 1 :], strict=True))


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
        self.synced = 0  # images known to be on the disk

    @property
    def count(self) -> int:
        """Images stored so far."""
        return len(self._edges) - 1

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
        count = self.count
        os.fdatasync(self._fd)
        if not self._named:
            _sync_folder(self.path.parent)
            self._named = True
        self.synced = count

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

    def rename(self, path: Path) -> None:
        """Give the file another name, which whatever bore it loses; raises OSError."""
        self.path.replace(path)
        self.path, self._named = path, False

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
            self._changed.wait_for(lambda: self._ended or self.count > number, timeout_s)
            return self.count > number


def _name(image: Image) -> Hashable:
    """What tells an image from the others of its scan, and is the same when it is made again."""
    counters, quantity, comments = image.counters, image.quantity, image.comments
    return counters, image.series, image.index, quantity, image.time_stamp, comments


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(fd: int, data: bytes, *, offset: int) -> int:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)
    return done

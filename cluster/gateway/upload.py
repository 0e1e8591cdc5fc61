"""Bodies of HTTP uploads: an MRD stream goes to the intake as it comes; an HDF5 file is kept, then read by a child."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.config import ClusterConfig
from cluster.convert import convert
from cluster.gateway.limits import Deadlines
from cluster.intake import Intake
from cluster.job import DiskFullError, ScanRecord, no_descriptor
from recon.errors import InputError, LimitError, ReconError, RefusedError
from recon.mrd.hdf5 import GROUP

_BUFFER_BYTES = 1 << 20


class Upload(Protocol):
    """Takes a scan's body piece by piece, as an Intake does; used by one thread at a time."""

    def get_buffer(self) -> memoryview:
        """Where the next bytes go."""
        ...

    def received(self, count: int) -> object:
        """Keep and understand the `count` bytes just written; raises ReconError."""
        ...

    def finish(self) -> ScanRecord:
        """The body is complete; returns when the scan is on disk. Raises ReconError."""
        ...

    def abort(self, reason: str) -> object:
        """The sender left or was too slow; what came is kept. Raises ReconError."""
        ...


def feed(upload: Upload, data: bytes) -> None:
    """Give `upload` bytes that are somewhere already."""
    rest = memoryview(data)
    while rest:
        room = upload.get_buffer()[: len(rest)]
        room[:] = rest[: len(room)]
        upload.received(len(room))
        rest = rest[len(room) :]


@dataclass(slots=True)
class Rest:
    """What has not yet been read of a body: `count` bytes from `connection`."""

    connection: socket.socket
    count: int


def receive(upload: Upload, rest: Rest, deadlines: Deadlines) -> None:
    """Read `rest` to its end, straight from the socket; raises InputError when the sender leaves or is too slow."""
    while rest.count:
        # Zero would mean not to wait at all, which is another error.
        rest.connection.settimeout(max(0.001, deadlines.left_s()))
        try:
            got = rest.connection.recv_into(upload.get_buffer()[: rest.count])
        except TimeoutError:
            raise broken(upload, deadlines.reason()) from None
        except OSError as error:
            raise broken(upload, f"the connection broke before the end of the body ({error}): send it again") from None
        if not got:
            raise broken(upload, f"the sender left {rest.count} bytes before the end of the body: send it again")
        rest.count -= got
        upload.received(got)
        deadlines.heard(header=True)


def broken(upload: Upload, reason: str) -> InputError:
    """End `upload` for `reason`; the error to raise."""
    upload.abort(reason)
    return InputError(reason)


class Hdf5Upload:
    """A body that is an ISMRMRD file: kept as it is, at `path` once it is complete, and then read."""

    def __init__(self, intake: Intake, path: Path, config: ClusterConfig, *, group: str = "") -> None:
        """Raises RefusedError, written into the scan's record, when the file cannot be opened."""
        self._intake = intake
        self._path = path
        self._part = path.with_suffix(".part" + path.suffix)
        self._group = group or GROUP
        self._config = config
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._bytes = 0
        self._fd = -1
        with self._recorded():
            intake.keep(self._group)
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def get_buffer(self) -> memoryview:
        """Where the next bytes go."""
        return self._buffer

    def received(self, count: int) -> None:
        """Keep the `count` bytes just written; raises LimitError, RefusedError."""
        with self._recorded():
            self._bytes += count
            if self._bytes > self._config.scan_bytes:
                limit = self._config.scan_bytes
                raise LimitError(f"the file has more than {limit} bytes, the limit here: split the scan")
            rest = self._buffer[:count]
            while rest:
                written = os.write(self._fd, rest)
                self._intake.kept(written)
                rest = rest[written:]

    def finish(self) -> ScanRecord:
        """The body is complete; returns when file and scan are on disk. Raises ReconError."""
        with self._recorded():
            self._settle(whole=True)
            with closing(convert(self._path, self._intake.get_buffer, self._config, group=self._group)) as counts:
                for count in counts:
                    self._intake.received(count)
        return self._intake.finish()

    def abort(self, reason: str) -> None:
        """The sender left or was too slow; what came is kept."""
        with self._recorded():
            self._settle(whole=False)
        self._intake.abort(reason)

    def _settle(self, *, whole: bool) -> None:
        self._intake.settle_file(self._fd, whole=whole)
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Write an error of the block into the scan's record, as the intake does with its own."""
        try:
            try:
                yield
            except OSError as error:
                raise _refusal(error) from error
        except ReconError as error:
            self._close()
            self._intake.fail(error)
            raise


def _refusal(error: OSError) -> RefusedError:
    if busy := no_descriptor(error, "keep the file"):
        return busy
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError("the spool's disk is full: free space and send the file again", retry_after_s=60.0)
    # Not the error itself, which names a path of the server's.
    return DiskFullError(f"the spool cannot keep the file ({error.strerror}): check the disk and send it again")

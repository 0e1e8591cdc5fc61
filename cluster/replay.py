"""A scan's raw bytes once more through assembly: after a restart, or because somebody asked."""

from __future__ import annotations

from cluster.intake import Reception
from recon.errors import FileError, ReconError


def replay(reception: Reception, *, complete: bool, reason: str) -> None:
    """Feed the spooled bytes of a scan to the scheduler.

    `complete`: its end was acknowledged, even without CLOSE; `reason` says why it is not, if it is not.
    """
    reception.begin()
    try:
        if complete or not _unread(reception):
            _feed(reception)
        if reception.desk.stopping():
            return
        complete = complete or reception.stream.closed
        if complete:
            reception.take(reception.stream.finish())
        reception.end(complete=complete, reason="" if complete else reason)
    except ReconError as error:
        reception.fail(error)


def _unread(reception: Reception) -> bool:
    """Whether the scan is a file whose reading into a stream has not begun."""
    path = reception.desk.spool.path(reception.live.record.id)
    return not path.exists() and path.with_suffix(".h5").exists()


def _feed(reception: Reception) -> None:
    stream, live = reception.stream, reception.live
    path = reception.desk.spool.path(live.record.id)
    try:
        with path.open("rb", buffering=0) as file:
            while not (stream.closed or reception.over or reception.desk.stopping()):
                count = file.readinto(stream.get_buffer())
                if not count:
                    break
                reception.take(stream.received(count))
                live.update(bytes=file.tell())
    except OSError as error:
        raise FileError(f"the raw data of scan {live.record.id} cannot be read ({error}): send it again") from error

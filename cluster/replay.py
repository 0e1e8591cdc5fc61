"""A scan's raw data once more through assembly, after a restart or because somebody asked: its bytes, or its file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from cluster.convert import convert
from cluster.intake import Desk, Intake, Reception
from cluster.live import LiveScan
from recon.errors import FileError, ReconError


def replay(reception: Reception, *, complete: bool, reason: str) -> None:
    """Feed the spooled bytes of a scan to the scheduler.

    `complete`: its end was acknowledged, even without CLOSE; `reason` says why it is not, if it is not.
    """
    reception.begin()
    try:
        _feed(reception)
        if reception.desk.stopping():
            return
        complete = complete or reception.stream.closed
        if complete:
            reception.take(reception.stream.finish())
        reception.end(complete=complete, reason="" if complete else reason)
    except ReconError as error:
        reception.fail(error)


def reread(desk: Desk, live: LiveScan, path: Path) -> None:
    """Make the stream of a scan's file at `path` anew; what there is of an earlier one is written over."""
    intake = Intake(desk, live, again=True)
    try:
        with closing(convert(path, intake.get_buffer, desk.config, group=live.record.group)) as counts:
            for count in counts:
                if desk.stopping():
                    return
                intake.received(count)
        intake.finish()
    except ReconError as error:
        intake.fail(error)
    finally:
        intake.suspend()


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

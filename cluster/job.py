"""What is known of a scan from the outside: the request, the record, its log lines and the errors about them."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from cluster.events import Priority, State
from recon.errors import ReconError, RefusedError

_SCAN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class RequestError(ReconError):
    """A parameter of a request is not what it may be."""


class MediaTypeError(RequestError):
    """The body is of a type that is not taken."""


class AcceptError(RequestError):
    """What is asked for is not made in any of the types that the client accepts."""


class RouteError(RequestError):
    """Nothing is served at this path."""


class VerbError(RequestError):
    """The path does not take this verb of HTTP."""


class SlowError(RequestError):
    """The request did not come in time."""


class NotFoundError(ReconError):
    """No scan with this id."""


class EndedError(ReconError):
    """The scan ended (cancelled, too large, …) while its data were still coming in."""


class FailedError(ReconError):
    """The scan ended without all of its images; `state` says how."""

    def __init__(self, message: str, *, state: State = State.FAILED) -> None:
        super().__init__(message)
        self.state = state


class DiskFullError(RefusedError):
    """The server's disk cannot take the scan: it is full, or it fails."""


class LedgerError(RefusedError):
    """The ledger's database cannot be read or written now, or belongs to another server, or to a newer version."""


class BusyError(RefusedError):
    """The server has no file descriptor left for the request."""


def no_descriptor(error: OSError, what: str) -> BusyError | None:
    """The refusal to do `what` where `error` says that no file descriptor is left; None where it says otherwise."""
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    words = f"the server cannot {what} now ({error.strerror}): try again later, or have it started with more open files"
    return BusyError(words, retry_after_s=2.0)


class ConflictError(RefusedError):
    """The scan is in a state that does not allow it."""


class DuplicateError(RefusedError):
    """A scan with the same idempotency key exists; `record` is that scan."""

    def __init__(self, record: ScanRecord) -> None:
        super().__init__(f"idempotency key already used by scan {record.id}: use that scan, or another key")
        self.record = record


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """How a scan comes in; `method` is a catalogue name or recipe JSON, "auto" leaves it to stream and header."""

    transport: str  # "tcp" or "http"
    method: str = "auto"
    priority: Priority = Priority.ROUTINE
    name: str = ""
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """A scan as the ledger keeps it; times are unix seconds, 0 where it has not happened."""

    id: str
    state: State
    transport: str
    method: str = "auto"  # as asked for beside the stream
    chosen: str = ""  # the method that the stream names, then the one that runs
    priority: Priority = Priority.ROUTINE
    name: str = ""
    idempotency_key: str = ""
    group: str = ""  # of the HDF5 file that was sent, where the scan stands; "" for a stream
    created_s: float = 0.0
    header_s: float = 0.0
    received_s: float = 0.0
    first_image_s: float = 0.0
    finished_s: float = 0.0
    bytes: int = 0
    readouts: int = 0
    frames: int = 0
    images: int = 0
    complete: bool = False  # the stream came to its end and is on disk
    reason: str = ""  # why it is not done, one sentence
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a scan's log."""

    scan: str
    time_s: float
    text: str


def outcome(record: ScanRecord) -> str:
    """State and reason of a scan in a few words, without saying "cancelled: cancelled on request"."""
    said = record.reason.startswith(record.state.value)
    return record.reason if said else ": ".join(filter(None, (record.state.value, record.reason)))


# Crockford's base 32: sorts like the numbers it writes, no letters that look alike.
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_scan_id(now_s: float, noise: bytes) -> str:
    """26 characters that sort by time (48 bits of milliseconds) and cannot be guessed (80 bits of `noise`)."""
    number = (int(now_s * 1000) & (2**48 - 1)) << 80 | int.from_bytes(noise[:10], "big")
    return "".join(_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


def check_scan_id(scan: str) -> str:
    """`scan` where it may be an id, by its letters; raises RequestError for one that would be another path."""
    if not _SCAN_ID.fullmatch(scan):
        raise RequestError(
            f"{scan[:40]!r} is no scan's id, expected letters and digits as `recon-cluster jobs` lists them: name one"
        )
    return scan

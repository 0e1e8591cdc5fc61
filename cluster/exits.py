"""Exit statuses of `recon-cluster`, the same for the same error in every subcommand."""

from __future__ import annotations

from recon.errors import LimitError, LostError, ReconError, RefusedError, ScanError

USAGE = 2  # wrong usage, unreadable input, or something that is not installed
REFUSED = 3  # by the server, or larger than is allowed
FAILED = 4  # the reconstruction
LOST = 5  # the server could not be reached, or was lost
INTERRUPTED = 130


def status_of(error: ReconError) -> int:
    """The exit status for an error that a subcommand did not turn into one itself."""
    from cluster.job import EndedError, FailedError  # with NumPy, before which `cluster.__main__` sets its threads

    if isinstance(error, RefusedError | LimitError):
        return REFUSED
    if isinstance(error, FailedError | EndedError | ScanError):
        return FAILED
    return LOST if isinstance(error, LostError) else USAGE

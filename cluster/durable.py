"""Names that survive a loss of power: a file's own fsync does not put its entry in the folder on the disk."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are on the disk; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it that are missing; their names are on the disk. Raises OSError."""
    places = [folder, *folder.parents]
    there = next(number for number, place in enumerate(places) if place.exists())
    # The name of one that is there may not be on the disk either: whoever made it may have been stopped before.
    with suppress(PermissionError):  # where we may not even read, it was not us
        sync_folder(places[there].parent)
    for place in reversed(places[:there]):
        place.mkdir(exist_ok=True)
        sync_folder(place.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))

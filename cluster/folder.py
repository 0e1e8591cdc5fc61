"""The data folder of a server: spool, ledger and results, used by one server at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import ExitStack, suppress
from pathlib import Path

from cluster.config import ClusterConfig, ConfigError
from cluster.durable import make_folder
from cluster.job import LedgerError
from cluster.ledger import Ledger
from cluster.results import ResultStore
from cluster.spool import Spool
from cluster.stream import wire_limits
from recon.errors import PackageError

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class DataFolder:
    """All that a server keeps on disk; `close` lets the next one have it."""

    def __init__(self, config: ClusterConfig) -> None:
        """Raises ConfigError when another server has the folder, or when it cannot be made or written."""
        self._open = ExitStack()
        try:
            self._open.callback(os.close, _claim(config.data))
            self._boot = config.data / "boot"
            self.intact = _same_boot(self._boot)  # no written byte was lost since the last server had it
            self.ledger = Ledger(config.ledger or config.ledger_path)
            self._open.callback(self.ledger.close)
            self.ledger.claim()
            self.results = ResultStore(config.results_folder, wire_limits(config))
            self.spool = _open_spool(config)
            self._open.callback(self.spool.close)
        except (LedgerError, PackageError) as error:
            self._open.close()
            raise ConfigError(str(error)) from error
        except (OSError, sqlite3.Error) as error:
            self._open.close()
            raise ConfigError(unusable(config.data, error)) from error

    def taken_up(self) -> None:
        """What the last server left is sorted out: as long as this kernel runs, what is written here is there.

        Not before: of a server that is killed first, the next must not take what a loss of power left for whole.
        """
        self._boot.write_text(_BOOT.read_text(encoding="ascii"), encoding="ascii")

    def close(self) -> None:
        """Close everything in it."""
        self._open.close()


def unusable(folder: Path, error: Exception) -> str:
    """Why a server cannot have the folder, and what helps."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of the data folder {folder} is full: free space there, or give another with --data"
    if number == errno.EROFS:
        return f"the disk of the data folder {folder} is mounted read-only: give another folder with --data"
    if number in (errno.EACCES, errno.EPERM):
        what = f"the user {os.geteuid()} may not write {getattr(error, 'filename', None) or folder}"
        return f"{what}, which the data folder {folder} needs: change its owner, or give another with --data"
    words = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
    return f"the data folder {folder} cannot be used ({words}): give one that can be written with --data"


def _claim(folder: Path) -> int:
    """Take the folder for this process: a descriptor that holds it, however the process ends."""
    make_folder(folder)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            words = f"another server uses the data folder {folder}: stop it, or give this one its own with --data"
            raise ConfigError(words) from None
        raise
    return descriptor


def _same_boot(path: Path) -> bool:
    """Whether the last server wrote here under the kernel that runs now: then what it wrote is there, synced or not."""
    before = ""
    with suppress(FileNotFoundError):  # nobody was here before
        before = path.read_text(encoding="ascii")
    return _BOOT.read_text(encoding="ascii") == before


def _open_spool(config: ClusterConfig) -> Spool:
    return Spool(
        config.spool_folder,
        sync_bytes=config.spool_sync_bytes,
        unsynced_bytes=config.spool_unsynced_bytes,
        free_bytes=config.spool_free_bytes,
    )

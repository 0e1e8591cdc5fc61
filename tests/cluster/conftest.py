"""A real PostgreSQL for the tests of this folder, started once where Debian's package is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest


class Postgres:
    """A server of its own in a temporary folder, reached by a Unix socket there, run by an ordinary user."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self._count = 0
        # It refuses to be run by root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "--auth=trust", "--username=recon", "--encoding=UTF8", "--no-sync", "--no-instructions")
        self.start()

    def start(self) -> None:
        """Return when it takes connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}'"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder}/log", f"--options={options}")

    def stop(self) -> None:
        """As a loss of power would: it recovers when it starts again."""
        self._run("pg_ctl", "stop", "--mode=immediate")

    def database(self) -> str:
        """The URL of a new database."""
        self._count += 1
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE test{self._count}".encode())
        return self._url(f"test{self._count}")

    def _url(self, name: str) -> str:
        return f"postgresql://recon@/{name}?host={self._folder}"

    def _run(self, program: str, *options: str) -> None:
        command = [str(self._programs / program), "--pgdata", str(self._folder / "data"), *options]
        done = subprocess.run(
            command, cwd=self._folder, user=self._user, capture_output=True, text=True, check=False, timeout=60.0
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server, which a test leaves running."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(places[-1]) if places else shutil.which("initdb")
    if found is None:
        pytest.skip("needs Debian's postgresql")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        server = Postgres(Path(folder), Path(found).parent)
        yield server
        server.stop()

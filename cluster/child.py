"""The process of one worker: takes batches from a connection until it closes."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection
from typing import cast

from cluster.channel import receive, send


def main(descriptor: int) -> int:
    """Serve the connection at `descriptor`; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server decides when we end
    connection = Connection(descriptor)
    try:
        return _serve(connection)
    except (EOFError, OSError):
        return 0  # the server is gone


def _serve(connection: Connection) -> int:
    from cluster.events import Batch
    from cluster.worker import Worker, WorkerSettings  # after main: the libraries it loads take a while
    from recon.errors import ReconError

    name, settings = cast(tuple[str, WorkerSettings], receive(connection))
    try:
        worker = Worker(name, settings)
    except ReconError as error:
        send(connection, str(error))
        return 1
    send(connection, worker.ready())
    while True:
        send(connection, worker.run(cast(Batch, receive(connection))))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

"""The process of one worker: takes batches from one connection until it closes, and beats on another."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, cast

from cluster.channel import receive, send

if TYPE_CHECKING:
    from cluster.worker import Worker


def main(work: int, alive: int) -> int:
    """Serve the connection at the descriptor `work`, with signs of life on `alive`; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server decides when we end
    try:
        return _serve(Connection(work), Connection(alive))
    except (EOFError, OSError):
        return 0  # the server is gone


def _beat(worker: Worker, alive: Connection) -> None:
    with suppress(OSError):  # the server is gone
        while True:
            time.sleep(worker.settings.heartbeat_s)
            send(alive, worker.heartbeat())


def _serve(connection: Connection, alive: Connection) -> int:
    from cluster.events import Batch
    from cluster.worker import Worker, WorkerSettings  # after main: the libraries it loads take a while
    from recon.errors import ReconError

    name, settings = cast(tuple[str, WorkerSettings], receive(connection))
    try:
        worker = Worker(name, settings, processor=time.process_time)
    except ReconError as error:
        send(connection, str(error))
        return 1
    send(connection, worker.ready())
    threading.Thread(target=_beat, args=(worker, alive), name="alive", daemon=True).start()
    while True:
        send(connection, worker.run(cast(Batch, receive(connection))))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""Our own processes talk in pickles whose arrays travel beside them, uncopied; nothing from a client is unpickled."""

from __future__ import annotations

import pickle
from multiprocessing.connection import Connection


def send(connection: Connection, value: object) -> None:
    """Send `value`; raises OSError when the other end is gone."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    connection.send_bytes(len(buffers).to_bytes(4, "little") + body)
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def receive(connection: Connection) -> object:
    """The next value; raises EOFError or OSError when the other end is gone."""
    body = connection.recv_bytes()
    count = int.from_bytes(body[:4], "little")
    buffers = [connection.recv_bytes() for _ in range(count)]
    return pickle.loads(memoryview(body)[4:], buffers=buffers)

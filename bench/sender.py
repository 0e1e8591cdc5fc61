"""One scanner of the load generator, a process of its own: sends frames over MRD/TCP and times the images coming back.

    python -m bench.sender HOST PORT CONFIG SECONDS FRAMES COILS LINES SAMPLES ACCELERATION

It prepares its bytes, prints `ready`, waits for a line on standard input, sends frames for SECONDS (at most FRAMES of
them), then CLOSE, and prints one JSON object of what it saw (`run` starts several of them and reads those objects).
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench import together
from bench.server import Endpoint
from bench.traffic import MAX_FRAMES, Frames, FrameSize
from recon.mrd import wire


@dataclass(frozen=True, slots=True)
class Load:
    """What each of the senders does: `config` name, for how long or how many frames, of which size."""

    config: str = "fft"
    seconds: float = 1e9
    frames: int = MAX_FRAMES
    size: FrameSize = field(default_factory=FrameSize)


def run(endpoint: Endpoint, load: Load, *, scanners: int = 1) -> list[dict[str, Any]]:
    """Let `scanners` processes send at once; one result object each."""
    size = load.size
    where = (endpoint.host, endpoint.port, load.config, load.seconds, load.frames)
    what = (size.coils, size.lines, size.samples, size.acceleration)
    command = [sys.executable, "-m", "bench.sender", *map(str, where + what)]
    return together.run([command] * scanners)


class Receiver(threading.Thread):
    """Reads until the server closes; `arrived` [image] are the times at which images came, by repetition."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        self.arrived: dict[int, float] = {}
        self.texts: list[str] = []
        self.closed = False

    def run(self) -> None:
        """Decode what the server sends."""
        decoder = wire.Decoder()
        while count := self.connection.recv_into(decoder.get_buffer()):
            now = time.perf_counter()
            for message in decoder.received(count):
                self._take(message, now)

    def _take(self, message: wire.Message, now: float) -> None:
        if isinstance(message, wire.ImageMessage):
            self.arrived[message.image.counters.repetition] = now
        elif isinstance(message, wire.Text):
            self.texts.append(message.text)
        elif isinstance(message, wire.Close):
            self.closed = True


def send(connection: socket.socket, frames: Frames, *, seconds: float, most: int) -> Iterator[float]:
    """Send frames back to back; yields the time at which each had been handed to the socket."""
    stop = time.perf_counter() + seconds
    for number in range(most):
        connection.sendall(frames.frame(number).data)
        yield time.perf_counter()
        if time.perf_counter() >= stop:
            return


def main() -> None:
    """One connection, one scan."""
    host, port, config, seconds, most, *size = sys.argv[1:]
    frames = Frames(FrameSize(*map(int, size)), config=config)
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    receiver = Receiver(connection)
    receiver.start()
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF)
    connection.sendall(frames.opening())
    sent = list(send(connection, frames, seconds=float(seconds), most=int(most)))
    connection.sendall(wire.encode_close())
    receiver.join(timeout=120)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "frames": len(sent),
        "bytes": len(sent) * frames.size.bytes,
        "images": len(receiver.arrived),
        "sending_s": sent[-1] - start,
        "total_s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime,
        "latency_s": [receiver.arrived[n] - moment for n, moment in enumerate(sent) if n in receiver.arrived],
        "texts": receiver.texts,
        "closed": receiver.closed,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

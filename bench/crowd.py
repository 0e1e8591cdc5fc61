"""Scanners that do not wait: each scan begins, and each frame is sent, when a plan says so, however slow the server is.

    python -m bench.crowd HOST PORT PLAN

PLAN is a JSON file of the `Crowd`. It prints `ready`, waits for a line on standard input, plays the plan and prints one
JSON object (`run` does all that). Times count from the moment that the plan gives, not from when the bytes went out:
what a slow server makes a scanner wait is part of the latency (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import together
from bench.server import Endpoint
from bench.traffic import Frames, FrameSize
from cluster.simulate import Arrival
from recon.mrd import wire

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Planned:
    """One scan: begins at `time_s`, its frames are complete every `interval_s` from then on."""

    time_s: float
    scanner: str
    frames: int
    interval_s: float

    def due_s(self, frame: int) -> float:
        """When the last readout of a frame is measured."""
        return self.time_s + (frame + 1) * self.interval_s


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a scan: when each image came (s since the start, by frame), texts, how late its first byte was."""

    planned: Planned
    arrived_s: dict[int, float] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    late_s: float = 0.0

    @property
    def refused(self) -> bool:
        """Whether the server did not take it."""
        return any("in flight" in text for text in self.texts)

    @property
    def whole(self) -> bool:
        """Whether every image came."""
        return len(self.arrived_s) == self.planned.frames

    def latencies_s(self) -> list[float]:
        """From a frame's last readout, by the plan, to its image."""
        return [time_s - self.planned.due_s(number) for number, time_s in self.arrived_s.items()]


@dataclass(frozen=True, slots=True)
class Played:
    """All scans, and the CPU time that sending and receiving took."""

    scans: list[Seen]
    cpu_s: float

    def arrived_s(self) -> list[float]:
        """When images came, in order."""
        return sorted(time_s for scan in self.scans for time_s in scan.arrived_s.values())


def run(endpoint: Endpoint, arrivals: Sequence[Arrival], *, config: str, size: FrameSize) -> Played:
    """Play `arrivals` from a process of its own; raises RuntimeError when a scan was neither done nor refused."""
    scans = [Planned(a.time_s, a.scanner, a.kind.frames, a.kind.interval_s) for a in arrivals]
    with TemporaryDirectory() as folder:
        path = Path(folder, "plan.json")
        path.write_text(json.dumps([config, asdict(size), [asdict(scan) for scan in scans]]), encoding="utf-8")
        command = [sys.executable, "-m", "bench.crowd", endpoint.host, str(endpoint.port), str(path)]
        (result,) = together.run([command])
    seen = [
        Seen(scan, {int(n): t for n, t in one["arrived_s"].items()}, one["texts"], one["late_s"])
        for scan, one in zip(scans, result["scans"], strict=True)
    ]
    for scan in seen:
        if not (scan.whole or scan.refused):
            raise RuntimeError(f"{len(scan.arrived_s)} of {scan.planned.frames} images came, {scan.texts}")
    return Played(seen, result["cpu_s"])


class _Scanners:
    """Plays scans on one event loop, all with the same frames."""

    def __init__(self, host: str, port: int, frames: Frames) -> None:
        self._place = host, port
        self._frames = frames
        self._start = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._start

    async def play(self, scans: Sequence[Planned]) -> list[Seen]:
        return await asyncio.gather(*(self._scan(scan) for scan in scans))

    async def _scan(self, planned: Planned) -> Seen:
        await self._until(planned.time_s)
        seen = Seen(planned, late_s=self.now() - planned.time_s)
        reader, writer = await asyncio.open_connection(*self._place)
        listening = asyncio.create_task(self._listen(reader, seen))
        with suppress(ConnectionError):  # the server refused the scan and has closed: its text says so
            await self._send(writer, planned)
        await listening
        writer.close()
        return seen

    async def _send(self, writer: asyncio.StreamWriter, planned: Planned) -> None:
        writer.write(self._frames.opening(planned.scanner))
        for number in range(planned.frames):
            await self._until(planned.due_s(number))
            if writer.transport.is_closing():
                return
            writer.write(self._frames.frame(number).tobytes())
            await writer.drain()
        writer.write(wire.encode_close())
        await writer.drain()

    async def _listen(self, reader: asyncio.StreamReader, seen: Seen) -> None:
        decoder = wire.Decoder()
        while data := await self._read(reader):
            for message in decoder.feed(data):
                if isinstance(message, wire.ImageMessage):
                    seen.arrived_s[message.image.counters.repetition] = self.now()
                elif isinstance(message, wire.Text):
                    seen.texts.append(message.text)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(_PIECE)
        except ConnectionError:
            return b""

    async def _until(self, time_s: float) -> None:
        await asyncio.sleep(max(0.0, time_s - self.now()))


def main() -> None:
    """One crowd."""
    host, port, path = sys.argv[1:]
    config, size, scans = json.loads(Path(path).read_text(encoding="utf-8"))
    frames = Frames(FrameSize(**size), config=config)
    print("ready", flush=True)
    sys.stdin.readline()
    before = resource.getrusage(resource.RUSAGE_SELF)
    seen = asyncio.run(_Scanners(host, int(port), frames).play([Planned(**scan) for scan in scans]))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"scans": [asdict(scan) for scan in seen], "cpu_s": cpu_s}), flush=True)


if __name__ == "__main__":
    main()

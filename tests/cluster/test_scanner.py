"""Simulated scanners against a server that speaks the protocol over a real socket and can misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

from cluster.calls import Patience
from cluster.client import Options
from cluster.job import FailedError
from cluster.scanner import POLL_S, ScannerTimeouts, SimulatedScanner, Stage, Status, play
from recon.assemble import Assembler
from recon.errors import LostError, RefusedError
from recon.mrd.header import parse_header
from recon.mrd.wire import AcquisitionRun, Close, Decoder, HeaderXml, encode_close, encode_image, encode_text
from recon.scan import Counters, Geometry, Image
from recon.simulate import SimulatedScan, simulate

HASTY = Options(patience=Patience(attempts=1, arrival_s=0.0))
SOON = ScannerTimeouts(send_s=5, image_s=0.5, last_words_s=2)


@cache
def brain() -> SimulatedScan:
    return simulate("brain-se", matrix=16, coils=2)


def answer(counters: Counters) -> bytes:
    pixels = np.full((1, 1, 4, 4), counters.slice, np.float32)
    return encode_image(Image(pixels, (1.0, 1.0, 1.0), Geometry(), counters))


@dataclass
class Server:
    """One connection: reads a scan and answers each complete frame with an image `delay_s` later.

    `after` is how many readouts it takes until `then` is done instead of anything else.
    """

    delay_s: float = 0.0
    after: int = 1 << 30
    then: Callable[[socket.socket], None] | None = None
    at_end: Callable[[socket.socket], None] = lambda connection: connection.sendall(encode_close())
    readouts: int = 0
    bytes: int = 0
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def run(self) -> None:
        with suppress(OSError):  # the scanner may leave first, that is for it to say
            connection, _ = self.listener.accept()
            with connection:
                self.serve(connection)

    def serve(self, connection: socket.socket) -> None:
        decoder, assembler = Decoder(), None
        while count := connection.recv_into(decoder.get_buffer()):
            self.bytes += count
            for message in decoder.received(count):
                if isinstance(message, HeaderXml):
                    assembler = Assembler(parse_header(message.xml))
                elif isinstance(message, AcquisitionRun):
                    assert assembler is not None
                    self.readouts += len(message.readouts.head)
                    for frame in assembler.add(message.readouts.head):
                        time.sleep(self.delay_s)
                        connection.sendall(answer(frame.counters))
                elif isinstance(message, Close):
                    self.at_end(connection)
                    return
                if self.readouts >= self.after and self.then is not None:
                    self.then(connection)
                    return


@contextmanager
def served(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.listener.close()
        thread.join(10)
        assert not thread.is_alive()


def complain(connection: socket.socket) -> None:
    """Say why, close, and take what is still on its way, as the gateway does."""
    connection.sendall(encode_text("ERROR the knee is not a brain: send a brain") + encode_close())
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(5)
    while connection.recv(1 << 16):
        pass


def test_a_scan_goes_out_and_its_images_come_back() -> None:
    with served(Server()) as server:
        scanner = SimulatedScanner(brain(), speed=0)
        assert scanner.status().stage is Stage.READY
        scanner.over_tcp("127.0.0.1", server.port)
    assert server.readouts == len(brain().start_s)
    assert [image.counters.slice for image in scanner.images] == [0, 2, 4, 1, 3]
    assert [image.pixels[0, 0, 0, 0] for image in scanner.images] == [0, 2, 4, 1, 3]
    status = scanner.status()
    assert (status.stage, status.reason) == (Stage.DONE, "")
    assert (status.readouts, status.readouts_of) == (server.readouts, server.readouts)
    assert status.sent_bytes == server.bytes
    assert (status.images, status.images_of) == (5, 5)
    assert status.readouts_per_s == pytest.approx(status.readouts / status.sending_s)
    assert status.bytes_per_s == pytest.approx(status.sent_bytes / status.sending_s)


def test_latency_counts_from_the_images_own_last_readout() -> None:
    with served(Server(delay_s=0.05)) as server:
        scanner = SimulatedScanner(brain(), speed=0)
        scanner.over_tcp("127.0.0.1", server.port)
    assert len(scanner.latencies_s) == 5
    # All is sent at once, then the server takes 0.05 s for each image.
    assert all(latency >= 0.05 * n - 0.01 for n, latency in enumerate(scanner.latencies_s, start=1))
    assert scanner.status().latency_s == scanner.latencies_s[-1]


def test_the_pace_is_the_sequences() -> None:
    """Sixteen TR of 450 ms and a noise scan, sixteen times as fast: never ahead of the sequence."""
    seconds = brain().start_s[-1] / 16
    with served(Server()) as server:
        scanner = SimulatedScanner(brain(), speed=16)
        scanner.over_tcp("127.0.0.1", server.port)
    # The upper bound only tells a pace from none: a loaded machine may pause for long.
    assert seconds <= scanner.status().sending_s < seconds + 5
    assert server.readouts == len(brain().start_s)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scanner = SimulatedScanner(brain(), speed=0)
    with pytest.raises(LostError, match=f"server at 127.0.0.1:{port} cannot be reached .*check its address"):
        scanner.over_tcp("127.0.0.1", port, options=HASTY)
    assert scanner.status().stage is Stage.FAILED
    assert "cannot be reached" in scanner.status().reason


def test_a_server_that_comes_later_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said: list[str] = []
    came: list[Server] = []

    def come(words: str) -> None:
        said.append(words)
        came.append(Server(listener=socket.create_server(("127.0.0.1", port))))
        threading.Thread(target=came[0].run, daemon=True).start()

    scanner = SimulatedScanner(brain(), speed=0)
    scanner.over_tcp("127.0.0.1", port, options=Options(patience=Patience(first_pause_s=0.1), notice=come))
    came[0].listener.close()
    assert said == [f"no server at 127.0.0.1:{port} yet, trying for 60 s"]
    assert len(scanner.images) == 5


def test_a_scanner_can_be_stopped_while_no_server_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scanner = SimulatedScanner(brain(), name="third", speed=0)
    patience = Patience(first_pause_s=60.0, longest_pause_s=60.0)
    options = Options(patience=patience, notice=lambda words: scanner.stop())
    with pytest.raises(LostError, match=f"scanner third was stopped before 127.0.0.1:{port} answered: start it again"):
        scanner.over_tcp("127.0.0.1", port, options=options)


def test_a_server_refuses_in_the_middle_and_the_scanner_stops() -> None:
    with served(Server(after=130, then=complain)) as server:
        scanner = SimulatedScanner(brain(), speed=4)
        began = time.monotonic()
        with pytest.raises(RefusedError, match=r"^the knee is not a brain: send a brain$"):
            scanner.over_tcp("127.0.0.1", server.port)
    assert time.monotonic() - began < brain().start_s[-1] / 4
    assert scanner.status().readouts < len(brain().start_s)


def test_a_server_fails_at_the_end() -> None:
    with served(Server(at_end=complain)) as server:
        scanner = SimulatedScanner(brain(), speed=0)
        with pytest.raises(FailedError, match=r"^the knee is not a brain: send a brain$"):
            scanner.over_tcp("127.0.0.1", server.port)
    assert len(scanner.images) == 5


def test_a_server_hangs_up() -> None:
    with served(Server(at_end=lambda connection: None)) as server:
        scanner = SimulatedScanner(brain(), speed=0)
        with pytest.raises(LostError, match=r"was lost after 208 of 208 readouts and 5 images \(it hung up before"):
            scanner.over_tcp("127.0.0.1", server.port)


def test_a_server_hangs_up_in_the_middle() -> None:
    with served(Server(after=130, then=lambda connection: None)) as server:
        scanner = SimulatedScanner(brain(), speed=4, timeouts=SOON)
        with pytest.raises(LostError, match=r"was lost after \d+ of 208 readouts and 0 images"):
            scanner.over_tcp("127.0.0.1", server.port)


def test_a_server_closes_in_the_middle_without_a_reason() -> None:
    def close(connection: socket.socket) -> None:
        connection.sendall(encode_close())
        while connection.recv(1 << 16):
            pass

    with served(Server(after=130, then=close)) as server:
        scanner = SimulatedScanner(brain(), speed=4)
        with pytest.raises(LostError, match=r"ended the scan after \d+ of 208 readouts and 0 images without a reason"):
            scanner.over_tcp("127.0.0.1", server.port)


class Pondering(SimulatedScanner):
    """A scanner on a machine that is busy while it makes up its mind."""

    def _judge(self, *args: Any, **options: Any) -> None:
        time.sleep(2 * POLL_S)  # its listener runs meanwhile
        super()._judge(*args, **options)


@pytest.mark.parametrize("kind", [SimulatedScanner, Pondering])
def test_a_server_says_nothing_more(kind: type[SimulatedScanner]) -> None:
    """And the scanner does not take its own hanging up for the server's, however late it judges."""

    def wait(connection: socket.socket) -> None:
        connection.settimeout(10)
        connection.recv(1)  # until the scanner hangs up

    with served(Server(at_end=wait)) as server:
        scanner = kind(brain(), speed=0, timeouts=SOON)
        with pytest.raises(LostError, match=r"said nothing for 0\.5 s after 208 of 208 readouts and 5 images"):
            scanner.over_tcp("127.0.0.1", server.port)


def test_a_server_talks_nonsense() -> None:
    with served(Server(at_end=lambda connection: connection.sendall(b"\xff\xff"))) as server:
        scanner = SimulatedScanner(brain(), speed=0)
        with pytest.raises(LostError, match="unknown message id 65535"):
            scanner.over_tcp("127.0.0.1", server.port)


def test_a_scanner_can_be_stopped() -> None:
    with served(Server()) as server:
        scanner = SimulatedScanner(brain(), name="third", speed=1)
        threading.Timer(0.3, scanner.stop).start()
        began = time.monotonic()
        with pytest.raises(LostError, match=r"scanner third was stopped after \d+ of 208 readouts and 0 images"):
            scanner.over_tcp("127.0.0.1", server.port)
    assert time.monotonic() - began < brain().start_s[-1]


def test_several_play_at_once_and_errors_keep_their_order() -> None:
    seen: list[list[Status]] = []
    with served(Server()) as good, served(Server(at_end=complain)) as bad:
        ports = iter([bad.port, good.port])
        scanners = [SimulatedScanner(brain(), name=name, speed=16) for name in ("one", "two")]
        place = {scanner.name: next(ports) for scanner in scanners}
        errors = play(scanners, lambda s: s.over_tcp("127.0.0.1", place[s.name]), watch=seen.append, every_s=0.05)
    assert [str(error) for error in errors] == ["the knee is not a brain: send a brain"]
    assert [status.stage for status in seen[-1]] == [Stage.FAILED, Stage.DONE]
    assert any(status.stage is Stage.MEASURING for statuses in seen for status in statuses)
    assert all(len(statuses) == 2 for statuses in seen)

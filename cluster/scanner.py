"""Simulated scanners: a simulated scan played to a server at the pace of its sequence, while its images come back.

The scan is on tape before it starts, so that playing it costs little: what is due goes out in one piece.
"""

from __future__ import annotations

import socket
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from cluster.client import FIRST_CONNECT_S, Client, Options
from cluster.job import FailedError
from cluster.tape import record
from recon.errors import LostError, ReconError, RefusedError
from recon.mrd.wire import ERROR, Close, Decoder, ImageMessage, Message, Text
from recon.scan import Counters, Image
from recon.simulate import SimulatedScan

SEND_BYTES = 1 << 20  # of one piece: large enough for full speed, small enough to time the readouts in it
PAUSE_S = 0.002  # the shortest pause: readouts due within it go out together
POLL_S = 0.25  # how often a waiting thread looks whether it still should


class Stage(StrEnum):
    """Where a scanner is on its way."""

    READY = "ready"
    MEASURING = "measuring"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Status:
    """A scanner at one moment: what it has sent, what came back, and how fast.

    `latency_s` is the time from the last image's last readout to that image.
    """

    name: str
    stage: Stage
    readouts: int
    readouts_of: int
    sent_bytes: int
    sending_s: float
    images: int
    images_of: int
    latency_s: float | None
    reason: str

    @property
    def readouts_per_s(self) -> float:
        """Readouts sent per second of sending."""
        return self.readouts / self.sending_s if self.sending_s else 0.0

    @property
    def bytes_per_s(self) -> float:
        """Bytes sent per second of sending."""
        return self.sent_bytes / self.sending_s if self.sending_s else 0.0


@dataclass(frozen=True, slots=True)
class ScannerTimeouts:
    """How long a scanner waits, in seconds: for a server that takes nothing, for the next image."""

    send_s: float = 60.0
    image_s: float = 120.0
    last_words_s: float = 5.0  # for the reason of a server that hung up


class SimulatedScanner:
    """Plays one simulated scan to a server, once, at `speed` times its pace (0: as fast as the wire takes it).

    `images` are those that came back, in the order of arrival; `latencies_s` the times from their last readouts.
    """

    def __init__(
        self,
        simulated: SimulatedScan,
        *,
        name: str = "",
        speed: float = 1.0,
        method: str = "auto",
        timeouts: ScannerTimeouts = ScannerTimeouts(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name or simulated.protocol.name
        self.simulated = simulated
        self.images: list[Image] = []
        self.latencies_s: list[float] = []
        self._speed, self._method, self._timeouts = speed, method, timeouts
        self._clock = clock
        self._tape = record(simulated, method=method)
        self._lock = threading.Lock()
        self._stage, self._reason = Stage.READY, ""
        self._began_s = 0.0
        self._sent: list[int] = []  # bytes sent, after each piece
        self._sent_s: list[float] = []  # and when that was
        self._stopped = False
        self._ended = threading.Event()  # nothing more needs to be sent

    def over_tcp(self, host: str, port: int, *, options: Options | None = None) -> None:
        """Play the scan over MRD/TCP and take its images; raises LostError, RefusedError or FailedError.

        `options` say how long to try where no server answers, and who hears of it; by default those of a `Client`.
        """
        with self._outcome(), self._connected(host, port, options or Options()) as connection:
            listener = Listener(connection, self._take, self._ended)
            listener.start()
            try:
                whole = self._converse(connection, listener)
                # Before we hang up: afterwards the listener cannot tell our end from the server's.
                self._judge(listener, f"{host}:{port}", whole=whole)
            finally:
                with suppress(OSError):  # the server may have gone first
                    connection.shutdown(socket.SHUT_RDWR)

    def over_http(self, client: Client) -> None:
        """Play the scan as an HTTP upload, then take its images; raises what `client` raises."""
        with self._outcome():
            pieces = (bytes(piece) for piece in self._pieces())
            scan = client.submit(pieces, method=self._method, name=self.name)
            for image in scan.images():
                self._take(image)

    def stop(self) -> None:
        """Send nothing more and wait for nothing; the server sees a scan that breaks off."""
        self._stopped = True
        self._ended.set()

    def status(self) -> Status:
        """What has happened so far; any thread may ask."""
        with self._lock:
            sent = self._sent[-1] if self._sent else 0
            messages = int(np.searchsorted(self._tape.ends, sent, side="right"))
            return Status(
                name=self.name,
                stage=self._stage,
                readouts=int(self._tape.readouts[messages - 1]) if messages else 0,
                readouts_of=int(self._tape.readouts[-1]),
                sent_bytes=sent,
                sending_s=self._sent_s[-1] - self._began_s if self._sent else 0.0,
                images=len(self.images),
                images_of=len(self._tape.images),
                latency_s=self.latencies_s[-1] if self.latencies_s else None,
                reason=self._reason,
            )

    # ---- sending ----

    @contextmanager
    def _connected(self, host: str, port: int, options: Options) -> Iterator[socket.socket]:
        with self._connect(host, port, options) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(self._timeouts.send_s)
            yield connection

    def _connect(self, host: str, port: int, options: Options) -> socket.socket:
        """A connection, tried for as often as the client of HTTP does."""
        address, limit_s = f"{host}:{port}", options.connect_timeout_s
        tries, timeout_s = options.tries(address), min(FIRST_CONNECT_S, limit_s)
        while not self._stopped:
            try:
                return socket.create_connection((host, port), timeout=timeout_s)
            except OSError as error:
                what = f"the server at {address} cannot be reached ({_words(error)})"
                lost = LostError(f"{what}: check its address and that it runs")
                further_s = limit_s if isinstance(error, TimeoutError) else 0.0
                self._ended.wait(tries.pause(lost, attempt_s=further_s, absent=True).seconds)
            timeout_s = limit_s
        raise LostError(f"the scanner {self.name} was stopped before {address} answered: start it again")

    def _converse(self, connection: socket.socket, listener: Listener) -> bool:
        """Send, and wait for what the server has to say; whether all was sent."""
        try:
            whole = self._send(connection)
            self._await(listener)
        except OSError as error:
            listener.join(self._timeouts.last_words_s)
            listener.fault = listener.fault or _words(error)
            return False
        return whole

    def _send(self, connection: socket.socket) -> bool:
        """Send what is due when it is due; whether all of it was sent."""
        for piece in self._pieces():
            connection.sendall(piece)
        return bool(self._sent) and self._sent[-1] == len(self._tape.data)

    def _pieces(self) -> Iterator[memoryview]:
        """The tape in pieces, each as soon as it is due; asking for the next says that the last one is sent."""
        data, at = self._tape.data, 0
        self._began_s = self._clock()
        self._enter(Stage.MEASURING)
        while at < len(data) and not self._ended.is_set():
            end = min(self._due(), at + SEND_BYTES)
            if end > at:
                yield data[at:end]
                at = end
                self._mark(at)
            else:
                self._ended.wait(self._pause(at))
        self._enter(Stage.WAITING)

    def _due(self) -> int:
        """How many bytes of the tape are due by now."""
        if not self._speed:
            return len(self._tape.data)
        elapsed_s = (self._clock() - self._began_s) * self._speed
        messages = int(np.searchsorted(self._tape.due_s, elapsed_s, side="right"))
        return int(self._tape.ends[messages - 1]) if messages else 0

    def _pause(self, at: int) -> float:
        """Seconds until the message at byte `at` is due."""
        due_s = float(self._tape.due_s[np.searchsorted(self._tape.ends, at, side="right")])
        return max(PAUSE_S, self._began_s + due_s / self._speed - self._clock())

    def _mark(self, at: int) -> None:
        with self._lock:
            self._sent.append(at)
            self._sent_s.append(self._clock())

    # ---- receiving ----

    def _take(self, image: Image) -> None:
        now = self._clock()
        with self._lock:
            self.images.append(image)
            sent_s = self._sent_at(image.counters)
            if sent_s is not None:
                self.latencies_s.append(max(0.0, now - sent_s))

    def _sent_at(self, counters: Counters) -> float | None:
        """When the last readout of an image was sent; None for an image that the scan does not have."""
        message = self._tape.images.get(counters)
        if message is None:
            return None
        piece = bisect_left(self._sent, int(self._tape.ends[message]))
        # An image may overtake the note that its readouts are sent: then it came at once.
        return self._sent_s[piece] if piece < len(self._sent) else self._clock()

    def _await(self, listener: Listener) -> None:
        """Return when the server has ended the conversation or said nothing for too long, or the scanner is stopped."""
        heard, since_s = -1, self._clock()
        while listener.is_alive() and not self._stopped and self._clock() - since_s < self._timeouts.image_s:
            if listener.received_bytes != heard:
                heard, since_s = listener.received_bytes, self._clock()
            listener.join(POLL_S)

    def _judge(self, listener: Listener, address: str, *, whole: bool) -> None:
        """Raise what went wrong in a conversation that is over."""
        status = self.status()
        so_far = f"after {status.readouts} of {status.readouts_of} readouts and {status.images} images"
        if self._stopped:
            raise LostError(f"the scanner {self.name} was stopped {so_far}: start it again to measure anew")
        if listener.reason:
            raise FailedError(listener.reason) if whole else RefusedError(listener.reason)
        if listener.fault:
            raise LostError(
                f"the server at {address} was lost {so_far} ({listener.fault}): see its log, then try again"
            )
        if not listener.closed:
            silence = f"said nothing for {self._timeouts.image_s:g} s"
            raise LostError(f"the server at {address} {silence} {so_far}: see its log, then try again")
        if not whole:
            raise LostError(f"the server at {address} ended the scan {so_far} without a reason: see its log")

    # ---- state ----

    def _enter(self, stage: Stage, reason: str = "") -> None:
        with self._lock:
            self._stage, self._reason = stage, reason

    @contextmanager
    def _outcome(self) -> Iterator[None]:
        try:
            yield
        except ReconError as error:
            self._enter(Stage.FAILED, str(error))
            raise
        self._enter(Stage.DONE)


class Listener(threading.Thread):
    """Takes what a server says on one connection until it ends it."""

    def __init__(self, connection: socket.socket, take: Callable[[Image], None], ended: threading.Event) -> None:
        super().__init__(name="scanner-listener", daemon=True)
        # A second object for the same connection: its timeout is apart from the sending side's.
        self._connection = connection.dup()
        self._connection.settimeout(POLL_S)
        self._take = take
        self._ended = ended
        self.received_bytes = 0
        self.reason = ""  # the server's words for why the scan did not work
        self.fault = ""  # what broke the conversation
        self.closed = False  # the server said that it is finished

    def run(self) -> None:
        """Listen."""
        decoder = Decoder()
        try:
            with closing(self._connection):
                while not self.closed and not self.fault:
                    self._listen(decoder)
        except (OSError, ReconError) as error:
            self.fault = _words(error)
        finally:
            self._ended.set()

    def _listen(self, decoder: Decoder) -> None:
        try:
            count = self._connection.recv_into(decoder.get_buffer())
        except TimeoutError:
            return
        if not count:
            self.fault = "it hung up before the close message"
            return
        self.received_bytes += count
        for message in decoder.received(count):
            self._hear(message)

    def _hear(self, message: Message) -> None:
        match message:
            case ImageMessage(image=image):
                self._take(image)
            case Text(text=text) if text.startswith(ERROR):
                self.reason = text.removeprefix(ERROR)
                self._ended.set()
            case Close():
                self.closed = True


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


# ---- several at once ----

Link = Callable[[SimulatedScanner], None]


def play(
    scanners: Sequence[SimulatedScanner], link: Link, *, watch: Callable[[list[Status]], None], every_s: float = POLL_S
) -> list[ReconError]:
    """Let all `scanners` begin at once over `link` and tell `watch` how they are; returns what went wrong, in order."""
    errors: dict[int, ReconError] = {}

    def run(number: int) -> None:
        try:
            link(scanners[number])
        except ReconError as error:
            errors[number] = error

    threads = [threading.Thread(target=run, args=(i,), name=f"scanner-{i}", daemon=True) for i in range(len(scanners))]
    for thread in threads:
        thread.start()
    try:
        while alive := [thread for thread in threads if thread.is_alive()]:
            watch([scanner.status() for scanner in scanners])
            alive[0].join(every_s)
    finally:
        for scanner in scanners:
            scanner.stop()  # after an interrupt, none goes on alone
    watch([scanner.status() for scanner in scanners])
    return [errors[number] for number in sorted(errors)]

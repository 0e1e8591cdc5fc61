"""A scan coming in: bytes to the spool, frames to the scheduler, states to the ledger. Knows no socket."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from cluster.config import ClusterConfig
from cluster.events import BytesReceived, Event, Priority, Refused, ScanOpened, ScanReceived, ScanRefused, State
from cluster.job import BusyError, EndedError, ScanRecord
from cluster.live import LiveScan
from cluster.noise import NoiseStore
from cluster.recorder import Recorder
from cluster.spool import Spool, SpoolFile
from cluster.stream import ScanStream, Step
from recon.dependency import scanner_of
from recon.errors import (
    FileError,
    HeaderError,
    InputError,
    LimitError,
    RecipeError,
    ReconError,
    RefusedError,
    ScanError,
)
from recon.mrd.wire import Message
from recon.recipe import AUTO

# Telling the scheduler of every chunk would cost more than receiving it.
_REPORT_BYTES = 16 << 20
# Spliced before it is decoded, where so much waits: decoding a piece costs 0.2 ms however few readouts it has.
_PIECE_BYTES = 16 << 20
_WORDS: tuple[tuple[type[ReconError], Refused], ...] = (
    (RecipeError, Refused.RECIPE),
    (HeaderError, Refused.HEADER),
    (LimitError, Refused.LIMITS),
    (BusyError, Refused.FULL),
    (RefusedError, Refused.DISK),
    (FileError, Refused.FILE),
    (InputError, Refused.WIRE),
    (ScanError, Refused.WIRE),
    (ReconError, Refused.FAULT),
)


@dataclass(frozen=True, slots=True)
class Desk:
    """What receiving needs of the server."""

    config: ClusterConfig
    spool: Spool
    recorder: Recorder
    post: Callable[[Event], None]
    wait_for_room: Callable[[], bool]  # waits a moment; whether a further frame may be queued
    clock: Callable[[], float]
    steady: Callable[[], float]  # the clock that times scans: nobody sets it
    forget: Callable[[LiveScan], None]  # nothing came of it: as if it had never been there
    stopping: Callable[[], bool]  # the server is about to end: what is not done now is taken up by the next


class Reception:
    """Passes a stream's frames on, wherever its bytes come from: a client now, or the spool after a restart."""

    def __init__(self, desk: Desk, live: LiveScan) -> None:
        record = live.record
        self.desk = desk
        self.live = live
        self._begun_s: float | None = None
        self.stream = ScanStream(
            record.id,
            desk.spool.path(record.id),
            config=desk.config,
            method=record.method,
            store=NoiseStore(desk.config),
        )

    def begin(self) -> float:
        """The scan's first byte is here, now or since an earlier call; the time of that."""
        if self._begun_s is None:
            self._begun_s = self.desk.steady()
        return self._begun_s

    def take(self, step: Step) -> None:
        """Open the scan when its header came, hand on its frames, then raise the step's error if it has one."""
        if self.stream.header is not None and not self.live.opened:
            self._open()
        for text in step.remarks:
            self.desk.recorder.write(self.live, text)
        self.live.lender = self.stream.lender
        for frame in step.frames:
            while not (self.desk.wait_for_room() or self.over or self.desk.stopping()):
                pass
            self.desk.post(frame)
        if step.frames:
            self.live.update(
                frames=self.stream.frames, readouts=self.stream.readouts, chosen=step.frames[-1].recipe.method
            )
        if self.stream.unfit:  # all else goes on: raw data are kept, for another method
            self.live.update(chosen=self.stream.recipe.method)
        for text in step.warnings:
            self.warn(text)
        if step.error is not None:
            raise step.error

    @property
    def over(self) -> bool:
        """Whether somebody ended the scan: cancelled it, or found it impossible."""
        return self.live.cancelled or self.live.ended.is_set()

    def warn(self, text: str) -> None:
        """Put a remark into record and log, once."""
        if self.live.warn(text):
            self.desk.recorder.write(self.live, f"warning: {text}")

    def end(self, *, complete: bool, reason: str = "") -> None:
        """All bytes there will ever be are on disk; raises RefusedError if that cannot be written down."""
        live, clock = self.live, self.desk.clock
        state = State.ACCEPTED if complete else live.record.state
        received_s = live.record.received_s or clock()
        live.update(received_s=received_s, complete=complete, state=state, readouts=self.stream.readouts)
        line = f"received {live.record.readouts} readouts, {live.record.bytes} bytes"
        self.desk.recorder.write_through(live, line)
        self._received(complete=complete, reason=reason or self.stream.unfit)

    def fail(self, error: ReconError) -> None:
        """The input is bad: frames that were complete are still done, then the scan has failed."""
        self.live.update(received_s=self.desk.clock(), readouts=self.stream.readouts, complete=False)
        self._received(complete=False, reason=str(error), failed=True, word=_word(error))

    def _received(self, *, complete: bool, reason: str, failed: bool = False, word: Refused = Refused.LEFT) -> None:
        self.live.lasting_bytes = self.stream.lasting_bytes
        if self.live.opened:
            self.desk.post(ScanReceived(self.live.record.id, complete, self.stream.frames, reason, failed))
            return
        if not self.live.cancelled:
            self.desk.post(ScanRefused(word))
        self.desk.recorder.end(self.live, State.FAILED if failed else State.INCOMPLETE, reason=reason)

    def _open(self) -> None:
        live, stream = self.live, self.stream
        # Not the method asked for: it would fix what the stream is yet to say, here and when the scan runs again.
        named = "" if stream.recipe.method == AUTO else stream.recipe.method
        live.update(header_s=live.record.header_s or self.desk.clock(), chosen=named)
        self.desk.recorder.write(live, f"header accepted, method {stream.recipe.method}")
        record = live.record
        deadline_s = _deadline_s(self.desk.config, record.priority)
        with live.gate:  # a cancellation comes either before, or after the scheduler knows the scan
            if live.cancelled:
                return
            asked = record.priority, stream.recipe.method, record.transport
            scanner = scanner_of(stream.header) if stream.header else ""
            self.desk.post(ScanOpened(record.id, *asked, deadline_s, begun_s=self.begin(), scanner=scanner))
            live.opened = True


class Intake:
    """One scan being received, over any transport; used by one thread at a time."""

    def __init__(self, desk: Desk, live: LiveScan, *, again: bool = False) -> None:
        """`again`: its data came in before, and are not counted as received once more."""
        self.scan_id = live.record.id
        self._desk = desk
        self._live = live
        self._reception = Reception(desk, live)
        self._stream = self._reception.stream
        self._buffer = memoryview(b"")
        self._file: SpoolFile | None = None
        self._bytes = 0
        self._reported = (0, 0)  # bytes, readouts
        self._over = False
        self._again = self._kept = again
        self._spliced = False

    @property
    def closed(self) -> bool:
        """Whether the CLOSE message was seen."""
        return self._stream.closed

    @property
    def has_header(self) -> bool:
        """Whether the scan's header was accepted."""
        return self._stream.header is not None

    @property
    def readouts(self) -> int:
        """Readouts so far."""
        return self._stream.readouts

    @property
    def record(self) -> ScanRecord:
        """The scan's record as of now."""
        return self._live.record

    def get_buffer(self) -> memoryview:
        """Where the next bytes go, for `recv_into`."""
        self._buffer = self._stream.get_buffer()
        return self._buffer

    def received(self, count: int) -> list[Message]:
        """Keep and understand the `count` bytes just written; returns messages other than readouts.

        Raises ReconError on bad input, and EndedError when the scan was ended meanwhile; what came is kept.
        """
        return self._take(lambda file: file.append(self._buffer[:count]), lambda _: self._stream.received(count))

    def feed(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """The same for bytes that the caller holds."""
        view = memoryview(data).cast("B")
        return self._take(lambda file: file.append(view), lambda _: self._stream.feed(view))

    def receive(self, source: int) -> tuple[int, list[Message]]:
        """Keep and understand what waits in the socket with descriptor `source`, without a receive buffer of ours.

        Returns the number of bytes, 0 when the sender ended, and messages as `received` does. Raises what that raises,
        BlockingIOError when nothing waits, and OSError as the socket does. A scan comes this way from its first byte to
        its last, or not at all.
        """
        before = self._bytes
        self._spliced = True
        messages = self._take(lambda file: file.splice(source, most=_PIECE_BYTES), self._read)
        return self._bytes - before, messages

    def finish(self, *, reason: str = "") -> ScanRecord:
        """No more bytes come. All are on disk when this returns; raises ReconError when they do not make a scan.

        Over TCP a stream without CLOSE is incomplete; over HTTP the end of the body closes it. `reason` says that the
        sender broke off.
        """
        # HTTP's answer names a scan: nothing but questions is an error there.
        over_http = self.record.transport == "http"
        if self._over or self._stopped() or (not over_http and self._dismiss()):
            if self._live.unwritable:
                raise EndedError(self._live.unwritable)
            return self.record
        if reason or not (self.closed or over_http):
            return self.abort(reason or f"the sender left before the CLOSE message, after {self.readouts} readouts")
        try:
            self._reception.take(self._ended())
            self._settle()
            self._reception.end(complete=True)
        except ReconError as error:
            self._fail(error)
            raise
        self._over = True
        return self.record

    def abort(self, reason: str) -> ScanRecord:
        """The sender left or was too slow: frames that are complete are still done, then the scan is incomplete."""
        if self._over or self._stopped() or self._dismiss():
            return self.record
        self._over = True
        try:
            self._settle()
            self._reception.end(complete=False, reason=reason)
        except RefusedError as error:
            self._reception.fail(error)
        return self.record

    def keep(self, group: str) -> None:
        """The transport keeps a file, with the scan in `group`: recorded on disk even if no byte reaches this object.

        Raises RefusedError if that cannot be written down.
        """
        self._kept = True
        self._live.update(group=group)
        self._desk.recorder.write_through(self._live, "a file comes in")

    def kept(self, count: int) -> None:
        """The transport wrote `count` bytes into the spool itself."""
        self._reception.begin()
        self._desk.spool.kept(count)

    def settle_file(self, descriptor: int, *, whole: bool) -> None:
        """The file that the transport keeps is on the disk when this returns, by the name of one that is `whole`.

        Raises OSError, and RefusedError when the disk cannot be trusted.
        """
        self._desk.spool.settle(self.scan_id, descriptor, whole=whole)

    def suspend(self) -> None:
        """Let go of the file, if it is still open: the next server, or run, has the data come in again."""
        if self._file is not None:
            self._file.close()

    def fail(self, error: ReconError) -> None:
        """The transport found the input bad: frames that are complete are still done, then the scan has failed."""
        if not (self._over or self._stopped()):
            self._fail(error)

    def _take(self, keep: Callable[[SpoolFile], None], decode: Callable[[SpoolFile], Step]) -> list[Message]:
        self._check()
        try:
            step = decode(self._keep(keep))
            if step.frames or step.messages or step.warnings or step.remarks or step.error:
                self._reception.take(step)
                self._report()
            elif self._bytes - self._reported[0] >= _REPORT_BYTES:
                self._report()
        except ReconError as error:
            self._fail(error)
            raise
        except OSError:
            raise  # the socket's: whether the scan goes on is for the transport to decide
        except Exception as error:
            # A defect of ours must end this scan with a reason, not leave it `receiving` for ever.
            self._fail(ReconError(f"internal error {type(error).__name__} while receiving: see the server's log"))
            raise
        return step.messages

    def _keep(self, keep: Callable[[SpoolFile], None]) -> SpoolFile:
        if self._file is None:
            self._reception.begin()
            self._file = self._desk.spool.create(self.scan_id, again=self._again)
        keep(self._file)
        self._bytes = self._file.size
        if self._bytes > self._desk.config.scan_bytes:
            raise LimitError(f"the scan has more than {self._desk.config.scan_bytes} bytes, the limit here: split it")
        return self._file

    def _read(self, file: SpoolFile) -> Step:
        position = self._stream.position
        return self._stream.read(file.view(position)) if file.size > position else Step()

    def _check(self) -> None:
        if self._over or self._stopped():
            reason = self._live.unwritable or self.record.reason or self.record.state.value
            raise EndedError(f"scan {self.scan_id} has ended ({reason}): send the data as a new scan")

    def _stopped(self) -> bool:
        """Whether somebody ended the scan. What came so far is kept, once."""
        if not self._reception.over:
            return False
        self._over = True
        self._settle()
        with suppress(OSError):  # then the stream made of the file stays beside it
            self._desk.spool.trim(self.scan_id, self._stream.lasting_bytes)
        return True

    def _ended(self) -> Step:
        if self._stream.header is None:
            raise HeaderError("the stream closed before a header came: send the header, then the readouts")
        if self._spliced and self._file is not None and not self.closed:
            self._stream.feed(self._file.view(self._stream.position))  # a message's beginning: to say what is missing
        return self._stream.finish()

    def _report(self) -> None:
        """Have received bytes and readouts counted."""
        total, readouts = self._bytes, self._stream.readouts
        self._live.update(bytes=total, readouts=readouts)
        if not self._again:
            more = total - self._reported[0], readouts - self._reported[1]
            self._desk.post(BytesReceived(self.scan_id, self.record.transport, *more))
        self._reported = total, readouts

    def _fail(self, error: ReconError) -> None:
        self._over = True
        try:
            self._settle()
        except RefusedError as worse:
            self._reception.warn(f"not all of its raw data are kept: {worse}")
        self._reception.fail(error)

    def _settle(self) -> None:
        """Have all bytes on disk, and close the file."""
        self._report()
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.sync()
        finally:
            file.close()

    def _dismiss(self) -> bool:
        """Whether nothing but questions came: then there was no scan."""
        if self._kept or not self._stream.silent or self._bytes > self._stream.position:
            return False
        self._over = True
        if self._file is not None:
            self._file.remove()
        self._live.results.remove()
        self._desk.forget(self._live)
        return True


def _deadline_s(config: ClusterConfig, priority: Priority) -> float:
    return {
        Priority.STAT: config.stat_deadline_s,
        Priority.ROUTINE: config.routine_deadline_s,
        Priority.RESEARCH: config.research_deadline_s,
    }[priority]


def _word(error: ReconError) -> Refused:
    return next(word for kind, word in _WORDS if isinstance(error, kind))

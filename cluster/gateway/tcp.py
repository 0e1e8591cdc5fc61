"""The MRD gateway: one thread per connection reads a scan into the spool, a second one sends its images meanwhile.

A byte of a scan is copied once here, by the kernel into the receive buffer that the decoder reads in place. A client
that takes no images stops its own second thread only: images are stored, and reading goes on.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from cluster.documents import recipes_document
from cluster.events import Refused, State
from cluster.gateway.limits import Deadlines, Slots, Timeouts
from cluster.gateway.sockets import drain, prepare
from cluster.intake import Intake
from cluster.job import ScanRequest
from cluster.service import Service
from recon import __version__
from recon.errors import ReconError
from recon.mrd.wire import ERROR, HeaderXml, Message, Query, encode_close, encode_response, encode_text

_log = logging.getLogger(__name__)
_REFUSALS = 32  # connections beyond the limit that are told why at the same time; more are just closed
_SEND_BYTES = 1 << 20
_CUT_S = 5.0  # for the threads of connections that are cut

Answers = Mapping[str, Callable[[], str]]


def answers(service: Service) -> Answers:
    """What can be asked by name with a QUERY message."""
    known: dict[str, Callable[[], str]] = {
        "gadgetron::info": lambda: f"recon-cluster {__version__}, an MR reconstruction server for MRD version 1",
        "recon::version": lambda: __version__,
        "recon::status": lambda: json.dumps(service.cluster()),
        "recon::recipes": lambda: json.dumps(recipes_document()),
    }
    known["recon::queries"] = lambda: json.dumps(sorted(known))
    return known


class MrdGateway:
    """Accepts MRD connections on `listener`, a bound socket."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self._service = service
        self._listener = listener
        self._answers = answers(service)
        self._slots = Slots(service.config.max_connections)
        self._refusals = Slots(_REFUSALS)
        self._sessions: set[Session] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._accept, name="mrd-accept", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._listener.listen(min(self._slots.most, 1024))
        self._thread.start()

    def close_listener(self) -> None:
        """Take no new connection."""
        self._stopping = True
        with suppress(OSError):  # it may not listen yet
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()

    def stop(self, *, timeout_s: float) -> None:
        """Take no new connection, give the open ones `timeout_s` to end, then cut them; the raw data stay."""
        self.close_listener()
        if not self._wait(timeout_s, lambda session: session.parting):
            self._wait(_CUT_S, lambda session: True)

    def _wait(self, timeout_s: float, ends: Callable[[Session], bool]) -> bool:
        """Whether all connections end within `timeout_s`; those of which `ends` is true are cut."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while self._sessions and time.monotonic() < end:
                for session in filter(ends, self._sessions):
                    session.cut()
                self._changed.wait(0.05)
            return not self._sessions

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Closed by us, reset before it was taken, or no file descriptor left: the last one needs the pause.
                time.sleep(0.02)
                continue
            try:
                prepare(connection)
                self._admit(connection)
            except OSError as error:
                # Reset before it was served, or nothing left to serve it with: others come after it.
                _log.warning("a connection was dropped (%s)", error)
                connection.close()

    def _admit(self, connection: socket.socket) -> None:
        if self._slots.take():
            self._begin(connection)
        elif self._refusals.take():
            threading.Thread(target=self._refuse, args=(connection,), name="mrd-refuse", daemon=True).start()
        else:
            connection.close()

    def _begin(self, connection: socket.socket) -> None:
        try:
            session = Session(self._service, connection, self._answers)
        except OSError:
            self._slots.release()
            raise
        with self._changed:
            self._sessions.add(session)
        threading.Thread(target=self._run, args=(session,), name="mrd-session", daemon=True).start()

    def _run(self, session: Session) -> None:
        with self._slots.held():
            try:
                session.run()
            finally:
                with self._changed:
                    self._sessions.discard(session)
                    self._changed.notify_all()

    def _refuse(self, connection: socket.socket) -> None:
        self._service.refused(Refused.FULL)
        most = self._slots.most
        words = f"all {most} connections are in use: connect again later, or raise max_connections"
        with self._refusals.held(), connection, suppress(OSError):
            with Sender(connection, timeout_s=1.0) as sender:
                sender.end(words)
            drain(connection, timeout_s=1.0, most_bytes=_SEND_BYTES)


class Sender:
    """The sending side of a connection: whole messages, from any thread."""

    def __init__(self, connection: socket.socket, *, timeout_s: float) -> None:
        # A second object for the same connection: its timeout is apart from the reading side's.
        self._connection = connection.dup()
        self._connection.settimeout(timeout_s)
        self._lock = threading.Lock()
        self._broken = False

    def send(self, message: bytes) -> None:
        """Send a whole message; raises OSError when the client is gone or takes nothing for the timeout."""
        with self._lock:
            if self._broken:  # part of a message may be out: nothing after it could be understood
                raise BrokenPipeError("the connection broke before")
            rest = memoryview(message)
            try:
                while rest:
                    rest = rest[self._connection.send(rest[:_SEND_BYTES]) :]
            except OSError:
                self._broken = True
                raise

    def end(self, reason: str = "") -> None:
        """Say why it did not work, where it did not, then CLOSE; raises OSError."""
        if reason:
            self.send(encode_text(ERROR + reason))
        self.send(encode_close())

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing more is sent."""
        with suppress(OSError):  # the client may have gone first
            self._connection.shutdown(socket.SHUT_WR)
        self._connection.close()


class ImageSender:
    """The second thread of a session: sends the images of a scan as they are made."""

    def __init__(self, service: Service, scan: str, sender: Sender) -> None:
        self._service = service
        self._scan = scan
        self._sender = sender
        self.fault = ""  # why images that are there cannot be sent, where that is not the client's doing
        self._thread = threading.Thread(target=self._run, name="mrd-images", daemon=True)

    def start(self) -> None:
        """Begin to send; a second call changes nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def join(self) -> None:
        """Return when the last image is sent, or the client takes no more."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            for message in self._service.follow(self._scan):
                if not self._sent(message):
                    return
        except Exception as error:
            # A defect or a fault of the server's: the client must not take the images so far for all.
            _log.exception("scan %s: its images cannot be sent", self._scan)
            self.fault = f"internal error {type(error).__name__} while sending images: fetch them over HTTP"

    def _sent(self, message: bytes) -> bool:
        try:
            self._sender.send(message)
        except OSError as error:
            _log.info("scan %s: its client takes no more images (%s); they are kept", self._scan, error)
            return False
        return True


class Session:
    """One connection, from the first byte to the last."""

    def __init__(self, service: Service, connection: socket.socket, known: Answers) -> None:
        config = service.config
        self._service = service
        self._connection = connection
        self._answers = known
        self._sender = Sender(connection, timeout_s=config.send_timeout_s)
        timeouts = Timeouts(config.header_timeout_s, config.idle_timeout_s, config.total_timeout_s)
        self._deadlines = Deadlines(timeouts, time.monotonic)
        self._header = False
        self.parting = False  # all is said; only what the client still sends is awaited

    def cut(self) -> None:
        """End the connection from our side, now."""
        with suppress(OSError):  # the client may have gone first
            self._connection.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Serve the connection."""
        config = self._service.config
        with self._connection:
            with self._sender:
                reason = self._serve()
                with suppress(OSError):  # a client that is gone needs no last words
                    self._sender.end(reason)
            self.parting = True
            drain(self._connection, timeout_s=config.linger_timeout_s, most_bytes=config.linger_bytes)

    def _serve(self) -> str:
        """Receive a scan and send its images; returns why that did not work, "" when it did."""
        try:
            self._expect()
            if not self._connection.recv(1, socket.MSG_PEEK):
                return ""  # a probe of the port: nothing to record
        except TimeoutError:
            return self._deadlines.reason()
        except OSError:
            return ""  # reset: it hears nothing any more
        try:
            intake = self._service.open_scan(ScanRequest("tcp"))
        except ReconError as error:
            return str(error)
        except Exception as error:
            # A defect of ours: the client must hear of it, and not take the silence for an empty result.
            _log.exception("a scan could not be opened")
            return _internal(error)
        return self._scan(intake)

    def _scan(self, intake: Intake) -> str:
        images = ImageSender(self._service, intake.scan_id, self._sender)
        try:
            reason = self._receive(intake, images)
        except ReconError as error:
            reason = str(error)
            if intake.has_header:  # it may have come in one piece with frames and what is wrong after them
                images.start()
        except Exception as error:
            # A defect of ours must end this scan with a reason, not leave it `receiving` for ever.
            _log.exception("receiving scan %s failed", intake.scan_id)
            reason = _internal(error)
            intake.abort(reason)
        images.join()
        return reason or images.fault or self._verdict(intake.scan_id)

    def _receive(self, intake: Intake, images: ImageSender) -> str:
        """Take in a scan up to its CLOSE; returns why the sender stopped before it, "" when it did not."""
        readable = select.poll()
        readable.register(self._connection, select.POLLIN)
        self._connection.setblocking(False)
        while not intake.closed:
            try:
                if not readable.poll(1000 * self._deadlines.left_s()):
                    return self._abort(intake, self._deadlines.reason())
                count, messages = intake.receive(self._connection.fileno())
            except BlockingIOError:
                continue  # woken for nothing
            except OSError as error:
                return self._abort(intake, f"the connection broke before the close message ({error}): send it again")
            if not count:
                return self._abort(intake, "the sender left before the close message: send the scan again, to its end")
            self._take(messages, images)
        intake.finish()
        return ""

    def _expect(self) -> None:
        # Zero would mean not to wait at all, which is another error.
        self._connection.settimeout(max(0.001, self._deadlines.left_s()))

    def _take(self, messages: list[Message], images: ImageSender) -> None:
        for message in messages:
            if isinstance(message, HeaderXml):
                self._header = True
                images.start()
                _give_way(self._service.config.receive_niceness)
            elif isinstance(message, Query):
                self._answer(message)
        self._deadlines.heard(header=self._header)

    def _answer(self, query: Query) -> None:
        known = self._answers.get(query.name)
        unknown = f"{ERROR}the query {query.name[:80]!r} is unknown, expected one of {', '.join(self._answers)}"
        with suppress(OSError):  # the asker takes no answer; its scan goes on
            self._sender.send(encode_response(known() if known else unknown, correlation=query.correlation))

    def _abort(self, intake: Intake, reason: str) -> str:
        intake.abort(reason)
        return reason

    def _verdict(self, scan: str) -> str:
        """Why a scan that came in whole is not done, "" when it is."""
        try:
            record = self._service.scan(scan)
        except ReconError:
            return ""  # only queries came: there is no scan
        return "" if record.state is State.DONE else record.reason or f"the scan is {record.state.value}"


def _give_way(niceness: int) -> None:
    """Lower this thread's priority: where receiving and workers want the same cores, frames would only pile up."""
    thread = threading.get_native_id()
    if niceness > os.getpriority(os.PRIO_PROCESS, thread):  # raising it again is not for every user
        os.setpriority(os.PRIO_PROCESS, thread, niceness)


def _internal(error: Exception) -> str:
    return f"internal error {type(error).__name__} while receiving: report it with the server's log"

"""What the client says to a server and how it takes the answers, written once for the sync and the async client.

A *program* is a generator: it yields effects (send a request, read on, pause, hand over a value) and is sent their
outcomes. It does no I/O; `cluster.client` has one small driver per kind of client.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cluster.documents import read_line, read_problem, read_record
from cluster.events import State
from cluster.job import FailedError, LogLine, ScanRecord
from cluster.sources import MRD_TYPE, Source
from recon.errors import LostError, ReconError, RefusedError
from recon.mrd.wire import ERROR, Close, Decoder, ImageMessage, Message, Text, WireLimits

T = TypeVar("T")
ALL_EVENTS = "/v1/events"
_PARTIAL = 206
_LOOK_S = 2.0  # the longest pause before looking again whether a server is there by now
_AWAY = (502, 503, 504)  # a proxy says that the server behind it is not there now
_IMAGE_BYTES = 1 << 34  # the client trusts its own server's images up to this size


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the client tries: attempts in a row without any progress, and pauses between them."""

    attempts: int = 6
    first_pause_s: float = 0.2
    longest_pause_s: float = 30.0
    poll_s: float = 0.5
    arrival_s: float = 60.0  # so long, whatever the attempts, for a server that is not there yet


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request. With `streamed`, the answer's content is taken piece by piece with Read."""

    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterator[bytes]] | None = None
    streamed: bool = False
    again: bool = True  # sending it twice does no harm


@dataclass(frozen=True, slots=True)
class Read:
    """Take the next piece of a streamed answer; empty at its end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Emit:
    """Hand a value to whoever iterates."""

    value: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `document` is its JSON where there is any."""

    status: int
    headers: Mapping[str, str]
    document: Any = None


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer, or no more of it: the connection failed.

    `unsent`: there was none, so that nothing was said over it. `attempt_s` is how long a further attempt may take.
    """

    reason: str
    unsent: bool = False
    attempt_s: float = 0.0


Effect = Call | Read | Pause | Emit
Outcome = Reply | Lost | bytes | None
Program = Generator[Effect, Any, T]


# ---- one request, tried as often as it makes sense ----


def unsaid(_words: str) -> None:
    """Nobody listens."""


class Tries:
    """Counts attempts without progress and says how long to pause; `random` in [0, 1) spreads clients apart.

    `notice` is told in a sentence, once until there is progress, that attempts go on.
    """

    def __init__(
        self,
        patience: Patience,
        random: Callable[[], float],
        *,
        server: str = "the server",
        notice: Callable[[str], None] = unsaid,
    ) -> None:
        self.reached = False  # it answered once
        self._patience = patience
        self._random = random
        self._server = server
        self._notice = notice
        self._failed = 0
        self._waited_s = 0.0

    def progress(self) -> None:
        """Something arrived: start counting anew."""
        self._failed = 0

    def pause(
        self, error: LostError | RefusedError, *, again: bool = True, attempt_s: float = 0.0, absent: bool = False
    ) -> Pause:
        """The pause before the next attempt, which may take `attempt_s`; raises `error` when there is none to come.

        `absent`: nobody listens there.
        """
        self._failed += 1
        arrival_s = self._patience.arrival_s if absent and not self.reached else 0.0
        if not again or (self._failed >= self._patience.attempts and self._waited_s >= arrival_s):
            raise error
        if isinstance(error, RefusedError):
            return self._asked_to_wait(error)
        if self._failed == 1:
            what = f"the server at {self._server} went away" if self.reached else f"no server at {self._server} yet"
            self._notice(f"{what}, trying for {math.ceil(max(arrival_s, self._left_s(attempt_s)))} s")
        pause = Pause(min(self._backoff(), _LOOK_S) if arrival_s else self._backoff())
        self._waited_s += pause.seconds + attempt_s
        return pause

    def _asked_to_wait(self, error: RefusedError) -> Pause:
        if error.retry_after_s is None or error.retry_after_s > self._patience.longest_pause_s:
            raise error
        pause = Pause(max(error.retry_after_s, self._backoff()))
        if self._failed == 1:
            self._notice(f"{error}; trying again in {math.ceil(pause.seconds)} s")
        return pause

    def _left_s(self, attempt_s: float) -> float:
        """How long the attempts that are left take at most."""
        return sum(self._longest(number) + attempt_s for number in range(self._failed, self._patience.attempts))

    def _longest(self, number: int) -> float:
        return min(self._patience.longest_pause_s, self._patience.first_pause_s * 2.0 ** (number - 1))

    def _backoff(self) -> float:
        return self._longest(self._failed) * (0.5 + 0.5 * self._random())


def request(call: Call, tries: Tries) -> Program[Reply]:
    """The good answer to `call`; raises what the server's problem document says, or LostError."""
    while True:
        outcome: Reply | Lost = yield call
        if isinstance(outcome, Lost):
            lost = LostError(outcome.reason)
            again = call.again or outcome.unsent
            yield tries.pause(lost, again=again, attempt_s=outcome.attempt_s, absent=outcome.unsent)
            continue
        tries.reached = True
        error = _failure(outcome)
        if error is None:
            return outcome
        if not isinstance(error, LostError | RefusedError):
            raise error
        yield tries.pause(error, again=call.again)


def _failure(outcome: Reply) -> ReconError | None:
    if outcome.status < 400:
        return None
    if isinstance(outcome.document, dict) and "detail" in outcome.document:
        return read_problem(outcome.document, retry_after_s=_seconds(outcome.headers.get("retry-after", "")))
    words = f"the server answered with status {outcome.status} and no reason: look at its log"
    return LostError(words) if outcome.status in _AWAY else ReconError(words)


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# ---- the programs ----


@dataclass(frozen=True, slots=True)
class Submission:
    """A scan to send and how it is to be treated; `key` makes every repetition mean the same scan."""

    source: Source
    key: str
    method: str = "auto"
    priority: str = "routine"
    name: str = ""
    progress: Callable[[int], None] | None = None  # bytes sent so far


def submit(submission: Submission, tries: Tries) -> Program[ScanRecord]:
    """Send a scan; the record comes back once all of it is on the server's disk."""
    source = submission.source
    headers = {"content-type": source.content_type, "idempotency-key": submission.key}
    if source.size is not None:
        headers["content-length"] = str(source.size)
    params = {"method": submission.method, "priority": submission.priority, "name": submission.name, **source.params}
    call = Call("POST", "/v1/scans", params, headers, lambda: _counted(submission), again=source.repeatable)
    reply = yield from request(call, tries)
    return read_record(reply.document)


def _counted(submission: Submission) -> Iterator[bytes]:
    sent = 0
    for chunk in submission.source.chunks():
        yield chunk
        sent += len(chunk)
        if submission.progress is not None:
            submission.progress(sent)


def record_of(call: Call, tries: Tries) -> Program[ScanRecord]:
    """The record that answers `call`."""
    reply = yield from request(call, tries)
    return read_record(reply.document)


def records_of(call: Call, tries: Tries) -> Program[list[ScanRecord]]:
    """The records that answer `call`."""
    reply = yield from request(call, tries)
    return [read_record(document) for document in reply.document["scans"]]


def log_of(call: Call, tries: Tries) -> Program[list[LogLine]]:
    """The log lines that answer `call`."""
    reply = yield from request(call, tries)
    return [read_line(document) for document in reply.document["lines"]]


def document_of(call: Call, tries: Tries) -> Program[dict[str, Any]]:
    """The JSON object that answers `call`."""
    reply = yield from request(call, tries)
    return dict(reply.document)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How often to look at a scan, how long at most, and who is told what was seen."""

    poll_s: float
    timeout_s: float
    progress: Callable[[ScanRecord], None]


def wait(scan: str, tries: Tries, limits: Waiting) -> Program[ScanRecord]:
    """The record of `scan` once it has ended, or TimeoutError after about `timeout_s`."""
    waited, pause_s = 0.0, min(0.02, limits.poll_s)
    while True:
        record = yield from record_of(Call("GET", f"/v1/scans/{scan}"), tries)
        limits.progress(record)
        if record.state.final:
            return record
        if waited >= limits.timeout_s:
            state = record.state.value
            raise TimeoutError(f"scan {scan} is still {state} after {waited:.1f} s: wait longer, or cancel it")
        tries.progress()
        yield Pause(pause_s)
        waited += pause_s
        pause_s = min(limits.poll_s, 1.5 * pause_s)


def download(call: Call, tries: Tries, *, restart: Callable[[], None] | None = None) -> Program[None]:
    """Emit the content of a streamed answer, asked for again when the connection is lost.

    Content that is made anew for each request begins again, once `restart` has undone what was emitted; without
    `restart` the content is a file, and goes on behind what was emitted.
    """
    count = farthest = 0
    while True:
        headers = {**call.headers, "range": f"bytes={count}-"} if count else call.headers
        reply = yield from request(replace(call, headers=headers), tries)
        known = count if reply.status != _PARTIAL else 0  # a proxy may not know ranges, and send what came before
        while isinstance(data := (yield Read()), bytes) and data:
            fresh, known = data[known:], max(0, known - len(data))
            count += len(fresh)
            if count > farthest:
                tries.progress()
            farthest = max(farthest, count)
            if fresh:
                yield Emit(fresh)
        if not isinstance(data, Lost):
            return
        yield tries.pause(LostError(data.reason))
        if restart is not None:
            restart()
            count = 0


def images(scan: str, tries: Tries, *, start: int = 0, follow: bool = True) -> Program[None]:
    """Emit each image from number `start` on, as they are made with `follow`; goes on where a lost connection stopped.

    Raises FailedError, after the images there are, when the scan ended in any way but `done`.
    """
    ended = False
    while not ended:
        params = {"start": start, "follow": int(follow)}
        call = Call("GET", f"/v1/scans/{scan}/images", params, {"accept": MRD_TYPE}, streamed=True)
        yield from request(call, tries)
        stream = _Stream()
        while isinstance(data := (yield Read()), bytes) and data:
            for message in stream.decoder.feed(data):
                if isinstance(message, ImageMessage):
                    tries.progress()
                    start += 1
                    yield Emit(message.image)
                stream.note(message)
        ended = stream.closed
        if not ended:
            reason = data.reason if isinstance(data, Lost) else "the server ended the images in the middle"
            yield tries.pause(LostError(reason))
    yield from _verdict(scan, stream, tries)


class _Stream:
    """One connection's stream of images: its decoder, and what it said besides images."""

    def __init__(self) -> None:
        self.decoder = Decoder(WireLimits(image_bytes=_IMAGE_BYTES))
        self.closed = False
        self.error = ""

    def note(self, message: Message) -> None:
        """Remember CLOSE and an error's reason."""
        self.closed = self.closed or isinstance(message, Close)
        if isinstance(message, Text) and message.text.startswith(ERROR):
            self.error = message.text.removeprefix(ERROR)


def _verdict(scan: str, stream: _Stream, tries: Tries) -> Program[None]:
    if stream.error:
        record = yield from record_of(Call("GET", f"/v1/scans/{scan}"), tries)
        raise FailedError(stream.error, state=record.state if record.state.final else State.FAILED)


@dataclass(frozen=True, slots=True)
class Happening:
    """A server-sent event; `id` names its place in the server's feed. One without data only tells the place."""

    id: str
    name: str
    data: str


def events(path: str, tries: Tries) -> Program[None]:
    """Emit (name, JSON text) of each server-sent event, behind the last one after the connection was lost.

    Those of one scan end with it. Where the server does not know any more what came in between, as after its restart,
    the event `lost` says so.
    """
    last, ended = "", False
    while not ended:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
        yield from request(Call("GET", path, headers=headers, streamed=True), tries)
        rest = b""
        while not ended and isinstance(data := (yield Read()), bytes) and data:
            *blocks, rest = (rest + data).split(b"\n\n")
            for event in map(_event, blocks):
                last = event.id or last
                if not event.data:
                    continue
                tries.progress()
                ended = ended or (path != ALL_EVENTS and _is_end(event))
                yield Emit((event.name, event.data))
        if not ended:
            reason = data.reason if isinstance(data, Lost) else "the server ended the events in the middle"
            yield tries.pause(LostError(reason))


def _is_end(event: Happening) -> bool:
    return event.name == "state" and State(json.loads(event.data)["state"]).final


def _event(block: bytes) -> Happening:
    lines = block.decode().splitlines()
    values = {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    return Happening(values.get("id", ""), values.get("event", "message"), values.get("data", ""))

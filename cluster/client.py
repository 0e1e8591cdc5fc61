"""The Python client: scans go in, images come back as they are made; sync and async with the same methods.

Needs numpy, h5py, httpx and rich only. After a lost connection or a "not now" of the server a call is repeated: an
idempotency key makes a repeated submission mean the same scan, images, events and raw data go on where the connection
broke, and files are fetched anew. Two are not, once anything of them was sent: a requeue, which would run twice, and a
submission from an iterator, which cannot be read twice.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from cluster import calls, saving
from cluster.calls import (
    Call,
    Effect,
    Emit,
    Lost,
    Outcome,
    Patience,
    Pause,
    Program,
    Read,
    Reply,
    Submission,
    Tries,
    unsaid,
)
from cluster.job import LogLine, RequestError, ScanRecord, check_scan_id
from cluster.sources import Sendable, source
from recon.errors import InputError
from recon.recipe import written
from recon.scan import Image

T = TypeVar("T")
DEFAULT_SERVER = "http://127.0.0.1:8080"
FIRST_CONNECT_S = 1.0  # a host that swallows packets is noticed, and told of, before the longer attempts begin


@dataclass(frozen=True, slots=True)
class Options:
    """How a client connects: its patience, how long connecting and silence may last, chance, and who hears of it."""

    patience: Patience = field(default_factory=Patience)
    connect_timeout_s: float = 5.0
    silence_timeout_s: float = 120.0  # longer than the pauses between a server's signs of life
    accept_timeout_s: float = 3600.0  # from a scan's last byte to its acceptance: a large HDF5 file is read in between
    token: str = ""
    new_key: Callable[[], str] = field(default=lambda: secrets.token_hex(16))
    random: Callable[[], float] = random.random
    notice: Callable[[str], None] = unsaid  # told in a sentence when the server does not answer and attempts go on

    def tries(self, server: str) -> Tries:
        """A fresh count of attempts."""
        return Tries(self.patience, self.random, server=server, notice=self.notice)


# A dead peer is noticed within a minute even while the client only waits for it.
_SOCKET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)  # named differently outside Linux
    ),
]


def _common(server: str, options: Options) -> dict[str, Any]:
    _check_address(server)
    return {
        "base_url": server,
        "headers": {"authorization": f"Bearer {options.token}"} if options.token else {},
    }


def _check_address(server: str) -> None:
    """Raises RequestError for what is no address of an HTTP server."""
    try:
        good = httpx.URL(server).scheme in ("http", "https") and bool(httpx.URL(server).host)
    except httpx.InvalidURL:
        good = False
    if not good:
        likely = "http://HOST:PORT" if "//" in server else f"http://{server}"
        raise RequestError(f"the server's address is {server!r}, expected http://HOST:PORT: write {likely}")


def _request(call: Call, options: Options, *, first: bool) -> dict[str, Any]:
    connect_s = min(FIRST_CONNECT_S, options.connect_timeout_s) if first else options.connect_timeout_s
    silence_s = options.silence_timeout_s if call.body is None else options.accept_timeout_s
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params,
        "headers": {"accept": "application/json", **call.headers},
        "timeout": httpx.Timeout(silence_s, connect=connect_s),
    }


def _reply(response: httpx.Response, *, read: bool) -> Reply:
    document = None
    if read and "json" in response.headers.get("content-type", ""):
        with suppress(ValueError):  # a proxy may call its page JSON: then there is no document
            document = response.json()
    return Reply(response.status_code, response.headers, document)


def _lost(error: Exception, server: object, options: Options) -> Lost:
    """What became of an attempt; raises InputError where it was answered in another protocol."""
    what = str(error) or type(error).__name__
    if isinstance(error, httpx.RemoteProtocolError) and what.startswith("illegal "):
        words = f"what listens at {server} is no HTTP server: give the address of HTTP, 9002 is the MRD port by default"
        raise InputError(words) from error
    words = f"the server at {server} cannot be reached or went away ({what}): check its address and that it runs"
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    return Lost(words, unsent, options.connect_timeout_s if isinstance(error, httpx.ConnectTimeout) else 0.0)


def _unseen(_record: ScanRecord) -> None:
    """Nobody looks."""


# ---- sync ----


class _Exchange:
    """Does the effects of one program with blocking calls."""

    def __init__(self, http: httpx.Client, options: Options) -> None:
        self._http = http
        self._options = options
        self._first = True  # attempt
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, effect: Effect) -> Outcome:
        """The outcome of one effect."""
        try:
            match effect:
                case Call():
                    return self._call(effect)
                case Read():
                    return next(self._pieces, b"")
                case Pause(seconds):
                    time.sleep(seconds)
        except (httpx.HTTPError, httpx.StreamError) as error:
            return _lost(error, self._http.base_url, self._options)
        return None

    def close(self) -> None:
        """Let go of an answer that was not read to its end."""
        if self._response is not None:
            self._response.close()

    def _call(self, call: Call) -> Reply:
        self.close()
        body = call.body() if call.body is not None else None
        request = self._http.build_request(**_request(call, self._options, first=self._first), content=body)
        self._first = False
        response = self._response = self._http.send(request, stream=True)
        read = not call.streamed or response.status_code >= 400
        if read:
            response.read()
        self._pieces = iter(()) if read else response.iter_bytes()
        return _reply(response, read=read)


class Client:
    """A connection to a server; use it in a `with` block, or close it."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        options: Options = Options(),
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.options = options
        transport = transport or httpx.HTTPTransport(socket_options=_SOCKET_OPTIONS)
        self._http = httpx.Client(**_common(server, options), transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        content: Sendable,
        *,
        method: str | Mapping[str, object] = "auto",
        priority: str = "routine",
        name: str = "",
        progress: Callable[[int], None] | None = None,
        key: str = "",
    ) -> RemoteScan:
        """Send a scan; returns when all of it is on the server's disk. `progress` is told the bytes sent so far.

        `method` is a recipe: a name, JSON, or what JSON would say, {"method": …, "parameters": {…}}.
        Sent with the same `key` again it is the same scan, which `find` knows while it is still coming in.
        Raises RefusedError, LostError, or what is wrong with the scan (InputError, LimitError, ScanError, RecipeError).
        """
        key = key or self.options.new_key()
        submission = Submission(source(content), key, written(method), priority, name, progress)
        return RemoteScan(self, self.run(calls.submit(submission, self.tries())))

    def scan(self, scan: str) -> RemoteScan:
        """The scan with this id; raises NotFoundError, or RequestError for what cannot be one."""
        return RemoteScan(self, self.record(Call("GET", f"/v1/scans/{check_scan_id(scan)}")))

    def find(self, key: str) -> RemoteScan | None:
        """The scan that was submitted with this key, also while it is still coming in."""
        records = self.run(calls.records_of(_with_key(key), self.tries()))
        return RemoteScan(self, records[0]) if records else None

    def scans(self, *, state: str = "", limit: int = 100) -> list[ScanRecord]:
        """The newest scans, newest first."""
        return self.run(calls.records_of(_listing(state, limit), self.tries()))

    def cluster(self) -> dict[str, Any]:
        """Workers, queue and batches."""
        return self.document("/v1/cluster")

    def recipes(self) -> dict[str, Any]:
        """The catalogue of recipes."""
        return self.document("/v1/recipes")

    def events(self) -> Iterator[tuple[str, str]]:
        """(name, JSON text) of what happens on the server, from now on.

        After a lost connection they go on where it broke; the event `lost` says that some in between are not known.
        """
        return self.stream(calls.events(calls.ALL_EVENTS, self.tries()))

    def tries(self) -> Tries:
        """A fresh count of attempts."""
        return self.options.tries(str(self._http.base_url))

    def record(self, call: Call) -> ScanRecord:
        """The record that answers `call`."""
        return self.run(calls.record_of(call, self.tries()))

    def document(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`."""
        return self.run(calls.document_of(Call("GET", path), self.tries()))

    def run(self, program: Program[T]) -> T:
        """What `program` returns."""
        exchange, outcome = _Exchange(self._http, self.options), None
        try:
            while True:
                outcome = exchange.perform(program.send(outcome))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            exchange.close()

    def stream(self, program: Program[Any]) -> Iterator[Any]:
        """The values that `program` emits."""
        exchange, outcome = _Exchange(self._http, self.options), None
        try:
            while True:
                effect = program.send(outcome)
                if isinstance(effect, Emit):
                    yield effect.value
                    outcome = None
                else:
                    outcome = exchange.perform(effect)
        except StopIteration:
            return
        finally:
            exchange.close()


class RemoteScan:
    """A scan on a server; `record` is what was known of it last."""

    def __init__(self, client: Client, record: ScanRecord) -> None:
        self._client = client
        self.record = record
        self.id = record.id

    def __repr__(self) -> str:
        return f"RemoteScan({self.id}, {self.record.state.value})"

    def images(self, *, start: int = 0, follow: bool = True) -> Iterator[Image]:
        """Images from number `start` (from 0) on, as they are made; without `follow` those made by now.

        Raises FailedError, after the images there are, when the scan ended in any way but `done`.
        """
        return self._client.stream(calls.images(self.id, self._client.tries(), start=start, follow=follow))

    def status(self) -> ScanRecord:
        """The record as it is now."""
        self.record = self._client.record(Call("GET", self._path()))
        return self.record

    def wait(self, *, timeout_s: float = float("inf"), progress: Callable[[ScanRecord], None] = _unseen) -> ScanRecord:
        """The record once the scan has ended, told to `progress` until then; raises TimeoutError after `timeout_s`."""
        options = self._client.options
        limits = calls.Waiting(options.patience.poll_s, timeout_s, progress)
        program = calls.wait(self.id, self._client.tries(), limits)
        self.record = self._client.run(program)
        return self.record

    def cancel(self) -> ScanRecord:
        """Stop the scan; one that has ended stays as it is."""
        self.record = self._client.record(Call("DELETE", self._path()))
        return self.record

    def requeue(self) -> ScanRecord:
        """Reconstruct the scan again from the raw data on the server."""
        self.record = self._client.record(Call("POST", self._path("/requeue"), again=False))
        return self.record

    def log(self) -> list[LogLine]:
        """What happened, line by line."""
        return self._client.run(calls.log_of(Call("GET", self._path("/log")), self._client.tries()))

    def events(self) -> Iterator[tuple[str, str]]:
        """(name, JSON text) of what happens to the scan, from its state now until its end; see `Client.events`."""
        return self._client.stream(calls.events(self._path("/events"), self._client.tries()))

    def raw(self) -> Iterator[bytes]:
        """The raw data as received."""
        return self._download(self._path("/raw"), "*/*", restart=None)

    def save(self, path: str | Path) -> list[Path]:
        """Write the images so far by `path`'s ending: .h5, .mrd, .png, or a folder of DICOM files."""
        written: list[Path] = []
        with saving.writing(Path(path), written) as file:
            kind = saving.media_type(Path(path))
            for piece in self._download(self._path("/images"), kind, restart=lambda: saving.empty(file)):
                file.write(piece)
        return written

    def _download(self, path: str, accept: str, *, restart: Callable[[], None] | None) -> Iterator[bytes]:
        call = Call("GET", path, headers={"accept": accept}, streamed=True)
        return self._client.stream(calls.download(call, self._client.tries(), restart=restart))

    def _path(self, below: str = "") -> str:
        return f"/v1/scans/{self.id}{below}"


def _with_key(key: str) -> Call:
    return Call("GET", "/v1/scans", headers={"idempotency-key": key})


def _listing(state: str, limit: int) -> Call:
    return Call("GET", "/v1/scans", {"limit": limit} | ({"state": state} if state else {}))


# ---- async ----


class _AsyncExchange:
    """Does the effects of one program without blocking the event loop."""

    def __init__(self, http: httpx.AsyncClient, options: Options) -> None:
        self._http = http
        self._options = options
        self._first = True  # attempt
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, effect: Effect) -> Outcome:
        """The outcome of one effect."""
        try:
            match effect:
                case Call():
                    return await self._call(effect)
                case Read():
                    return await anext(self._pieces, b"") if self._pieces is not None else b""
                case Pause(seconds):
                    await asyncio.sleep(seconds)
        except (httpx.HTTPError, httpx.StreamError) as error:
            return _lost(error, self._http.base_url, self._options)
        return None

    async def close(self) -> None:
        """Let go of an answer that was not read to its end."""
        if self._response is not None:
            await self._response.aclose()

    async def _call(self, call: Call) -> Reply:
        await self.close()
        body = _in_thread(call.body()) if call.body is not None else None
        request = self._http.build_request(**_request(call, self._options, first=self._first), content=body)
        self._first = False
        response = self._response = await self._http.send(request, stream=True)
        read = not call.streamed or response.status_code >= 400
        if read:
            await response.aread()
        self._pieces = None if read else response.aiter_bytes()
        return _reply(response, read=read)


async def _in_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited or iterated with `async for`."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        options: Options = Options(),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.options = options
        transport = transport or httpx.AsyncHTTPTransport(socket_options=_SOCKET_OPTIONS)
        self._http = httpx.AsyncClient(**_common(server, options), transport=transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(
        self,
        content: Sendable,
        *,
        method: str | Mapping[str, object] = "auto",
        priority: str = "routine",
        name: str = "",
        progress: Callable[[int], None] | None = None,
        key: str = "",
    ) -> AsyncRemoteScan:
        """As `Client.submit`; the content is read, and `progress` called, in a thread."""
        key, opened = key or self.options.new_key(), await asyncio.to_thread(source, content)
        submission = Submission(opened, key, written(method), priority, name, progress)
        return AsyncRemoteScan(self, await self.run(calls.submit(submission, self.tries())))

    async def scan(self, scan: str) -> AsyncRemoteScan:
        """As `Client.scan`."""
        return AsyncRemoteScan(self, await self.record(Call("GET", f"/v1/scans/{check_scan_id(scan)}")))

    async def find(self, key: str) -> AsyncRemoteScan | None:
        """As `Client.find`."""
        records = await self.run(calls.records_of(_with_key(key), self.tries()))
        return AsyncRemoteScan(self, records[0]) if records else None

    async def scans(self, *, state: str = "", limit: int = 100) -> list[ScanRecord]:
        """As `Client.scans`."""
        return await self.run(calls.records_of(_listing(state, limit), self.tries()))

    async def cluster(self) -> dict[str, Any]:
        """As `Client.cluster`."""
        return await self.document("/v1/cluster")

    async def recipes(self) -> dict[str, Any]:
        """As `Client.recipes`."""
        return await self.document("/v1/recipes")

    def events(self) -> AsyncIterator[tuple[str, str]]:
        """As `Client.events`."""
        return self.stream(calls.events(calls.ALL_EVENTS, self.tries()))

    def tries(self) -> Tries:
        """As `Client.tries`."""
        return self.options.tries(str(self._http.base_url))

    async def record(self, call: Call) -> ScanRecord:
        """As `Client.record`."""
        return await self.run(calls.record_of(call, self.tries()))

    async def document(self, path: str) -> dict[str, Any]:
        """As `Client.document`."""
        return await self.run(calls.document_of(Call("GET", path), self.tries()))

    async def run(self, program: Program[T]) -> T:
        """As `Client.run`."""
        exchange, outcome = _AsyncExchange(self._http, self.options), None
        try:
            while True:
                try:
                    effect = program.send(outcome)
                except StopIteration as end:
                    value: T = end.value
                    return value
                outcome = await exchange.perform(effect)
        finally:
            await exchange.close()

    async def stream(self, program: Program[Any]) -> AsyncIterator[Any]:
        """As `Client.stream`."""
        exchange, outcome = _AsyncExchange(self._http, self.options), None
        try:
            while True:
                try:
                    effect = program.send(outcome)
                except StopIteration:
                    return
                outcome = None
                if isinstance(effect, Emit):
                    yield effect.value
                else:
                    outcome = await exchange.perform(effect)
        finally:
            await exchange.close()


class AsyncRemoteScan:
    """`RemoteScan` for asyncio."""

    def __init__(self, client: AsyncClient, record: ScanRecord) -> None:
        self._client = client
        self.record = record
        self.id = record.id

    def __repr__(self) -> str:
        return f"AsyncRemoteScan({self.id}, {self.record.state.value})"

    def images(self, *, start: int = 0, follow: bool = True) -> AsyncIterator[Image]:
        """As `RemoteScan.images`."""
        return self._client.stream(calls.images(self.id, self._client.tries(), start=start, follow=follow))

    async def status(self) -> ScanRecord:
        """As `RemoteScan.status`."""
        self.record = await self._client.record(Call("GET", self._path()))
        return self.record

    async def wait(
        self, *, timeout_s: float = float("inf"), progress: Callable[[ScanRecord], None] = _unseen
    ) -> ScanRecord:
        """As `RemoteScan.wait`."""
        options = self._client.options
        limits = calls.Waiting(options.patience.poll_s, timeout_s, progress)
        program = calls.wait(self.id, self._client.tries(), limits)
        self.record = await self._client.run(program)
        return self.record

    async def cancel(self) -> ScanRecord:
        """As `RemoteScan.cancel`."""
        self.record = await self._client.record(Call("DELETE", self._path()))
        return self.record

    async def requeue(self) -> ScanRecord:
        """As `RemoteScan.requeue`."""
        self.record = await self._client.record(Call("POST", self._path("/requeue"), again=False))
        return self.record

    async def log(self) -> list[LogLine]:
        """As `RemoteScan.log`."""
        return await self._client.run(calls.log_of(Call("GET", self._path("/log")), self._client.tries()))

    def events(self) -> AsyncIterator[tuple[str, str]]:
        """As `RemoteScan.events`."""
        return self._client.stream(calls.events(self._path("/events"), self._client.tries()))

    def raw(self) -> AsyncIterator[bytes]:
        """As `RemoteScan.raw`."""
        return self._download(self._path("/raw"), "*/*", restart=None)

    async def save(self, path: str | Path) -> list[Path]:
        """As `RemoteScan.save`."""
        written: list[Path] = []
        with saving.writing(Path(path), written) as file:
            kind = saving.media_type(Path(path))
            async for piece in self._download(self._path("/images"), kind, restart=lambda: saving.empty(file)):
                await asyncio.to_thread(file.write, piece)
        return written

    def _download(self, path: str, accept: str, *, restart: Callable[[], None] | None) -> AsyncIterator[bytes]:
        call = Call("GET", path, headers={"accept": accept}, streamed=True)
        return self._client.stream(calls.download(call, self._client.tries(), restart=restart))

    def _path(self, below: str = "") -> str:
        return f"/v1/scans/{self.id}{below}"

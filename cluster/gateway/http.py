"""The HTTP gateway: scans in, images out, states, events and metrics; OpenAPI at `/openapi.json`.

Nothing of a scan's size is held in memory. Blocking calls run in threads; uploads and waiting clients have limits of
their own, so that neither can keep health checks and short questions waiting. A body of known length is read by its own
thread straight from the socket into the spool's receive buffer: through the event loop every byte would be copied four
times more, and a full disk would stop all other requests.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Annotated, Any, TypeVar, cast

import anyio
import anyio.to_thread
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cluster.config import ClusterConfig
from cluster.documents import (
    PROBLEM_TYPE,
    line_document,
    problem_document,
    problem_schema,
    read_priority,
    recipes_document,
    record_document,
    record_schema,
)
from cluster.events import Refused, State
from cluster.gateway import pictures
from cluster.gateway.limits import Deadlines, Slots, Timeouts
from cluster.gateway.sockets import drain
from cluster.gateway.upload import Hdf5Upload, Rest, Upload, broken, feed, receive
from cluster.intake import Intake
from cluster.job import (
    AcceptError,
    BusyError,
    DuplicateError,
    MediaTypeError,
    NotFoundError,
    RequestError,
    RouteError,
    ScanRecord,
    ScanRequest,
    SlowError,
    VerbError,
    no_descriptor,
)
from cluster.live import Told
from cluster.saving import PNG_TYPE, ZIP_TYPE
from cluster.service import Service
from cluster.sources import HDF5_TYPE, MRD_TYPE
from recon import __version__
from recon.errors import ReconError, RefusedError
from recon.mrd.wire import ERROR, encode_close, encode_text

T = TypeVar("T")
_BODY = "recon-cluster.body"  # name of our extension in an ASGI scope
_SLICE_S = 1.0  # a thread that waits for a scan looks this often whether its client is still there
_FALLBACK_BYTES = 1 << 20
_RETRY_S = 2  # a client beyond the limit of connections is told to come again after this
_REFUSAL_S = 1.0  # and has this long to read so
_LEFT = "the sender left before the end of the body: send it again"

router = APIRouter(
    responses={"4XX": {"description": "Why not (RFC 9457)", "content": {PROBLEM_TYPE: {"schema": problem_schema()}}}}
)


# ---- what routes are given ----


class Sockets:
    """Sockets that threads read from, so that they can be cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    @contextmanager
    def known(self, connection: socket.socket) -> Iterator[None]:
        """`connection` can be cut inside the block."""
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def cut(self) -> None:
        """Have all reads end."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # the client may have gone first
                    connection.shutdown(socket.SHUT_RDWR)


class Context:
    """One application's service and limits."""

    def __init__(self, service: Service) -> None:
        config = service.config
        self.service = service
        self.uploads = Slots(config.max_uploads)
        self.followers = Slots(config.max_followers)
        self.stopping = False
        self.sockets = Sockets()
        self.upload_threads = anyio.CapacityLimiter(config.max_uploads)
        self.follower_threads = anyio.CapacityLimiter(config.max_followers)

    def deadlines(self) -> Deadlines:
        """Deadlines of one upload; uvicorn has seen its request's header in time."""
        config = self.service.config
        timeouts = Timeouts(config.header_timeout_s, config.idle_timeout_s, config.total_timeout_s)
        deadlines = Deadlines(timeouts, time.monotonic)
        deadlines.heard(header=True)
        return deadlines


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def _service(request: Request) -> Service:
    return _context(request).service


ContextOf = Annotated[Context, Depends(_context)]
ServiceOf = Annotated[Service, Depends(_service)]


async def _can_open() -> None:
    """Raise OSError where no file descriptor is left: once an answer has begun it is too late to say so."""
    os.close(os.open(os.devnull, os.O_RDONLY))


_OPENS = [Depends(_can_open)]


# ---- scans in ----


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_RECORD = {"application/json": {"schema": record_schema()}}
_BODIES = {"requestBody": {"required": True, "content": {MRD_TYPE: _BINARY, HDF5_TYPE: _BINARY}}}


async def _asked(
    method: Annotated[str, Query(max_length=10_000)] = "auto",
    priority: str = "routine",
    name: Annotated[str, Query(max_length=200)] = "",
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
) -> ScanRequest:
    return ScanRequest("http", method, read_priority(priority), name, idempotency_key)


@router.post(
    "/v1/scans",
    status_code=201,
    summary="Send a scan; answered when all of it is on disk",
    responses={201: {"content": _RECORD}},
    openapi_extra=_BODIES,
)
async def post_scan(
    request: Request,
    context: ContextOf,
    asked: Annotated[ScanRequest, Depends(_asked)],
    group: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Body: an MRD stream (application/x-mrd) or an ISMRMRD HDF5 file (application/x-hdf5).

    `group` names the group of the file that holds the scan, where it is not `dataset`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (MRD_TYPE, HDF5_TYPE):
        raise MediaTypeError(f"the content type is {kind!r}, expected {MRD_TYPE} or {HDF5_TYPE}: name one of them")
    _check_group(group, kind)
    if not context.uploads.take():
        context.service.refused(Refused.FULL)
        most = context.uploads.most
        raise RefusedError(f"{most} uploads are under way, the limit here: send it again later", retry_after_s=2.0)
    with context.uploads.held():
        return await _admitted(request, context, asked, make=partial(_upload, kind, context.service.config, group))


def _check_group(group: str, kind: str) -> None:
    if group and kind == MRD_TYPE:
        raise RequestError(f"the group is {group!r}, but an MRD stream has none: leave it out, or send an HDF5 file")
    if "\0" in group:
        raise RequestError(f"the group is {group!r}, which no HDF5 file can hold: correct the name")


async def _admitted(
    request: Request, context: Context, asked: ScanRequest, *, make: Callable[[Intake], Upload]
) -> Response:
    """Open the scan, receive its body, answer."""
    try:
        intake = await _in_thread(context, partial(context.service.open_scan, asked))
    except DuplicateError as error:
        return _replayed(error.record)
    try:
        upload = await _in_thread(context, partial(make, intake))
        return _created(await _take_in(request, context, upload))
    except ReconError as error:
        return _problem(error, scan=intake.scan_id)
    except Exception as error:
        # A defect of ours must end this scan with a reason, not leave it `receiving` for ever.
        await _in_thread(context, partial(intake.abort, f"internal error {type(error).__name__} while receiving"))
        raise


def _upload(kind: str, config: ClusterConfig, group: str, intake: Intake) -> Upload:
    if kind == MRD_TYPE:
        return intake
    return Hdf5Upload(intake, config.spool_folder / f"{intake.scan_id}.h5", config, group=group)


async def _take_in(request: Request, context: Context, upload: Upload) -> ScanRecord:
    """Receive the body and return when it is on disk; raises ReconError."""
    body: Body | None = request.scope.get("extensions", {}).get(_BODY)
    size = request.headers.get("content-length", "")
    if body is None or not body.direct or not size.isdigit():
        await _take_streamed(request, context, upload)
        return await _in_thread(context, upload.finish)
    try:
        first, connection = body.take()
    except OSError as error:
        raise await _in_thread(context, partial(_no_socket, upload, error)) from error
    if connection is None:
        await _in_thread(context, partial(feed, upload, first))
        raise await _in_thread(context, partial(broken, upload, _LEFT))
    rest = Rest(connection, int(size) - len(first))
    return await _in_thread(context, partial(_take_direct, context, upload, first=first, rest=rest))


def _no_socket(upload: Upload, error: OSError) -> BusyError:
    """End `upload`, whose body cannot be read because the server has no file descriptor for it; the error to raise."""
    words = f"the server cannot read the body now ({error.strerror}): send it again"
    busy = no_descriptor(error, "read the body") or BusyError(words, retry_after_s=_RETRY_S)
    upload.abort(str(busy))
    return busy


def _take_direct(context: Context, upload: Upload, *, first: bytes, rest: Rest) -> ScanRecord:
    """Receive a body in a thread of its own: what came `first`, and the `rest`."""
    config = context.service.config
    with rest.connection, context.sockets.known(rest.connection):
        try:
            feed(upload, first)
            receive(upload, rest, context.deadlines())
            return upload.finish()
        except ReconError:
            most = min(rest.count, config.linger_bytes)
            drain(rest.connection, timeout_s=config.linger_timeout_s, most_bytes=most)
            raise


async def _take_streamed(request: Request, context: Context, upload: Upload) -> None:
    """Receive a body through the event loop: one of unknown length, one that came at once, or an encrypted one."""
    deadlines, reason = context.deadlines(), ""
    pieces = bytearray()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(loop.time() + deadlines.left_s()) as limit:
            async for piece in request.stream():
                pieces += piece
                if len(pieces) >= _FALLBACK_BYTES:
                    data, pieces = bytes(pieces), bytearray()
                    await _in_thread(context, partial(feed, upload, data))
                deadlines.heard(header=True)
                limit.reschedule(loop.time() + deadlines.left_s())
    except ClientDisconnect:
        reason = _LEFT
    except TimeoutError:
        reason = deadlines.reason()
    await _in_thread(context, partial(feed, upload, bytes(pieces)))
    if reason:
        raise await _in_thread(context, partial(broken, upload, reason))


async def _in_thread(context: Context, call: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(call, limiter=context.upload_threads)


def _created(record: ScanRecord) -> JSONResponse:
    return JSONResponse(record_document(record), 201, {"location": f"/v1/scans/{record.id}"})


def _replayed(record: ScanRecord) -> JSONResponse:
    """The first scan with this key, once it is on disk; until then whoever repeats the request has to wait."""
    if not record.complete:
        words = f"scan {record.id} with the same idempotency key is still coming in: ask again"
        return _problem(RefusedError(words, retry_after_s=1.0), scan=record.id, status=409)
    response = _created(record)
    response.headers["idempotent-replayed"] = "true"
    return response


# ---- states ----

_ONE: dict[int | str, dict[str, Any]] = {200: {"content": _RECORD}}


@router.get("/v1/scans", summary="The newest scans, newest first")
def get_scans(
    service: ServiceOf,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
) -> JSONResponse:
    """Records under `scans`, newest first; with an `Idempotency-Key`, the one sent with it, also while it comes in."""
    if idempotency_key:
        found = service.lookup(idempotency_key)
        return JSONResponse({"scans": [record_document(found)] if found else []})
    return JSONResponse({"scans": [record_document(record) for record in service.scans(state=state, limit=limit)]})


@router.get("/v1/scans/{scan}", responses=_ONE, summary="State, times, method, reason")
def get_scan(service: ServiceOf, scan: str) -> JSONResponse:
    """The scan's record."""
    return JSONResponse(record_document(service.scan(scan)))


@router.delete("/v1/scans/{scan}", responses=_ONE, summary="Cancel")
def delete_scan(service: ServiceOf, scan: str) -> JSONResponse:
    """Stop the scan; one that has ended stays as it is."""
    return JSONResponse(record_document(service.cancel(scan)))


@router.post("/v1/scans/{scan}/requeue", responses=_ONE, summary="Reconstruct again from the raw data")
def requeue_scan(service: ServiceOf, scan: str) -> JSONResponse:
    """Only a scan that has ended can run again."""
    return JSONResponse(record_document(service.requeue(scan)))


@router.get("/v1/scans/{scan}/log", summary="What happened, line by line")
def get_log(service: ServiceOf, scan: str, accept: Annotated[str, Header()] = "*/*") -> Response:
    """Plain text, or JSON where that is asked for."""
    lines = service.log(scan)
    if choose(accept, ("text/plain", "application/json")) == "application/json":
        return JSONResponse({"lines": [line_document(line) for line in lines]})
    return PlainTextResponse("".join(f"{_stamp(line.time_s)} {line.text}\n" for line in lines))


def _stamp(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s)) + f".{int(time_s % 1 * 1000):03}Z"


@router.get("/v1/scans/{scan}/raw", dependencies=_OPENS, summary="The raw data as received")
def get_raw(service: ServiceOf, scan: str) -> FileResponse:
    """MRD stream or HDF5 file, as it was sent."""
    path = service.raw_path(scan)
    if not path.exists():
        raise NotFoundError(f"no raw data of scan {scan} are kept: look at its log")
    return FileResponse(path, media_type=HDF5_TYPE if path.suffix == ".h5" else MRD_TYPE, filename=path.name)


# ---- images out ----

Number = Annotated[int, InPath(ge=0)]


@router.get("/v1/scans/{scan}/images", dependencies=_OPENS, summary="All images")
async def get_images(
    context: ContextOf,
    scan: str,
    accept: Annotated[str, Header()] = "*/*",
    follow: bool = False,
    start: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """By Accept: an MRD stream (with `follow` as they are made, until the scan ends), HDF5, a ZIP of DICOM, one PNG."""
    kind = choose(accept, (MRD_TYPE, HDF5_TYPE, ZIP_TYPE, PNG_TYPE))
    service = context.service
    await anyio.to_thread.run_sync(service.scan, scan)
    if kind == MRD_TYPE:
        return _following(context, _images(context, scan, start, follow=follow), MRD_TYPE)
    if kind == HDF5_TYPE:
        path = await anyio.to_thread.run_sync(pictures.hdf5, service, scan)
        clean = BackgroundTask(shutil.rmtree, path.parent, ignore_errors=True)
        return FileResponse(path, media_type=HDF5_TYPE, filename=path.name, background=clean)
    if kind == PNG_TYPE:
        picture = await anyio.to_thread.run_sync(pictures.png_of_all, service, scan)
        return Response(picture, media_type=PNG_TYPE)
    archive = await anyio.to_thread.run_sync(pictures.dicom_archive, service, scan)
    headers = {"content-disposition": f'attachment; filename="{scan}.zip"'}
    return StreamingResponse(archive, media_type=ZIP_TYPE, headers=headers)


@router.get("/v1/scans/{scan}/images/{number}.png", summary="One image as a picture")
def get_png(service: ServiceOf, scan: str, number: Number) -> Response:
    """Images are numbered from 0 in the order in which they were made; a volume's planes stand side by side."""
    return Response(pictures.png(service, scan, number), media_type=PNG_TYPE)


@router.get("/v1/scans/{scan}/images/{number}.dcm", summary="One image as DICOM")
def get_dicom(service: ServiceOf, scan: str, number: Number, plane: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Of a volume, the plane asked for."""
    return Response(pictures.dicom(service, scan, number, plane=plane), media_type="application/dicom")


class Following(StreamingResponse):
    """An answer that takes one of `slots` until it ends, however it ends: a client may go before its first byte."""

    def __init__(self, slots: Slots, content: AsyncIterator[bytes], media_type: str) -> None:
        super().__init__(content, media_type=media_type)
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        with self._slots.held():
            await super().__call__(scope, receive, send)


def _following(context: Context, content: AsyncIterator[bytes], media_type: str) -> Following:
    if not context.followers.take():
        most = context.followers.most
        raise RefusedError(f"{most} clients follow scans, the limit here: ask again later", retry_after_s=5.0)
    return Following(context.followers, content, media_type)


async def _images(context: Context, scan: str, start: int, *, follow: bool) -> AsyncIterator[bytes]:
    """Image messages from number `start` on, a sign of life when none comes, the reason if the scan failed, CLOSE."""
    service, quiet_s = context.service, 0.0
    slice_s = min(_SLICE_S, service.config.keep_alive_s) if follow else 0.0
    while True:
        # The record first: what was stored by the end of the scan is then among the images below.
        record = await _waiting(context, partial(service.scan, scan))
        ask = partial(service.follow, timeout_s=slice_s) if follow else service.stored
        stored = await _waiting(context, partial(ask, scan, start=start))
        while data := await _waiting(context, partial(next, stored, b"")):
            yield data
            start, quiet_s = start + 1, 0.0
        if record.state.final or not follow:
            break
        if context.stopping:
            return  # without CLOSE: the client goes on with the next server
        quiet_s += slice_s
        if quiet_s >= service.config.keep_alive_s:
            yield encode_text(f"the scan is {record.state.value}")
            quiet_s = 0.0
    if record.state.final and record.state is not State.DONE:
        yield encode_text(f"{ERROR}{record.reason or record.state.value}")
    yield encode_close()


async def _waiting(context: Context, call: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(call, limiter=context.follower_threads)


# ---- events ----


LastEventId = Annotated[str, Header(max_length=100)]


@router.get("/v1/events", summary="What happens to all scans, as server-sent events")
async def get_events(context: ContextOf, last_event_id: LastEventId = "") -> Response:
    """Events `state` and `image`, from now on or behind `Last-Event-ID`; `lost` where some in between are not known.

    Whoever reads too slowly hears by `lost` how many `events` that made since the start.
    """
    return _following(context, _events(context, "", after=last_event_id), "text/event-stream")


@router.get("/v1/scans/{scan}/events", summary="What happens to one scan, as server-sent events")
async def get_scan_events(context: ContextOf, scan: str, last_event_id: LastEventId = "") -> Response:
    """The state now, then events `state` and `image` until the scan ends; behind `Last-Event-ID` what came since."""
    await anyio.to_thread.run_sync(context.service.scan, scan)
    return _following(context, _events(context, scan, after=last_event_id), "text/event-stream")


async def _events(context: Context, scan: str, *, after: str) -> AsyncIterator[bytes]:
    service, quiet_s, missed = context.service, 0.0, 0
    subscription = await _waiting(context, partial(service.events, scan or None, after=after))
    try:
        resumed = bool(after) and subscription.whole
        # A connection that breaks before the first event can be taken up all the same: behind the id that comes first,
        # or for one scan not before its state was told.
        place = "" if scan else f"id: {after if resumed else subscription.start}\n"
        yield f": events follow\n{place}\n".encode()
        if not subscription.whole:
            yield _event(Told("" if scan else subscription.start, "lost", {"after": after}))
        record = await _waiting(context, partial(service.scan, scan)) if scan else None
        ended = record is not None and record.state.final
        if record is not None and not resumed:
            now = {"scan": scan, "state": record.state.value, "images": record.images}
            yield _event(Told(subscription.start, "state", now))
        final = ended and not resumed
        while not (final or context.stopping):
            event = await _waiting(context, partial(subscription.get, _SLICE_S))
            if subscription.lost > missed:
                missed = subscription.lost
                yield _event(Told("", "lost", {"events": missed}))
            if event is not None:
                yield _event(event)
                final = bool(scan) and State(event.values["state"]).final
                quiet_s = 0.0
            elif ended:  # who comes back has heard of the end already
                final = True
            elif (quiet_s := quiet_s + _SLICE_S) >= service.config.keep_alive_s:
                yield b": still here\n\n"
                quiet_s = 0.0
    finally:
        subscription.close()


def _event(event: Told) -> bytes:
    place = f"id: {event.id}\n" if event.id else ""
    return f"{place}event: {event.name}\ndata: {json.dumps(event.values)}\n\n".encode()


# ---- the server itself ----


@router.get("/v1/cluster", summary="Workers, queue, batches")
def get_cluster(service: ServiceOf) -> JSONResponse:
    """What runs and waits now."""
    return JSONResponse({"version": __version__, **service.cluster()})


@router.get("/v1/recipes", summary="The catalogue of recipes")
def get_recipes() -> JSONResponse:
    """Names with their methods and parameters."""
    return JSONResponse(recipes_document())


@router.get("/metrics", summary="Prometheus metrics")
def get_metrics(service: ServiceOf) -> Response:
    """Prometheus' text format."""
    return Response(service.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/healthz", summary="Alive")
async def get_health() -> PlainTextResponse:
    """Answers as long as the server runs."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", summary="Ready to take scans")
def get_readiness(service: ServiceOf) -> PlainTextResponse:
    """503 while starting, draining, or unable to keep scans."""
    return PlainTextResponse("ready\n") if service.ready else PlainTextResponse("not ready\n", 503)


# ---- errors ----


def _problem(error: ReconError, *, scan: str = "", status: int = 0) -> JSONResponse:
    document = problem_document(error, scan=scan)
    if status:
        document["status"] = status
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = {} if retry_after_s is None else {"retry-after": str(math.ceil(retry_after_s))}
    return JSONResponse(document, document["status"], headers, PROBLEM_TYPE)


async def _on_error(_request: Request, error: Exception) -> JSONResponse:
    return _problem(cast(ReconError, error))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    path, verbs = repr(request.url.path[:200]), ", ".join(_verbs(request))
    if verbs:
        answer = _problem(VerbError(f"{path} does not take {request.method[:20]}, it takes {verbs}: use one of them"))
        answer.headers["allow"] = verbs
        return answer
    return _problem(RouteError(f"there is nothing at {path}: /openapi.json lists what there is"))


def _verbs(request: Request) -> list[str]:
    """What the path may be asked with."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    matching = [route for route in routes if route.path_regex.match(request.url.path)]
    return sorted({verb for route in matching for verb in route.methods or ()})


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [(".".join(str(part) for part in fault["loc"]), fault["msg"]) for fault in error.errors()]
    words = "; ".join(f"{place}: {text}" for place, text in faults) + ": correct the request"
    return _problem(RequestError(words))


async def _on_os_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if busy := no_descriptor(error, "open what was asked for"):
        return _problem(busy)
    raise error


async def _on_defect(_request: Request, error: Exception) -> JSONResponse:
    # The traceback goes to the server's log only: it could name paths and data.
    return _problem(ReconError(f"internal error {type(error).__name__}: report it with the server's log"))


def choose(accept: str, offered: tuple[str, ...]) -> str:
    """The media type of `offered` that an Accept header wants most; raises AcceptError."""
    best, chosen = 0.0, ""
    for entry in accept.split(","):
        wanted, *parameters = (part.strip().lower() for part in entry.split(";"))
        match = next((kind for kind in offered if wanted in (kind, "*/*", kind.partition("/")[0] + "/*")), "")
        if match and (quality := _quality(parameters)) > best:
            best, chosen = quality, match
    if not chosen:
        known = ", ".join(offered)
        raise AcceptError(f"Accept is {accept[:200]!r}, expected one of {known}: accept one of them")
    return chosen


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            with suppress(ValueError):  # not a number: as if it were not there
                return float(parameter[2:])
    return 1.0


def create_app(service: Service) -> FastAPI:
    """The application; it serves one `service`."""
    app = FastAPI(title="recon-cluster", version=__version__, docs_url=None, redoc_url=None)
    app.state.context = Context(service)
    app.include_router(router)
    app.add_exception_handler(ReconError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(OSError, _on_os_error)
    app.add_exception_handler(Exception, _on_defect)
    return app


# ---- uvicorn ----


class Body:
    """A request's body, for a route that reads it from the socket itself."""

    def __init__(self, protocol: BodyProtocol) -> None:
        self._protocol = protocol

    @property
    def direct(self) -> bool:
        """Whether there is more to come, and in the clear."""
        protocol = self._protocol
        return protocol.cycle.more_body and protocol.transport.get_extra_info("sslcontext") is None

    def take(self) -> tuple[bytes, socket.socket | None]:
        """What came so far, and a socket with the rest; the event loop reads no more, and closes after its answer.

        No socket where the client has left already.
        """
        protocol = self._protocol
        cycle, transport = protocol.cycle, protocol.transport
        protocol.flow.pause_reading()
        cycle.keep_alive = False
        if cycle.waiting_for_100_continue:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        number = -1 if cycle.disconnected else transport.get_extra_info("socket").fileno()
        return bytes(cycle.body), None if number < 0 else socket.socket(fileno=os.dup(number))


class BodyProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a bounded number of connections, which gives bodies away as sockets.

    It does not wait for ever for a request.
    """

    def __init__(self, *args: Any, header_timeout_s: float, places: Slots, **options: Any) -> None:
        super().__init__(*args, **options)
        self._header_timeout_s = header_timeout_s
        self._places = places
        self._placed = False
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client came."""
        super().connection_made(transport)
        self._placed = self._places.take()
        if self._placed:
            self._expect_header()
        else:
            self._refuse()

    def data_received(self, data: bytes) -> None:
        """What a client without a place says is not heard."""
        if self._placed:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        self._forget_header()
        if self._placed:
            self._places.release()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._expect_header()

    def on_headers_complete(self) -> None:
        """All of a request but its body is there."""
        self._forget_header()
        super().on_headers_complete()
        self.scope["extensions"] = {_BODY: cast(dict[object, object], Body(self))}

    def _expect_header(self) -> None:
        self._forget_header()
        self._late = self.loop.call_later(self._header_timeout_s, self._too_late)

    def _forget_header(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        words = f"no complete request came within {self._header_timeout_s:g} s: send its header at once"
        self._part("408 Request Timeout", problem_document(SlowError(words)))
        self.transport.close()

    def _refuse(self) -> None:
        words = f"{self._places.most} connections are open, the limit here (max_http_connections): come again later"
        document = problem_document(RefusedError(words)) | {"status": 503}
        self._part("503 Service Unavailable", document, f"retry-after: {_RETRY_S}")
        # Closed at once, a request on its way would be answered with a reset, and the answer above be lost with it.
        self._late = self.loop.call_later(_REFUSAL_S, self.transport.close)

    def _part(self, status: str, document: Mapping[str, Any], *lines: str) -> None:
        """Answer without having been asked."""
        content = json.dumps(document).encode()
        size = f"content-length: {len(content)}"
        head = [f"HTTP/1.1 {status}", f"content-type: {PROBLEM_TYPE}", size, "connection: close", *lines]
        self.transport.write("\r\n".join([*head, "\r\n"]).encode() + content)


class HttpGateway:
    """Serves the application on `listener`, a bound socket, in a thread with an event loop of its own."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        config = service.config
        app = create_app(service)
        places = Slots(config.max_http_connections)
        protocol = partial(BodyProtocol, header_timeout_s=config.header_timeout_s, places=places)
        self._context: Context = app.state.context
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=cast(type[asyncio.Protocol], protocol),
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Listen; returns when requests are answered."""
        pictures.sweep(self._context.service.config.data)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)

    def stop(self, *, timeout_s: float) -> None:
        """Take no new request, cut uploads, end streams, and give answers under way `timeout_s`."""
        self._context.stopping = True
        self._context.sockets.cut()
        self._server.config.timeout_graceful_shutdown = math.ceil(timeout_s)
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])

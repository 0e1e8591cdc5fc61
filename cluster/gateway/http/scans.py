"""Scans in: `POST /v1/scans`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from cluster.config import ClusterConfig
from cluster.documents import read_priority, record_document
from cluster.events import Refused
from cluster.gateway.http.context import Context, ContextOf
from cluster.gateway.http.problems import problem
from cluster.gateway.http.protocol import BODY, Body
from cluster.gateway.http.schemas import BINARY, RECORD, TEXT, Responses, answers, problems
from cluster.gateway.sockets import drain
from cluster.gateway.upload import Hdf5Upload, Rest, Upload, broken, feed, receive
from cluster.intake import Intake
from cluster.job import (
    BusyError,
    ConflictError,
    DiskFullError,
    DuplicateError,
    EndedError,
    FailedError,
    MediaTypeError,
    RequestError,
    ScanRecord,
    ScanRequest,
    no_descriptor,
)
from cluster.sources import HDF5_TYPE, MRD_TYPE
from recon.errors import (
    CalibrationError,
    DeviceError,
    FileError,
    HeaderError,
    InputError,
    LimitError,
    PackageError,
    RecipeError,
    ReconError,
    RefusedError,
    ScanError,
    WireError,
)

T = TypeVar("T")
_FALLBACK_BYTES = 1 << 20
_RETRY_S = 2.0
_LEFT = "the sender left before the end of the body: send it again"

router = APIRouter()

_BODIES = {
    "requestBody": {
        "description": "An MRD v1 stream as over TCP, or an ISMRMRD HDF5 file; of any size, chunked too",
        "required": True,
        "content": {MRD_TYPE: {"schema": BINARY}, HDF5_TYPE: {"schema": BINARY}},
    }
}
_TAKEN: Responses = answers("All of the scan is on disk", {"application/json": RECORD}, status=201)
_TAKEN[201]["headers"] = {
    "Location": {"description": "Path of the record", "schema": TEXT},
    "Idempotent-Replayed": {"description": "`true` where an earlier request with this key sent it", "schema": TEXT},
}
_NOT_TAKEN = problems(
    WireError,
    HeaderError,
    FileError,
    InputError,
    ConflictError,
    EndedError,
    FailedError,
    LimitError,
    MediaTypeError,
    RequestError,
    RecipeError,
    ScanError,
    CalibrationError,
    RefusedError,
    PackageError,
    DeviceError,
    DiskFullError,
    other={409: RefusedError},
)


async def _asked(
    method: Annotated[
        str, Query(max_length=10_000, description="A recipe's name or a recipe as JSON", examples=["fft", "cg-sense"])
    ] = "auto",
    priority: Annotated[str, Query(description="stat, routine or research", examples=["stat"])] = "routine",
    name: Annotated[str, Query(max_length=200, description="What people call the scan", examples=["head"])] = "",
    idempotency_key: Annotated[
        str, Header(max_length=200, description="Makes a repeated request the same scan", examples=["9d3c-0042"])
    ] = "",
) -> ScanRequest:
    return ScanRequest("http", method, read_priority(priority), name, idempotency_key)


@router.post(
    "/v1/scans",
    status_code=201,
    summary="Send a scan; answered when all of it is on disk",
    responses=_TAKEN | _NOT_TAKEN,
    openapi_extra=_BODIES,
)
async def post_scan(
    request: Request,
    context: ContextOf,
    asked: Annotated[ScanRequest, Depends(_asked)],
    group: Annotated[str, Query(max_length=200, description="Group of the HDF5 file; else `dataset`")] = "",
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
        return problem(error, scan=intake.scan_id)
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
    body: Body | None = request.scope.get("extensions", {}).get(BODY)
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
        return problem(RefusedError(words, retry_after_s=1.0), scan=record.id, status=409)
    response = _created(record)
    response.headers["idempotent-replayed"] = "true"
    return response

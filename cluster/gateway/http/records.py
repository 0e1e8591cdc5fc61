"""What is known of scans: records, log, raw data; cancelling them and running them again."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse

from cluster.documents import line_document, record_document
from cluster.events import State
from cluster.gateway.http.accept import choose
from cluster.gateway.http.context import OPENS, ScanId, ServiceOf
from cluster.gateway.http.schemas import BINARY, LINES, RECORD, RECORDS, TEXT, answers, problems
from cluster.job import AcceptError, ConflictError, DiskFullError, NotFoundError, RequestError
from cluster.sources import HDF5_TYPE, MRD_TYPE
from recon.errors import FileError, RefusedError

router = APIRouter()

_JSON = "application/json"
_ONE = answers("The scan's record", {_JSON: RECORD}) | problems(NotFoundError)
_AGAIN = _ONE | problems(NotFoundError, ConflictError, FileError, RefusedError, DiskFullError)
_LOG = answers("The lines", {"text/plain": TEXT, _JSON: LINES}) | problems(NotFoundError, AcceptError)
_RAW = answers("As it was sent", {MRD_TYPE: BINARY, HDF5_TYPE: BINARY}) | problems(NotFoundError)


@router.get(
    "/v1/scans",
    responses=answers("Records", {_JSON: RECORDS}) | problems(RequestError),
    summary="The newest scans, newest first",
)
def get_scans(
    service: ServiceOf,
    state: Annotated[State | None, Query(description="Only scans in this state", examples=["running"])] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="At most so many")] = 100,
    idempotency_key: Annotated[str, Header(max_length=200, description="Only the scan sent with this key")] = "",
) -> JSONResponse:
    """Records under `scans`, newest first; with an `Idempotency-Key`, the one sent with it, also while it comes in."""
    if idempotency_key:
        found = service.lookup(idempotency_key)
        return JSONResponse({"scans": [record_document(found)] if found else []})
    return JSONResponse({"scans": [record_document(record) for record in service.scans(state=state, limit=limit)]})


@router.get("/v1/scans/{scan}", responses=_ONE, summary="State, times, method, reason")
def get_scan(service: ServiceOf, scan: ScanId) -> JSONResponse:
    """The scan's record."""
    return JSONResponse(record_document(service.scan(scan)))


@router.delete("/v1/scans/{scan}", responses=_ONE, summary="Cancel")
def delete_scan(service: ServiceOf, scan: ScanId) -> JSONResponse:
    """Stop the scan; one that has ended stays as it is."""
    return JSONResponse(record_document(service.cancel(scan)))


@router.post("/v1/scans/{scan}/requeue", responses=_AGAIN, summary="Reconstruct again from the raw data")
def requeue_scan(service: ServiceOf, scan: ScanId) -> JSONResponse:
    """Only a scan that has ended can run again."""
    return JSONResponse(record_document(service.requeue(scan)))


@router.get("/v1/scans/{scan}/log", response_class=Response, responses=_LOG, summary="What happened, line by line")
def get_log(
    service: ServiceOf,
    scan: ScanId,
    accept: Annotated[str, Header(description="`text/plain` or `application/json`")] = "*/*",
) -> Response:
    """Plain text, or JSON where that is asked for."""
    lines = service.log(scan)
    if choose(accept, ("text/plain", _JSON)) == _JSON:
        return JSONResponse({"lines": [line_document(line) for line in lines]})
    return PlainTextResponse("".join(f"{_stamp(line.time_s)} {line.text}\n" for line in lines))


def _stamp(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s)) + f".{int(time_s % 1 * 1000):03}Z"


@router.get(
    "/v1/scans/{scan}/raw",
    dependencies=OPENS,
    response_class=Response,
    responses=_RAW,
    summary="The raw data as received",
)
def get_raw(service: ServiceOf, scan: ScanId) -> FileResponse:
    """MRD stream or HDF5 file, as it was sent."""
    path = service.raw_path(scan)
    if not path.exists():
        raise NotFoundError(f"no raw data of scan {scan} are kept: look at its log")
    return FileResponse(path, media_type=HDF5_TYPE if path.suffix == ".h5" else MRD_TYPE, filename=path.name)

"""What is known of scans: records, log, raw data; cancelling them and running them again."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse

from cluster.documents import line_document, record_document
from cluster.events import State
from cluster.gateway.http.accept import choose
from cluster.gateway.http.context import OPENS, ServiceOf
from cluster.gateway.http.schemas import RECORD
from cluster.job import NotFoundError
from cluster.sources import HDF5_TYPE, MRD_TYPE

router = APIRouter()

_ONE: dict[int | str, dict[str, Any]] = {200: {"content": RECORD}}


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


@router.get("/v1/scans/{scan}/raw", dependencies=OPENS, summary="The raw data as received")
def get_raw(service: ServiceOf, scan: str) -> FileResponse:
    """MRD stream or HDF5 file, as it was sent."""
    path = service.raw_path(scan)
    if not path.exists():
        raise NotFoundError(f"no raw data of scan {scan} are kept: look at its log")
    return FileResponse(path, media_type=HDF5_TYPE if path.suffix == ".h5" else MRD_TYPE, filename=path.name)

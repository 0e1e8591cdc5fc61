"""Images out, in the form that a client accepts."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Header, Query, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from cluster.events import State
from cluster.gateway import pictures
from cluster.gateway.http.accept import choose
from cluster.gateway.http.context import OPENS, Context, ContextOf, ScanId, ServiceOf
from cluster.gateway.http.following import SLICE_S, following, waiting
from cluster.gateway.http.schemas import BINARY, answers, problems
from cluster.job import AcceptError, DiskFullError, NotFoundError, RequestError
from cluster.saving import PNG_TYPE, ZIP_TYPE
from cluster.sources import HDF5_TYPE, MRD_TYPE
from recon.errors import FileError, LimitError, PackageError, RefusedError
from recon.mrd.wire import ERROR, encode_close, encode_text

router = APIRouter()

Number = Annotated[int, InPath(ge=0, description="Of the image, from 0, in the order in which they were made")]
_DICOM_TYPE = "application/dicom"
_ALL = answers("The images", dict.fromkeys((MRD_TYPE, HDF5_TYPE, ZIP_TYPE, PNG_TYPE), BINARY)) | problems(
    NotFoundError, AcceptError, FileError, LimitError, RequestError, RefusedError, PackageError, DiskFullError
)
_PNG = answers("The picture", {PNG_TYPE: BINARY}) | problems(NotFoundError, FileError, LimitError, RequestError)
_DICOM = answers("The file", {_DICOM_TYPE: BINARY}) | problems(NotFoundError, FileError, RequestError, PackageError)


@router.get(
    "/v1/scans/{scan}/images", dependencies=OPENS, response_class=Response, responses=_ALL, summary="All images"
)
async def get_images(
    context: ContextOf,
    scan: ScanId,
    accept: Annotated[str, Header(description="Which form, by quality; MRD where all are the same")] = "*/*",
    follow: Annotated[bool, Query(description="MRD only: go on until the scan ends")] = False,
    start: Annotated[int, Query(ge=0, description="MRD only: number of the first image, from 0")] = 0,
) -> Response:
    """By Accept: an MRD stream (with `follow` as they are made, until the scan ends), HDF5, a ZIP of DICOM, one PNG."""
    kind = choose(accept, (MRD_TYPE, HDF5_TYPE, ZIP_TYPE, PNG_TYPE))
    service = context.service
    await anyio.to_thread.run_sync(service.scan, scan)
    if kind == MRD_TYPE:
        return following(context, _images(context, scan, start, follow=follow), MRD_TYPE)
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


@router.get(
    "/v1/scans/{scan}/images/{number}.png", response_class=Response, responses=_PNG, summary="One image as a picture"
)
def get_png(service: ServiceOf, scan: ScanId, number: Number) -> Response:
    """Images are numbered from 0 in the order in which they were made; a volume's planes stand side by side."""
    return Response(pictures.png(service, scan, number), media_type=PNG_TYPE)


@router.get(
    "/v1/scans/{scan}/images/{number}.dcm", response_class=Response, responses=_DICOM, summary="One image as DICOM"
)
def get_dicom(
    service: ServiceOf,
    scan: ScanId,
    number: Number,
    plane: Annotated[int, Query(ge=0, description="Of a volume: number of the plane, from 0")] = 0,
) -> Response:
    """Of a volume, the plane asked for."""
    return Response(pictures.dicom(service, scan, number, plane=plane), media_type=_DICOM_TYPE)


async def _images(context: Context, scan: str, start: int, *, follow: bool) -> AsyncIterator[bytes]:
    """Image messages from number `start` on, a sign of life when none comes, the reason if the scan failed, CLOSE."""
    service, quiet_s = context.service, 0.0
    slice_s = min(SLICE_S, service.config.keep_alive_s) if follow else 0.0
    while True:
        # The record first: what was stored by the end of the scan is then among the images below.
        record = await waiting(context, partial(service.scan, scan))
        ask = partial(service.follow, timeout_s=slice_s) if follow else service.stored
        stored = await waiting(context, partial(ask, scan, start=start))
        while data := await waiting(context, partial(next, stored, b"")):
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

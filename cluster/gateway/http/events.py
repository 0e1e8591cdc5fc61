"""What happens to scans, as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Header, Response

from cluster.events import State
from cluster.gateway.http.context import Context, ContextOf, ScanId
from cluster.gateway.http.following import SLICE_S, following, waiting
from cluster.gateway.http.schemas import EVENT_STREAM, problems
from cluster.job import NotFoundError, RequestError
from cluster.live import Told
from recon.errors import RefusedError

router = APIRouter()

LastEventId = Annotated[str, Header(max_length=100, description="`id` of the last event heard: go on behind it")]
_ALL = EVENT_STREAM | problems(RequestError, RefusedError)
_ONE = EVENT_STREAM | problems(NotFoundError, RequestError, RefusedError)


@router.get(
    "/v1/events",
    response_class=Response,
    responses=_ALL,
    summary="What happens to all scans, as server-sent events",
)
async def get_events(context: ContextOf, last_event_id: LastEventId = "") -> Response:
    """Events `state` and `image`, from now on or behind `Last-Event-ID`; `lost` where some in between are not known.

    Whoever reads too slowly hears by `lost` how many `events` that made since the start.
    """
    return following(context, told(context, "", after=last_event_id), "text/event-stream")


@router.get(
    "/v1/scans/{scan}/events",
    response_class=Response,
    responses=_ONE,
    summary="What happens to one scan, as server-sent events",
)
async def get_scan_events(context: ContextOf, scan: ScanId, last_event_id: LastEventId = "") -> Response:
    """The state now, then events `state` and `image` until the scan ends; behind `Last-Event-ID` what came since."""
    await anyio.to_thread.run_sync(context.service.scan, scan)
    return following(context, told(context, scan, after=last_event_id), "text/event-stream")


async def told(context: Context, scan: str, *, after: str) -> AsyncIterator[bytes]:
    service, quiet_s, missed = context.service, 0.0, 0
    subscription = await waiting(context, partial(service.events, scan or None, after=after))
    try:
        resumed = bool(after) and subscription.whole
        # A connection that breaks before the first event can be taken up all the same: behind the id that comes first,
        # or for one scan not before its state was told.
        place = "" if scan else f"id: {after if resumed else subscription.start}\n"
        yield f": events follow\n{place}\n".encode()
        if not subscription.whole:
            yield _event(Told("" if scan else subscription.start, "lost", {"after": after}))
        record = await waiting(context, partial(service.scan, scan)) if scan else None
        ended = record is not None and record.state.final
        if record is not None and not resumed:
            now = {"scan": scan, "state": record.state.value, "images": record.images}
            yield _event(Told(subscription.start, "state", now))
        final = ended and not resumed
        while not (final or context.stopping):
            event = await waiting(context, partial(subscription.get, SLICE_S))
            if subscription.lost > missed:
                missed = subscription.lost
                yield _event(Told("", "lost", {"events": missed}))
            if event is not None:
                yield _event(event)
                final = bool(scan) and State(event.values["state"]).final
                quiet_s = 0.0
            elif ended:  # who comes back has heard of the end already
                final = True
            elif (quiet_s := quiet_s + SLICE_S) >= service.config.keep_alive_s:
                yield b": still here\n\n"
                quiet_s = 0.0
    finally:
        subscription.close()


def _event(event: Told) -> bytes:
    place = f"id: {event.id}\n" if event.id else ""
    return f"{place}event: {event.name}\ndata: {json.dumps(event.values)}\n\n".encode()

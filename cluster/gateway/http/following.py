"""Clients that follow what happens: each takes a place, and waits in threads of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import anyio.to_thread
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cluster.gateway.http.context import Context
from cluster.gateway.limits import Slots
from recon.errors import RefusedError

T = TypeVar("T")
SLICE_S = 1.0  # a thread that waits for a scan looks this often whether its client is still there


class Following(StreamingResponse):
    """An answer that takes one of `slots` until it ends, however it ends: a client may go before its first byte."""

    def __init__(self, slots: Slots, content: AsyncIterator[bytes], media_type: str) -> None:
        super().__init__(content, media_type=media_type)
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        with self._slots.held():
            await super().__call__(scope, receive, send)


def following(context: Context, content: AsyncIterator[bytes], media_type: str) -> Following:
    if not context.followers.take():
        most = context.followers.most
        raise RefusedError(f"{most} clients follow scans, the limit here: ask again later", retry_after_s=5.0)
    return Following(context.followers, content, media_type)


async def waiting(context: Context, call: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(call, limiter=context.follower_threads)

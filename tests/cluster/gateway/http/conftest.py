"""One server for all of these tests, and a scan that is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cluster.events import State
from tests.cluster import scans
from tests.cluster.gateway.http.conversation import MRD
from tests.cluster.gateway.http.judge import Judge
from tests.end_to_end.running import Running, eventually, running


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        assert eventually(lambda: server.service.ready)
        yield server


@pytest.fixture(scope="package")
def openapi(server: Running) -> dict[str, Any]:
    """What the server says of itself."""
    document: dict[str, Any] = httpx.get(f"{server.http}/openapi.json").json()
    return document


@pytest.fixture(scope="package")
def http(server: Running, openapi: dict[str, Any]) -> Iterator[httpx.Client]:
    """A plain HTTP client: not ours, which would hide what the server says; every answer has to be as published."""
    hooks = {"response": [Judge(openapi)]}
    with httpx.Client(base_url=server.http, timeout=30.0, event_hooks=hooks) as http:
        yield http


@pytest.fixture(scope="package")
def done(server: Running, http: httpx.Client) -> str:
    """A scan of three frames that is done."""
    answer = http.post("/v1/scans?method=fft&name=three", content=scans.stream(scans.frames(3)), headers=MRD)
    assert answer.status_code == 201
    scan: str = answer.json()["scan"]
    assert server.service.wait(scan, 30.0).state is State.DONE
    return scan

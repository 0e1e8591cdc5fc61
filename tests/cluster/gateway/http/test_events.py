"""Server-sent events: resumed, lost, of one scan and of all."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
from jsonschema import Draft202012Validator

from cluster.gateway.http.context import Context
from cluster.gateway.http.events import told
from tests.cluster import scans
from tests.cluster.gateway.http.conversation import MRD
from tests.cluster.gateway.http.judge import closed
from tests.end_to_end.running import Running


def events_of(answer: httpx.Response) -> Iterator[tuple[str, dict[str, object]]]:
    """Server-sent events as they come."""
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_events_of_a_scan_end_with_it(server: Running, http: httpx.Client, done: str) -> None:
    with http.stream("GET", f"/v1/scans/{done}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert list(events_of(answer)) == [("state", {"scan": done, "state": "done", "images": 3})]


def test_events_go_on_behind_the_last_one_heard(server: Running, http: httpx.Client) -> None:
    scan = http.post("/v1/scans", content=scans.stream(scans.frames(3)), headers=MRD).json()["scan"]
    server.service.wait(scan, 30.0)
    whole = [told for told in heard_by(server, "") if told[2]["scan"] == scan]
    for number in range(len(whole) - 1):
        again = http.get(f"/v1/scans/{scan}/events", headers={"last-event-id": whole[number][0]}).text
        assert told_in(again) == whole[number + 1 :]
    assert told_in(http.get(f"/v1/scans/{scan}/events", headers={"last-event-id": whole[-1][0]}).text) == []


def test_events_are_as_published(server: Running, http: httpx.Client, openapi: dict[str, Any], done: str) -> None:
    for path in ("/v1/events", "/v1/scans/{scan}/events"):
        answer = openapi["paths"][path]["get"]["responses"]["200"]
        published = answer["content"]["text/event-stream"]["x-events"]
        lost = told_in(http.get(f"/v1/scans/{done}/events", headers={"last-event-id": "before-7"}).text)
        events = [*heard_by(server, ""), *lost]
        assert {name for _, name, _ in events} == {"state", "image", "lost"} == set(published)
        for _, name, values in events:
            Draft202012Validator(closed(published[name])).validate(values)


def heard_by(server: Running, after: str) -> list[tuple[str, str, dict[str, object]]]:
    """Id, name and values of the events that the server has kept so far."""
    subscription = server.service.events(after=after or f"{server.service._feed._run}-0")
    subscription.close()
    return [(told.id, told.name, dict(told.values)) for told in subscription]


def told_in(text: str) -> list[tuple[str, str, dict[str, object]]]:
    """The same of a stream of server-sent events."""
    found = re.findall(r"^(?:id: (\S+)\n)?event: (\w+)\ndata: (.*)$", text, re.MULTILINE)
    return [(place, name, json.loads(values)) for place, name, values in found]


def test_events_that_are_not_known_any_more_are_told_to_be_lost(http: httpx.Client, done: str) -> None:
    lost, now = told_in(http.get(f"/v1/scans/{done}/events", headers={"last-event-id": "before-7"}).text)
    # Without an id of its own: who hears no more than this asks once more, and hears the state then.
    assert lost == ("", "lost", {"after": "before-7"})
    assert now[1:] == ("state", {"scan": done, "state": "done", "images": 3})


def test_a_follower_too_slow_hears_how_many_events_it_lost(tmp_path: Path) -> None:
    async def follow() -> list[tuple[str, str, dict[str, object]]]:
        follower = told(Context(service), "", after="")
        await anext(follower)
        await anyio.to_thread.run_sync(scans.run, service, scans.stream(scans.frames(5)))
        heard = "".join([(await anext(follower)).decode() for _ in range(3)])
        await follower.aclose()
        return told_in(heard)

    with scans.serving(tmp_path, subscription_events=2) as service:
        lost, image, state = anyio.run(follow)
    place, name, values = lost
    assert (place, name, list(values)) == ("", "lost", ["events"])
    assert values["events"] >= 5  # type: ignore[operator]  # of five images and some states, two were kept
    assert image[1] in ("image", "state")
    assert (state[1], state[2]["state"]) == ("state", "done")


def test_events_of_all_scans(server: Running, http: httpx.Client) -> None:
    with httpx.Client(base_url=server.http, timeout=30.0) as client, client.stream("GET", "/v1/events") as answer:
        stream = scans.stream(scans.frames(2))
        sender = threading.Thread(target=lambda: httpx.post(f"{server.http}/v1/scans", content=stream, headers=MRD))
        sender.start()
        seen = []
        for name, values in events_of(answer):
            seen.append((name, values["state"]))
            if seen[-1] == ("state", "done"):
                break
        sender.join()
    assert [name for name, _ in seen].count("image") == 2

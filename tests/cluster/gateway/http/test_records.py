"""What is known of scans, and what is not there."""

from __future__ import annotations

import time

import httpx
import pytest

from cluster.documents import read_record
from cluster.events import State
from tests.cluster import scans
from tests.cluster.gateway.http.conversation import (
    MRD,
    begun,
    check_problem,
    status,
)
from tests.end_to_end.running import Running


def test_the_list_is_newest_first_and_can_be_narrowed(server: Running, http: httpx.Client, done: str) -> None:
    ids = [record["scan"] for record in http.get("/v1/scans?limit=1000").json()["scans"]]
    assert ids == sorted(ids, reverse=True)
    assert done in ids
    assert len(http.get("/v1/scans?limit=1").json()["scans"]) == 1
    states = {record["state"] for record in http.get("/v1/scans?state=done").json()["scans"]}
    assert states == {"done"}
    check_problem(http.get("/v1/scans?state=sleeping"), 422, "state")
    words = "limit is '0', expected greater than or equal to 1: correct the request"
    check_problem(http.get("/v1/scans?limit=0"), 422, words)


def test_a_record_says_what_happened_when(http: httpx.Client, done: str) -> None:
    record = read_record(http.get(f"/v1/scans/{done}").json())
    assert (record.id, record.state, record.chosen, record.images, record.name) == (done, State.DONE, "fft", 3, "three")
    times = [record.created_s, record.header_s, record.received_s, record.finished_s]
    assert times == sorted(times)
    assert abs(times[0] - time.time()) < 600.0


def test_the_log_as_text_and_as_json(http: httpx.Client, done: str) -> None:
    text = http.get(f"/v1/scans/{done}/log")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text.endswith("Z done\n")
    lines = http.get(f"/v1/scans/{done}/log", headers={"accept": "application/json"}).json()["lines"]
    assert [line["text"] for line in lines] == [line.split(" ", 1)[1] for line in text.text.splitlines()]


def test_raw_data_are_what_was_sent(http: httpx.Client, done: str) -> None:
    answer = http.get(f"/v1/scans/{done}/raw")
    assert answer.headers["content-type"] == "application/x-mrd"
    assert answer.content == scans.stream(scans.frames(3))


def test_cancelling_twice_is_cancelling_once(server: Running, http: httpx.Client, done: str) -> None:
    assert http.delete(f"/v1/scans/{done}").json()["state"] == "done"  # what has ended stays as it is
    stream = scans.stream(scans.frames(1))
    with begun(server, stream, len(stream) - 2, until=lambda record: record.readouts == 12) as (connection, scan):
        for _ in range(2):
            assert http.delete(f"/v1/scans/{scan}").json()["state"] == "cancelled"
        connection.sendall(stream[-2:])
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert b"cancelled" in answer


def test_requeue_runs_a_scan_again(server: Running, http: httpx.Client) -> None:
    scan = http.post("/v1/scans?method=fft", content=scans.stream(scans.frames(2)), headers=MRD).json()["scan"]
    before = server.service.wait(scan, 30.0)
    assert http.post(f"/v1/scans/{scan}/requeue").status_code == 200
    after = server.service.wait(scan, 30.0)
    assert (after.state, after.images) == (State.DONE, 2)
    assert after.finished_s > before.finished_s


def test_requeue_of_a_scan_that_runs_is_refused(server: Running, http: httpx.Client) -> None:
    stream = scans.stream(scans.frames(1))
    with begun(server, stream, 5000) as (connection, scan):
        check_problem(http.post(f"/v1/scans/{scan}/requeue"), 409, "only one that has ended can run again")
        connection.sendall(stream[5000:])
        assert status(connection) == 201


UNKNOWN = ("", "/images", "/images?follow=1", "/images/0.png", "/images/0.dcm", "/log", "/raw", "/events")


@pytest.mark.parametrize("below", UNKNOWN)
def test_a_scan_that_is_not_there(http: httpx.Client, below: str) -> None:
    check_problem(http.get(f"/v1/scans/nowhere{below}"), 404, "'nowhere'")


def test_other_things_that_are_not_there(http: httpx.Client, done: str) -> None:
    check_problem(http.delete("/v1/scans/nowhere"), 404, "'nowhere'")
    check_problem(http.post("/v1/scans/nowhere/requeue"), 404, "'nowhere'")
    check_problem(http.get("/v2/scans"), 404, "there is nothing at '/v2/scans': /openapi.json lists what there is")
    answer = http.put(f"/v1/scans/{done}")
    check_problem(answer, 405, f"'/v1/scans/{done}' does not take PUT, it takes DELETE, GET: use one of them")
    assert answer.headers["allow"] == "DELETE, GET"
    check_problem(http.get(f"/v1/scans/{done}/images/3.png"), 404, "3 images", "no image 3: ask for one of them")
    check_problem(http.get(f"/v1/scans/{done}/images/x.png"), 422, "number")
    for picture in ("-1.png", "-1.dcm"):
        check_problem(http.get(f"/v1/scans/{done}/images/{picture}"), 422, "number", "greater than or equal to 0")
    check_problem(http.get(f"/v1/scans/{done}/images/0.dcm?plane=1"), 404, "1 planes")

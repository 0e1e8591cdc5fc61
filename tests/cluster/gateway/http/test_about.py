"""What the server says of itself, and its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator, ValidationError

from cluster.documents import PROBLEM_TYPE
from tests.cluster.gateway.http.judge import Judge
from tests.end_to_end.running import Running


def test_the_server_describes_itself(server: Running, http: httpx.Client) -> None:
    assert http.get("/healthz").text == "ok\n"
    assert http.get("/readyz").status_code == 200
    cluster = http.get("/v1/cluster").json()
    assert {worker["worker"] for worker in cluster["workers"]} == {"w0", "w1"}
    assert cluster["ready"] is True
    names = {recipe["name"]: recipe for recipe in http.get("/v1/recipes").json()["recipes"]}
    assert names["simplefft"]["method"] == "fft"
    assert "recon_scans_accepted_total" in http.get("/metrics").text


def test_openapi_names_every_route(openapi: dict[str, Any]) -> None:
    routes = {(method, path) for path, methods in openapi["paths"].items() for method in methods}
    assert routes == {
        ("post", "/v1/scans"),
        ("get", "/v1/scans"),
        ("get", "/v1/scans/{scan}"),
        ("delete", "/v1/scans/{scan}"),
        ("post", "/v1/scans/{scan}/requeue"),
        ("get", "/v1/scans/{scan}/images"),
        ("get", "/v1/scans/{scan}/images/{number}.png"),
        ("get", "/v1/scans/{scan}/images/{number}.dcm"),
        ("get", "/v1/scans/{scan}/events"),
        ("get", "/v1/scans/{scan}/log"),
        ("get", "/v1/scans/{scan}/raw"),
        ("get", "/v1/events"),
        ("get", "/v1/cluster"),
        ("get", "/v1/recipes"),
        ("get", "/metrics"),
        ("get", "/healthz"),
        ("get", "/readyz"),
    }


def operations(openapi: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation with its name."""
    for path, methods in openapi["paths"].items():
        yield from ((f"{method} {path}", operation) for method, operation in methods.items())


def test_openapi_describes_every_route(openapi: dict[str, Any]) -> None:
    for name, operation in operations(openapi):
        assert operation["summary"], name
        assert operation["description"], name
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (name, parameter["name"])
            assert parameter["required"] or {"default", "anyOf"} & parameter["schema"].keys(), (name, parameter)
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            assert answer["content"], (name, status)
            for kind, content in answer["content"].items():
                assert content["schema"], (name, status, kind)


def test_openapi_names_the_problems_of_every_status(openapi: dict[str, Any]) -> None:
    for name, operation in operations(openapi):
        answers = operation["responses"]
        assert {"408", "500", "503", "default"} <= answers.keys(), name
        for status, answer in answers.items():
            if status[0] != "2":
                schema = answer["content"][PROBLEM_TYPE]["schema"]
                assert schema["properties"]["type"]["enum"], (name, status)
                Draft202012Validator.check_schema(schema)
        if "{scan}" in name:
            assert answers["404"]["content"][PROBLEM_TYPE]["schema"]["properties"]["type"]["enum"] == [
                "urn:recon-cluster:problem:missing"
            ]


def test_openapi_describes_bodies(openapi: dict[str, Any]) -> None:
    post = openapi["paths"]["/v1/scans"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/x-mrd", "application/x-hdf5"}
    assert "application/json" in post["responses"]["201"]["content"]
    assert set(post["responses"]["201"]["headers"]) == {"Location", "Idempotent-Replayed"}


def test_the_fields_of_a_record_are_described(openapi: dict[str, Any]) -> None:
    answer = openapi["paths"]["/v1/scans/{scan}"]["get"]["responses"]["200"]
    schema = answer["content"]["application/json"]["schema"]
    assert set(schema["required"]) == set(schema["properties"])
    assert all(rule["description"] for rule in schema["properties"].values())


def test_the_judge_of_answers_sees_what_is_not_published(openapi: dict[str, Any]) -> None:
    judge = Judge(openapi)
    problem = {"type": "urn:recon-cluster:problem:missing", "title": "t", "status": 404, "detail": "d"}

    def answered(path: str, status: int, values: object, kind: str = PROBLEM_TYPE) -> httpx.Response:
        request = httpx.Request("GET", f"http://x{path}")
        content = json.dumps(values).encode()
        return httpx.Response(status, headers={"content-type": kind}, content=content, request=request)

    judge(answered("/v1/scans/a", 404, problem))
    for odd in (
        answered("/v1/scans/a", 418, problem),
        answered("/v1/scans/a", 404, problem, "text/plain"),
        answered("/v1/scans/a", 200, {"scan": "a"}, "application/json"),
        answered("/v1/scans/a", 404, problem | {"more": 1}),
        answered("/v1/scans/a", 503, problem),
        answered("/nowhere", 404, problem, "text/html"),
    ):
        with pytest.raises((AssertionError, ValidationError)):
            judge(odd)

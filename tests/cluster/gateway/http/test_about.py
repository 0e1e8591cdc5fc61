"""What the server says of itself, and its OpenAPI document."""

from __future__ import annotations

import httpx

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


def test_openapi_names_every_route(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
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


def test_openapi_describes_bodies_and_problems(http: httpx.Client) -> None:
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            assert "4XX" in operation["responses"], (method, path)
            assert "422" not in operation["responses"], (method, path)
            assert operation["summary"]
    post = http.get("/openapi.json").json()["paths"]["/v1/scans"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/x-mrd", "application/x-hdf5"}
    assert "application/json" in post["responses"]["201"]["content"]


def test_the_record_is_as_openapi_says(http: httpx.Client, done: str) -> None:
    document = http.get("/openapi.json").json()
    answer = document["paths"]["/v1/scans/{scan}"]["get"]["responses"]["200"]
    schema = answer["content"]["application/json"]["schema"]
    record = http.get(f"/v1/scans/{done}").json()
    assert set(schema["required"]) == set(schema["properties"]) == set(record)
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
    for name, rule in schema["properties"].items():
        assert record[name] in rule["enum"] if "enum" in rule else isinstance(record[name], kinds[rule["type"]]), name

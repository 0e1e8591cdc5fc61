"""Whether real answers are what `/openapi.json` says of them."""

from __future__ import annotations

import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from cluster.documents import PROBLEM_TYPE

JSON_TYPES = ("application/json", PROBLEM_TYPE)


class Judge:
    """Checks answers against a published document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths = {
            re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)).join(("^", "$"))): operations
            for path, operations in document["paths"].items()
        }
        self.seen: set[tuple[str, int]] = set()

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """What the document says of a request; None for one that it does not know."""
        known = (operations for pattern, operations in self._paths.items() if pattern.match(path))
        operation: dict[str, Any] | None = next(known, {}).get(method.lower())
        return operation

    def __call__(self, answer: httpx.Response) -> None:
        """Raise AssertionError or jsonschema's ValidationError where `answer` is not as published."""
        kind = answer.headers.get("content-type", "").partition(";")[0]
        operation = self.operation(answer.request.method, answer.request.url.path)
        if answer.request.url.path == "/openapi.json":
            return
        if operation is None:
            assert kind == PROBLEM_TYPE, answer.request.url
            assert answer.status_code in (404, 405)
            return
        assert str(answer.status_code) in operation["responses"], (answer.request.url, answer.status_code)
        said = operation["responses"][str(answer.status_code)]
        assert kind in said["content"], (answer.request.url, kind)
        if kind in JSON_TYPES:
            answer.read()
            Draft202012Validator(closed(said["content"][kind]["schema"])).validate(answer.json())
        if kind == PROBLEM_TYPE:
            assert answer.json()["status"] == answer.status_code
        if "retry-after" in answer.headers:
            assert "Retry-After" in said["headers"]
        self.seen.add((operation["operationId"], answer.status_code))


def closed(schema: Any) -> Any:
    """`schema` that allows no field which it does not name: what is answered has to be published."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: closed(part) for name, part in schema.items()}
    return {"additionalProperties": False, **parts} if isinstance(schema.get("properties"), dict) else parts

"""What several routes say of their answers in `/openapi.json`."""

from __future__ import annotations

from typing import Any

from cluster.documents import PROBLEM_TYPE, problem_schema, record_schema

RECORD: dict[str, Any] = {"application/json": {"schema": record_schema()}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Why not (RFC 9457)", "content": {PROBLEM_TYPE: {"schema": problem_schema()}}}
}

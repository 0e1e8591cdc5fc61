"""What routes say of their answers in `/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.documents import PROBLEM_TYPE, problem_schema, problem_status, record_schema
from cluster.events import Priority
from cluster.job import BusyError, LedgerError, SlowError
from recon.errors import ReconError, RefusedError

Responses = dict[int | str, dict[str, Any]]
Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
BINARY: Schema = {"type": "string", "format": "binary"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SECONDS: Schema = {"type": "number", "minimum": 0, "description": "Seconds"}
_RETRY = {"description": "Seconds after which to come again", "schema": {"type": "integer", "minimum": 0}}


def problems(*kinds: type[ReconError], other: Mapping[int, type[ReconError]] | None = None) -> Responses:
    """The statuses that errors of `kinds` have, with their problems; `other` names those of an unusual status.

    Every route can meet a client too slow, too many connections, no file descriptor, a ledger that does not
    answer, and a defect of the server.
    """
    by_status: dict[int, list[type[ReconError]]] = {503: [RefusedError]}
    for status, kind in (other or {}).items():
        by_status.setdefault(status, []).append(kind)
    for kind in (*kinds, SlowError, BusyError, LedgerError, ReconError):
        by_status.setdefault(problem_status(kind)[0], []).append(kind)
    return {status: _answer(by_status[status]) for status in sorted(by_status)}


def _answer(kinds: list[type[ReconError]]) -> dict[str, Any]:
    titles = list(dict.fromkeys(problem_status(kind)[1] for kind in kinds))
    answer = {"description": "; ".join(titles), "content": {PROBLEM_TYPE: {"schema": problem_schema(kinds)}}}
    return answer | ({"headers": {"Retry-After": _RETRY}} if any(issubclass(k, RefusedError) for k in kinds) else {})


PROBLEMS: Responses = {
    "default": {
        "description": "Any other problem (RFC 9457); new types may come, their status says how to take them",
        "content": {PROBLEM_TYPE: {"schema": problem_schema()}},
    }
}


def answers(words: str, content: Mapping[str, Schema], *, status: int = 200) -> Responses:
    """The answer where all is well: schemas by media type."""
    return {status: {"description": words, "content": {kind: {"schema": schema} for kind, schema in content.items()}}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _named(words: str, values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values, "description": words}


def _of(schema: Schema, words: str) -> Schema:
    return schema | {"description": words}


RECORD: Schema = record_schema()
RECORDS: Schema = _object(scans=_array(RECORD))
LINES: Schema = _object(lines=_array(_object(scan=TEXT, time_s=_of(_SECONDS, "Seconds since 1970"), text=TEXT)))
CLUSTER: Schema = _object(
    version=_of(TEXT, "Of the server"),
    ready=_of({"type": "boolean"}, "It takes scans"),
    draining=_of({"type": "boolean"}, "It ends what is in flight and takes nothing new"),
    scans=_of(_COUNT, "Scans that the scheduler knows"),
    scans_in_flight=_of(_COUNT, "Scans that have not ended"),
    queue=_object(**{priority.name.lower(): _of(_COUNT, "Frames that wait") for priority in Priority}),
    batches=_of(_COUNT, "Batches given out since the start"),
    workers=_array(
        _object(
            worker=_of(TEXT, "Its name"),
            device=_of(TEXT, "cpu, cuda, ..."),
            memory_bytes=_of(_COUNT, "What a batch may take; 0 where that is not limited"),
            batches=_of(_COUNT, "Batches that it has"),
            frames=_of(_COUNT, "Frames in them"),
            running_s=_of(_SECONDS, "How long the oldest of them has run, s"),
            silent_s=_of({"type": "number"}, "Since its last sign of life, s"),
            memory=_named("What it uses by kind, bytes", _COUNT),
            load=_named("Its load by kind, 0 to 1", {"type": "number"}),
        )
    ),
    troubles={"type": "array", "items": TEXT, "description": "Why it is not ready, a sentence each"},
    defects=_named("Parts of the server that stand still, and why", TEXT),
)
_VALUE: Schema = {"type": ["string", "number", "boolean"]}
RECIPES: Schema = _object(
    recipes=_array(_object(name=TEXT, method=TEXT, parameters=_named("Other than the defaults", _VALUE))),
    parameters=_named("What each may be", _object(default=_VALUE, legal=_of(TEXT, "In words"))),
)

_HAPPENED = {"scan": TEXT, "state": RECORD["properties"]["state"], "images": _of(_COUNT, "Made so far")}
EVENTS: Schema = {
    "state": {**_object(**_HAPPENED, reason=_of(TEXT, "Why it is not done")), "required": list(_HAPPENED)},
    "image": _object(**_HAPPENED),
    "lost": {
        "type": "object",
        "properties": {
            "after": _of(TEXT, "The id behind which not all is known any more"),
            "events": _of(_COUNT, "How many came too fast for this client since the start"),
        },
    },
}
EVENT_STREAM: Responses = {
    200: {
        "description": "Events with `event`, `data` (JSON, one line) and, where it can be resumed there, `id`",
        "content": {
            "text/event-stream": {
                "schema": TEXT,
                "example": 'id: 4f2a-7\nevent: image\ndata: {"scan": "01...", "state": "running", "images": 3}\n\n',
                "x-events": EVENTS,
            }
        },
    }
}

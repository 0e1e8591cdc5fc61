"""The JSON documents of the HTTP API, in both directions: scan records, log lines and problems (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from cluster.events import Priority, State
from cluster.job import (
    AcceptError,
    BusyError,
    ConflictError,
    DiskFullError,
    DuplicateError,
    EndedError,
    FailedError,
    LogLine,
    MediaTypeError,
    NotFoundError,
    RequestError,
    RouteError,
    ScanRecord,
    SlowError,
    VerbError,
)
from recon.errors import (
    CalibrationError,
    DeviceError,
    FileError,
    HeaderError,
    InputError,
    LimitError,
    PackageError,
    RecipeError,
    ReconError,
    RefusedError,
    ScanError,
    WireError,
)
from recon.recipe import CATALOGUE, PARAMETERS

PROBLEM_TYPE = "application/problem+json"
_URN = "urn:recon-cluster:problem:"

# Name of the problem, HTTP status, title; subclasses stand before their bases, the first match counts.
_PROBLEMS: Mapping[type[ReconError], tuple[str, int, str]] = {
    WireError: ("wire", 400, "The MRD stream breaks the protocol"),
    HeaderError: ("header", 400, "The scan's header cannot be used"),
    FileError: ("file", 400, "The file is not what it should be"),
    InputError: ("input", 400, "The input cannot be understood"),
    LimitError: ("limit", 413, "Larger than this server allows"),
    CalibrationError: ("calibration", 422, "The scan lacks what the method calibrates with"),
    ScanError: ("scan", 422, "The scan contradicts its own header"),
    RecipeError: ("recipe", 422, "The recipe is not known"),
    MediaTypeError: ("media-type", 415, "The body's type is not taken"),
    AcceptError: ("accept", 406, "It is not made in a type that is accepted"),
    RouteError: ("route", 404, "Nothing is served at this path"),
    VerbError: ("verb", 405, "The path does not take this verb"),
    SlowError: ("slow", 408, "The request did not come in time"),
    RequestError: ("request", 422, "A parameter of the request cannot be used"),
    DeviceError: ("device", 503, "The device cannot be used"),
    PackageError: ("package", 501, "The server lacks a package for it"),
    DiskFullError: ("disk", 507, "The server cannot keep it on disk"),
    DuplicateError: ("duplicate", 409, "The idempotency key is in use"),
    ConflictError: ("conflict", 409, "The scan is in another state"),
    BusyError: ("busy", 503, "The server has no means to take this now"),
    RefusedError: ("refused", 429, "The server does not take this now"),
    NotFoundError: ("missing", 404, "There is no such thing here"),
    EndedError: ("ended", 409, "The scan has ended"),
    FailedError: ("failed", 409, "The scan failed"),
    ReconError: ("error", 500, "The server could not do it"),
}
_CLASSES = {name: kind for kind, (name, _, _) in _PROBLEMS.items() if kind is not DuplicateError}


def record_document(record: ScanRecord) -> dict[str, Any]:
    """`record` as JSON values; `scan` repeats the id under the name that requests use."""
    return {
        "scan": record.id,
        **asdict(record),
        "state": record.state.value,
        "priority": record.priority.name.lower(),
        "warnings": list(record.warnings),
    }


def record_schema() -> dict[str, Any]:
    """JSON Schema of `record_document`."""
    texts = {
        name: {"type": "string"} for name in ("scan", "id", "transport", "method", "chosen", "name", "group", "reason")
    }
    counts = {name: {"type": "integer"} for name in ("bytes", "readouts", "frames", "images")}
    times = {f"{name}_s": {"type": "number"} for name in ("created", "header", "received", "first_image", "finished")}
    choices = {
        "state": {"enum": [state.value for state in State]},
        "priority": {"enum": [priority.name.lower() for priority in Priority]},
    }
    others = {
        "idempotency_key": {"type": "string"},
        "complete": {"type": "boolean"},
        "warnings": {"type": "array", "items": {"type": "string"}},
    }
    properties = {**texts, **counts, **times, **choices, **others}
    return {"type": "object", "properties": properties, "required": list(properties)}


def read_record(document: Mapping[str, Any]) -> ScanRecord:
    """The record that `record_document` wrote; fields of a newer server are left out."""
    values = {item.name: document[item.name] for item in fields(ScanRecord) if item.name in document}
    values["state"] = State(values["state"])
    values["priority"] = read_priority(values.get("priority", "routine"))
    values["warnings"] = tuple(values.get("warnings", ()))
    return ScanRecord(**values)


def read_priority(name: str) -> Priority:
    """The class of urgency by its name; raises RequestError."""
    try:
        return Priority[name.upper()]
    except KeyError:
        known = ", ".join(priority.name.lower() for priority in Priority)
        raise RequestError(f"the priority is {name!r}, expected one of {known}: name one of them") from None


def line_document(line: LogLine) -> dict[str, Any]:
    """One log line as JSON values."""
    return asdict(line)


def read_line(document: Mapping[str, Any]) -> LogLine:
    """The line that `line_document` wrote."""
    return LogLine(scan=document["scan"], time_s=document["time_s"], text=document["text"])


def recipes_document() -> dict[str, Any]:
    """The catalogue: what each name does, and what each parameter may be."""
    return {
        "recipes": [
            {"name": name, "method": recipe.method, "parameters": dict(recipe.parameters)}
            for name, recipe in CATALOGUE.items()
        ],
        "parameters": {
            name: {"default": parameter.default, "legal": parameter.describe()}
            for name, parameter in PARAMETERS.items()
        },
    }


def problem_schema() -> dict[str, Any]:
    """JSON Schema of `problem_document`."""
    texts: dict[str, Any] = {name: {"type": "string"} for name in ("title", "detail", "scan")}
    kinds = {"enum": [_URN + name for name, _, _ in _PROBLEMS.values()]}
    properties = {"type": kinds, **texts, "status": {"type": "integer"}}
    return {"type": "object", "properties": properties, "required": ["type", "title", "status", "detail"]}


def problem_document(error: ReconError, *, scan: str = "") -> dict[str, Any]:
    """`error` as a problem document; `scan` names the scan it belongs to, where there is one."""
    name, status, title = next(entry for kind, entry in _PROBLEMS.items() if isinstance(error, kind))
    document = {"type": _URN + name, "title": title, "status": status, "detail": str(error)}
    return document | ({"scan": scan} if scan else {})


def read_problem(document: Mapping[str, Any], *, retry_after_s: float | None = None) -> ReconError:
    """The error that a problem document describes."""
    kind = _CLASSES.get(str(document.get("type", "")).removeprefix(_URN), ReconError)
    detail = str(document.get("detail") or document.get("title") or "the server gave no reason")
    if issubclass(kind, RefusedError):
        return kind(detail, retry_after_s=retry_after_s)
    return kind(detail)

"""The JSON documents of the HTTP API, in both directions: scan records, log lines and problems (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    LedgerError,
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
    WeightsError,
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
    WeightsError: ("weights", 503, "A network's weights cannot be used"),
    DiskFullError: ("disk", 507, "The server cannot keep it on disk"),
    DuplicateError: ("duplicate", 409, "The idempotency key is in use"),
    ConflictError: ("conflict", 409, "The scan is in another state"),
    LedgerError: ("ledger", 503, "The server's ledger cannot be used now"),
    BusyError: ("busy", 503, "The server has no means to take this now"),
    RefusedError: ("refused", 429, "The server does not take this now"),
    NotFoundError: ("missing", 404, "There is no such thing here"),
    EndedError: ("ended", 409, "The scan has ended"),
    FailedError: ("failed", 409, "The scan failed"),
    ReconError: ("error", 500, "The server could not do it"),
}
_CLASSES = {name: kind for kind, (name, _, _) in _PROBLEMS.items() if kind is not DuplicateError}


def record_document(record: ScanRecord) -> dict[str, Any]:
    """`record` as JSON values."""
    values = asdict(record)
    return {
        "scan": values.pop("id"),
        **values,
        "state": record.state.value,
        "priority": record.priority.name.lower(),
        "warnings": list(record.warnings),
    }


_TEXT, _COUNT, _TIME = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0}
_RECORD: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "scan": (_TEXT, "The scan's id; ids sort by time"),
    "state": ({"enum": [state.value for state in State]}, "The last five end a scan"),
    "transport": ({"enum": ["tcp", "http"]}, "How it came in"),
    "method": (_TEXT, "As asked for beside the stream: a recipe's name, or a recipe as JSON"),
    "chosen": (_TEXT, "The method that the stream names, then the one that runs; empty before"),
    "priority": ({"enum": [priority.name.lower() for priority in Priority]}, "Class of urgency"),
    "name": (_TEXT, "Whatever the sender called it"),
    "idempotency_key": (_TEXT, "As sent with it; empty where there was none"),
    "group": (_TEXT, "The group of its HDF5 file; empty for a stream"),
    "created_s": (_TIME, "When it began to come in: seconds since 1970, as all times here, 0 before it happened"),
    "header_s": (_TIME, "When its header was accepted"),
    "received_s": (_TIME, "When its stream had ended"),
    "first_image_s": (_TIME, "When its first image was kept"),
    "finished_s": (_TIME, "When it ended"),
    "bytes": (_COUNT, "Received of the MRD stream (of an HDF5 file: of the stream made of it)"),
    "readouts": (_COUNT, "Received"),
    "frames": (_COUNT, "Assembled of the readouts"),
    "images": (_COUNT, "Made so far"),
    "complete": ({"type": "boolean"}, "Its stream came to its end and is on disk"),
    "reason": (_TEXT, "Why it is not done, one sentence"),
    "warnings": ({"type": "array", "items": _TEXT}, "What is odd about it, a sentence each"),
}


def record_schema() -> dict[str, Any]:
    """JSON Schema of `record_document`."""
    properties = {name: {**rule, "description": words} for name, (rule, words) in _RECORD.items()}
    return {"type": "object", "properties": properties, "required": list(properties)}


def read_record(document: Mapping[str, Any]) -> ScanRecord:
    """The record that `record_document` wrote; fields of a newer server are left out."""
    values = {item.name: document[item.name] for item in fields(ScanRecord) if item.name in document}
    values["id"] = document["scan"]
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


def problem_schema(kinds: Iterable[type[ReconError]] = _PROBLEMS) -> dict[str, Any]:
    """JSON Schema of `problem_document` for errors of these `kinds`."""
    properties = {
        "type": {"enum": [_URN + _PROBLEMS[kind][0] for kind in kinds], "description": "Name of the kind of problem"},
        "title": {"type": "string", "description": "The kind in words"},
        "status": {"type": "integer", "description": "The HTTP status"},
        "detail": {"type": "string", "description": "One sentence: what, which value, what was expected, what to do"},
        "scan": {"type": "string", "description": "Id of the scan it belongs to, where there is one"},
    }
    return {"type": "object", "properties": properties, "required": ["type", "title", "status", "detail"]}


def problem_status(kind: type[ReconError]) -> tuple[int, str]:
    """HTTP status and title of errors of this `kind`."""
    _, status, title = _PROBLEMS[kind]
    return status, title


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

"""What the API's JSON documents say, both ways."""

from __future__ import annotations

import json

import pytest

from cluster.documents import (
    line_document,
    problem_document,
    read_line,
    read_priority,
    read_problem,
    read_record,
    recipes_document,
    record_document,
    record_schema,
)
from cluster.events import Priority, State
from cluster.job import DiskFullError, EndedError, FailedError, LogLine, NotFoundError, RequestError, ScanRecord
from recon import errors
from recon.errors import ReconError, RefusedError
from recon.recipe import CATALOGUE

RECORD = ScanRecord("01ABC", State.RUNNING, "tcp", priority=Priority.STAT, created_s=12.5, warnings=("a", "b"))


def test_a_record_survives() -> None:
    document = json.loads(json.dumps(record_document(RECORD)))
    assert read_record(document) == RECORD
    assert (document["scan"], document["state"], document["priority"]) == ("01ABC", "running", "stat")
    assert set(record_schema()["properties"]) == set(document)
    assert "id" not in document  # `scan` is its one name


def test_a_newer_server_may_say_more_and_an_older_one_less() -> None:
    document = record_document(RECORD) | {"mood": "good"}
    del document["frames"]
    assert read_record(document) == RECORD


def test_a_log_line_survives() -> None:
    line = LogLine("01ABC", 3.5, "header accepted")
    assert read_line(json.loads(json.dumps(line_document(line)))) == line


KINDS = [
    *(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ReconError)),
    DiskFullError,
    EndedError,
    FailedError,
    NotFoundError,
    RequestError,
]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.LostError])
def test_an_error_survives(kind: type[ReconError]) -> None:
    document = json.loads(json.dumps(problem_document(kind("what, got, wanted, do"), scan="01ABC")))
    assert document["scan"] == "01ABC"
    assert 400 <= document["status"] < 600
    error = read_problem(document, retry_after_s=3.0)
    assert type(error) is kind
    assert str(error) == "what, got, wanted, do"
    assert not isinstance(error, RefusedError) or error.retry_after_s == 3.0


def test_a_problem_of_somebody_else() -> None:
    error = read_problem({"type": "https://example.org/odd", "title": "Odd"})
    assert (type(error), str(error)) == (ReconError, "Odd")
    assert str(read_problem({})) == "the server gave no reason"


def test_priorities_by_name() -> None:
    assert [read_priority(name) for name in ("stat", "Routine", "RESEARCH")] == list(Priority)
    with pytest.raises(RequestError, match="the priority is 'now', expected one of stat, routine, research"):
        read_priority("now")


def test_the_catalogue_is_listed() -> None:
    document = json.loads(json.dumps(recipes_document()))
    assert [recipe["name"] for recipe in document["recipes"]] == list(CATALOGUE)
    assert document["parameters"]["combine"] == {"default": "rss", "legal": "one of rss, adaptive"}

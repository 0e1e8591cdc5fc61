"""Rows, the JSON object and the tables of a benchmark."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pytest

from bench import report
from cluster.__main__ import main

ROWS = [
    report.row("ingest.disk", [300.0, 100.0, 200.0], "MB/s", [100.0, 100.0, 400.0]),
    report.row("alone", [0.5], "s"),
]


def test_a_row_is_medians_and_the_median_of_ratios() -> None:
    entry = ROWS[0]
    assert (entry.value, entry.baseline, entry.samples) == (200.0, 100.0, (300.0, 100.0, 200.0))
    assert entry.ratio == 1.0  # of 3, 1 and ½: not 200 ÷ 100
    assert (ROWS[1].baseline, ROWS[1].ratio) == (None, None)


def test_rounds_that_lack_a_side_are_no_row() -> None:
    with pytest.raises(ValueError, match="shorter"):
        report.row("x", [1.0, 2.0], "s", [1.0])


def test_the_json_has_the_promised_shape(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    report.write(ROWS, path, about=report.environment())
    document = json.loads(path.read_text(encoding="utf-8"))
    assert set(document) == {"environment", "rows"}
    for stored, entry in zip(document["rows"], ROWS, strict=True):
        assert list(stored) == ["id", "value", "unit", "baseline", "ratio", "samples"]
        assert stored == {**asdict(entry), "samples": list(entry.samples)}


def test_the_environment_says_where_and_when() -> None:
    about = report.environment()
    assert datetime.fromisoformat(about["date"]).tzinfo is not None
    assert re.fullmatch(r"[0-9a-f]{7,}|unknown", about["commit"])
    assert about["cores"] >= 1
    assert about["cpu"] is not None
    assert re.fullmatch(r"\d+\.\d+.*", about["versions"]["numpy"])
    assert set(about["versions"]) == set(report.PACKAGES)
    assert len(about["load_average"]) == 3


def test_the_table_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(ROWS, title="bench something")
    shown = capsys.readouterr().out
    assert "bench something" in shown
    assert re.search(r"ingest\.disk .* 200 .* MB/s .* 100 .* 1 .* 3 ", shown)
    assert re.search(r"alone .* 0\.5 .* s ", shown)


def test_stored_results_are_printed_as_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in paths:
        report.write(ROWS, path, about=report.environment())
    assert main(["bench", "report", *map(str, paths)]) == 0
    shown = capsys.readouterr().out
    assert shown == "\n".join(report.markdown(path) for path in paths)
    assert shown.count("ingest.disk") == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read (No such file or directory): name a file that is there"),
        ("[1]", "holds no result of `recon-cluster bench`: name one that --json wrote"),
        ("{", "holds no result of `recon-cluster bench`: name one that --json wrote"),
    ],
)
def test_a_file_that_is_no_result_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main(["bench", "report", str(path)]) == 2
    assert capsys.readouterr().err == f"{path} {words}\n"

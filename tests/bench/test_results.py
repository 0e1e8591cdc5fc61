"""Tables of measured figures in the documents are those of the stored results, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import report

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r"^`(bench/results/[^`]+\.json)` \([^\n]*\n\n(?:\|[^\n]*\n)+", re.MULTILINE)


def quotes() -> list[tuple[str, str, str]]:
    """Document, result file and quoted text of each table."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        (document.name, found[1], found[0])
        for document in documents
        for found in QUOTED.finditer(document.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("document", "result", "quoted"), quotes())
def test_a_quoted_table_is_the_stored_result(document: str, result: str, quoted: str) -> None:
    assert quoted.strip() == report.markdown(ROOT / result).strip(), document


def test_every_stored_result_is_told_in_a_document() -> None:
    told = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    stored = {path.name for path in (ROOT / "bench/results").glob("*.json")}
    assert stored
    assert quotes()
    assert {name for name in stored if name not in told} == set()

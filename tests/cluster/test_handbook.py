"""The page of configuration keys is what the configuration says now, and its example is one."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from cluster import handbook
from cluster.config import ClusterConfig, read_config

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == handbook.page(), "python -m cluster.handbook > docs/configuration.md"


def test_it_is_made_by_the_command_it_names() -> None:
    (words,) = re.findall(r"`python (-m \S+) > docs/configuration.md`", handbook.page())
    command = [sys.executable, *words.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout == handbook.page()


def test_each_key_has_a_row() -> None:
    named = [row.split("`")[1] for row in handbook.rows()]
    assert named == [item.name for item in fields(ClusterConfig)]
    assert all(row.count("|") == 5 for row in handbook.rows())


def test_its_example_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", handbook.page(), re.DOTALL)
    (tmp_path / "recon.toml").write_text(example, encoding="utf-8")
    config = read_config(tmp_path / "recon.toml")
    assert (config.data, config.workers, config.idle_timeout_s) == (Path("/srv/recon"), 4, 60.0)


def test_the_readme_leads_there() -> None:
    assert "(docs/configuration.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0"), (1000, "1000"), (1 << 10, "1 KiB"), (3 << 19, "1536 KiB"), (1 << 46, "64 TiB")]
)
def test_sizes(count: int, words: str) -> None:
    assert handbook.size(count) == words

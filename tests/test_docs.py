"""The documents say what the code does: commands, targets, names, defaults and links."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from recon.mrd.wire import MessageId
from recon.recipe import CATALOGUE, METHOD_PARAMETERS, PARAMETERS, Recipe
from recon.scan import Quantity

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MRD = (ROOT / "docs" / "mrd.md").read_text(encoding="utf-8")


def code_lines(text: str) -> Iterator[str]:
    """Lines of fenced code and inline code."""
    for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def cells(text: str, heading: str) -> list[list[str]]:
    """Rows of the table in `text` whose first line begins with `heading`."""
    table = text[text.index(heading) :].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert target.startswith("http") or (document.parent / target).exists(), f"{document.name}: {target}"


def test_each_make_target_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {word for line in code_lines(README) for word in re.findall(r"\bmake ([a-z]+)", line)}
    assert {"demo", "test", "check", "bench", "gpu"} <= named <= targets


def help_of(module: str, command: str) -> str:
    """What `recon-cluster COMMAND --help` prints."""
    subparsers = argparse.ArgumentParser(prog="recon-cluster").add_subparsers()
    importlib.import_module(module).add_parser(subparsers)
    text: str = subparsers.choices[command].format_help()
    return text


def test_each_command_and_option_in_the_documents_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = project["entry-points"]["recon_cluster.commands"]
    seen = set()
    for document in DOCUMENTS:
        for line in code_lines(document.read_text(encoding="utf-8")):
            for command, rest in re.findall(r"recon-cluster ([a-z]+)([^#]*)", line):
                assert command in modules, f"{document.name}: {line}"
                seen.add(command)
                known = help_of(modules[command], command)
                missing = [option for option in re.findall(r"--[a-z-]+", rest) if option not in known]
                assert not missing, f"{document.name}: {line}: {command} has no {missing}"
    assert {"serve", "submit", "reconstruct", "scan", "demo"} <= seen


def test_the_readme_names_each_metric_and_no_other() -> None:
    source = (ROOT / "cluster" / "metrics.py").read_text(encoding="utf-8")
    texts = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    made = {text for text in texts if isinstance(text, str) and re.fullmatch(r"recon_[a-z_]+", text)}
    named = {re.sub(r"\{.*", "", row[0].strip("`")) for row in cells(README, "| metric |")}
    assert named == made


def test_the_mrd_document_names_each_message() -> None:
    numbers = {int(number) for row in cells(MRD, "| id |") for number in row[0].split(",")}
    assert numbers == {message.value for message in MessageId}


def test_the_mrd_document_names_each_parameter_with_its_values() -> None:
    rows = cells(MRD, "| parameter |")
    named = {name.strip("` "): row for row in rows for name in row[0].split(",")}
    assert set(named) == set(PARAMETERS)
    for name, (_, values, methods) in named.items():
        assert all(f"`{choice}`" in values for choice in PARAMETERS[name].choices)
        taking = {method for method, names in METHOD_PARAMETERS.items() if name in names}
        listed = (
            {m for m, names in METHOD_PARAMETERS.items() if names} if methods == "all" else set(methods.split(", "))
        )
        assert listed == taking, name


def test_names_that_clients_may_send_are_known() -> None:
    section = MRD[MRD.index("Known are the methods") :].split("\n\n")[0]
    methods = set(re.findall(r"`([^`]+)`", section))
    assert methods == set(METHOD_PARAMETERS)
    listed = {}
    for names, _, meaning in cells(MRD, "| configuration |"):
        method, *values = re.findall(r"`([^`]+)`", meaning)
        listed |= dict.fromkeys(re.findall(r"`([^`]+)`", names), Recipe(method, dict([values] if values else [])))
    assert listed == {name: recipe for name, recipe in CATALOGUE.items() if name not in methods}


UNITS = {"s": 1, "h": 3600, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "million": 10**6}


def test_settings_have_the_defaults_that_the_mrd_document_says() -> None:
    config = ClusterConfig()
    for names, defaults, _ in cells(MRD, "| setting |"):
        for name, default in zip(names.split(", "), defaults.split(", "), strict=True):
            number, unit = default.split()
            assert getattr(config, name.strip("`")) == float(number) * UNITS[unit], name


def test_the_glossary_has_one_entry_for_each_word() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [row.split("|")[1].strip() for row in text.splitlines() if row.startswith("| ") and "| word" not in row]
    assert len(words) == len(set(words))
    assert {"readout", "shot", "coil", "frame", "calibration", "recipe", "batch", "lease", "spool", "ledger"} <= set(
        words
    )
    assert all(quantity.name == "COMPLEX" or quantity.name.lower()[:4] in text for quantity in Quantity)


def test_decisions_are_numbered_without_gap() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [name[:3] for name in names] == [f"{number:03}" for number in range(1, len(names) + 1)]
    for name in names:
        title = (ROOT / "docs" / "decisions" / name).read_text(encoding="utf-8").splitlines()[0]
        assert re.match(rf"# {name[:3]}\b", title), f"{name} begins with {title!r}"

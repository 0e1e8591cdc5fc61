"""`--method` and `--set`: the recipe that a command line asks for."""

from __future__ import annotations

import argparse
from pathlib import Path

from recon.errors import FileError, RecipeError
from recon.recipe import AUTO, settings_of, with_settings

METHOD_HELP = "recipe by name, as JSON or in a file that ends in .json (default: auto)"


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe; `recipe_of` reads it."""
    parser.add_argument("--method", default=AUTO, metavar="NAME", help=METHOD_HELP)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help="a parameter of the method, on top of what the recipe says; once for each",
    )


def recipe_of(args: argparse.Namespace) -> str:
    """The recipe by name, or as JSON; raises RecipeError or FileError where the JSON that was given is none."""
    return with_settings(method_of(args.method), dict(args.set))


def method_of(given: str) -> str:
    """What `--method` names: the text of a file whose name ends in .json, else `given`; raises FileError."""
    if given.lstrip().startswith("{") or not given.endswith(".json"):
        return given
    text = _read(Path(given)).strip()
    if not text.startswith("{"):
        raise FileError(f"{given} is no recipe, expected a JSON object of a method and its parameters: correct it")
    try:
        settings_of(text)
    except RecipeError as error:
        raise FileError(f"{given} is no recipe: {error}") from error
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}): name a file that is there") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is no recipe, expected JSON in UTF-8: correct it") from error


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key.strip() and sign):
        raise argparse.ArgumentTypeError(f"{text!r} sets nothing, expected KEY=VALUE: give both")
    return key.strip(), value.strip()

"""`--method` and `--set`: the recipe that a command line asks for."""

from __future__ import annotations

import argparse

from recon.recipe import AUTO, with_settings


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe; `recipe_of` reads it."""
    parser.add_argument("--method", default=AUTO, metavar="NAME", help="recipe by name or as JSON (default: auto)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help="a parameter of the method, on top of what the recipe says; once for each",
    )


def recipe_of(args: argparse.Namespace) -> str:
    """The recipe by name, or as JSON; raises RecipeError where the JSON that was given is none."""
    return with_settings(args.method, dict(args.set))


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key.strip() and sign):
        raise argparse.ArgumentTypeError(f"{text!r} sets nothing, expected KEY=VALUE: give both")
    return key.strip(), value.strip()

"""The methods by name, and which of them `auto` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recon.lines import is_cartesian
from recon.methods.cg_sense import CG_SENSE
from recon.methods.fft import FFT
from recon.methods.gridding import GRIDDING
from recon.methods.method import Method, Workbench
from recon.methods.null import NULL
from recon.recipe import AUTO, METHOD_PARAMETERS, Recipe
from recon.scan import Encoding

__all__ = ["METHODS", "Method", "Workbench", "choose"]

METHODS: Mapping[str, Method] = {method.name: method for method in (FFT, GRIDDING, CG_SENSE, NULL)}


def choose(recipe: Recipe, encoding: Encoding) -> Recipe:
    """`recipe` with a method in the place of "auto": `fft` for Cartesian encodings, `gridding` for all others."""
    if recipe.method != AUTO:
        return recipe
    method = "fft" if is_cartesian(encoding) else "gridding"
    kept = {name: value for name, value in recipe.parameters.items() if name in METHOD_PARAMETERS[method]}
    return replace(recipe, method=method, parameters=kept)

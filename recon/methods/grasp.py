"""`grasp`: few spokes a frame of many, made up for by what stays the same in time (doi:10.1002/mrm.24980)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.contract import Complex
from recon.methods.method import Method, Workbench, alone, both, refuse, shots_alone, single_slices
from recon.methods.together import bytes_needed, cost, needs, series_of
from recon.prox import TotalVariation
from recon.recipe import Recipe
from recon.scan import Calibration, Frame, Image
from recon.solve import Prox

check = both(single_slices("grasp"), shots_alone("grasp", instead="llr or l1-wavelet"))


def joint(frames: Sequence[Frame], calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """The images of all `frames` together, least squares with a small total variation in time.

    The strength is in units of the noise, which the noise scan has made 1, or which is estimated. Raises RecipeError
    for Cartesian frames.
    """
    refuse(check, frames[0].encoding)
    series = series_of(frames, calibration, recipe, workbench)
    return series.solved(temporal_variation(series.noise * recipe.number("strength")), recipe)


def temporal_variation(strength: float) -> Prox:
    """The prox of strength · Σ |x(t + 1) − x(t)| over the first axis: [frame, ...]."""
    variation = TotalVariation(strength, 1)

    def prox(x: Complex, step: float, iteration: int) -> Complex:
        return np.moveaxis(variation(np.moveaxis(x, 0, -1), step, iteration), -1, 0)

    return prox


GRASP = Method("grasp", alone(joint), bytes_needed, cost, calibration=True, joint=joint, of_scan=needs, check=check)

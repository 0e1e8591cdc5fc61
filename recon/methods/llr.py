"""`llr`: undersampled series whose frames are much alike in each small block (doi:10.1002/mrm.25161), by FISTA."""

from __future__ import annotations

from collections.abc import Sequence

from recon.methods.grids import voxels
from recon.methods.method import Method, Workbench, alone, single_slices
from recon.methods.together import bytes_needed, cost, count_of, needs, series_of
from recon.prox import low_rank_blocks
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image

SECONDS_PER_VALUE = 1e-7  # of a series in each iteration, for the singular values of its blocks


def joint(frames: Sequence[Frame], calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """The images of all `frames` together, least squares with blocks [frame, voxel] of small nuclear norm.

    The strength is in units of the largest singular value that a block of nothing but the samples' noise has. Raises
    ScanError where the frames' common centre of k-space is too small for maps.
    """
    series = series_of(frames, calibration, recipe, workbench)
    strength = series.noise * recipe.number("strength")
    return series.solved(low_rank_blocks(workbench.kernels, strength, series.problems[0].axes), recipe)


def of_scan(encoding: Encoding, coils: int, recipe: Recipe, raw_bytes: int) -> tuple[int, float]:
    """As of all frames together, and the singular values of their blocks."""
    size, seconds = needs(encoding, coils, recipe, raw_bytes)
    values = count_of(encoding, coils, recipe, raw_bytes) * voxels(encoding)
    return size, seconds + SECONDS_PER_VALUE * recipe.number("iterations") * values


LLR = Method(
    "llr", alone(joint), bytes_needed, cost, calibration=True, joint=joint, of_scan=of_scan, check=single_slices("llr")
)

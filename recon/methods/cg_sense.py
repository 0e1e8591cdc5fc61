"""`cg-sense`: undersampled k-space through coil maps from its own centre (doi:10.1002/mrm.1241)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.contract import Kernels
from recon.espirit import VIRTUAL
from recon.grappa import Lattice, centre_of, lattice_of, spanned
from recon.lines import is_cartesian
from recon.methods.gridding import SECONDS_PER_POINT
from recon.methods.grids import Target, fft_seconds, points, resize, target_of, voxels
from recon.methods.hybrid import reference_bytes
from recon.methods.images import image_of
from recon.methods.method import Method, Workbench, one_of, single_slices
from recon.methods.partial import Extents, completed, extents_of
from recon.methods.problem import Problem, problems_of
from recon.operators import regularised
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image

USUAL_ITERATIONS = 10


def run_batch(
    frames: Sequence[Frame], calibrations: Sequence[Calibration], recipe: Recipe, workbench: Workbench
) -> list[list[Image]]:
    """One image of each frame, coils combined by maps; raises ScanError where k-space's centre is too small for maps.

    Frames that share a trajectory share the plan's run that makes their coil images; each is solved by itself.
    """
    target = target_of(frames[0].encoding, oversampling=recipe.text("oversampling"))
    problems = problems_of(frames, target, calibrations, recipe, workbench)
    return [_solved(frame, problem, target, recipe, workbench) for frame, problem in zip(frames, problems, strict=True)]


def _solved(frame: Frame, problem: Problem, target: Target, recipe: Recipe, workbench: Workbench) -> list[Image]:
    equations = regularised(problem.equations, recipe.number("lambda"))
    iterations = int(recipe.number("iterations"))
    found = workbench.kernels.cg(equations, problem.rhs, iterations=iterations, tolerance=1e-6)
    pixels = problem.pixels(found)
    if frame.sampled is not None and recipe["partial_fourier"] != "off":
        sides = _sides(frame, target, workbench.kernels)
        pixels = completed(pixels.astype(np.complex64), sides, recipe, workbench.kernels)
    return [image_of(frame, resize(pixels, target.shape), target, recipe=recipe)]


def _sides(frame: Frame, target: Target, kernels: Kernels) -> Extents:
    """The sides of k-space that were measured, between the outermost lines."""
    assert frame.sampled is not None
    lattice = lattice_of(frame.sampled, centre_of(frame.sampled)) or Lattice(1, 1, 0, (0, 0))
    return extents_of(frame, spanned(frame.sampled, lattice), target, kernels)


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """K-space and its prepared copy, maps, and one iteration's coil images, of which two are alive at a time."""
    return reference_bytes(encoding, coils) + 8 * coils * (2 * points(encoding) + 5 * voxels(encoding)) + (64 << 20)


def cost(encoding: Encoding, coils: int) -> float:
    """Maps, and two transforms per coil and iteration: along the undersampled steps only where k-space is Cartesian."""
    maps = 0.05 + 1e-8 * min(coils, VIRTUAL) ** 2 * voxels(encoding)
    transform = 8e-9 * voxels(encoding)
    if not is_cartesian(encoding):
        transform = SECONDS_PER_POINT * points(encoding) + fft_seconds(4 * voxels(encoding))
    return maps + coils * (5e-8 * voxels(encoding) + 2 * USUAL_ITERATIONS * transform)


check = single_slices("cg-sense")
CG_SENSE = Method("cg-sense", one_of(run_batch), bytes_needed, cost, calibration=True, batch=run_batch, check=check)

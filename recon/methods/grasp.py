"""`grasp`: few spokes a frame of many, made up for by what stays the same in time (doi:10.1002/mrm.24980)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from kernels.contract import Complex
from recon.errors import RecipeError
from recon.methods import cg_sense
from recon.methods.grids import Target, resize, target_of, voxels
from recon.methods.images import image_of
from recon.methods.method import Method, Workbench, alone
from recon.methods.problem import Problem, maps_of, weighted_problem
from recon.methods.shots import shots_of
from recon.prox import TotalVariation, noise_of
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image
from recon.series import TIME, frames_of
from recon.solve import Apply, Composite, Prox, fista, largest_eigenvalue

ITERATIONS = 30
ASKED = 3  # frames whose largest eigenvalue is looked for: the others' spokes are the same but for a turn


def joint(frames: Sequence[Frame], calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """The images of all `frames` together, least squares with a small total variation in time.

    The strength is in units of the noise, which the noise scan has made 1, or which is estimated. Raises RecipeError
    for Cartesian frames.
    """
    if any(frame.trajectory is None for frame in frames):
        raise RecipeError(
            f"the method grasp needs a trajectory, the scan is {frames[0].encoding.trajectory}: use l1-wavelet or auto"
        )
    target = target_of(frames[0].encoding, oversampling=recipe.text("oversampling"))
    problems = _problems(frames, target, calibration, recipe, workbench)
    rhs = np.stack([problem.rhs for problem in problems])
    noise = 1.0 if calibration.whitening is not None else _noise(problems, workbench)
    found = fista(
        Composite(_each(problems), rhs, temporal_variation(noise * recipe.number("strength"))),
        step=_step(problems),
        iterations=int(recipe.number("iterations")),
        tolerance=recipe.number("tolerance"),
        start=rhs,
    )
    return [
        image_of(frame, resize(problem.pixels(image), target.shape), target, recipe=recipe)
        for frame, problem, image in zip(frames, problems, found, strict=True)
    ]


def _problems(
    frames: Sequence[Frame], target: Target, calibration: Calibration, recipe: Recipe, workbench: Workbench
) -> list[Problem]:
    """Each frame's problem, through maps of all spokes together, which sample k-space well whatever a frame does."""
    every = shots_of(_merged(frames), target, calibration, recipe, workbench)
    maps = maps_of(every, every.images(), recipe)
    each = [shots_of(frame, target, calibration, recipe, workbench) for frame in frames]
    return [weighted_problem(shots, shots.images(), maps) for shots in each]


def _merged(frames: Sequence[Frame]) -> Frame:
    """All shots of `frames` as one frame."""
    paths = [frame.trajectory for frame in frames if frame.trajectory is not None]
    densities = [frame.density for frame in frames if frame.density is not None]
    return replace(
        frames[0],
        kspace=np.concatenate([frame.kspace for frame in frames], axis=1),
        trajectory=np.concatenate(paths),
        density=np.concatenate(densities) if len(densities) == len(frames) else None,
    )


def _each(problems: Sequence[Problem]) -> Apply:
    return lambda x: np.stack([problem.normal(image) for problem, image in zip(problems, x, strict=True)])


def _step(problems: Sequence[Problem]) -> float:
    asked = problems[:: ceil(len(problems) / ASKED)]
    return 1 / (max(largest_eigenvalue(problem.normal, problem.rhs) for problem in asked) or 1.0)


def _noise(problems: Sequence[Problem], workbench: Workbench) -> float:
    return float(np.median([noise_of(workbench.kernels, problem.rhs, problem.axes) for problem in problems]))


def temporal_variation(strength: float) -> Prox:
    """The prox of strength · Σ |x(t + 1) − x(t)| over the first axis: [frame, ...]."""
    variation = TotalVariation(strength, 1)

    def prox(x: Complex, step: float, iteration: int) -> Complex:
        return np.moveaxis(variation(np.moveaxis(x, 0, -1), step, iteration), -1, 0)

    return prox


def needs(encoding: Encoding, coils: int, recipe: Recipe, raw_bytes: int) -> tuple[int, float]:
    """All samples thrice, and for each frame its operator and some ten images; a normal operator in each iteration."""
    frames = _count(encoding, coils, recipe, raw_bytes)
    size = 3 * raw_bytes + frames * 150 * voxels(encoding) + cg_sense.bytes_needed(encoding, coils)
    share = int(recipe.number("iterations")) / cg_sense.USUAL_ITERATIONS
    return size, frames * share * cg_sense.cost(encoding, coils)


def _count(encoding: Encoding, coils: int, recipe: Recipe, raw_bytes: int) -> int:
    """How many frames such readouts make; a readout of them is as long as the encoded matrix is wide."""
    if recipe["over"] != TIME:
        return frames_of(encoding)
    partitions = encoding.encoded.matrix[0]
    readout = 8 * coils * encoding.encoded.matrix[2]
    return max(1, raw_bytes // (readout * partitions * max(int(recipe.number("window")), 1)))


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """Of one frame by itself."""
    return 2 * cg_sense.bytes_needed(encoding, coils)


def cost(encoding: Encoding, coils: int) -> float:
    """Of one frame by itself."""
    return ITERATIONS / cg_sense.USUAL_ITERATIONS * cg_sense.cost(encoding, coils)


GRASP = Method("grasp", alone(joint), bytes_needed, cost, calibration=True, joint=joint, of_scan=needs)

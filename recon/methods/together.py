"""Frames that are reconstructed together: each one's problem through maps that they share, under one prior on all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt

import numpy as np

from kernels.contract import Complex
from recon.methods import cg_sense
from recon.methods.grids import Target, resize, target_of, voxels
from recon.methods.images import image_of
from recon.methods.method import Workbench
from recon.methods.problem import (
    Problem,
    check_centre,
    hybrid_lines,
    hybrid_maps,
    hybrid_problem,
    maps_of,
    weighted_problem,
)
from recon.methods.shots import shots_of
from recon.prox import noise_of
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image
from recon.series import TIME, frames_of
from recon.solve import Composite, Prox, fista, largest_eigenvalue

ITERATIONS = 30
ASKED = 3  # frames whose largest eigenvalue is looked for: the others' spokes are the same but for a turn


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Frames on one grid, and the problem that each of them is; `noise` is σ of their samples."""

    frames: Sequence[Frame]
    target: Target
    problems: Sequence[Problem]
    noise: float

    def normal(self, x: Complex) -> Complex:
        """The left sides of all frames: [frame, ...]."""
        return np.stack([problem.normal(image) for problem, image in zip(self.problems, x, strict=True)])

    def solved(self, prior: Prox, recipe: Recipe) -> list[Image]:
        """The frames' images: least squares and `prior`, by FISTA from the zero-filled ones."""
        rhs = np.stack([problem.rhs for problem in self.problems])
        found = fista(
            Composite(self.normal, rhs, prior),
            step=self._step(),
            iterations=int(recipe.number("iterations")),
            tolerance=recipe.number("tolerance"),
            start=rhs,
        )
        return [
            image_of(frame, resize(problem.pixels(image), self.target.shape), self.target, recipe=recipe)
            for frame, problem, image in zip(self.frames, self.problems, found, strict=True)
        ]

    def _step(self) -> float:
        if all(problem.bounded for problem in self.problems):
            return 1.0
        asked = self.problems[:: ceil(len(self.problems) / ASKED)]
        return 1 / (max(largest_eigenvalue(problem.normal, problem.rhs) for problem in asked) or 1.0)


def series_of(frames: Sequence[Frame], calibration: Calibration, recipe: Recipe, workbench: Workbench) -> Series:
    """The problems of `frames`; the noise is 1 after a noise scan, or is estimated. Raises ScanError, LimitError."""
    target = target_of(frames[0].encoding, oversampling=recipe.text("oversampling"))
    make = _lines if frames[0].trajectory is None else _shots
    problems = make(frames, target, calibration, recipe, workbench)
    known = calibration.whitening is not None
    noise = 1 / sqrt(frames[0].averages) if known else _noise(problems, workbench)
    return Series(frames, target, problems, noise)


def _shots(
    frames: Sequence[Frame], target: Target, calibration: Calibration, recipe: Recipe, workbench: Workbench
) -> list[Problem]:
    """Each frame's problem, through maps of all spokes together, which sample k-space well whatever a frame does."""
    every = shots_of(_merged_shots(frames), target, calibration, recipe, workbench)
    maps = maps_of(every, every.images(), recipe)
    each = [shots_of(frame, target, calibration, recipe, workbench) for frame in frames]
    return [weighted_problem(shots, shots.images(), maps) for shots in each]


def _merged_shots(frames: Sequence[Frame]) -> Frame:
    """All shots of `frames` as one frame."""
    paths = [frame.trajectory for frame in frames if frame.trajectory is not None]
    densities = [frame.density for frame in frames if frame.density is not None]
    return replace(
        frames[0],
        kspace=np.concatenate([frame.kspace for frame in frames], axis=1),
        trajectory=np.concatenate(paths),
        density=np.concatenate(densities) if len(densities) == len(frames) else None,
    )


def _lines(
    frames: Sequence[Frame], target: Target, calibration: Calibration, recipe: Recipe, workbench: Workbench
) -> list[Problem]:
    """Each frame's problem, through maps of the mean of all frames' lines, or of those of a separate scan."""
    kernels = workbench.kernels
    source = frames[0].reference or merged_lines(frames)
    maps = hybrid_maps(source, target, calibration, recipe, kernels)
    each = [(frame, hybrid_lines(frame, target, calibration, kernels)) for frame in frames]
    return [hybrid_problem(frame, target, lines, maps, kernels) for frame, lines in each]


def merged_lines(frames: Sequence[Frame]) -> Frame:
    """The mean of each line over the Cartesian `frames` that measured it: centres may be dealt out among frames.

    Of frames that differ in contrast or set only the lines that all of them measured: lines of unlike images make none.
    Raises CalibrationError where there are no such lines.
    """
    masks = [frame.sampled for frame in frames if frame.sampled is not None]
    counts = np.sum(masks, axis=0)
    unlike = len({(frame.counters.contrast, frame.counters.set) for frame in frames}) > 1
    known = counts == len(frames) if unlike else counts > 0
    if not known.any():
        check_centre(known, 0, 0)
    total = frames[0].kspace * 0
    for frame in frames:
        total = total + frame.kspace
    share = (known / np.maximum(counts, 1)).astype(np.float32)[..., None]
    return replace(frames[0], kspace=total * np.asarray(share, like=total), sampled=known)


def _noise(problems: Sequence[Problem], workbench: Workbench) -> float:
    """σ of the samples: a right side has that of the measured lines only."""
    found = [noise_of(workbench.kernels, problem.rhs, problem.axes) / sqrt(problem.share) for problem in problems]
    return float(np.median(found))


def needs(encoding: Encoding, coils: int, recipe: Recipe, raw_bytes: int) -> tuple[int, float]:
    """All samples thrice, and for each frame its operator and some ten images; a normal operator in each iteration."""
    frames = count_of(encoding, coils, recipe, raw_bytes)
    size = 3 * raw_bytes + frames * 150 * voxels(encoding) + cg_sense.bytes_needed(encoding, coils)
    share = int(recipe.number("iterations")) / cg_sense.USUAL_ITERATIONS
    return size, frames * share * cg_sense.cost(encoding, coils)


def count_of(encoding: Encoding, coils: int, recipe: Recipe, raw_bytes: int) -> int:
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

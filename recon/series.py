"""Frames that are reconstructed together: the readouts of a series dealt out to its frames, by counters or by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon.assemble import SEPARATE, Grouping, is_calibration
from recon.errors import RecipeError
from recon.gather import choose_rows, gather
from recon.lines import lines_of, step_limits
from recon.recipe import Recipe
from recon.scan import Encoding, Frame, Limit, Material, Readouts, ScanHeader

COUNTED = ("repetition", "phase", "contrast", "set")  # the first one counts slowest in a series
TIME = "time"
Index = NDArray[np.int64]


def grouping_over(recipe: Recipe) -> Grouping:
    """How the readouts of a joint method's frames are collected, by its recipe's `over`."""
    if recipe["over"] == TIME:
        return Grouping(ignored=("phase", "repetition"), whole=True)
    return Grouping(joined=_names(recipe))


def _names(recipe: Recipe) -> tuple[str, ...]:
    return COUNTED if recipe["over"] == "all" else (recipe.text("over"),)


def frames_together(header: ScanHeader, material: Material, recipe: Recipe, *, calibration: bool) -> list[Frame]:
    """The frames of `material`, in their order; `calibration` as `gather` has it. Raises ScanError, RecipeError."""
    readouts = material.readouts
    encoding = header.encodings[int(readouts[0].head["encoding_space_ref"][0])]
    timed = recipe["over"] == TIME
    parts = by_time(readouts, encoding, recipe) if timed else by_counters(readouts, encoding, _names(recipe))
    unit = str(recipe.parameters.get("trajectory_unit", "cycles/voxel"))
    frames = [gather(header, part, trajectory_unit=unit, calibration=calibration) for part in parts]
    return _numbered(frames, material) if timed else frames


def _numbered(frames: list[Frame], material: Material) -> list[Frame]:
    """Frames of one moment after the other: counted as repetitions, whatever their readouts count."""
    name = material.counters or frames[0].counters
    limits = {**frames[0].encoding.limits, "repetition": Limit(0, len(frames) - 1, 0), "phase": Limit(0, 0, 0)}
    encoding = replace(frames[0].encoding, limits=limits)
    return [
        replace(frame, encoding=encoding, counters=replace(name, phase=0, repetition=number))
        for number, frame in enumerate(frames)
    ]


def by_counters(readouts: Sequence[Readouts], encoding: Encoding, names: Sequence[str]) -> list[list[Readouts]]:
    """The readouts of each frame that the counters `names` tell apart, in the order of these counters.

    Lines of a separate calibration scan go to every frame.
    """
    values = np.concatenate([np.stack([run.head[name] for name in names], axis=1) for run in readouts])
    flags = np.concatenate([run.head["flags"] for run in readouts])
    shared = is_calibration(flags) & (encoding.calibration_mode in SEPARATE)
    found, which = np.unique(values[~shared], axis=0, return_inverse=True)
    frame = np.full(len(values), -1)
    frame[~shared] = which.ravel()
    return [choose_rows(readouts, shared | (frame == number)) for number in range(len(found))]


def by_time(readouts: Sequence[Readouts], encoding: Encoding, recipe: Recipe) -> list[list[Readouts]]:
    """The readouts of each `window` shots after one another; what is left at the end goes to the last frame.

    Shots of a separate calibration scan go to every frame. A shot that a stack measures in each of its partitions
    counts once. Raises RecipeError for a window of none.
    """
    window = int(recipe.number("window"))
    if not window:
        raise RecipeError("window is 0 but over is time, expected the number of shots of a frame: set window")
    apart = is_calibration(np.concatenate([run.head["flags"] for run in readouts]))
    shared = apart & (encoding.calibration_mode in SEPARATE)
    shot = _shots(choose_rows(readouts, ~apart), encoding)
    count = max(1, (int(shot.max()) + 1) // window)
    frame = np.full(len(apart), -1)
    frame[~apart] = np.minimum(shot // window, count - 1)
    return [choose_rows(readouts, shared | (frame == number)) for number in range(count)]


def _shots(readouts: Sequence[Readouts], encoding: Encoding) -> Index:
    """The number of each readout's shot, in the order in which shots begin."""
    names = ("repetition", "phase", "average", "kspace_encode_step_1")
    values = np.concatenate([np.stack([run.head[name] for name in names], axis=1) for run in readouts])
    partitions = np.concatenate([run.head["kspace_encode_step_2"] for run in readouts])
    if encoding.encoded.matrix[0] == 1 or (partitions == partitions[0]).all():
        return np.arange(len(values))
    _, first, which = np.unique(values, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return np.asarray(order[which.ravel()], np.int64)


def frames_of(encoding: Encoding, *, window: int = 0) -> int:
    """How many frames a series has, as far as the header tells: all that counters tell apart, or `window` by window."""
    limits = [encoding.limits.get(name, Limit(0, 0, 0)) for name in COUNTED]
    counted = int(np.prod([limit.maximum - limit.minimum + 1 for limit in limits]))
    if not window:
        return counted
    step_1, _ = step_limits(encoding)
    shots = step_1.maximum - step_1.minimum + 1 if lines_of(encoding).total else window
    return max(1, counted * shots // window)

"""Frames made side by side: each goes through its own stages, and where their methods can, they run together.

A frame's stages are a generator that asks for a run of a method and goes on with the images.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recon.methods import METHODS, Workbench
from recon.recipe import Recipe
from recon.scan import Calibration, Frame, Image


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A run of the recipe's method that a frame waits for."""

    frame: Frame
    calibration: Calibration
    recipe: Recipe

    @property
    def key(self) -> Hashable:
        """Equal for runs that may be one."""
        encoding = self.frame.encoding
        return self.recipe.method, self.recipe.hash, self.frame.kspace.shape, encoding.encoded, encoding.recon


Stages = Generator[Asked, list[Image], list[Image]]
Made = list[Image] | Exception


def side_by_side(frames: Sequence[Stages], workbench: Workbench) -> list[Made]:
    """What each frame became: its images, or what was raised in its own stages or its own run."""
    made: list[Made] = [[] for _ in frames]
    asked: dict[int, Asked] = {}

    def go_on(number: int, answer: Made | None) -> None:
        stages = frames[number]
        try:
            asked[number] = stages.throw(answer) if isinstance(answer, Exception) else stages.send(answer)  # type: ignore[arg-type]
        except StopIteration as end:
            made[number] = end.value
        except Exception as error:  # one frame's fault must not take the others along; the caller gets it
            made[number] = error

    with np.errstate(all="ignore"):  # what is not finite shows in the image
        for number in range(len(frames)):
            go_on(number, None)
        while asked:
            for numbers in _alike(asked):
                answers = _run([asked.pop(number) for number in numbers], workbench)
                for number, answer in zip(numbers, answers, strict=True):
                    go_on(number, answer)
    return made


def alone(frame: Stages, workbench: Workbench) -> list[Image]:
    """The images of one frame; raises what its stages raise."""
    (made,) = side_by_side([frame], workbench)
    if isinstance(made, Exception):
        raise made
    return made


def _alike(asked: dict[int, Asked]) -> Iterator[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for number, one in asked.items():
        groups.setdefault(one.key, []).append(number)
    yield from groups.values()


def _run(asked: Sequence[Asked], workbench: Workbench) -> list[Made]:
    batch = METHODS[asked[0].recipe.method].batch
    if batch is not None and len(asked) > 1:
        try:
            calibrations = [one.calibration for one in asked]
            return list(batch([one.frame for one in asked], calibrations, asked[0].recipe, workbench))
        except Exception:  # of one of them: which one, and why, shows where each runs alone
            return [_run_one(one, workbench) for one in asked]
    return [_run_one(one, workbench) for one in asked]


def _run_one(asked: Asked, workbench: Workbench) -> Made:
    try:
        return METHODS[asked.recipe.method].run(asked.frame, asked.calibration, asked.recipe, workbench)
    except Exception as error:  # the frame's own stages get it, which may know what to do instead
        return error

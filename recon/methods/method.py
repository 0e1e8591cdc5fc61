"""What a reconstruction method declares, and how recipes choose one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from kernels.contract import Kernels
from recon.cache import Cache
from recon.errors import RecipeError
from recon.lines import is_cartesian
from recon.recipe import ANALYTIC, Recipe
from recon.scan import Calibration, Encoding, Frame, Image

SECONDS_PER_PRODUCT = 1e-9  # complex ones, of a core's matrix product


@dataclass(frozen=True, slots=True)
class Workbench:
    """What a method works with: one device's `kernels` and a `cache` of plans and densities."""

    kernels: Kernels
    cache: Cache


Run = Callable[[Frame, Calibration, Recipe, Workbench], list[Image]]
RunJoint = Callable[[Sequence[Frame], Calibration, Recipe, Workbench], list[Image]]
RunBatch = Callable[[Sequence[Frame], Sequence[Calibration], Recipe, Workbench], list[list[Image]]]
Check = Callable[[Encoding], str]
OfScan = Callable[[Encoding, int, Recipe, int], tuple[int, float]]


def any_encoding(_encoding: Encoding) -> str:
    """No reason against any."""
    return ""


def lines_alone(method: str, *, instead: str) -> Check:
    """The check of a `method` of Cartesian k-space: `instead` are methods for other trajectories."""

    def check(encoding: Encoding) -> str:
        if is_cartesian(encoding):
            return ""
        found = f"the header's trajectory is {encoding.trajectory}"
        return f"the method {method} needs Cartesian k-space, {found}: use {instead}"

    return check


def shots_alone(method: str, *, instead: str) -> Check:
    """The check of a `method` of trajectories: `instead` are methods for lines."""

    def check(encoding: Encoding) -> str:
        if not is_cartesian(encoding):
            return ""
        return f"the method {method} needs a trajectory, the header's is {encoding.trajectory}: use {instead}"

    return check


def single_slices(method: str) -> Check:
    """The check of a `method` of slices that were excited one by one."""

    def check(encoding: Encoding) -> str:
        if encoding.multiband is None:
            return ""
        found = f"the header's multiband_factor is {encoding.multiband.factor}"
        return f"the method {method} takes no slices excited together, {found}: use slice-grappa or auto"

    return check


def both(first: Check, second: Check) -> Check:
    """The check that asks one after the other."""
    return lambda encoding: first(encoding) or second(encoding)


def refuse(check: Check, encoding: Encoding) -> None:
    """Raises RecipeError with the reason that `check` has against `encoding`."""
    if reason := check(encoding):
        raise RecipeError(reason)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to reconstruct a frame, with what the scheduler must know before it starts one.

    `run(frame, calibration, recipe, workbench)` makes the images; `bytes_needed(encoding, coils)` is the memory that
    one frame takes, `cost(encoding, coils)` one CPU core's seconds; frames of equal `key` may join one batch.

    A method that looks at several frames at once has `joint` instead: it is given all frames that differ in the
    counters or the time that the recipe's `over` names, and `bytes_needed` and `cost` are of them all together.

    `check(encoding)` is the reason why no image can ever come of what the header says, naming its field, or "".
    """

    name: str
    run: Run
    bytes_needed: Callable[[Encoding, int], int]
    cost: Callable[[Encoding, int], float]
    calibration: bool = False  # whether its frames hold calibration lines too
    joint: RunJoint | None = None
    batch: RunBatch | None = None  # `run` for frames of one grid at once, each with a calibration of its own
    of_scan: OfScan | None = None  # bytes and seconds of frames that are as large as their scan
    check: Check = any_encoding

    def needs(self, encoding: Encoding, coils: int, *, recipe: Recipe, raw_bytes: int) -> tuple[int, float]:
        """Bytes of memory and one CPU core's seconds for a frame whose readouts are `raw_bytes` long.

        Where the recipe compresses `coils` to fewer, the method sees these alone, beside the k-space of all.
        """
        used = coils_used(coils, recipe)
        if self.of_scan is not None:
            memory, seconds = self.of_scan(encoding, used, recipe, raw_bytes)
        else:
            memory, seconds = self.bytes_needed(encoding, used), self.cost(encoding, used)
        if used < coils:
            memory += raw_bytes
            seconds += SECONDS_PER_PRODUCT * used * raw_bytes / 8
        return memory, seconds * (1 + replicas_of(recipe))

    def key(self, encoding: Encoding, coils: int, recipe: Recipe) -> Hashable:
        """The batch key: equal for frames of any scans that need the same plan and the same memory."""
        sizes = (encoding.encoded.matrix, encoding.recon.matrix, encoding.limits.get("kspace_encode_step_1"))
        return self.name, recipe.hash, *sizes, coils_used(coils, recipe), encoding.trajectory.value


def coils_used(coils: int, recipe: Recipe) -> int:
    """How many coils a method sees of `coils`; under "auto" the data decide, all of them at most."""
    wanted = recipe.parameters.get("coils", "all")
    return coils if wanted in ("all", "auto") else min(coils, int(wanted))


def replicas_of(recipe: Recipe) -> int:
    """How often a frame is reconstructed again for a map of its noise."""
    wanted = recipe.parameters.get("snr", "off")
    return 0 if wanted in ("off", ANALYTIC) else int(wanted)


def one_of(batch: RunBatch) -> Run:
    """The `run` of a method that runs frames together: a batch of one."""
    return lambda frame, calibration, recipe, workbench: batch([frame], [calibration], recipe, workbench)[0]


def alone(joint: RunJoint) -> Run:
    """The `run` of a joint method: of one frame by itself."""
    return lambda frame, calibration, recipe, workbench: joint([frame], calibration, recipe, workbench)

"""The methods by name, and which of them `auto` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from math import pi

from recon.assemble import BY_COUNTERS, Grouping, shares
from recon.errors import RecipeError
from recon.lines import is_cartesian
from recon.methods.cg_sense import CG_SENSE
from recon.methods.cine import CINE_METHOD
from recon.methods.fft import FFT
from recon.methods.grappa import GRAPPA
from recon.methods.grasp import GRASP
from recon.methods.gridding import GRIDDING
from recon.methods.llr import LLR
from recon.methods.method import Method, Workbench
from recon.methods.null import NULL
from recon.methods.sense import SENSE
from recon.methods.slice_grappa import SLICE_GRAPPA
from recon.methods.sparse import L1_WAVELET, TV
from recon.recipe import AUTO, CINE, EXTENSIONS, METHOD_PARAMETERS, PARAMETERS, Recipe, Value, breathes
from recon.scan import Encoding, Limit, ScanHeader, Trajectory
from recon.series import grouping_over

__all__ = [
    "METHODS",
    "Method",
    "Workbench",
    "choose",
    "decide",
    "enough_spokes",
    "grouping_of",
    "plainer",
    "settle",
    "unfit",
]

RETRO = "RetroGatedImages"  # the user parameter by which converters to ISMRMRD say that readouts are gated afterwards

SHARED = Grouping(shared=True)  # as counters say, for methods that calibrate
FEW = 0.5  # of the spokes that Nyquist asks for: gridding leaves streaks, and coils can make up for so much

_OWN: Mapping[str, Method] = {
    method.name: method
    for method in (FFT, GRAPPA, SLICE_GRAPPA, GRIDDING, SENSE, CG_SENSE, L1_WAVELET, TV, GRASP, LLR, CINE_METHOD, NULL)
}


def _foreign(entry: EntryPoint) -> Method:
    """The method that another package adds; raises RecipeError where it cannot be used."""
    method = entry.load()
    if entry.name in _OWN or not isinstance(method, Method) or method.name != entry.name:
        package = entry.dist.name if entry.dist else entry.value
        raise RecipeError(
            f"the package {package} adds {entry.value} as the method {entry.name!r}, expected a Method of this name"
            f" that is not one of {', '.join(_OWN)}: correct its entry point, or remove the package"
        )
    return method


METHODS: Mapping[str, Method] = dict(_OWN) | {entry.name: _foreign(entry) for entry in EXTENSIONS}


def settle(recipe: Recipe, header: ScanHeader) -> tuple[Recipe, str]:
    """`recipe` with `cine` in the place of "auto" where the header says so, for readouts are then grouped by no
    counter; and the sentence that says which field decided, or "".
    """
    count = header.user.get(RETRO, 0)
    if recipe.method != AUTO or isinstance(count, str) or not 2 <= count <= PARAMETERS["phases"].maximum:
        return recipe, ""
    reason = f"auto takes cine: the header's user parameter {RETRO} is {count:g}"
    return _renamed(recipe, CINE, phases=int(count)), reason


def unfit(recipe: Recipe, header: ScanHeader) -> str:
    """Why a settled recipe can make no image of a scan with this `header`, whatever is measured, or "".

    Where its method takes some of the header's encodings, frames of the others fail one by one.
    """
    if recipe.method == AUTO:
        return ""
    calibrating = {space.multiband.calibration_encoding for space in header.encodings if space.multiband is not None}
    spaces = [space for number, space in enumerate(header.encodings) if number not in calibrating]
    reasons = [METHODS[recipe.method].check(space) for space in spaces or header.encodings]
    return reasons[0] if all(reasons) else ""


def _renamed(recipe: Recipe, method: str, **values: Value) -> Recipe:
    """`recipe` for another `method`: the parameters that this one has too, and further `values`."""
    kept = {name: value for name, value in recipe.parameters.items() if name in METHOD_PARAMETERS[method]}
    return replace(recipe, method=method, parameters=kept | values)


def choose(recipe: Recipe, encoding: Encoding, *, calibrated: bool) -> Recipe:
    """`recipe` with a method in the place of "auto".

    `gridding` for non-Cartesian encodings, `cg-sense` where these have few spokes, `grappa` for accelerated Cartesian
    ones whose frames are `calibrated` (hold lines that only calibrate) or are said to be, `fft` for all others.
    """
    if recipe.method != AUTO:
        return recipe
    method, _ = decide(encoding, calibrated=calibrated)
    if "fallback" in METHOD_PARAMETERS[method]:
        return _renamed(recipe, method, fallback=True)  # what was not asked for by name may be done more plainly
    return _renamed(recipe, method)


def plainer(recipe: Recipe) -> Recipe | None:
    """The recipe for a zero-filled image in the place of one that lacks its calibration, where `recipe` allows it."""
    if not recipe.parameters.get("fallback", False):
        return None
    kept = {name: value for name, value in recipe.parameters.items() if name in METHOD_PARAMETERS["fft"]}
    return Recipe("fft", kept)


def grouping_of(recipe: Recipe) -> Grouping:
    """Which readouts make a frame: those that counters name, a window that slides, or all of a sorted series."""
    if recipe.method == CINE:
        return Grouping(ignored=("phase",), whole=True)
    if recipe.method != AUTO and METHODS[recipe.method].joint is not None:
        return grouping_over(recipe)
    if breathes(recipe):
        return Grouping(whole=True)  # the last breath's waveform comes after its readouts
    window = int(recipe.parameters.get("window", 0))
    if not window:
        return SHARED if recipe.method == AUTO or METHODS[recipe.method].calibration else BY_COUNTERS
    return Grouping(ignored=("phase", "repetition"), window=window, stride=int(recipe.number("stride")) or window)


def _by_shots(encoding: Encoding) -> tuple[str, str]:
    """The same for shots: few spokes are worth solving for, others and unknown ones are gridded."""
    kind, steps = encoding.trajectory, encoding.limits.get("kspace_encode_step_1")
    if kind in (Trajectory.RADIAL, Trajectory.GOLDEN_ANGLE) and steps is not None:
        spokes, wanted = steps.maximum - steps.minimum + 1, enough_spokes(encoding)
        if spokes < FEW * wanted:
            counted = f"the header's limits of kspace_encode_step_1 hold {spokes} spokes, Nyquist asks for {wanted}"
            return "cg-sense", f"auto takes cg-sense: {counted}"
    return "gridding", f"auto takes gridding: the header's trajectory is {kind}"


def enough_spokes(encoding: Encoding) -> int:
    """How many spokes sample a disc as densely as a grid; in space, without partitions to step through, a ball."""
    deep, size, _ = encoding.encoded.matrix
    partitions = encoding.limits.get("kspace_encode_step_2", Limit(0, 0, 0))
    ball = deep > 1 and partitions.maximum == partitions.minimum
    return round(pi / 2 * size ** (2 if ball else 1))


def decide(encoding: Encoding, *, calibrated: bool) -> tuple[str, str]:
    """The method that `auto` takes, and the sentence that says which field of the header decided."""
    if not is_cartesian(encoding):
        return _by_shots(encoding)
    one, two = encoding.acceleration
    if encoding.multiband is not None:
        return _together(encoding.multiband.factor, calibrated=calibrated)
    if (one, two) == (1, 1):
        return "fft", f"auto takes fft: the header's trajectory is {encoding.trajectory}, its accelerationFactor 1 × 1"
    accelerated = f"the header's accelerationFactor is {one} × {two}"
    if calibrated:
        return "grappa", f"auto takes grappa: {accelerated}, and calibration lines came with the frame"
    if encoding.calibration_mode == "embedded" or shares(encoding):
        return "grappa", f"auto takes grappa: {accelerated}, its calibrationMode {encoding.calibration_mode}"
    mode = encoding.calibration_mode or "not given"
    return "fft", f"auto takes fft: {accelerated}, but its calibrationMode is {mode} and no calibration lines came"


def _together(factor: int, *, calibrated: bool) -> tuple[str, str]:
    excited = f"the header's multiband_factor is {factor}"
    if calibrated:
        return "slice-grappa", f"auto takes slice-grappa: {excited}, and the slices one by one came with the frame"
    return "fft", f"auto takes fft: {excited}, but the slices one by one did not come: they stay on one another"

"""The field map of frames whose scan has two calibration echoes, before a method is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kernels.contract import Complex
from recon.errors import CalibrationError
from recon.field import field_from, moments_for, range_of
from recon.methods.grids import target_of
from recon.methods.method import Workbench
from recon.methods.problem import radial_bell
from recon.methods.shots import Shots, shots_of, times_of
from recon.recipe import Recipe
from recon.scan import Calibration, FieldMap, Frame


def with_field(frames: Sequence[Frame], calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Frame]:
    """`frames` of one slice with the field that their calibration echoes show, and words about it.

    Frames without echoes are left as they are; where no field can be found, the reason is told.
    """
    first = frames[0]
    if not first.echoes or recipe.parameters.get("off_resonance") != "correct":
        return list(frames)
    try:
        field = _field(first, calibration, recipe, workbench)
        moments, _ = moments_for(times_of(first), *field.bounds_hz)
    except CalibrationError as error:
        words = f"off-resonance could not be found and is not corrected: {error}"
        return [replace(frame, warnings=(*frame.warnings, words)) for frame in frames]
    low, high = field.bounds_hz
    words = f"off-resonance from {low:.0f} to {high:.0f} Hz is corrected in {len(moments)} time segments"
    return [replace(frame, field=field, warnings=(*frame.warnings, words)) for frame in frames]


def _field(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> FieldMap:
    early, late = frame.echoes[0], frame.echoes[-1]
    interval_s = (late.te_ms - early.te_ms) / 1000
    if len(frame.echoes) < 2 or not interval_s > 0:
        raise CalibrationError(
            f"calibration echoes came at {[echo.te_ms for echo in frame.echoes]} ms, expected two rising echo times"
        )
    target = target_of(frame.encoding, oversampling=recipe.text("oversampling"))
    first, second = (_low(shots_of(echo, target, calibration, recipe, workbench)) for echo in (early, late))
    field_hz, size = field_from(first, second, interval_s, workbench.kernels)
    return FieldMap(field_hz, range_of(field_hz, size))


def _low(shots: Shots) -> Complex:
    """Images of k-space's centre, which a spiral passes before its phase has turned far."""
    return shots.images(np.asarray(radial_bell(shots.trajectory, shots.grid), like=shots.kspace.real))

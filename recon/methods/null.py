"""`null`: takes the scan and makes no image, for senders that only want the raw data kept."""

from __future__ import annotations

from recon.methods.method import Method, Workbench
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image


def run(_frame: Frame, _calibration: Calibration, _recipe: Recipe, _workbench: Workbench) -> list[Image]:
    """No image."""
    return []


def bytes_needed(_encoding: Encoding, _coils: int) -> int:
    """Nothing."""
    return 0


def cost(_encoding: Encoding, _coils: int) -> float:
    """Nearly nothing."""
    return 1e-4


NULL = Method("null", run, bytes_needed, cost)

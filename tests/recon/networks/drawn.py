"""A small library that needs no package: pictures drawn by formula."""

from __future__ import annotations

import numpy as np

from recon.networks.sources import Library
from recon.simulate.tissue import TISSUES


def small_library() -> Library:
    """Stripes as photograph, a bell as template, discs in a disc as labels."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, 80, dtype=np.float32)] * 2, indexing="ij")
    stripes = (0.5 + 0.5 * np.sin(20 * x + 9 * y * y)).astype(np.float32)
    label = (x**2 + y**2 < 0.7).astype(np.uint8) + ((x - 0.3) ** 2 + y**2 < 0.05)
    tissues = {1: TISSUES["white matter"], 2: TISSUES["fluid"]}
    return Library((stripes,), (np.exp(-3 * (x**2 + y**2)),), (label,), tissues)

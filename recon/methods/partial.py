"""Which sides of a frame's k-space were measured, and its images completed as the recipe says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels
from recon.errors import ScanError
from recon.grappa import Mask
from recon.halfspace import Extent, homodyne, pocs
from recon.methods.grids import Target, inner
from recon.recipe import Recipe
from recon.scan import Frame

FEWEST = 4  # samples beyond the centre that a phase can be found from
NAMES = ("kspace_encode_step_2", "kspace_encode_step_1", "the readout")
Extents = tuple[Extent, Extent, Extent]


def extents_of(frame: Frame, sampled: Mask, target: Target, kernels: Kernels) -> Extents:
    """The measured sides (z, y, x) of `frame`, whose lines span `sampled` [kz, ky], in samples of the image's k-space.

    Raises ScanError where too little beyond the centre was measured to know the phase.
    """
    assert frame.sampled is not None
    lines = frame.kspace[:, np.asarray(frame.sampled, like=frame.kspace)]
    readout = kernels.to_host((lines != 0).any(axis=(0, 1)))
    measured = [sampled.any(axis=1), sampled.any(axis=0), readout]
    z, y, x = (
        _extent(np.flatnonzero(lines), lines.size, kept / full, name)
        for lines, kept, full, name in zip(measured, inner(target), target.full, NAMES, strict=True)
    )
    return z, y, x


def _extent(lines: NDArray[np.intp], size: int, scale: float, name: str) -> Extent:
    """The side along one axis; where both ends are missing alike, up to a line, nothing can be completed."""
    low, high = int(lines[0]) - size // 2, int(lines[-1]) - size // 2
    if abs(low + high) <= 1:
        return Extent()
    if min(-low, high) < FEWEST:
        raise ScanError(
            f"{name} was measured from {low} to {high} about the centre of k-space, expected at least {FEWEST} samples"
            " on either side to find the phase: set partial_fourier to off"
        )
    return Extent(low * scale, high * scale)


def completed(images: Complex, extents: tuple[Extent, ...], recipe: Recipe, kernels: Kernels) -> Complex:
    """`images` [*batch, *grid] with the sides of k-space that were not measured, as the recipe says."""
    if not any(extent.partial for extent in extents):
        return images
    complete = homodyne if recipe["partial_fourier"] == "homodyne" else pocs
    return complete(images, extents, kernels)

"""Slices excited together, told apart by coils: slice-GRAPPA (doi:10.1002/mrm.23097), with leakage kept out.

Each slice is a convolution of the lines in which all slices lie over one another. The weights come from the slices
measured one by one. They are asked to give a slice of itself and nothing of each other one (split slice-GRAPPA,
doi:10.1002/mrm.24898): fitted to the slices' sum alone, they may make one slice of another's signal.

In k-space, a slice that blips have shifted is one multiplied by a phase that grows from line to line; a convolution
needs one and the same phase step everywhere, so that phases count from the first slice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex
from recon.errors import CalibrationError
from recon.grappa import RIDGE, SLAB_BYTES, WIDTH, Places, Weights, along_x, gathered, gram

LINES_AROUND = 2  # lines on either side that a slice's line is made of beside its own
FEWEST_EQUATIONS = 1.5  # per unknown
LINES = 48  # along ky that are enough to calibrate with
SAMPLES = 64  # along kx

Mask = NDArray[np.bool_]


def calibrate(slices: Complex, step: int, *, ridge: float = RIDGE) -> Weights:
    """Weights that make each of `slices` [slice, coil, ky, kx] of lines `step` apart in which all lie on one another.

    The slices are fully sampled, white, and turned as the blips turn them. All share one regularised least-squares
    problem of coils · WIDTH · (2 · LINES_AROUND + 1) unknowns. Raises CalibrationError where there are too few lines.
    """
    slices = _central(slices)
    count, coils, lines, samples = slices.shape
    offsets = [step * i for i in range(-LINES_AROUND, LINES_AROUND + 1)]
    unknowns = coils * WIDTH * len(offsets)
    places = (max(0, lines - offsets[-1] + offsets[0]), max(0, samples - WIDTH + 1))
    if places[0] * places[1] * count < FEWEST_EQUATIONS * unknowns:
        raise CalibrationError(
            f"slice-grappa finds {lines} lines of {samples} samples of each slice alone, too few to tell {count} slices"
            f" apart with {coils} coils: measure more calibration lines or use fft"
        )
    rows = [_rows(one, offsets, places) for one in slices]  # [coil', dx, source] × place
    normal = np.stack([gram(one) for one in rows]).sum(axis=0)
    diagonal = np.arange(len(normal), like=normal)
    normal[diagonal, diagonal] += ridge * normal[diagonal, diagonal].real.mean()
    middle = LINES_AROUND * step
    wanted = [
        rows[i] @ one[:, middle : middle + places[0], WIDTH // 2 : WIDTH // 2 + places[1]].reshape(coils, -1).conj().T
        for i, one in enumerate(slices)
    ]
    values = np.linalg.solve(normal, np.concatenate(wanted, axis=1)).conj().T
    shaped = values.reshape(count, coils, WIDTH, len(offsets), coils).swapaxes(-1, -2)
    targets = tuple((number, 0) for number in range(count))
    return Weights(targets, tuple((0, offset) for offset in offsets), shaped.astype(np.complex64))


def _central(slices: Complex) -> Complex:
    """At most LINES × SAMPLES from the middle of k-space."""
    cuts = [
        slice((n - most) // 2, (n + most) // 2) if n > most else slice(None)
        for n, most in zip(slices.shape[2:], (LINES, SAMPLES), strict=True)
    ]
    return slices[:, :, cuts[0], cuts[1]]


def _rows(one: Complex, offsets: list[int], places: tuple[int, int]) -> Complex:
    """The samples that a target is made of: [dx · source · coil, place]."""
    first = -offsets[0]
    parts = [
        one[:, first + offset : first + offset + places[0], dx : dx + places[1]]
        for dx in range(WIDTH)
        for offset in offsets
    ]
    return np.stack(parts).reshape(len(parts) * len(one), -1)


def apart(lines: Complex, measured: Mask, weights: Weights) -> Complex:
    """The slices [slice, coil, x, ky] that lie on one another in `lines` [coil, x, ky]; zero where not `measured` [ky].

    Beside them: SLAB_BYTES of sources and weights, or those of one x where they are more.
    """
    coils, length, count = lines.shape
    flat = lines.swapaxes(0, 1)
    here = np.flatnonzero(measured)
    sources = here[np.newaxis] + np.array([dy for _, dy in weights.sources])[:, np.newaxis]
    inside = (sources >= 0) & (sources < count)
    places = Places(np.where(inside, sources, -1), ())
    slices = len(weights.targets)
    out = np.zeros((slices, coils, length, count), np.complex64, like=lines)
    size = 8 * coils * len(weights.sources) * (len(here) + slices * coils)
    step, index = max(1, SLAB_BYTES // size), np.asarray(here, like=lines)
    for first in range(0, length, step):
        part = slice(first, min(first + step, length))
        made = along_x(weights, length, part) @ gathered(flat[part], places)
        out[:, :, part, index] = np.moveaxis(made.reshape(-1, slices, coils, len(here)), 0, 2)
    return out

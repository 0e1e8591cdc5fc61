"""`slice-grappa`: slices excited together, an image of each; what is missing within a slice is made by `grappa`."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels
from recon.arrays import contiguous
from recon.errors import CalibrationError
from recon.grappa import WIDTH, Mask, centre_of, check_acceleration, lattice_of
from recon.lines import is_cartesian
from recon.methods import fft, grappa
from recon.methods.combine import check_finite
from recon.methods.grids import fft_seconds
from recon.methods.hybrid import hybrid
from recon.methods.method import Method, Workbench, refuse
from recon.multiband import SEPARABLE, bands_of, place, single, turns
from recon.recipe import Recipe
from recon.scan import Calibration, Encoding, Frame, Image
from recon.slice_grappa import LINES_AROUND, apart, calibrate

Vector = NDArray[np.float64]
EVEN = 0.999  # the mean phase step of blips that step evenly has a size of 1; less is more than rounding


def check(encoding: Encoding) -> str:
    """Why slices cannot be taken apart: none were excited together."""
    if encoding.multiband is not None:
        return ""
    found = "the header's parallelImaging has no multiband"
    instead = "grappa, fft" if is_cartesian(encoding) else "gridding"
    return f"the method slice-grappa needs slices excited together, {found}: use {instead} or auto"


def run(frame: Frame, calibration: Calibration, recipe: Recipe, workbench: Workbench) -> list[Image]:
    """An image of each slice of the group that `frame` is, at its own place and numbered by its own slice.

    Raises RecipeError where nothing was excited together, CalibrationError where the slices one by one are missing or
    too few lines of them came. Beside the frame it takes 32 · coils bytes per voxel and slice.
    """
    refuse(check, frame.encoding)
    multiband = frame.encoding.multiband
    assert multiband is not None
    if frame.reference is None or multiband.calibration != SEPARABLE:
        raise CalibrationError(
            f"slice-grappa needs the slices one by one (multiband calibration {SEPARABLE}, lines flagged as parallel"
            f" calibration), the header says {multiband.calibration or 'nothing'} and"
            f" {'not all came' if frame.reference is None else 'they came'}: send them before the image"
        )
    own = Recipe("grappa", {name: value for name, value in recipe.parameters.items() if name != "gfactor"})
    parts = separated(frame, calibration, workbench)
    white = replace(calibration, whitening=None)
    found = [image for part in parts for image in grappa.run(part, white, own, workbench)]
    return [_named(image, recipe) for image in found]


def _named(image: Image, recipe: Recipe) -> Image:
    """The image as one of this method."""
    provenance = replace(image.provenance, method=recipe.method, recipe_hash=recipe.hash)
    return replace(image, attributes={**image.attributes, "ReconRecipe": recipe.to_json()}, provenance=provenance)


def separated(frame: Frame, calibration: Calibration, workbench: Workbench) -> list[Frame]:
    """White frames of the slices of a group, each with its calibration as reference."""
    kernels, reference = workbench.kernels, frame.reference
    assert frame.sampled is not None and reference is not None and reference.sampled is not None
    bands = bands_of(frame.encoding, frame.counters.slice)
    measured = _lines(frame.sampled)
    whole = frame.kspace.sum(axis=1, keepdims=True)  # every line has one partition, the others are zero
    lines = _white(whole, measured[np.newaxis], calibration, kernels)
    alone = [
        _white(reference.kspace[:, i : i + 1], reference.sampled[i : i + 1], calibration, kernels)
        for i in range(len(bands.slices))
    ]
    blips = turns(frame.encoding, bands, _partitions(frame.sampled))
    common = blips[0].conj() * measured
    step = lattice_step(measured, len(lines))
    shifts = np.asarray(steady(blips * common, measured, step), like=lines)
    box = centre_of(np.all(reference.sampled, axis=0, keepdims=True))[1]
    known = np.stack([(one * shift)[:, :, box] for one, shift in zip(alone, shifts, strict=True)])
    check_finite(known)
    inside = contiguous(known.swapaxes(-1, -2))
    weights = calibrate(kernels.fft(inside, axes=1) if inside.size else inside, step)
    parts = apart(lines * np.asarray(common, like=lines), measured, weights)
    made = [_kspace(part * shift.conj(), kernels) for part, shift in zip(parts, shifts, strict=True)]
    return _frames(frame, made, [_kspace(one, kernels) for one in alone])


def _white(kspace: Complex, sampled: Mask, calibration: Calibration, kernels: Kernels) -> Complex:
    """White lines [coil, x, ky] of one slice's `kspace` [coil, 1, ky, kx]."""
    return hybrid(kspace, sampled, kspace.shape[-1], calibration, kernels)[:, :, 0]


def _kspace(lines: Complex, kernels: Kernels) -> Complex:
    """K-space [coil, 1, ky, kx] of lines [coil, x, ky]."""
    return kernels.fft(contiguous(lines.swapaxes(-1, -2)), axes=1)[:, np.newaxis]


def _lines(sampled: Mask) -> Mask:
    """Which lines [ky] were measured, whatever their partition."""
    return np.asarray(sampled.any(axis=0))


def _partitions(sampled: Mask) -> Vector:
    """Which partition, counted from the centre, was measured of each line: [ky] of `sampled` [kz, ky]."""
    return np.asarray(sampled.argmax(axis=0) - len(sampled) // 2, np.float64)


def _frames(frame: Frame, made: list[Complex], alone: list[Complex]) -> list[Frame]:
    """The frames of the slices from their k-space, and of their calibration."""
    reference, encoding = frame.reference, single(frame.encoding)
    assert frame.sampled is not None and reference is not None and reference.sampled is not None
    bands = bands_of(frame.encoding, frame.counters.slice)
    found = []
    for i, (number, offset_mm) in enumerate(zip(bands.slices, bands.offsets_mm, strict=True)):
        known = replace(reference, kspace=alone[i], sampled=reference.sampled[i : i + 1], encoding=encoding)
        part = replace(frame, kspace=made[i], sampled=_lines(frame.sampled)[np.newaxis], encoding=encoding)
        counters, geometry = replace(frame.counters, slice=number), place(frame.geometry, offset_mm)
        found.append(replace(part, counters=counters, geometry=geometry, reference=known))
    return found


def lattice_step(measured: Mask, coils: int) -> int:
    """How many lines apart the `measured` [ky] are; raises CalibrationError where the coils cannot make up for it."""
    lattice = lattice_of(measured[np.newaxis], (slice(0, 0), slice(0, 0)))
    if lattice is None:
        return 1
    check_acceleration(lattice, coils)
    return lattice.step_y


def steady(blips: Complex, measured: Mask, step: int) -> Complex:
    """The phases of `blips` [slice, ky], known where `measured`, on all lines: equal steps from line to line.

    Raises CalibrationError where they do not step evenly, as no convolution could follow.
    """
    here = np.flatnonzero(measured)
    known = blips[:, here]
    turn = (known[:, 1:] * known[:, :-1].conj()).mean(axis=1)
    if (np.abs(turn) < EVEN).any():
        raise CalibrationError(
            "the blips turn a slice by uneven steps from line to line (kspace_encode_step_2, deltaKz and dZ say so),"
            " slice-grappa needs even ones: correct the header or use fft"
        )
    lines = (np.arange(blips.shape[1]) - here[0]) / step
    phases: Complex = (known[:, :1] * np.exp(1j * np.angle(turn)[:, np.newaxis] * lines)).astype(np.complex64)
    return phases


def bytes_needed(encoding: Encoding, coils: int) -> int:
    """K-space, the slices' calibration, their lines and k-space, and the calibration's equations.

    At least what the zero-filled image takes, which comes instead where there is no calibration.
    """
    slices = _slices(encoding)
    grid = prod(encoding.encoded.matrix[1:])
    own = 8 * coils * grid * (2 * encoding.encoded.matrix[0] + 6 * slices) + 100 * _unknowns(coils) ** 2 + (96 << 20)
    return max(own, fft.bytes_needed(encoding, coils))


def cost(encoding: Encoding, coils: int) -> float:
    """Calibration by a matrix of unknowns, slices made of sources at every voxel, and a few transforms of each."""
    slices, grid = _slices(encoding), prod(encoding.encoded.matrix[1:])
    calibration = 4e-10 * _unknowns(coils) ** 3 + 4e-10 * slices * 48 * 64 * _unknowns(coils) ** 2 / 4
    application = 3e-10 * coils**2 * (2 * LINES_AROUND + 1) * slices * grid
    return 5e-3 + calibration + application + 4 * slices * coils * fft_seconds(grid)


def _slices(encoding: Encoding) -> int:
    return 1 if encoding.multiband is None else encoding.multiband.factor


def _unknowns(coils: int) -> int:
    """Weights of one slice in one coil."""
    return (2 * LINES_AROUND + 1) * WIDTH * coils


SLICE_GRAPPA = Method("slice-grappa", run, bytes_needed, cost, calibration=True, check=check)

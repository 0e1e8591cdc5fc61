"""The realistic mode: a brain of voxels, the digital one of the package asldro, seen through the same coils.

Its voxels of 1 mm are transformed as they are and k-space is cropped, so that images have the edges, partial volumes
and ringing of real ones; what is exact about it is that truth and readouts come of the same k-space.
Its anatomy is the ICBM 2009a average (doi:10.1016/j.neuroimage.2010.07.033).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.errors import FileError, RecipeError
from recon.simulate.cartesian import (
    OVERSAMPLING,
    SE_NOISE,
    SE_THICKNESS_MM,
    SE_VIEW_MM,
    SPIN_ECHO,
    Slices,
    interleaved,
    measured,
    spin_echo_encoding,
)
from recon.simulate.coils import Coils, sensitivity
from recon.simulate.measurement import Choice, Measurement, geometry, head_array, header, seen_by
from recon.simulate.phantom import Spectrum, Vector
from recon.simulate.tissue import Tissue, spin_echo
from recon.simulate.truth import unit

FILES = "hrgt_icbm_2009a_nls_1.5t"
HEADER_BYTES, MAGIC, DOUBLE = 348, b"n+1\0", 64  # of NIfTI-1: one file, 64-bit floats
PLACES_MM = (-8, 8, 24)  # above the line between the commissures


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What a NIfTI-1 file of upright voxels of 1 mm says: `shape` (z, y, x) of `count` volumes, the voxel at 0 mm.

    Axes run to the patient's head, front and right.
    """

    shape: tuple[int, int, int]
    count: int
    origin: tuple[int, int, int]
    start: int  # of the values, in bytes


@dataclass(frozen=True, slots=True, eq=False)
class Brain:
    """`label` [slice, plane, y, x] of voxels, y and x as in the file; `tissues` by label; 0 is air."""

    label: NDArray[np.uint8]
    origin: tuple[int, int, int]
    tissues: dict[int, Tissue]


def folder() -> Path:
    """Where the package asldro keeps its data; raises RecipeError where it is not installed."""
    found = find_spec("asldro")
    if found is None or not found.submodule_search_locations:
        raise RecipeError(
            "the package asldro is not installed, whose digital brain this protocol shows: pip install --no-deps asldro"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def brain(data: Path, places_mm: Sequence[int], *, thickness: int) -> Brain:
    """Slices of the digital brain in the folder `data`, each `thickness` voxels; raises FileError.

    One volume of the file at a time is in memory.
    """
    with gzip.open(data / f"{FILES}.nii.gz") as file:
        head = read_head(file.read(HEADER_BYTES), f"{FILES}.nii.gz")
        file.read(head.start - HEADER_BYTES)
        planes = head.origin[0] + np.add.outer(places_mm, np.arange(thickness) - thickness // 2)
        size = 8 * int(np.prod(head.shape))
        found = [np.frombuffer(file.read(size), "<f8").reshape(head.shape)[planes] for _ in range(head.count)]
    names = json.loads((data / f"{FILES}.json").read_text(encoding="utf-8"))["quantities"]
    by_name = dict(zip(names, found, strict=True))
    label = by_name["seg_label"].astype(np.uint8)
    tissues = {number: _tissue(by_name, label == number) for number in np.unique(label[label > 0]).tolist()}
    return Brain(label, head.origin, tissues)


def _tissue(quantities: dict[str, Vector], where: NDArray[np.bool_]) -> Tissue:
    """Times of the file are in s, its density in percent of water's."""
    t1_s, t2_s, t2_star_s, m0 = (float(quantities[name][where].mean()) for name in ("t1", "t2", "t2_star", "m0"))
    return Tissue(m0 / 100, 1000 * t1_s, 1000 * t2_s, 1000 * t2_star_s)


def read_head(content: bytes, name: str) -> Head:
    """The first HEADER_BYTES of the NIfTI-1 file `name`; raises FileError where its voxels are others."""
    kind = (content[344:348], int.from_bytes(content[70:72], "little"), int.from_bytes(content[:4], "little"))
    spacing, affine = np.frombuffer(content, "<f4", 3, 80), np.frombuffer(content, "<f4", 12, 280).reshape(3, 4)
    if kind != (MAGIC, DOUBLE, HEADER_BYTES) or (spacing != 1).any() or (affine[:, :3] != np.eye(3)).any():
        raise FileError(f"{name} is no NIfTI-1 file of 64-bit floats in upright voxels of 1 mm: install asldro 2 again")
    x, y, z, _, count = (int(n) for n in np.frombuffer(content, "<i2", 5, 42))
    right, front, up = (round(-float(shift)) for shift in affine[:, 3])
    return Head((z, y, x), count, (up, front, right), int(np.frombuffer(content, "<f4", 1, 108)[0]))


def brain_voxels(choice: Choice, _: Generator) -> Measurement:
    """T1-weighted spin echo of three axial slices of the digital brain."""
    encoding = spin_echo_encoding(choice, slices=len(PLACES_MM))
    if choice.matrix > SE_VIEW_MM:
        raise RecipeError(
            f"matrix is {choice.matrix}, the digital brain has voxels of 1 mm in a view of {SE_VIEW_MM:g} mm: choose at"
            f" most {SE_VIEW_MM:g}"
        )
    scan = header("brain-voxels", encoding, coils=choice.coils, timing=SPIN_ECHO)
    field, view = head_array(choice.coils), np.full(2, SE_VIEW_MM)
    geometries = [geometry(np.eye(3), (0, 0, float(place))) for place in PLACES_MM]
    whole = brain(folder(), PLACES_MM, thickness=round(SE_THICKNESS_MM))
    bodies = [slab(whole, number) for number in range(len(PLACES_MM))]
    scale = unit(encoding.encoded, 2)
    kspace = [
        scale * cropped(body, seen_by(field, where, view), matrix=choice.matrix)
        for body, where in zip(bodies, geometries, strict=True)
    ]
    slices = Slices(
        np.stack(kspace).astype(np.complex64)[:, :, None],
        [_covered(body, choice.matrix) for body in bodies],
        geometries,
    )
    order = interleaved(lines=choice.matrix, slices=len(PLACES_MM), repetitions=choice.repetitions)
    return measured(scan, slices, order=order, sample_time_us=10.0, noise_std=SE_NOISE)


def slab(whole: Brain, number: int) -> Vector:
    """Signal [y, x] of a slice on a grid of 1 mm: y to the back, x to the patient's left, 0 mm in the middle."""
    bright = np.zeros(256)
    for label, tissue in whole.tissues.items():
        bright[label] = spin_echo(tissue, SPIN_ECHO).real
    mean = bright[whole.label[number]].mean(axis=0)
    size = round(SE_VIEW_MM)
    _, front, right = whole.origin
    rows, columns = (middle - (np.arange(size) - size // 2) for middle in (front, right))
    inside = ((rows >= 0) & (rows < mean.shape[0]))[:, None] & (columns >= 0) & (columns < mean.shape[1])
    return np.where(inside, mean[np.ix_(rows % mean.shape[0], columns % mean.shape[1])], 0.0)


def cropped(body: Vector, coils: Coils, *, matrix: int) -> Spectrum:
    """∫ρ S exp(−2πi k·r) dr of voxels [y, x] of 1 mm², on the k-space grid of `matrix` [coil, ky, kx], read finely."""
    size = len(body)
    place = np.arange(size) - size // 2
    points = np.stack(np.broadcast_arrays(place, place[:, None]), axis=-1).astype(np.float64)
    seen = np.pad(sensitivity(coils, points) * body, [(0, 0), (0, 0), ((OVERSAMPLING - 1) * size // 2,) * 2])
    fine = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(seen, axes=(1, 2))), axes=(1, 2))
    ny, nx = size // 2 - matrix // 2, OVERSAMPLING * (size // 2) - OVERSAMPLING * matrix // 2
    return np.asarray(fine[:, ny : ny + matrix, nx : nx + OVERSAMPLING * matrix], np.complex128)


def _covered(body: Vector, matrix: int) -> NDArray[np.bool_]:
    """Which pixels [z, y, x] of the image have their centre in the brain."""
    size = len(body)
    near = np.rint((np.arange(matrix) - matrix // 2) * size / matrix).astype(np.int64) + size // 2
    return np.asarray(body[np.ix_(near, near)][None] > 0)

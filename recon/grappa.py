"""Lines that were not measured, from their neighbours in all coils: GRAPPA (doi:10.1002/mrm.10171) in 2-D and 3-D.

The measured lines (kz, ky) outside the calibration region form a lattice, whatever the acceleration along each axis
and whatever the shift from one partition to the next (2D CAIPIRINHA, doi:10.1002/mrm.20787). Each place inside the
lattice's cell is one target with its own nearest sources. The weights are found in k-space and applied where the
readout is already an image: the convolution along kx is there a product, done only for the voxels that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Real
from recon.arrays import divided
from recon.errors import CalibrationError
from recon.fourier import waves

WIDTH = 5  # samples along kx that a target is made of
SOURCES = (4, 2)  # lines that a target of a plane is made of; the fewer where there is little to calibrate with
SOURCES_VOLUME = (8, 4, 2)
LINES = 32  # along each axis of the calibration region, and
EQUATIONS = 3  # per unknown, that are enough to calibrate with
FEWEST_SAMPLES = 24  # along kx, used however many lines there are: nearer to the centre all samples look alike
FEWEST_EQUATIONS = 1.5
RIDGE = 1e-3  # of the sources' mean power: what the weights' size costs (Tikhonov)
SLAB_BYTES = 16 << 20  # of sources and weights at once

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]
Offset = tuple[int, int]  # lines along (kz, ky)
Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Lattice:
    """Lines (kz, ky) = origin + m · (step_z, shift) + n · (0, step_y)."""

    step_z: int
    step_y: int
    shift: int
    origin: Offset

    @property
    def acceleration(self) -> int:
        """Lines of the full grid for each of the lattice's."""
        return self.step_z * self.step_y


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """`values` [target, coil, dx, coil', source]: how targets are made of sources, offsets from a lattice's line.

    k(line + target, kx)_c = Σ values · k(line + source, kx + dx)_c', dx = −⌊WIDTH/2⌋ … : all that a geometry factor
    needs as well.
    """

    targets: tuple[Offset, ...]
    sources: tuple[Offset, ...]
    values: Complex


# --- which lines -----------------------------------------------------------------------------------------------------


def centre_of(sampled: Mask) -> Box:
    """The box (kz, ky) round the centre of k-space in which every line was measured; empty where the centre was not."""
    bounds = [[n // 2, n // 2] for n in sampled.shape]  # [first, past the last]
    if sampled[bounds[0][0], bounds[1][0]]:
        for bound in bounds:
            bound[1] += 1
        # All sides in turn: one that ran ahead would take in a line outside the region, and stop the others.
        while sum(_grow(sampled, bounds, axis, end) for axis, end in product((0, 1), (0, 1))):
            pass
    (z0, z1), (y0, y1) = bounds
    return slice(z0, z1), slice(y0, y1)


def _grow(sampled: Mask, bounds: list[list[int]], axis: int, end: int) -> bool:
    """Move one side of the box outwards by a line, where all of that line was measured."""
    line = bounds[axis][1] if end else bounds[axis][0] - 1
    if not 0 <= line < sampled.shape[axis]:
        return False
    across = slice(*bounds[1 - axis])
    if not (sampled[line, across] if axis == 0 else sampled[across, line]).all():
        return False
    bounds[axis][end] += 1 if end else -1
    return True


def lattice_of(sampled: Mask, centre: Box) -> Lattice | None:
    """The coarsest lattice with all lines outside the `centre`; None where these are fewer than two."""
    outside = sampled.copy()
    outside[centre] = False
    lines = np.argwhere(outside)
    if len(lines) < 2:
        return None
    step_z, shift, step_y = 0, 0, 0
    for dz, dy in np.unique(np.diff(lines, axis=0), axis=0).tolist():
        while dz:
            step_z, shift, dz, dy = dz, dy, step_z % dz, shift - step_z // dz * dy  # noqa: PLW2901  # Euclid's
        step_y = gcd(step_y, dy)
    step_z, shift = (-step_z, -shift) if step_z < 0 else (step_z, shift)
    step_z, step_y = step_z or sampled.shape[0], step_y or sampled.shape[1]
    return Lattice(step_z, step_y, shift % step_y, (int(lines[0, 0]), int(lines[0, 1])))


def check_acceleration(lattice: Lattice, coils: int) -> None:
    """Raises CalibrationError where the lattice's acceleration is more than so many coils can tell apart."""
    if lattice.acceleration > coils:
        raise CalibrationError(
            f"the lines of kspace_encode_step_1 and kspace_encode_step_2 are accelerated {lattice.acceleration}-fold,"
            f" {coils} coils can tell at most {coils} voxels apart: measure more lines or use l1-wavelet"
        )


def nearest(lattice: Lattice, target: Offset, count: int, *, planes: int) -> tuple[Offset, ...]:
    """The `count` lines of the lattice nearest to `target`, as offsets from the lattice's origin, in order."""
    candidates = []
    for m, n in product(range(-4, 5), range(-12, 13)):
        dz, dy = m * lattice.step_z, m * lattice.shift + n * lattice.step_y
        if abs(dz) < planes:
            candidates.append(((dz - target[0]) ** 2 + (dy - target[1]) ** 2, abs(dz - target[0]), dz, dy))
    return tuple(sorted((dz, dy) for _, _, dz, dy in sorted(candidates)[:count]))


def groups_of(lattice: Lattice, count: int, *, planes: int) -> dict[tuple[Offset, ...], list[Offset]]:
    """Targets of the lattice's cell by their `count` sources: equal sources share one calibration."""
    groups: dict[tuple[Offset, ...], list[Offset]] = {}
    for target in product(range(lattice.step_z), range(lattice.step_y)):
        if target != (0, 0):
            groups.setdefault(nearest(lattice, target, count, planes=planes), []).append(target)
    return groups


# --- calibration -----------------------------------------------------------------------------------------------------


def calibrate(
    calibration: Complex, lattice: Lattice, *, ridge: float = RIDGE, instead: str = "fft"
) -> tuple[Weights, ...]:
    """Weights for all targets of `lattice` from `calibration` [coil, kz, ky, kx], the fully sampled centre.

    Each group of targets with the same sources is one regularised least-squares problem with coils · WIDTH · sources
    unknowns, solved for all its targets and coils at once. Raises CalibrationError where the region is too small, with
    the methods to use `instead`.

    Beside the weights: `calibration_bytes` where kx is long, never much more.
    """
    calibration = central(calibration)
    planes = max(1, calibration.shape[1])  # a centre that was not measured has none
    choices = SOURCES if planes == 1 else SOURCES_VOLUME
    for count in choices:
        groups = groups_of(lattice, count, planes=planes)
        problems = [Problem.of(calibration, tuple(targets), sources) for sources, targets in groups.items()]
        if all(problem.equations >= FEWEST_EQUATIONS * problem.unknowns for problem in problems):
            return tuple(problem.solve(calibration, ridge) for problem in problems)
    raise CalibrationError(
        f"grappa finds {calibration.shape[2]} × {planes} fully sampled lines of {calibration.shape[3]} samples at the"
        f" centre of k-space, too few to calibrate an acceleration of {lattice.acceleration} with {len(calibration)}"
        f" coils: measure more calibration lines or use {instead}"
    )


def calibration_bytes(coils: int, sources: int) -> int:
    """What `calibrate` needs for targets of so many source lines: 2 · (EQUATIONS + 3) values for each pair of unknowns.

    The equations and their real parts, the normal matrix as made, as added up, and as factored.
    """
    return 2 * (EQUATIONS + 3) * 8 * (coils * WIDTH * sources) ** 2


def central(calibration: Complex) -> Complex:
    """At most LINES lines along kz and ky from the middle of the region."""
    cuts = [slice((n - LINES) // 2, (n + LINES) // 2) if n > LINES else slice(None) for n in calibration.shape[1:3]]
    return calibration[:, cuts[0], cuts[1]]


@dataclass(frozen=True, slots=True)
class Problem:
    """Targets and sources with all their places (first, past the last) inside a calibration region of some coils."""

    targets: tuple[Offset, ...]
    sources: tuple[Offset, ...]
    coils: int
    places: tuple[tuple[int, int], ...]  # of the lattice's line, along (kz, ky), and of the first of WIDTH samples

    @staticmethod
    def of(calibration: Complex, targets: tuple[Offset, ...], sources: tuple[Offset, ...]) -> Problem:
        """As many places as the region has, but no more along kx than are enough, from its middle."""
        coils, *region = calibration.shape
        offsets = np.array(targets + sources)
        low, high = np.minimum(offsets.min(axis=0), 0), np.maximum(offsets.max(axis=0), 0)
        lines = [(int(-a), int(n - b)) for n, a, b in zip(region[:2], low, high, strict=True)]
        count = max(0, lines[0][1] - lines[0][0]) * max(0, lines[1][1] - lines[1][0])
        all_samples = max(0, region[2] - WIDTH + 1)
        enough = -(-EQUATIONS * coils * WIDTH * len(sources) // max(count, 1))
        samples = min(all_samples, max(enough, FEWEST_SAMPLES)) if count else 0
        first = (all_samples - samples) // 2
        return Problem(targets, sources, coils, (*lines, (first, first + samples)))

    @property
    def unknowns(self) -> int:
        """Weights of one target in one coil."""
        return self.coils * WIDTH * len(self.sources)

    @property
    def equations(self) -> int:
        """Places at which sources and targets are known."""
        (z0, z1), (y0, y1), (x0, x1) = self.places
        return max(0, z1 - z0) * max(0, y1 - y0) * (x1 - x0)

    def solve(self, calibration: Complex, ridge: float) -> Weights:
        """The weights that make the targets of their sources, in the least-squares sense."""
        known = self._rows(calibration, [(*source, dx) for dx in range(WIDTH) for source in self.sources])
        wanted = self._rows(calibration, [(*target, WIDTH // 2) for target in self.targets])
        normal = gram(known)
        diagonal = np.arange(len(normal), like=normal)
        normal[diagonal, diagonal] += ridge * normal[diagonal, diagonal].real.mean()
        values = np.linalg.solve(normal, known @ wanted.conj().T).conj().T
        shape = (len(self.targets), self.coils, WIDTH, len(self.sources), self.coils)
        return Weights(self.targets, self.sources, values.reshape(shape).swapaxes(-1, -2))

    def _rows(self, calibration: Complex, offsets: list[tuple[int, int, int]]) -> Complex:
        """The samples at `offsets` from every place: [offset·coil, place]."""
        parts = [
            calibration[(slice(None), *(slice(a + d, b + d) for (a, b), d in zip(self.places, offset, strict=True)))]
            for offset in offsets
        ]
        return np.stack(parts).reshape(len(parts) * self.coils, -1)


def gram(rows: Complex) -> Complex:
    """rows · rowsᴴ, by one real product that BLAS knows to be symmetric: half the work of the complex one."""
    n = len(rows)
    parts = np.concatenate([rows.real, rows.imag])
    inner = parts @ parts.T
    total: Complex = (inner[:n, :n] + inner[n:, n:]).astype(np.complex64)
    total.imag = inner[n:, :n] - inner[:n, n:]
    return total


# --- application -----------------------------------------------------------------------------------------------------


def fill(lines: Complex, sampled: Mask, lattice: Lattice, weights: tuple[Weights, ...]) -> None:
    """Fill the lines of `lines` [coil, x, kz, ky] that `sampled` [kz, ky] lacks inside the box it spans; in place.

    `lines` are C-contiguous, transformed along x only, whitened as the calibration was, and zero where not sampled.
    Beside them: twice SLAB_BYTES of sources, weights and targets, or of those of one x where they are more.
    """
    coils, length = lines.shape[:2]
    flat = lines.reshape(coils, length, -1).swapaxes(0, 1)  # a view
    wanted = spanned(sampled, lattice) & ~sampled
    for group in weights:
        places = Places.of(wanted, lattice, group)
        for part in slabs(length, coils, places):
            sources = gathered(flat[part], places)
            made = along_x(group, length, part) @ sources
            made = made.reshape(len(made), len(group.targets), coils, -1)
            for i, (line, place) in enumerate(places.targets):
                there, here = (np.asarray(index, like=lines) for index in (place, line))
                flat[part][:, :, there] = made[:, i][:, :, here]


def spanned(sampled: Mask, lattice: Lattice) -> Mask:
    """The smallest box (kz, ky) round all measured lines, up to the grid's edge where less than a step is left to it.

    Beyond it is partial Fourier, not acceleration.
    """
    box = np.zeros_like(sampled)
    z, y = np.nonzero(sampled)
    box[_span(z, lattice.step_z, sampled.shape[0]), _span(y, lattice.step_y, sampled.shape[1])] = True
    return box


def _span(lines: NDArray[np.intp], step: int, size: int) -> slice:
    first, last = int(lines.min()), int(lines.max())
    return slice(first if first >= step else 0, last + 1 if size - last > step else size)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the targets of one group are: `sources` [source, line] as numbers kz · ny + ky, −1 outside the grid.

    `targets` holds for each target, which of the lattice's lines [place] it belongs to, and its own number [place].
    """

    sources: Index
    targets: tuple[tuple[Index, Index], ...]

    @staticmethod
    def of(wanted: Mask, lattice: Lattice, group: Weights) -> Places:
        """The places where `wanted` [kz, ky] asks for the group's targets."""
        nz, ny = wanted.shape
        found = [_of_class(wanted, lattice, target) for target in group.targets]
        every = [place - np.array(target) for place, target in zip(found, group.targets, strict=True)]
        lines, which = np.unique(np.concatenate(every), axis=0, return_inverse=True)
        z, y = (lines[:, axis] + np.array(group.sources)[:, axis, np.newaxis] for axis in (0, 1))
        inside = (z >= 0) & (z < nz) & (y >= 0) & (y < ny)
        ends = np.cumsum([len(place) for place in found])[:-1]
        own = [place @ np.array([ny, 1]) for place in found]
        return Places(np.where(inside, z * ny + y, -1), tuple(zip(np.split(which.ravel(), ends), own, strict=True)))


def _of_class(wanted: Mask, lattice: Lattice, target: Offset) -> Index:
    """The wanted places [place, (kz, ky)] that lie at `target` from a line of the lattice."""
    z, y = np.nonzero(wanted)
    m, left = np.divmod(z - lattice.origin[0] - target[0], lattice.step_z)
    on = (left == 0) & ((y - lattice.origin[1] - target[1] - m * lattice.shift) % lattice.step_y == 0)
    return np.stack([z[on], y[on]], axis=1)


def slabs(length: int, coils: int, places: Places) -> Iterator[slice]:
    """Parts of x for which sources, weights and targets take about SLAB_BYTES."""
    sources, lines = places.sources.shape
    targets = len(places.targets)
    size = 8 * coils * (lines * (sources + targets) + targets * coils * sources)
    step = max(1, SLAB_BYTES // size)
    if lines:
        yield from (slice(first, min(first + step, length)) for first in range(0, length, step))


def gathered(flat: Complex, places: Places) -> Complex:
    """The sources of all lines: flat [x, coil, place] → [x, coil·source, line]."""
    index = np.asarray(places.sources, like=flat)
    sources = flat[:, :, index]
    sources[:, :, index < 0] = 0
    return sources.reshape(len(flat), -1, places.sources.shape[1])


def along_x(group: Weights, length: int, part: slice) -> Complex:
    """The weights at the voxels `part` of `length`, [x, target·coil, coil·source]: a convolution along kx as a product.

    k(kx + dx) is the transform of the image times exp(−2πi x dx / length).
    """
    targets, coils, width, *_ = group.values.shape
    places = np.arange(length)[part] - length // 2
    shifts = waves(width, length, places, like=group.values).conj()
    values = np.moveaxis(group.values, 2, 0).reshape(width, -1)
    return (shifts @ values).reshape(len(shifts), targets * coils, -1)


def geometry_factor(
    weights: tuple[Weights, ...], lattice: Lattice, combination: Complex, field: tuple[int, int, int]
) -> Real:
    """How much more noise grows than by √acceleration in Σ combination · images [x, z, y].

    `combination` is [coil, x, z, y], the centre of `field` (x, z, y) voxels, which are as wide as k-space is dense.

    In image space the weights are a matrix of coils at each voxel, which the noise of the lattice's lines goes through
    (doi:10.1002/mrm.22066); where calibration lines replace made ones, there is less noise. Zero where the combination
    is. Beside it: 16 · coils² bytes for each voxel of a plane (z, y).
    """
    coils, length, *grid = combination.shape
    places = [(np.arange(n) - n // 2) / whole for n, whole in zip(grid, field[1:], strict=True)]
    offsets = sorted({(s[0] - t[0], s[1] - t[1]) for group in weights for t in group.targets for s in group.sources})
    kernel = _by_offset(weights, offsets, coils)  # [dx, coil, coil', offset]
    phases = [
        np.multiply.outer(offset, place) for offset, place in zip(zip(*offsets, strict=True), places, strict=True)
    ]
    turns = phases[0][:, :, None] + phases[1][:, None, :]
    planes = np.asarray(np.exp(-2j * np.pi * turns).astype(np.complex64), like=combination).reshape(len(offsets), -1)
    along = waves(WIDTH, field[0], np.arange(length) - length // 2, like=combination).conj()
    factor = np.zeros_like(combination[0].real).reshape(length, -1)
    for x in range(length):
        matrix = (along[x] @ kernel.reshape(WIDTH, -1)).reshape(-1, len(offsets)) @ planes
        chosen = combination[:, x].reshape(coils, -1)
        mixed = chosen + (chosen[:, None] * matrix.reshape(coils, coils, -1)).sum(axis=0)
        sizes = [np.sqrt((part.real**2 + part.imag**2).sum(axis=0)) for part in (mixed, chosen)]
        factor[x] = divided(sizes[0], lattice.acceleration * sizes[1], otherwise=0)
    whole: Real = factor.reshape(combination.shape[1:])
    return whole


def _by_offset(weights: tuple[Weights, ...], offsets: list[Offset], coils: int) -> Complex:
    """All groups' weights as one convolution [dx, coil, coil', offset] of the lattice's lines, without those alone."""
    kernel = np.zeros((WIDTH, coils, coils, len(offsets)), np.complex64, like=weights[0].values)
    for group in weights:
        for (i, target), (j, source) in product(enumerate(group.targets), enumerate(group.sources)):
            place = offsets.index((source[0] - target[0], source[1] - target[1]))
            kernel[..., place] += group.values[i, :, :, :, j].swapaxes(0, 1)
    return kernel

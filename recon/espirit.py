"""Coil maps from the calibration region's own k-space: ESPIRiT (doi:10.1002/mrm.24751), as array code for any device.

Patches of the calibration region span a small space; the maps at a voxel are the combinations of coils, modulated to
that voxel, that lie in it. Projection onto the space is a matrix of k-space kernels of (2·width − 1) samples per axis,
hence smooth over the image: its Fourier sums are evaluated voxel by voxel, a tile at a time, and never transformed as
whole images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Real
from recon.arrays import phase_of
from recon.fourier import waves
from recon.maps import interpolate

if TYPE_CHECKING:  # its dataclasses take 35 ms to make, a tenth of a whole process of maps
    from recon.scan import Shape3

WIDTH = 6  # samples of a patch along each axis of a plane
WIDTH_VOLUME = 4  # and of a volume, whose patches have one axis more
VIRTUAL = 12  # coils that are kept for finding maps: the strongest combinations, the others hold noise
SIGNAL = 1e-3  # eigenvalue of the patches' covariance, relative to the largest, above which a direction is signal
CROP = 0.8  # eigenvalue below which a voxel has no map
COARSE = 64  # points along each axis, at most twice that, at which the iteration starts from nothing
COARSE_ITERATIONS, FINE_ITERATIONS = 24, 2
TILE_BYTES = 2 << 20  # of matrices held at once: they stay in the second-level cache


Places = NDArray[Any]  # along one axis, voxels from the centre, whole or not
Sums = tuple[Complex, Complex, Complex]  # [place, distance] along z, y, x


def espirit(
    calibration: Complex, grid: Shape3, *, sets: int = 1, crop: float = CROP, soft: bool = False
) -> tuple[Complex, Real]:
    """Maps [set, coil, z, y, x] and eigenvalues [set, z, y, x] from `calibration` [coil, kz, ky, kx].

    `calibration` is the fully sampled centre of the k-space whose image is `grid`. Where the object is, Σ|S|² = 1, and
    the eigenvalue is 1 for as many sets as objects overlap (two where the field of view is too small). Maps are zero
    where the eigenvalue is below `crop`; `soft` instead lets their size rise smoothly from 0 at 2·crop − 1 to 1.
    Their phase is relative to the strongest combination of coils. Raises ValueError for a calibration region or a
    number of sets that cannot be used.

    Needs `espirit_bytes`.
    """
    widths = patch_widths(calibration.shape[1:])
    basis = strongest_coils(calibration)
    if not 1 <= sets <= basis.shape[1]:
        raise ValueError(f"sets is {sets}, expected 1 to {basis.shape[1]} for these coils: ask for fewer")
    virtual = np.tensordot(basis.conj().T, calibration, axes=1)
    kernel = projection(patches(virtual, widths), len(virtual), widths)
    sizes = coarse_sizes(grid)
    vectors = interpolate_sets(solve_coarse(kernel, grid, sizes, sets), grid, sizes)
    maps = np.empty((sets, len(basis), *grid), np.complex64, like=calibration)
    values = np.empty((sets, *grid), np.float32, like=calibration)
    sums = sums_at(kernel, grid, [np.arange(n) - n // 2 for n in grid])
    for z, rows in tiles(grid, len(virtual)):
        matrix = on_grid(kernel, (sums[0][z : z + 1], sums[1][rows], sums[2]))
        start = vectors[:, :, z, rows].reshape(sets, len(virtual), -1)
        found, value = leading(matrix, start, FINE_ITERATIONS)
        shape = (sets, -1, rows.stop - rows.start, grid[2])
        maps[:, :, z, rows] = (basis @ (aligned(found) * weight(value, crop, soft=soft)[:, None])).reshape(shape)
        values[:, z, rows] = value.reshape(shape[0], *shape[2:])
    return maps, values


def espirit_bytes(coils: int, grid: Shape3, *, sets: int = 1) -> int:
    """What `espirit` needs, its result among it, for regions that are larger than a patch.

    Maps and eigenvalues; 8 · sets · min(coils, VIRTUAL) bytes per voxel for starting vectors; 3 · TILE_BYTES; and
    24 · unknowns² bytes for unknowns = min(coils, VIRTUAL) · samples of a patch.
    """
    virtual, voxels = min(coils, VIRTUAL), prod(grid)
    unknowns = virtual * (WIDTH**2 if grid[0] == 1 else WIDTH_VOLUME**3)
    return sets * voxels * (8 * coils + 4 + 8 * virtual) + 3 * TILE_BYTES + 24 * unknowns**2


def patch_widths(region: Sequence[int]) -> Shape3:
    """Samples (z, y, x) of a patch inside `region`; raises ValueError where it is too small to hold several."""
    width = WIDTH if region[0] == 1 else WIDTH_VOLUME
    z, y, x = (min(width, (n + 1) // 2) for n in region)
    if min(region[1:]) < 3:
        raise ValueError(f"the calibration region is {tuple(region)}, expected at least 3 lines of 3: measure more")
    return z, y, x


def strongest_coils(calibration: Complex) -> Complex:
    """Orthonormal combinations [coil, virtual] of coils with most of the power of `calibration`, strongest first."""
    flat = calibration.reshape(len(calibration), -1)
    vectors: Complex = np.linalg.eigh(flat @ flat.conj().T)[1][:, ::-1][:, :VIRTUAL]
    return vectors


def patches(calibration: Complex, widths: Shape3) -> Complex:
    """All patches of `widths` samples (z, y, x) of calibration [coil, kz, ky, kx]: [sample·coil, patch]."""
    counts = [n - w + 1 for n, w in zip(calibration.shape[1:], widths, strict=True)]
    shifted = [
        calibration[(slice(None), *(slice(p, p + n) for p, n in zip(place, counts, strict=True)))]
        for place in product(*(range(w) for w in widths))
    ]
    return np.stack(shifted).reshape(len(shifted) * len(calibration), -1)


def projection(rows: Complex, coils: int, widths: Shape3) -> Complex:
    """Projection onto the space of patches `rows` [sample·coil, patch], as kernels [coil, coil, dz, dy, dx].

    Its entries are summed over all pairs of samples that are equally far apart, and divided by the patch's size: then
    the Fourier sum over (dz, dy, dx), which run from 1 − width to width − 1, has eigenvalues between 0 and 1.
    """
    values, vectors = np.linalg.eigh(rows @ rows.conj().T)
    signal = vectors[:, values > SIGNAL * values[-1]]
    count = prod(widths)
    pairs = (signal @ signal.conj().T).reshape(count, coils, *widths, coils)
    reverse = np.moveaxis(pairs, -1, 2)[:, :, :, ::-1, ::-1, ::-1]  # d = p − p' falls as p' rises
    kernel = np.zeros((coils, coils, *(2 * w - 1 for w in widths)), np.complex64, like=rows)
    for entry, place in zip(reverse, product(*(range(w) for w in widths)), strict=True):
        window = tuple(slice(p, p + w) for p, w in zip(place, widths, strict=True))
        kernel[(slice(None), slice(None), *window)] += entry
    kernel /= count
    return kernel


def sums_at(kernel: Complex, grid: Shape3, places: Sequence[Places]) -> Sums:
    """What the Fourier sums multiply the kernel's samples by at voxels z, y, x (from the centre of `grid`)."""
    z, y, x = (waves(n, size, r, like=kernel) for n, size, r in zip(kernel.shape[2:], grid, places, strict=True))
    return z, y, x


def on_grid(kernel: Complex, sums: Sums) -> Complex:
    """The kernels' Fourier sums of `sums_at`, at every (z, y, x): [coil, coil, voxel]."""
    coils = len(kernel)
    planes = np.moveaxis(np.tensordot(sums[0], kernel, axes=(1, 2)), 0, 2)  # [coil, coil, z, dy, dx]
    lines: Complex = sums[1] @ planes
    return (lines.reshape(-1, lines.shape[-1]) @ sums[2].T).reshape(coils, coils, -1)


def coarse_sizes(grid: Shape3) -> Shape3:
    """Voxels (z, y, x) between coarse points."""
    z, y, x = (max(1, n // COARSE) for n in grid)
    return z, y, x


def solve_coarse(kernel: Complex, grid: Shape3, sizes: Shape3, sets: int) -> Complex:
    """Leading eigenvectors [set, coil, z, y, x] at the centres of blocks of `sizes` voxels, from scratch."""
    places = [np.arange(-(-n // size)) * size + (size - 1) / 2 - n // 2 for n, size in zip(grid, sizes, strict=True)]
    z, y, x = sums_at(kernel, grid, places)
    coils = len(kernel)
    start = np.zeros((sets, coils, len(y) * len(x)), np.complex64, like=kernel)
    for i in range(sets):
        start[i, i] = 1  # the strongest combinations of coils
        start[i, i + 1 :] = 0.01  # and a little of all others, that none is orthogonal to an eigenvector
    layers = [
        aligned(leading(on_grid(kernel, (z[i : i + 1], y, x)), start, COARSE_ITERATIONS)[0]) for i in range(len(z))
    ]
    return np.stack(layers, axis=2).reshape(sets, coils, len(z), len(y), len(x))


def interpolate_sets(coarse: Complex, grid: Shape3, sizes: Shape3) -> Complex:
    """Vectors [set, coil, z, y, x] of blocks of `sizes` voxels, linearly interpolated to `grid`."""
    flat = coarse.reshape(-1, *coarse.shape[2:])
    return interpolate(flat, grid, sizes).reshape(*coarse.shape[:2], *grid)


def tiles(grid: Shape3, coils: int) -> Iterator[tuple[int, slice]]:
    """Planes z and rows of them whose matrices fit TILE_BYTES."""
    rows = max(1, TILE_BYTES // (8 * coils**2 * grid[2]))
    for z, first in product(range(grid[0]), range(0, grid[1], rows)):
        yield z, slice(first, min(first + rows, grid[1]))


def leading(matrix: Complex, vectors: Complex, iterations: int) -> tuple[Complex, Real]:
    """Leading eigenvectors [set, coil, voxel] of matrix [coil, coil, voxel] and their eigenvalues [set, voxel].

    By orthogonal iteration from `vectors`; both come in falling order of the eigenvalues.
    """
    vectors = orthonormal(vectors)
    for _ in range(iterations):
        vectors = orthonormal(applied(matrix, vectors))
    values = (vectors.conj() * applied(matrix, vectors)).sum(axis=1).real
    return vectors, values


def applied(matrix: Complex, vectors: Complex) -> Complex:
    """matrix [coil, coil, voxel] times each of vectors [set, coil, voxel]."""
    product_: Complex = np.einsum("abv,sbv->sav", matrix, vectors)
    return product_


def orthonormal(vectors: Complex) -> Complex:
    """Gram–Schmidt over sets at each voxel of vectors [set, coil, voxel]."""
    out = vectors.copy()
    for i in range(len(out)):
        for other in out[:i]:
            out[i] -= other * (other.conj() * out[i]).sum(axis=0)
        norm = np.sqrt((out[i].real ** 2 + out[i].imag ** 2).sum(axis=0))
        out[i] /= np.maximum(norm, np.finfo(np.float32).tiny)
    return out


def aligned(vectors: Complex) -> Complex:
    """Vectors [set, coil, voxel] turned so that their first coil, the strongest combination, is real and ≥ 0."""
    turned: Complex = vectors * phase_of(vectors[:, :1].conj())
    return turned


def weight(values: Real, crop: float, *, soft: bool) -> Real:
    """Size of a map by its eigenvalue: a step at `crop`, or a smooth rise round it."""
    if not soft:
        step: Real = (values >= crop).astype(np.float32)
        return step
    rise = np.clip((values - (2 * crop - 1)) / (2 * (1 - crop)), 0, 1)
    smooth: Real = (rise * rise * (3 - 2 * rise)).astype(np.float32)
    return smooth

"""Objects made of ellipses and ellipsoids, whose k-space is known in closed form at every point.

Coordinates are the wire's: axes (x, y) or (x, y, z) along read, phase and slice direction, in mm; k in cycles/mm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.scan import Geometry

Vector = NDArray[np.float64]
Real = NDArray[np.float64]
Spectrum = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """Additive ellipses or ellipsoids: `center` [shape, axis], `semiaxes` [shape, axis, axis] mm, `intensity` [shape].

    A shape is the image of the unit ball: center + semiaxes @ ball, so the columns of `semiaxes` are its half-axes.
    `blur_mm` is the standard deviation of the Gaussian that softens every edge (0: sharp).
    """

    center: Vector
    semiaxes: Vector
    intensity: Spectrum
    blur_mm: float = 0.0

    def __post_init__(self) -> None:
        count, axes = self.center.shape
        if self.semiaxes.shape != (count, axes, axes) or self.intensity.shape != (count,):
            raise ScanError(
                f"shapes have centers {self.center.shape}, semiaxes {self.semiaxes.shape} and intensities "
                f"{self.intensity.shape}, expected [shape, axis], [shape, axis, axis] and [shape]"
            )

    @property
    def axes(self) -> int:
        """2 for ellipses, 3 for ellipsoids."""
        return int(self.center.shape[1])

    @property
    def content(self) -> Spectrum:
        """Intensity times |det semiaxes| [shape]: area or volume in units of the unit ball's."""
        content: Spectrum = self.intensity * np.abs(np.linalg.det(self.semiaxes))
        return content


def ball_spectrum(radius: Vector, *, axes: int) -> Vector:
    """Fourier transform of the unit disc (2 axes) or unit ball (3 axes) at |k| = `radius` cycles."""
    return _disc(radius) if axes == 2 else _ball(radius)


def _disc(radius: Vector) -> Vector:
    from scipy.special import j1

    safe = np.maximum(radius, 1e-9)  # J1(2πq)/q equals π to the last bit below this
    spectrum: Vector = j1(2 * np.pi * safe) / safe
    return spectrum


def _ball(radius: Vector) -> Vector:
    x = 2 * np.pi * radius
    safe = np.maximum(x, 0.1)
    far = (np.sin(safe) - safe * np.cos(safe)) / safe**3
    # Below 0.1 the difference cancels; the next term of this series, x⁸/3991680, is under 3e-15 there.
    x2 = x * x
    near = 1 / 3 - x2 / 30 + x2 * x2 / 840 - x2 * x2 * x2 / 45360
    spectrum: Vector = 4 * np.pi * np.where(x < 0.1, near, far)
    return spectrum


def spectrum(shapes: Shapes, k: Vector) -> Spectrum:
    """Fourier transform ∫ρ(r) exp(−2πi k·r) dr of `shapes` at `k` [..., axis] cycles/mm → [...]."""
    points = k.reshape(-1, shapes.axes)
    return np.asarray(shifted_spectra(shapes, points, np.zeros((1, shapes.axes)))[0].reshape(k.shape[:-1]))


def shifted_spectra(shapes: Shapes, k: Vector, shifts: Vector, *, moved_mm: Vector | None = None) -> Spectrum:
    """The transform at k − shift for `k` [point, axis] and `shifts` [shift, axis] → [shift, point].

    `moved_mm` [point, axis] is where the shapes have moved to when each point is measured. The phase of a shape's
    centre factors into one of the point and one of the shift, so it is computed once per point.
    """
    out = np.zeros((len(shifts), len(k)), np.complex128)
    for center, semiaxes, content in zip(shapes.center, shapes.semiaxes, shapes.content, strict=True):
        phase = content * np.exp(-2j * np.pi * (k @ center))
        scaled, moves, turns = k @ semiaxes, shifts @ semiaxes, np.exp(2j * np.pi * (shifts @ center))
        for i, move in enumerate(moves):
            out[i] += ball_spectrum(_length(scaled - move), axes=shapes.axes) * (turns[i] * phase)
    if shapes.blur_mm:
        for i, shift in enumerate(shifts):
            out[i] *= _softness(_length(k - shift), shapes.blur_mm)
    if moved_mm is not None:
        for i, shift in enumerate(shifts):
            out[i] *= np.exp(-2j * np.pi * np.einsum("ij,ij->i", k - shift, moved_mm))
    return out


def _softness(radius: Vector, blur_mm: float) -> Vector:
    return np.asarray(np.exp(-2 * (np.pi * blur_mm * radius) ** 2), np.float64)


def _length(vectors: Vector) -> Vector:
    length: Vector = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return length


def grid_spectrum(shapes: Shapes, lines: tuple[Vector, ...]) -> Spectrum:
    """The transform on the grid whose k along x, y[, z] are `lines` (cycles/mm) → [[z, ]y, x].

    The same values as `spectrum`; on a grid the centres' phases are outer products, which saves most of the time.
    """
    out = np.zeros(tuple(len(line) for line in reversed(lines)), np.complex128)
    # Slabs of the slowest axis keep the temporaries inside the processor's cache.
    step = max(1, 32768 * len(out) // max(out.size, 1))
    for start in range(0, len(out), step):
        slab = (*lines[:-1], lines[-1][start : start + step])
        for center, semiaxes, content in zip(shapes.center, shapes.semiaxes, shapes.content, strict=True):
            out[start : start + step] += _grid_term(slab, center=center, semiaxes=semiaxes, content=complex(content))
    for axis, line in enumerate(reversed(lines)):
        out *= _softness(line, shapes.blur_mm).reshape(-1, *(1,) * (len(lines) - 1 - axis))
    return out


def _grid_term(lines: tuple[Vector, ...], *, center: Vector, semiaxes: Vector, content: complex) -> Spectrum:
    open_grid = [line.reshape(-1, *(1,) * axis) for axis, line in enumerate(lines)]
    squares = [sum(k * semiaxes[axis, column] for axis, k in enumerate(open_grid)) for column in range(len(lines))]
    radius = np.sqrt(sum(np.square(part) for part in squares))
    term: Spectrum = content * ball_spectrum(radius, axes=len(lines)).astype(np.complex128)
    for k, offset in zip(open_grid, center, strict=True):
        term *= np.exp(-2j * np.pi * offset * k)
    return term


def inside(shapes: Shapes, points: Vector) -> NDArray[np.bool_]:
    """Whether `points` [..., axis] mm lie in each shape → [shape, ...]."""
    inverse = np.linalg.inv(shapes.semiaxes)
    local = [(points - center) @ turn.T for center, turn in zip(shapes.center, inverse, strict=True)]
    return np.stack([np.einsum("...i,...i->...", part, part) <= 1 for part in local])


def density(shapes: Shapes, points: Vector) -> Spectrum:
    """The object itself, ρ at `points` [..., axis] mm → [...]; for tests and pictures, never for data."""
    return np.tensordot(shapes.intensity, inside(shapes, points).astype(np.complex128), axes=1)


def directions(geometry: Geometry) -> Vector:
    """Read, phase and slice direction as rows [3, 3]."""
    return np.array([geometry.read_dir, geometry.phase_dir, geometry.slice_dir])


def seen_from(shapes: Shapes, geometry: Geometry) -> Shapes:
    """Ellipsoids given in patient coordinates, in the coordinates of the volume at `geometry`."""
    turn = directions(geometry)
    center = (shapes.center - np.array(geometry.position_mm)) @ turn.T
    return replace(shapes, center=center, semiaxes=turn @ shapes.semiaxes)


def section(shapes: Shapes, geometry: Geometry) -> Shapes:
    """The ellipses in which the plane of `geometry` cuts ellipsoids in patient coordinates; it may miss some."""
    local = seen_from(shapes, geometry)
    cuts = [_cut(c, m) for c, m in zip(local.center, local.semiaxes, strict=True)]
    kept = [(cut, value) for cut, value in zip(cuts, local.intensity, strict=True) if cut is not None]
    if not kept:
        raise ScanError(f"the slice at {geometry.position_mm} mm does not meet the object: move it")
    centers, semiaxes = zip(*(cut for cut, _ in kept), strict=True)
    return Shapes(np.array(centers), np.array(semiaxes), np.array([value for _, value in kept]), shapes.blur_mm)


def met(shapes: Shapes, geometry: Geometry) -> NDArray[np.int64]:
    """Which of the ellipsoids in patient coordinates the plane of `geometry` cuts, as `section` keeps them."""
    local = seen_from(shapes, geometry)
    cuts = [_cut(c, m) for c, m in zip(local.center, local.semiaxes, strict=True)]
    return np.flatnonzero([cut is not None for cut in cuts])


def _cut(center: Vector, semiaxes: Vector) -> tuple[Vector, Vector] | None:
    # Points w of the plane z = 0 with |B w + d| ≤ 1: the inverse of `semiaxes` maps the ellipsoid to the unit ball.
    inverse = np.linalg.inv(semiaxes)
    b, d = inverse[:, :2], -inverse @ center
    gram = b.T @ b
    middle = -np.linalg.solve(gram, b.T @ d)
    height2 = float(np.sum((b @ middle + d) ** 2))
    if height2 >= 1:
        return None
    return np.asarray(middle), np.asarray(np.linalg.cholesky(np.linalg.inv(gram)) * np.sqrt(1 - height2))

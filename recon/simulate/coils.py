"""Receive coils as low-order Fourier series, which keep coil-weighted k-space exact (doi:10.1109/TMI.2011.2174158).

S_c(r) = Σ_m a_cm exp(2πi m·r / P) with a period P larger than the field of view; therefore the transform of S_c·ρ is
Σ_m a_cm ρ̂(k − m/P), a sum of shifted analytic transforms. The coefficients are fitted to the magnetic field of loops;
after the fit the series *is* the sensitivity, so nothing about it is approximate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.simulate.phantom import Shapes, Spectrum, Vector, grid_spectrum, shifted_spectra

PERIODS = 2  # period ÷ field of view: the shifts m/P then fall on half steps of the k-space grid
ORDER = 2  # harmonics with |m| ≤ 2: 13 in two dimensions, 33 in three
POINTS_AT_ONCE = 16384  # keeps one block of [harmonic, point] inside the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Coils:
    """Sensitivities: `coefficients` [coil, harmonic], integer `harmonics` [harmonic, axis], `period_mm` [axis].

    Axes are (x, y) or (x, y, z).
    """

    coefficients: Spectrum
    harmonics: NDArray[np.int64]
    period_mm: Vector

    def __post_init__(self) -> None:
        count, axes = self.harmonics.shape
        if self.coefficients.ndim != 2 or self.coefficients.shape[1] != count or self.period_mm.shape != (axes,):
            raise ScanError(
                f"coil coefficients {self.coefficients.shape}, harmonics {self.harmonics.shape} and period "
                f"{self.period_mm.shape} do not fit, expected [coil, harmonic], [harmonic, axis] and [axis]"
            )


def loops(count: int, *, radii_mm: tuple[float, float], stagger_mm: float, loop_mm: float) -> Vector:
    """`count` round loops on an elliptic cylinder about z, facing its axis → corners [coil, segment, 3] mm.

    Neighbours are staggered along z by ± `stagger_mm`.
    """
    place = 2 * np.pi * (np.arange(count) + 0.5) / count
    outward = np.stack([np.cos(place), np.sin(place), np.zeros(count)], axis=-1)
    along = np.stack([-np.sin(place), np.cos(place), np.zeros(count)], axis=-1)
    center = outward * np.array([*radii_mm, 0.0])
    center[:, 2] = stagger_mm * (-1.0) ** np.arange(count)
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = along[:, None] * np.cos(turn)[:, None] + np.array([0.0, 0.0, 1.0]) * np.sin(turn)[:, None]
    return np.asarray(center[:, None] + loop_mm * circle, np.float64)


def receive_field(corners: Vector, points: Vector) -> Spectrum:
    """Sensitivity Bx − iBy of loops [coil, segment, 3] at `points` [point, 3] mm by Biot–Savart → [coil, point].

    The main field lies along z.
    """
    ends = np.roll(corners, -1, axis=1)
    away = points[None, None] - ((corners + ends) / 2)[:, :, None]
    field = np.cross((ends - corners)[:, :, None], away) / np.linalg.norm(away, axis=-1, keepdims=True) ** 3
    total = field.sum(axis=1)
    return np.asarray(total[..., 0] - 1j * total[..., 1], np.complex128)


def object_phase(points: Vector, *, length_mm: float) -> Spectrum:
    """exp(iφ) of a smooth transmit phase, quadratic with one radian at `length_mm`, off centre as in real heads."""
    shifted = (points - np.array([0.1, -0.15, 0.05]) * length_mm) / length_mm
    return np.asarray(np.exp(1j * np.sum(shifted**2, axis=-1)), np.complex128)


def fit(field: Callable[[Vector], Spectrum], field_of_view_mm: Vector) -> Coils:
    """Series nearest to `field` (points [point, axis] mm → [coil, point]) over the ellipse in the field of view."""
    axes = len(field_of_view_mm)
    side = np.linspace(-0.5, 0.5, 25 if axes == 2 else 13)
    grid = np.stack(np.meshgrid(*[side] * axes, indexing="ij"), axis=-1).reshape(-1, axes)
    points = grid[np.sum(grid**2, axis=-1) <= 0.25] * field_of_view_mm
    period, harmonics = PERIODS * field_of_view_mm, _harmonics(axes)
    basis = np.exp(2j * np.pi * (points / period) @ harmonics.T)
    # Over half a period the harmonics are far from orthogonal; the small ridge keeps their coefficients ordinary.
    normal = basis.conj().T @ basis + 1e-4 * len(points) * np.eye(len(harmonics))
    coefficients = np.linalg.solve(normal, basis.conj().T @ field(points).T).T
    return Coils(coefficients, harmonics, period)


def _harmonics(axes: int) -> NDArray[np.int64]:
    every = product(range(-ORDER, ORDER + 1), repeat=axes)
    return np.array([m for m in every if sum(i * i for i in m) <= ORDER * ORDER], np.int64)


def sensitivity(coils: Coils, points: Vector) -> Spectrum:
    """The sensitivities at `points` [..., axis] mm → [coil, ...]."""
    waves = np.exp(2j * np.pi * (points / coils.period_mm) @ coils.harmonics.T)
    return np.moveaxis(waves @ coils.coefficients.T, -1, 0)


def mixed(coils: Coils, matrix: Spectrum | Vector) -> Coils:
    """Sensitivities of the channels that `matrix` [channel, coil] makes of the coils, such as whitened ones."""
    return Coils(matrix @ coils.coefficients, coils.harmonics, coils.period_mm)


def coil_spectrum(shapes: Shapes, coils: Coils, k: Vector, *, moved_mm: Vector | None = None) -> Spectrum:
    """Exact k-space of the object seen by each coil at any `k` [..., axis] cycles/mm → [coil, ...].

    `moved_mm` [..., axis] is how far the object, but not the coils, has moved when each point is measured.
    """
    points = k.reshape(-1, shapes.axes)
    moved = None if moved_mm is None else np.broadcast_to(moved_mm, k.shape).reshape(points.shape)
    out = np.empty((len(coils.coefficients), len(points)), np.complex128)
    shifts = coils.harmonics / coils.period_mm
    for start in range(0, len(points), POINTS_AT_ONCE):
        block = slice(start, start + POINTS_AT_ONCE)
        here = None if moved is None else moved[block]
        out[:, block] = coils.coefficients @ shifted_spectra(shapes, points[block], shifts, moved_mm=here)
    return out.reshape(-1, *k.shape[:-1])


def coil_grid_spectrum(shapes: Shapes, coils: Coils, *, matrix: tuple[int, ...], field_of_view_mm: Vector) -> Spectrum:
    """The same on the centred grid of `matrix` (x, y[, z]) over `field_of_view_mm` (x, y[, z]) → [coil, [z, ]y, x].

    Every shifted grid is a part of one finer grid, so each shape's transform is evaluated once, not once per harmonic.
    """
    finer = tuple(_refinement(fov, period) for fov, period in zip(field_of_view_mm, coils.period_mm, strict=True))
    steps = [_steps(n, fine) for n, fine in zip(matrix, finer, strict=True)]
    spacing = field_of_view_mm * np.array(finer)
    fine = grid_spectrum(shapes, tuple(step / length for step, length in zip(steps, spacing, strict=True)))
    hop = np.rint(spacing / coils.period_mm).astype(np.int64)
    blocks = [_part(fine, m * hop, matrix=matrix, finer=finer) for m in coils.harmonics]
    return _mix(coils.coefficients, blocks)


def _refinement(field_of_view_mm: float, period_mm: float) -> int:
    for fine in (1, 2):
        hop = fine * field_of_view_mm / period_mm
        if abs(hop - round(hop)) < 1e-9:
            return fine
    raise ScanError(
        f"a coil period of {period_mm} mm does not divide the grid of a {field_of_view_mm} mm field of view, "
        f"expected 1 or {PERIODS} times the field of view: fit the coils to this field of view"
    )


def _steps(count: int, fine: int) -> Vector:
    # The centred grid in units of the finer one, with room for the largest shift on both sides.
    margin, low = ORDER * fine, -(count // 2) * fine
    return np.arange(low - margin, low + (count - 1) * fine + margin + 1, dtype=np.float64)


def _part(fine: Spectrum, shift: NDArray[np.int64], *, matrix: tuple[int, ...], finer: tuple[int, ...]) -> Spectrum:
    # k − m/P on the coarse grid: start `shift` fine steps lower and take every `finer`-th value.
    starts = [ORDER * step - int(move) for step, move in zip(finer, shift, strict=True)]
    cuts = [
        slice(start, start + (count - 1) * step + 1, step)
        for start, count, step in zip(starts, matrix, finer, strict=True)
    ]
    return fine[tuple(reversed(cuts))]


def _mix(coefficients: Spectrum, blocks: list[Spectrum]) -> Spectrum:
    # One slab of the slowest axis at a time, so that no copy of all shifted grids is ever held.
    out = np.empty((len(coefficients), *blocks[0].shape), np.complex128)
    rows = max(1, POINTS_AT_ONCE * len(blocks[0]) // blocks[0].size)
    for start in range(0, len(blocks[0]), rows):
        slab = np.stack([block[start : start + rows] for block in blocks])
        out[:, start : start + rows] = np.tensordot(coefficients, slab, axes=1)
    return out

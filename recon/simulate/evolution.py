"""Objects whose signal changes while it is read: off-resonance, constant or linear in space, and decay. All exact.

A shape with signal ρ(r)·exp(2πi(f + g·r)t − t/T) has, at time t, the transform of ρ at k − g·t times exp(2πift − t/T):
a phase, and a shift in k-space that grows with time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.scan import Geometry
from recon.simulate.coils import Coils, coil_spectrum
from recon.simulate.objects import Region, fill
from recon.simulate.phantom import Shapes, Spectrum, Vector, directions, met, section, seen_from
from recon.simulate.tissue import TISSUES, Tissue


@dataclass(frozen=True, slots=True, eq=False)
class Evolving:
    """`shapes` as they are at time 0, `rate_s` [shape] 1/s: decay (negative real part) and 2π·frequency (imaginary).

    `gradient_hz_mm` [shape, axis] is the frequency's slope, on top of the rate at the origin of the coordinates.
    """

    shapes: Shapes
    rate_s: Spectrum
    gradient_hz_mm: Vector

    def __post_init__(self) -> None:
        count, axes = self.shapes.center.shape
        if self.rate_s.shape != (count,) or self.gradient_hz_mm.shape != (count, axes):
            raise ScanError(
                f"rates {self.rate_s.shape} and frequency gradients {self.gradient_hz_mm.shape} do not fit {count} "
                f"shapes of {axes} axes, expected [shape] and [shape, axis]"
            )


def rate(frequency_hz: float, t2_star_ms: float = np.inf) -> complex:
    """The rate 1/s of a signal that turns with `frequency_hz` and decays with `t2_star_ms`."""
    return complex(-1000 / t2_star_ms, 2 * np.pi * frequency_hz)


def evolving(
    regions: Iterable[Region],
    signal: Callable[[Tissue], complex],
    speed: Callable[[Tissue], complex],
    *,
    slopes_hz_mm: Mapping[str, tuple[float, ...]] | None = None,
) -> Evolving:
    """Regions as bright as `signal` says at time 0, from then on by `speed` 1/s; `slopes_hz_mm` [axis] by region.

    Where a region lies within another it takes its place: both are in the object, the other one negative, each with its
    own clock.
    """
    regions, slopes = tuple(regions), slopes_hz_mm or {}
    places = fill(regions, lambda _: 1)
    by_name = {region.name: region for region in regions}
    own = [(i, region, 1) for i, region in enumerate(regions)]
    cut_out = [(i, by_name[region.within], -1) for i, region in enumerate(regions) if region.within]
    terms = own + cut_out
    rows = [i for i, *_ in terms]
    bright = [sign * signal(TISSUES[region.tissue]) for _, region, sign in terms]
    still = (0.0,) * places.axes
    return Evolving(
        Shapes(places.center[rows], places.semiaxes[rows], np.array(bright, np.complex128)),
        np.array([speed(TISSUES[region.tissue]) for _, region, _ in terms], np.complex128),
        np.array([slopes.get(region.name, still) for _, region, _ in terms], np.float64),
    )


def seen(evolving: Evolving, geometry: Geometry, *, plane: bool) -> Evolving:
    """Ellipsoids in patient coordinates as the volume at `geometry` sees them, or as its `plane` cuts them."""
    turn = directions(geometry)
    rows = met(evolving.shapes, geometry) if plane else np.arange(len(evolving.rate_s))
    part = _pick(evolving.shapes, rows)
    shapes = section(part, geometry) if plane else seen_from(part, geometry)
    slope = evolving.gradient_hz_mm[rows]
    # The frequency where the new coordinates begin.
    start = evolving.rate_s[rows] + 2j * np.pi * (slope @ np.array(geometry.position_mm))
    return Evolving(shapes, start, (slope @ turn.T)[:, : shapes.axes])


def evolved_spectrum(evolving: Evolving, coils: Coils, k: Vector, time_s: Vector) -> Spectrum:
    """Exact k-space by coil of readouts at `k` [..., axis] cycles/mm, each point at its `time_s` [...] → [coil, ...].

    Time counts from where `shapes` are as they say: the excitation, for intensities without decay and phase.
    """
    out = np.zeros((len(coils.coefficients), *k.shape[:-1]), np.complex128)
    for rows in _groups(evolving):
        part = _pick(evolving.shapes, rows)
        slope, speed = evolving.gradient_hz_mm[rows[0]], evolving.rate_s[rows[0]]
        moved = k - time_s[..., None] * slope if slope.any() else k
        out += coil_spectrum(part, coils, moved) * np.exp(speed * time_s)
    return out


def _groups(evolving: Evolving) -> list[NDArray[np.int64]]:
    """Shapes that evolve alike, so that they are transformed together."""
    keys = np.column_stack((evolving.rate_s.real, evolving.rate_s.imag, evolving.gradient_hz_mm))
    _, group = np.unique(keys, axis=0, return_inverse=True)
    return [np.flatnonzero(group.ravel() == number) for number in range(int(group.max()) + 1)]


def _pick(shapes: Shapes, rows: NDArray[np.int64]) -> Shapes:
    return replace(shapes, center=shapes.center[rows], semiaxes=shapes.semiaxes[rows], intensity=shapes.intensity[rows])

"""Cartesian measurements of many images of one object, whose tissues change brightness from image to image.

K-space is linear in brightness: what changes alike is transformed once, and every image is a sum of those transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.scan import Counters, Encoding, Geometry, ScanHeader, Space, Trajectory
from recon.simulate.coils import Coils, coil_grid_spectrum
from recon.simulate.heads import Heads, flag, heads, place
from recon.simulate.measurement import Field, Measurement, limits, seen_by
from recon.simulate.objects import Region, fill_regions
from recon.simulate.phantom import Shapes, Spectrum, Vector, met, section, seen_from
from recon.simulate.truth import Ideal, coil_images, mask, unit

Counter = NDArray[np.int64]
Signal = Callable[[Region], complex]
OVERSAMPLING = 2  # of every readout


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One slice or volume: the regions that it meets, in its coordinates, and the coils that see them."""

    regions: tuple[Region, ...]
    shapes: Shapes
    coils: Coils
    geometry: Geometry


def plane(regions: Sequence[Region], geometry: Geometry, *, field: Field, view_mm: float) -> View:
    """The slice at `geometry` through `regions` in patient coordinates, `view_mm` wide and high."""
    whole = fill_regions(regions, lambda _: 1)
    kept = tuple(regions[i] for i in met(whole, geometry))
    coils = seen_by(field, geometry, np.array([view_mm, view_mm]))
    return View(kept, section(whole, geometry), coils, geometry)


def volume(regions: Sequence[Region], geometry: Geometry, *, field: Field, view_mm: Vector) -> View:
    """The volume at `geometry`, `view_mm` (x, y, z) large."""
    whole = fill_regions(regions, lambda _: 1)
    return View(tuple(regions), seen_from(whole, geometry), seen_by(field, geometry, view_mm), geometry)


def encoding_of(matrix: tuple[int, int, int], view_mm: tuple[float, float, float], **counts: int) -> Encoding:
    """A Cartesian encoding of `matrix` over `view_mm` (both (z, y, x)), read with OVERSAMPLING; limits by counter."""
    (nz, ny, nx), (z, y, x) = matrix, view_mm
    steps = {"kspace_encode_step_1": ny, "kspace_encode_step_2": nz}
    return Encoding(
        Space((nz, ny, OVERSAMPLING * nx), (z, y, OVERSAMPLING * x)),
        Space(matrix, view_mm),
        limits(**steps, **counts),
        Trajectory.CARTESIAN,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What is measured: in each of `views` (slices) the same images, `states` by their counters.

    `order` has a number for each readout, by name: kspace_encode_step_1, kspace_encode_step_2, slice, average and
    "state"; those that are left out are 0. `start_s` [readout].
    """

    views: Sequence[View]
    states: Sequence[Counters]
    order: Mapping[str, Counter]
    start_s: Vector
    sample_time_us: float
    noise_std: float

    def numbers(self, name: str) -> Counter:
        """The numbers of the readouts by name."""
        return self.order.get(name, np.zeros(len(self.start_s), np.int64))


def nested(**counts: int) -> dict[str, Counter]:
    """Numbers of nested loops [readout], the last one fastest."""
    return {name: i.ravel() for name, i in zip(counts, np.indices(tuple(counts.values())), strict=True)}


def measure(scan: ScanHeader, series: Series, signals: Sequence[Signal]) -> Measurement:
    """The measurement of `series`, in which state i has the brightness that `signals[i]` gives each region."""
    encoding = scan.encodings[0]
    kspace = np.stack([exact_kspace(view, signals, encoding.encoded) for view in series.views])
    lines = [series.numbers(name) for name in ("slice", "state", "kspace_encode_step_2", "kspace_encode_step_1")]
    return Measurement(
        header=scan,
        head=_heads(series, samples=kspace.shape[-1], coils=kspace.shape[2]),
        samples=kspace[lines[0], lines[1], :, lines[2], lines[3]],
        start_s=series.start_s,
        ideals=tuple(_ideals(encoding, series, kspace)),
        noise_std=series.noise_std,
    )


def _heads(series: Series, *, samples: int, coils: int) -> Heads:
    head = heads(len(series.start_s), samples=samples, coils=coils, sample_time_us=series.sample_time_us)
    for name in ("kspace_encode_step_1", "kspace_encode_step_2", "slice", "average"):
        head[name] = series.numbers(name)
    state = series.numbers("state")
    for name in ("contrast", "phase", "repetition", "set"):
        head[name] = np.array([getattr(counters, name) for counters in series.states])[state]
    place(head, [view.geometry for view in series.views])
    flag(head)
    return head


def courses(view: View, signals: Sequence[Signal]) -> Spectrum:
    """What each shape of the view adds to the one it lies within [state, shape]."""
    return np.stack([fill_regions(view.regions, signal).intensity for signal in signals])


def exact_kspace(view: View, signals: Sequence[Signal], space: Space) -> NDArray[np.complex64]:
    """[state, coil, kz, ky, kx], scaled so that its orthonormal inverse DFT is as bright as the tissue."""
    axes = view.shapes.axes
    matrix, lengths = space.matrix[3 - axes :][::-1], np.array(space.field_of_view_mm[3 - axes :][::-1])
    course = courses(view, signals)
    out = np.zeros((len(course), len(view.coils.coefficients), *space.matrix), np.complex64)
    for rows, factors in alike(course):
        shapes = view.shapes
        part = Shapes(shapes.center[rows], shapes.semiaxes[rows], course[factors.argmax(), rows], shapes.blur_mm)
        exact = unit(space, axes) * coil_grid_spectrum(part, view.coils, matrix=matrix, field_of_view_mm=lengths)
        exact = exact.reshape(out.shape[1:])
        for state, factor in enumerate(course[:, rows[0]] / course[factors.argmax(), rows[0]]):
            out[state] += factor * exact
    return out


def alike(course: Spectrum) -> Iterator[tuple[NDArray[np.int64], Vector]]:
    """Groups of shapes whose courses [state, shape] are proportional, and how bright they are in each state [state]."""
    size = np.abs(course)
    bright = np.flatnonzero(size.max(axis=0) > 0)
    peak = course[size[:, bright].argmax(axis=0), bright]
    # Twelve digits: equal but for the rounding of double precision.
    form = np.round(course[:, bright] / peak, 12)
    keys = np.concatenate([form.real, form.imag]) + 0.0  # no negative zeros
    _, group = np.unique(keys, axis=1, return_inverse=True)
    for number in range(int(group.max()) + 1):
        rows = bright[group.ravel() == number]
        yield rows, size[:, rows[0]]


def _ideals(encoding: Encoding, series: Series, kspace: NDArray[np.complex64]) -> Iterator[Ideal]:
    averages = int(series.numbers("average").max()) + 1
    for number, (view, states) in enumerate(zip(series.views, kspace, strict=True)):
        covered = mask(view.shapes, encoding.recon)
        for counters, grid in zip(series.states, states, strict=True):
            images = coil_images(grid, encoding.recon.matrix)
            yield Ideal(replace(counters, slice=number), images, covered, sigma=averages**-0.5)

"""Free breathing: a coronal slice of the abdomen, whose organs the diaphragm moves up and down inside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.scan import Counters, Encoding, Geometry, Space, Trajectory
from recon.simulate.anatomies import ABDOMEN, abdomen_regions
from recon.simulate.coils import Coils, coil_grid_spectrum, coil_spectrum
from recon.simulate.heads import flag, heads, place
from recon.simulate.measurement import Choice, Measurement, chest_array, geometry, header, limits, oblique, seen_by
from recon.simulate.objects import Region, fill
from recon.simulate.phantom import Shapes, Vector, directions, met, section
from recon.simulate.physiology import breath, breaths
from recon.simulate.tissue import Timing, gradient_echo
from recon.simulate.trajectories import golden_spokes, spoke_areas
from recon.simulate.truth import Ideal, coil_images, mask, unit

FREE = Timing(tr_ms=8.0, te_ms=2.4, flip_deg=18.0)
VIEW_MM, THICKNESS_MM, EDGE_MM = 400.0, 6.0, 1.5
PLACE_MM = -33.0  # through liver, gall bladder and stomach
SPOKES = 20  # for each voxel of the matrix: thirteen times what an image needs, over some five breaths
SAMPLE_TIME_US, NOISE = 5.0, 0.001


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Shapes that move together: `motion_mm` (x, y) in the slice for a usual breath."""

    shapes: Shapes
    motion_mm: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The body in its coils, as the slice sees it."""

    encoding: Encoding
    coils: Coils
    parts: tuple[Part, ...]


def abdomen_radial(choice: Choice, rng: Generator) -> Measurement:
    """Golden-angle spokes of a slice in which the organs move; its truth is the body at the end of expiration."""
    n, spokes = choice.matrix, SPOKES * choice.matrix
    encoding = Encoding(
        Space((1, n, 2 * n), (THICKNESS_MM, VIEW_MM, 2 * VIEW_MM)),
        Space((1, n, n), (THICKNESS_MM, VIEW_MM, VIEW_MM)),
        limits(kspace_encode_step_1=spokes, repetition=choice.repetitions),
        Trajectory.GOLDEN_ANGLE,
    )
    scan = header("abdomen-radial", encoding, coils=choice.coils, timing=FREE)
    start_s = np.asarray(np.arange(spokes * choice.repetitions) * (FREE.tr_ms / 1000), np.float64)
    breathing = breaths(rng, seconds=float(start_s[-1]))
    points = golden_spokes(spokes, 2 * n)
    head = heads(len(start_s), samples=2 * n, coils=choice.coils, sample_time_us=SAMPLE_TIME_US, axes=2)
    head["repetition"], head["kspace_encode_step_1"] = np.divmod(np.arange(len(start_s)), spokes)
    where = coronal()
    place(head, [where])
    flag(head)
    stage = Stage(encoding, seen_by(chest_array(choice.coils), where, np.full(2, VIEW_MM)), parts(where))
    ideal = resting(stage, sigma=float(np.sqrt(np.sum(spoke_areas(spokes, 2 * n) ** 2) * 2 * n * n)))
    return Measurement(
        header=scan,
        head=head,
        samples=_samples(stage, points, breath(start_s, breathing)),
        start_s=start_s,
        ideals=tuple(replace(ideal, counters=Counters(repetition=i)) for i in range(choice.repetitions)),
        noise_std=NOISE,
        trajectory=points[head["kspace_encode_step_1"]],
        breathing=breathing,
    )


def coronal() -> Geometry:
    """A slice that holds the patient's axis from foot to head, along which everything moves."""
    return geometry(oblique((1, 0, 0), (0, 0, -1), about_x_deg=0, about_z_deg=4), (0, PLACE_MM, 0))


def parts(where: Geometry) -> tuple[Part, ...]:
    """What the slice at `where` cuts of the abdomen, by how it moves."""
    brightness = partial(gradient_echo, timing=FREE)
    whole = fill(ABDOMEN, brightness)
    motion = _motion()
    kept = [ABDOMEN[i].name for i in met(whole, where)]
    shapes = replace(section(whole, where), blur_mm=EDGE_MM)
    turn = directions(where)[:2]
    return tuple(
        Part(_pick(shapes, [i for i, name in enumerate(kept) if motion[name] == along]), turn @ np.array(along))
        for along in sorted({motion[name] for name in kept})
    )


def _motion() -> Mapping[str, tuple[float, ...]]:
    """Where a usual breath moves each region, in patient coordinates, mm."""

    def moved(region: Region, rested: Region) -> tuple[float, ...]:
        return tuple(a - b for a, b in zip(region.center_mm, rested.center_mm, strict=True))

    return {region.name: moved(region, rested) for region, rested in zip(abdomen_regions(1.0), ABDOMEN, strict=True)}


def _pick(shapes: Shapes, rows: list[int]) -> Shapes:
    return replace(shapes, center=shapes.center[rows], semiaxes=shapes.semiaxes[rows], intensity=shapes.intensity[rows])


def _samples(stage: Stage, points: NDArray[np.float32], breathed: Vector) -> NDArray[np.complex64]:
    """[readout, coil, sample] of `points` [spoke, sample, 2], again and again; a readout is short against a breath."""
    encoded = stage.encoding.encoded
    k = points.astype(np.float64) / np.array(encoded.spacing_mm[:0:-1])
    rounds = breathed.reshape(-1, len(points))
    return np.concatenate([sum(_seen(stage, part, k, state) for part in stage.parts) for state in rounds])


def _seen(stage: Stage, part: Part, k: Vector, breathed: Vector) -> NDArray[np.complex64]:
    moved = breathed[:, None, None] * part.motion_mm if part.motion_mm.any() else None
    seen = unit(stage.encoding.encoded, 2) * coil_spectrum(part.shapes, stage.coils, k, moved_mm=moved)
    return seen.transpose(1, 0, 2).astype(np.complex64)


def resting(stage: Stage, *, sigma: float = 1.0) -> Ideal:
    """The body at the end of expiration."""
    (image,) = states(stage, np.zeros(1))
    covered = np.any([mask(part.shapes, stage.encoding.recon) for part in stage.parts], axis=0)
    return Ideal(Counters(), image, covered, sigma)


def states(stage: Stage, breathed: Vector) -> Iterator[NDArray[np.complex64]]:
    """Coil images [coil, z, y, x] of the body with its diaphragm held at each of `breathed`."""
    encoded = stage.encoding.encoded
    matrix, view = encoded.matrix[:0:-1], np.array(encoded.field_of_view_mm[:0:-1])
    for state in breathed:
        bodies = [replace(p.shapes, center=p.shapes.center + state * p.motion_mm) for p in stage.parts]
        grids = [coil_grid_spectrum(body, stage.coils, matrix=matrix, field_of_view_mm=view) for body in bodies]
        yield coil_images(unit(encoded, 2) * np.sum(grids, axis=0)[:, None], stage.encoding.recon.matrix)

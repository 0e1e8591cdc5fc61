"""Cartesian protocols of the head: 2-D multi-slice spin echo and 3-D gradient echo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.scan import Counters, Encoding, Geometry, ScanHeader, Space, Trajectory
from recon.simulate import objects
from recon.simulate.coils import Coils, coil_grid_spectrum
from recon.simulate.heads import flag, heads, place
from recon.simulate.measurement import Choice, Measurement, geometry, head_array, header, limits, oblique, seen_by
from recon.simulate.phantom import Shapes, Vector, section, seen_from
from recon.simulate.tissue import Timing, gradient_echo, spin_echo
from recon.simulate.truth import Ideal, coil_images, mask, unit

Counter = NDArray[np.int64]
OVERSAMPLING = 2  # of every Cartesian readout

SPIN_ECHO = Timing(tr_ms=450.0, te_ms=12.0, flip_deg=90.0)
SE_VIEW_MM = 240.0
SE_SLICES, SE_SPACING_MM, SE_THICKNESS_MM = 5, 12.0, 5.0
SE_NOISE = 0.008
GRADIENT_ECHO = Timing(tr_ms=7.0, te_ms=3.0, flip_deg=12.0)
GRE_VIEW_MM = (184.0, 216.0, 240.0)  # (z, y, x)
GRE_NOISE = 0.0015


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """When each line [readout] is measured: its counters and its start in s."""

    line: Counter
    partition: Counter
    slice: Counter
    repetition: Counter
    start_s: Vector


def brain_se(choice: Choice, _: Generator) -> Measurement:
    """Oblique axial T1-weighted spin echo of five slices."""
    n, view = choice.matrix, SE_VIEW_MM
    encoding = spin_echo_encoding(choice, slices=SE_SLICES)
    scan = header("brain-se", encoding, coils=choice.coils, timing=SPIN_ECHO)
    axes = oblique((1, 0, 0), (0, 1, 0), about_x_deg=10, about_z_deg=4)
    offsets = SE_SPACING_MM * (np.arange(SE_SLICES) - SE_SLICES // 2)
    geometries = [geometry(axes, (0, 0, 10), offset_mm=float(offset)) for offset in offsets]
    whole = objects.head(partial(spin_echo, timing=SPIN_ECHO))
    field, plane = head_array(choice.coils), np.array([view, view])
    parts = [(section(whole, g), seen_by(field, g, plane)) for g in geometries]
    order = interleaved(lines=n, slices=SE_SLICES, repetitions=choice.repetitions)
    return _measure(scan, parts, geometries, order=order, sample_time_us=10.0, noise_std=SE_NOISE)


def spin_echo_encoding(choice: Choice, *, slices: int) -> Encoding:
    """The encoding of square slices of the head."""
    n, view = choice.matrix, SE_VIEW_MM
    return Encoding(
        Space((1, n, OVERSAMPLING * n), (SE_THICKNESS_MM, view, OVERSAMPLING * view)),
        Space((1, n, n), (SE_THICKNESS_MM, view, view)),
        limits(kspace_encode_step_1=n, slice=slices, repetition=choice.repetitions),
        Trajectory.CARTESIAN,
    )


def head_gre3d(choice: Choice, _: Generator) -> Measurement:
    """Oblique sagittal 3-D spoiled gradient echo of the whole head."""
    n = choice.matrix
    matrix = (round(0.575 * n), round(0.9 * n), n)
    z, y, x = GRE_VIEW_MM
    encoding = Encoding(
        Space((*matrix[:2], OVERSAMPLING * n), (z, y, OVERSAMPLING * x)),
        Space(matrix, GRE_VIEW_MM),
        limits(kspace_encode_step_1=matrix[1], kspace_encode_step_2=matrix[0], repetition=choice.repetitions),
        Trajectory.CARTESIAN,
    )
    scan = header("head-gre3d", encoding, coils=choice.coils, timing=GRADIENT_ECHO)
    place = geometry(oblique((0, 1, 0), (0, 0, -1), about_x_deg=-6, about_z_deg=3), (0, 2, -1))
    signal = partial(gradient_echo, timing=GRADIENT_ECHO)
    part = seen_from(objects.head(signal), place), seen_by(head_array(choice.coils), place, np.array([x, y, z]))
    order = volumes(lines=matrix[1], partitions=matrix[0], repetitions=choice.repetitions)
    return _measure(scan, [part], [place], order=order, sample_time_us=12.0, noise_std=GRE_NOISE)


def interleaved(*, lines: int, slices: int, repetitions: int, tr_ms: float = SPIN_ECHO.tr_ms) -> Order:
    """Each TR excites all slices, the even ones first so that neighbours do not disturb each other."""
    turn = np.concatenate([np.arange(0, slices, 2), np.arange(1, slices, 2)])
    repetition, line, shot = _nested(repetitions, lines, slices)
    start_s = (repetition * lines + line + shot / slices) * tr_ms / 1000
    return Order(line, np.zeros_like(line), turn[shot], repetition, start_s)


def volumes(*, lines: int, partitions: int, repetitions: int) -> Order:
    """One line a TR, line after line inside a partition."""
    repetition, partition, line = _nested(repetitions, partitions, lines)
    return Order(line, partition, np.zeros_like(line), repetition, np.arange(len(line)) * GRADIENT_ECHO.tr_ms / 1000)


def _nested(*counts: int) -> list[Counter]:
    return [index.ravel() for index in np.indices(counts)]


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """Slices or volumes: `kspace` [slice, coil, kz, ky, kx], and the mask [z, y, x] and place of each."""

    kspace: NDArray[np.complex64]
    masks: Sequence[NDArray[np.bool_]]
    geometries: Sequence[Geometry]


def _measure(
    scan: ScanHeader,
    parts: Sequence[tuple[Shapes, Coils]],
    geometries: Sequence[Geometry],
    *,
    order: Order,
    sample_time_us: float,
    noise_std: float,
) -> Measurement:
    encoding = scan.encodings[0]
    kspace = np.stack([_kspace(shapes, coils, encoding.encoded) for shapes, coils in parts])
    slices = Slices(kspace, [mask(shapes, encoding.recon) for shapes, _ in parts], geometries)
    return measured(scan, slices, order=order, sample_time_us=sample_time_us, noise_std=noise_std)


def measured(scan: ScanHeader, slices: Slices, *, order: Order, sample_time_us: float, noise_std: float) -> Measurement:
    """The measurement of `slices` in an order."""
    _, coils, _, _, samples = slices.kspace.shape
    head = heads(len(order.line), samples=samples, coils=coils, sample_time_us=sample_time_us)
    head["kspace_encode_step_1"], head["kspace_encode_step_2"] = order.line, order.partition
    head["slice"], head["repetition"] = order.slice, order.repetition
    place(head, slices.geometries)
    flag(head)
    return Measurement(
        header=scan,
        head=head,
        samples=slices.kspace[order.slice, :, order.partition, order.line],
        start_s=order.start_s,
        ideals=_ideals(scan.encodings[0], slices, repetitions=int(order.repetition[-1]) + 1),
        noise_std=noise_std,
    )


def _kspace(shapes: Shapes, coils: Coils, space: Space) -> NDArray[np.complex64]:
    """[coil, kz, ky, kx], scaled so that its orthonormal inverse DFT is as bright as the tissue."""
    axes = shapes.axes
    matrix, view = space.matrix[3 - axes :][::-1], np.array(space.field_of_view_mm[3 - axes :][::-1])
    exact = coil_grid_spectrum(shapes, coils, matrix=matrix, field_of_view_mm=view)
    return (unit(space, axes) * exact).astype(np.complex64).reshape(-1, *space.matrix)


def _ideals(encoding: Encoding, slices: Slices, *, repetitions: int) -> tuple[Ideal, ...]:
    images = [coil_images(volume, encoding.recon.matrix) for volume in slices.kspace]
    return tuple(
        Ideal(Counters(slice=i, repetition=r), image, covered)
        for r in range(repetitions)
        for i, (image, covered) in enumerate(zip(images, slices.masks, strict=True))
    )

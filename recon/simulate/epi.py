"""Echo-planar protocols of the head: single shots, several shots, slices excited together.

Everything goes on in time as on a scanner: samples on the ramps, a gradient that lags, another phase of odd and even
lines, off-resonance and T2* from the first sample to the last. The truth is k-space on the grid, every line at the
moment at which it passes kx = 0: what no line does to itself remains, displacement and blurring along the phase
direction too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.scan import (
    Counters,
    Encoding,
    Flag,
    Geometry,
    Limit,
    Multiband,
    ScanHeader,
    Space,
    Trajectory,
    TrajectoryDescription,
)
from recon.simulate.coils import Coils
from recon.simulate.evolution import Evolving, evolved_spectrum, evolving, rate, seen
from recon.simulate.heads import Heads, flag, heads, place
from recon.simulate.measurement import Choice, Measurement, geometry, head_array, header, limits, oblique, seen_by
from recon.simulate.objects import HEAD
from recon.simulate.phantom import Vector
from recon.simulate.tissue import Timing, Tissue, gradient_echo
from recon.simulate.truth import Ideal, coil_images, mask, unit

Counter = NDArray[np.int64]

ECHO_PLANAR = Timing(tr_ms=2000.0, te_ms=40.0, flip_deg=77.0)
VIEW_MM, THICKNESS_MM = 240.0, 5.0
OVERSAMPLING = 2  # of every line
NAVIGATORS = 3
RAMP_US, DWELL_US, UNREAD_US = 100, 2.5, 40  # the ramps' outer ends are not read
PER_VOXEL_US = 5.5  # of the flat top, for each voxel of the image
FINE_US = 0.05  # of the gradient's integral, which parts of these sizes make exact

NOISE = 0.01
SLICES_MM = (-18.0, 0.0, 18.0)
GROUPS, BANDS, APART_MM = 2, 3, 30.0  # of the simultaneous slices


@dataclass(frozen=True, slots=True)
class Gradient:
    """The trapezoid of one line, µs, and what is wrong with it: it comes late, and odd and even lines differ in phase.

    `phase_rad` is how far lines measured backwards lag behind those measured forwards.
    """

    flat_us: int
    samples: int
    late_us: float = 1.2
    phase_rad: float = 0.5

    @property
    def total_us(self) -> int:
        """The time of one line: the echo spacing."""
        return self.flat_us + 2 * RAMP_US

    @property
    def delay_us(self) -> int:
        """From the ramp's begin to the first sample."""
        return round(self.total_us - DWELL_US * self.samples) // 2

    def times_us(self) -> Vector:
        """When the samples are taken [sample], from the ramp's begin."""
        return np.asarray(self.delay_us + DWELL_US * (np.arange(self.samples) + 0.5), np.float64)

    def k(self, size: int, *, late_us: float) -> Vector:
        """Where the samples of a line lie [sample], in cycles per encoded field of view of `size` voxels."""
        time = np.arange(round(self.total_us / FINE_US) + 1) * FINE_US
        height = np.interp(time, [0, RAMP_US, RAMP_US + self.flat_us, self.total_us], [0, 1, 1, 0])
        area = np.concatenate([[0.0], np.cumsum((height[1:] + height[:-1]) / 2 * FINE_US)])
        first, last = np.interp([self.delay_us, self.delay_us + DWELL_US * self.samples], time, area)
        here = np.interp(self.times_us() - late_us, time, area)
        return np.asarray((here - area[-1] / 2) * (size / (last - first)), np.float64)


def gradient_for(matrix: int) -> Gradient:
    """The trapezoid for an image `matrix` voxels wide, its samples a little denser than the encoded grid asks for."""
    flat = 10 * round(PER_VOXEL_US * matrix / 10)
    return Gradient(flat, 8 * int((flat + 2 * (RAMP_US - UNREAD_US)) / DWELL_US / 8))


@dataclass(frozen=True, slots=True)
class Plan:
    """What may be varied: `shots` of an image, `acceleration` (its calibration has as many shots), `bands` at once.

    `offset_hz` is off-resonance of the whole head. Of simultaneous slices, only those `excited` (by their place in the
    group) give signal, in the calibration all do.
    """

    shots: int = 1
    acceleration: int = 1
    bands: int = 1
    slices_mm: tuple[float, ...] = SLICES_MM
    offset_hz: float = 0.0
    excited: tuple[int, ...] = ()
    navigators: bool = True
    late_us: float = 1.2
    phase_rad: float = 0.5

    @property
    def groups(self) -> int:
        """Frames of one repetition."""
        return len(self.slices_mm) // self.bands


SINGLE = Plan()
SHOTS = Plan(shots=4)
TOGETHER = Plan(
    bands=BANDS, slices_mm=tuple(APART_MM * (i / GROUPS - (BANDS - 0.5) / 2) for i in range(GROUPS * BANDS))
)


def head_epi(choice: Choice, _: Generator) -> Measurement:
    """Gradient-echo EPI of three slices, a single shot each."""
    return measured("head-epi", choice, SINGLE)


def head_epi_shots(choice: Choice, _: Generator) -> Measurement:
    """The same in four interleaved shots."""
    return measured("head-epi-shots", choice, SHOTS)


def head_epi_sms(choice: Choice, _: Generator) -> Measurement:
    """Single shots of three slices at once, shifted against each other by a third of the field of view."""
    return measured("head-epi-sms", choice, TOGETHER)


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Lines in the order of measurement, one number each [line].

    `at_s` is when a line passes kx = 0, from its excitation on; `start_s` when it begins, from the scan's begin.
    """

    ky: Counter
    kz: Counter
    slice: Counter
    segment: Counter
    repetition: Counter
    navigator: NDArray[np.bool_]
    reverse: NDArray[np.bool_]
    calibration: NDArray[np.bool_]
    at_s: Vector
    start_s: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """One slice: what it shows and what sees it."""

    object: Evolving
    coils: Coils
    geometry: Geometry


def measured(name: str, choice: Choice, plan: Plan) -> Measurement:
    """The measurement that `plan` makes; the protocols are three of them."""
    n = choice.matrix
    gradient = replace(gradient_for(n), late_us=plan.late_us, phase_rad=plan.phase_rad)
    slices = [_slice(choice, plan, z) for z in plan.slices_mm]
    scan = _header(name, choice, plan, gradient)
    lines = _ordered(choice, plan, gradient)
    space = scan.encodings[0].encoded
    head = _heads(scan, plan, lines, slices, gradient=gradient)
    return Measurement(
        header=scan,
        head=head,
        samples=_samples(plan, lines, slices, gradient=gradient, space=space),
        start_s=lines.start_s,
        ideals=tuple(_ideals(scan, choice, plan, slices, gradient=gradient)),
        noise_std=NOISE,
    )


def echo_ms(plan: Plan, matrix: int) -> float:
    """The echo time: that of the protocol, or longer where the lines before the echo take longer."""
    spacing_ms = gradient_for(matrix).total_us / 1000
    before = (matrix // 2 / _apart(plan) + NAVIGATORS + 1) * spacing_ms
    return max(ECHO_PLANAR.te_ms, float(ceil(before + 2)))


def _apart(plan: Plan) -> int:
    """How many lines of k-space lie from one line of a shot to the next."""
    return plan.shots * plan.acceleration


def _slice(choice: Choice, plan: Plan, z_mm: float) -> Slice:
    where = geometry(oblique((1, 0, 0), (0, 1, 0), about_x_deg=6, about_z_deg=3), (0, 0, 4), offset_mm=z_mm)
    pulse = replace(ECHO_PLANAR, te_ms=0.0)

    def speed(tissue: Tissue) -> complex:
        return rate(tissue.offset_hz + plan.offset_hz, tissue.t2_star_ms)

    whole = evolving(HEAD, lambda tissue: gradient_echo(tissue, pulse), speed)
    coils = seen_by(head_array(choice.coils), where, np.array([VIEW_MM, VIEW_MM]))
    return Slice(seen(whole, where, plane=True), coils, where)


# --- what is measured when -------------------------------------------------------------------------------------------


def _ordered(choice: Choice, plan: Plan, gradient: Gradient) -> Lines:
    """The calibration, then all repetitions; each shot is an excitation."""
    n, trains = choice.matrix, []
    if plan.bands > 1 or plan.acceleration > 1:
        alone = replace(plan, shots=plan.acceleration, acceleration=1, bands=1)
        trains += [
            _train(alone, n, gradient, slice_=i, shot=s, calibrates=True)
            for i in range(len(plan.slices_mm))
            for s in range(alone.shots)
        ]
    for r in range(choice.repetitions):
        for i in range(plan.groups):
            for s in range(plan.shots):
                one = _train(plan, n, gradient, slice_=i, shot=s, calibrates=False)
                trains.append(replace(one, repetition=np.full(len(one.ky), r)))
    every = ECHO_PLANAR.tr_ms / 1000 / max(plan.groups, 1)
    trains = [replace(one, start_s=number * every + one.start_s) for number, one in enumerate(trains)]
    begin = trains[0].start_s[0]
    joined = {name: np.concatenate([getattr(one, name) for one in trains]) for name in Lines.__dataclass_fields__}
    return Lines(**(joined | {"start_s": joined["start_s"] - begin}))


def _train(plan: Plan, n: int, gradient: Gradient, *, slice_: int, shot: int, calibrates: bool) -> Lines:
    """Navigators and lines after one excitation; kx is passed forwards first."""
    apart, spacing_s = _apart(plan), gradient.total_us * 1e-6
    first = (n // 2) % apart if plan.shots == 1 else shot  # of a single shot, k-space's centre is one of its lines
    ky = np.arange(first, n, apart)
    at_s = echo_ms(plan, n) / 1000 + (ky - n // 2) / apart * spacing_s
    before = NAVIGATORS if plan.navigators else 0
    at_s = np.concatenate([at_s[0] - spacing_s * np.arange(before, 0, -1), at_s])
    ky = np.concatenate([np.full(before, n // 2), ky])
    count, navigator = len(ky), np.arange(len(ky)) < before
    return Lines(
        ky=ky,
        kz=np.where(navigator, plan.bands // 2, ky // plan.acceleration % plan.bands),
        slice=np.full(count, slice_),
        segment=np.full(count, shot),
        repetition=np.zeros(count, np.int64),
        navigator=navigator,
        reverse=np.arange(count) % 2 == 1,
        calibration=np.full(count, calibrates),
        at_s=at_s,
        start_s=at_s - spacing_s / 2,
    )


def _places(plan: Plan, slices: Sequence[Slice]) -> list[Geometry]:
    """Where a frame lies: its slice, or the middle of its slices."""
    if plan.bands == 1:
        return [one.geometry for one in slices]
    middle = [slices[g :: plan.groups] for g in range(plan.groups)]
    return [
        replace(group[0].geometry, position_mm=tuple(np.mean([one.geometry.position_mm for one in group], axis=0)))
        for group in middle
    ]


def _heads(scan: ScanHeader, plan: Plan, lines: Lines, slices: Sequence[Slice], *, gradient: Gradient) -> Heads:
    places, single = _places(plan, slices), [one.geometry for one in slices]
    head = heads(len(lines.ky), samples=gradient.samples, coils=scan.coils or 1, sample_time_us=DWELL_US)
    head["kspace_encode_step_1"], head["slice"] = lines.ky, lines.slice
    head["segment"], head["repetition"] = lines.segment, lines.repetition
    imaging = ~lines.calibration & ~lines.navigator
    multiband = scan.encodings[0].multiband
    apart = lines.calibration if multiband else np.zeros(len(lines.ky), np.bool_)
    head["encoding_space_ref"] = apart
    head["kspace_encode_step_2"] = np.where(apart, 0, lines.kz)
    for chosen, where in ((~apart, places), (apart, single)):
        part = head[chosen]
        if len(part):
            place(part, where)
            head[chosen] = part
    some = head[imaging]
    flag(some)
    head["flags"][imaging] = some["flags"]
    for chosen, name in (
        (lines.calibration, Flag.IS_PARALLEL_CALIBRATION),
        (lines.navigator, Flag.IS_PHASECORR_DATA),
        (lines.reverse, Flag.IS_REVERSE),
    ):
        head["flags"][chosen] |= np.uint64(name.mask)
    return head


# --- signals ---------------------------------------------------------------------------------------------------------


def _samples(
    plan: Plan, lines: Lines, slices: Sequence[Slice], *, gradient: Gradient, space: Space
) -> NDArray[np.complex64]:
    """[line, coil, sample]; repetitions are alike."""
    first = np.flatnonzero(lines.repetition == 0)
    out = np.zeros((len(lines.ky), len(slices[0].coils.coefficients), gradient.samples), np.complex64)
    for number, one in enumerate(slices):
        alone = first[lines.calibration[first] & (lines.slice[first] == number)]
        if plan.bands == 1 or len(alone):
            rows = first[lines.slice[first] == number] if plan.bands == 1 else alone
            out[rows] += _of_slice(one, lines, rows, gradient=gradient, space=space)
        band = number // plan.groups
        if plan.bands > 1 and (not plan.excited or band in plan.excited):
            rows = first[~lines.calibration[first] & (lines.slice[first] == number % plan.groups)]
            blips = np.exp(-2j * np.pi * (lines.kz[rows] - plan.bands // 2) * _offset(plan, band) / _period(plan))
            out[rows] += blips[:, None, None] * _of_slice(one, lines, rows, gradient=gradient, space=space)
    images = np.flatnonzero(~lines.calibration)
    once = images[lines.repetition[images] == 0]
    for r in range(1, int(lines.repetition.max()) + 1):
        out[images[lines.repetition[images] == r]] = out[once]
    return out


def _offset(plan: Plan, band: int) -> float:
    """mm from the middle of a group to one of its slices."""
    group = plan.slices_mm[:: plan.groups]
    return group[band] - sum(group) / len(group)


def _period(plan: Plan) -> float:
    """mm along which one step of kz turns once round: the simultaneous slices divide it."""
    return plan.bands * (plan.slices_mm[plan.groups] - plan.slices_mm[0]) if plan.bands > 1 else 1.0


def _of_slice(one: Slice, lines: Lines, rows: Counter, *, gradient: Gradient, space: Space) -> NDArray[np.complex64]:
    """What one slice gives in the lines `rows`: [line, coil, sample]."""
    ny, nx = space.matrix[1:]
    sign = np.where(lines.reverse[rows], -1, 1)
    kx = sign[:, None] * gradient.k(nx, late_us=gradient.late_us)
    ky = np.where(lines.navigator[rows], 0, lines.ky[rows] - ny // 2)
    k = np.stack([kx, np.broadcast_to(ky[:, None], kx.shape)], axis=-1) / np.array(space.field_of_view_mm[:0:-1])
    time_s = lines.at_s[rows][:, None] + (gradient.times_us() - gradient.total_us / 2) * 1e-6
    signal = unit(space, 2) * evolved_spectrum(one.object, one.coils, k, time_s)
    turned = signal * np.exp(0.5j * gradient.phase_rad * sign)[:, None]
    return np.asarray(turned.transpose(1, 0, 2), np.complex64)


def _ideals(
    scan: ScanHeader, choice: Choice, plan: Plan, slices: Sequence[Slice], *, gradient: Gradient
) -> list[Ideal]:
    encoding = scan.encodings[0]
    recon = encoding.recon
    _, ny, nx = encoding.encoded.matrix
    space = Space((1, ny, nx), (THICKNESS_MM, *encoding.encoded.field_of_view_mm[1:]))
    ky, kx = (np.arange(size) - size // 2 for size in (ny, nx))
    k = np.stack(np.broadcast_arrays(kx, ky[:, None]), axis=-1) / np.array(space.field_of_view_mm[:0:-1])
    at_s = echo_ms(plan, choice.matrix) / 1000 + ky / _apart(plan) * gradient.total_us * 1e-6
    time_s = np.broadcast_to(at_s[:, None], (ny, nx))
    found = []
    for number, one in enumerate(slices):
        kspace = unit(space, 2) * evolved_spectrum(one.object, one.coils, k, time_s)
        images = coil_images(kspace[:, None], recon.matrix)
        if plan.excited and number // plan.groups not in plan.excited:
            images = np.zeros_like(images)
        covered = mask(one.object.shapes, recon)
        found.append((number, images, covered))
    sigma = _noise(gradient, nx)
    return [
        Ideal(Counters(slice=number, repetition=r), images, covered, sigma)
        for r in range(choice.repetitions)
        for number, images, covered in found
    ]


def _noise(gradient: Gradient, size: int) -> float:
    """Noise of an image per unit of noise in the samples: of the pseudo-inverse, in the middle of the field of view."""
    x = np.arange(size) - size // 2
    model = np.exp(-2j * np.pi / size * np.multiply.outer(gradient.k(size, late_us=0.0), x)) / np.sqrt(size)
    rows = np.linalg.pinv(model, rcond=1e-3)[size // 4 : -size // 4]
    return float(np.sqrt(np.mean(np.sum(np.abs(rows) ** 2, axis=1))))


# --- header ----------------------------------------------------------------------------------------------------------


def _header(name: str, choice: Choice, plan: Plan, gradient: Gradient) -> ScanHeader:
    n, together = choice.matrix, plan.bands > 1
    own = Encoding(
        Space((plan.bands, n, OVERSAMPLING * n), (_depth(plan), VIEW_MM, OVERSAMPLING * VIEW_MM)),
        Space((1, n, n), (THICKNESS_MM, VIEW_MM, VIEW_MM)),
        limits(
            kspace_encode_step_1=n,
            kspace_encode_step_2=plan.bands,
            slice=plan.groups,
            repetition=choice.repetitions,
            segment=max(plan.shots, plan.acceleration),
        ),
        Trajectory.EPI,
        acceleration=(plan.acceleration, 1),
        calibration_mode="separate" if together or plan.acceleration > 1 else "",
        echo_train_length=-(-n // _apart(plan)),
        description=_described(gradient, lines=-(-n // _apart(plan))),
        multiband=_multiband(plan) if together else None,
    )
    single = replace(
        own,
        encoded=Space((1, *own.encoded.matrix[1:]), (THICKNESS_MM, *own.encoded.field_of_view_mm[1:])),
        limits={**own.limits, "slice": Limit(0, len(plan.slices_mm) - 1, 0), "kspace_encode_step_2": Limit(0, 0, 0)},
        multiband=None,
    )
    timing = replace(ECHO_PLANAR, te_ms=echo_ms(plan, n))
    scan = header(name, own, coils=choice.coils, timing=timing)
    spacing_ms = gradient.total_us / 1000
    return replace(scan, encodings=(own, single) if together else (own,), echo_spacing_ms=(spacing_ms,))


def _depth(plan: Plan) -> float:
    return _period(plan) if plan.bands > 1 else THICKNESS_MM


def _multiband(plan: Plan) -> Multiband:
    offsets = tuple(_offset(plan, band) for band in range(plan.bands))
    return Multiband(plan.bands, (offsets,), 1 / _period(plan), "separable2D", 1)


def _described(gradient: Gradient, *, lines: int) -> TrajectoryDescription:
    values: dict[str, float | str] = {
        "etl": lines,
        "numberOfNavigators": NAVIGATORS,
        "rampUpTime": RAMP_US,
        "rampDownTime": RAMP_US,
        "flatTopTime": gradient.flat_us,
        "echoSpacing": gradient.total_us,
        "acqDelayTime": gradient.delay_us,
        "numSamples": gradient.samples,
        "dwellTime": DWELL_US,
    }
    return TrajectoryDescription("ConventionalEPI", values)

"""Echo-planar lines as lines of a grid: ramps regridded, reversed lines turned, odd and even lines brought into phase.

The gradient's delay and the eddy currents give lines measured backwards another phase than those measured forwards,
constant and linear along x: without correction half of it is a ghost, half a field of view away. Navigators measure it:
three lines or more without phase encoding, alternately forwards and backwards, before each shot. All of it happens on
the host, as readouts come, before frames go to a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex
from recon.assemble import NAVIGATOR, is_imaging, space_of
from recon.cache import Cache
from recon.errors import ScanError
from recon.gather import select
from recon.scan import Encoding, Flag, Readouts, ScanHeader, Trajectory
from recon.trapezoid import Trapezoid, inverse, positions, trapezoid_of

ROUNDS = 10  # of the robust fit: each takes the last one's outliers less into account
OUTLIER = 2.0  # times the median residual, beyond which a voxel counts less (doi:10.1214/aoms/1177703732)
SMALLEST = 1e-6  # radians: rounding
NOTEWORTHY = 0.5  # voxels of displacement that a reader of the image must know
UNDESCRIBED = (
    "the header does not describe the readout gradient: the echo-planar lines are taken as evenly sampled, ramp"
    " sampling is not corrected"
)
WITHOUT_NAVIGATORS = (
    "fewer than three navigators came (lines flagged as phase correction data, alternately reversed): differences"
    " between odd and even lines are not corrected, the image may have ghosts"
)

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Heads = NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class Straightened:
    """The readouts of one frame as those of a Cartesian scan, and what a reader of the image must or may know."""

    readouts: Sequence[Readouts]
    warnings: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fit:
    """What navigators say of one shot: lines backwards less lines forwards, φ = `constant` + `slope` · x in radians.

    x counts voxels of the encoded grid from its middle. `turn` is the phase in radians that off-resonance adds from
    one line to the next, averaged over the object.
    """

    constant: float
    slope: float
    turn: float


def straightened(header: ScanHeader, readouts: Sequence[Readouts], cache: Cache) -> Straightened:
    """The lines of an echo-planar frame on the encoded grid; frames of other trajectories stay as they are.

    `readouts` are runs in the order of arrival, with navigators before the lines that they serve, and the lines of a
    calibration, which may belong to another encoding space. Those of the image come first. Raises ScanError or
    HeaderError.
    """
    own = space_of(readouts)
    if header.encodings[own].trajectory is not Trajectory.EPI:
        return Straightened(readouts)
    space = np.concatenate([run.head["encoding_space_ref"] for run in readouts])
    parts: list[Readouts] = []
    warnings: list[str] = []
    attributes: dict[str, str] = {}
    for number in sorted(np.unique(space).tolist(), key=lambda number: number != own):
        runs, encoding = select(readouts, np.flatnonzero(space == number)), header.encodings[number]
        if encoding.trajectory is not Trajectory.EPI:
            parts += runs
            continue
        train = _Train.of(encoding, runs)
        fits = train.fits(cache)
        parts.append(train.lines(fits, cache))
        if number == own:
            warnings += train.warnings(fits)
            attributes = displacement(header, encoding, train.heads, fits)
    return Straightened(parts, (*warnings, *_displaced(attributes)), attributes)


@dataclass(frozen=True, slots=True, eq=False)
class _Train:
    """Lines and navigators of one encoding space in the order of arrival; `gradient` is None for even sampling."""

    encoding: Encoding
    gradient: Trapezoid | None
    heads: Heads
    samples: Complex  # [readout, coil, sample]
    navigator: Mask  # [readout]
    reverse: Mask  # [readout]
    group: Index  # of navigators that serves each readout, −1: none

    @staticmethod
    def of(encoding: Encoding, runs: Sequence[Readouts]) -> _Train:
        gradient = trapezoid_of(encoding)
        heads = np.concatenate([run.head for run in runs])
        sizes = sorted({run.samples.shape[2] for run in runs})
        if len(sizes) > 1 or (gradient is not None and sizes != [gradient.samples]):
            wanted = "one number" if gradient is None else f"numSamples = {gradient.samples} of the header"
            raise ScanError(
                f"the echo-planar readouts have {', '.join(map(str, sizes))} samples, expected {wanted}: send the"
                " samples as they were measured, or leave out the trajectory description where they are on a grid"
            )
        samples = runs[0].samples if len(runs) == 1 else np.concatenate([run.samples for run in runs])
        navigator = (heads["flags"] & NAVIGATOR) != 0
        reverse = (heads["flags"] & np.uint64(Flag.IS_REVERSE.mask)) != 0
        return _Train(encoding, gradient, heads, samples, navigator, reverse, _groups(heads, navigator))

    def fits(self, cache: Cache) -> dict[int, Fit | None]:
        """What each group of navigators says, None where it does not suffice."""
        found: dict[int, Fit | None] = {-1: None}
        for number in np.unique(self.group[self.group >= 0]).tolist():
            rows = np.flatnonzero(self.navigator & (self.group == number))
            profiles = self._images(rows, cache)
            found[number] = fit_of(profiles, self.reverse[rows])
        return found

    def lines(self, fits: Mapping[int, Fit | None], cache: Cache) -> Readouts:
        """The lines without navigators, on the encoded grid and in phase."""
        rows = np.flatnonzero(~self.navigator)
        size = self.encoding.encoded.matrix[2]
        images = self._images(rows, cache)
        x = np.arange(size) - size // 2
        for number, fit in fits.items():
            for reverse in (False, True):
                chosen = (self.group[rows] == number) & (self.reverse[rows] == reverse)
                if fit is not None and chosen.any():
                    half = (fit.constant + fit.slope * x) / (-2 if reverse else 2)
                    images[chosen] *= np.exp(1j * half).astype(np.complex64)
        head = self.heads[rows].copy()
        head["flags"] &= ~np.uint64(Flag.IS_REVERSE.mask)
        head["number_of_samples"], head["center_sample"] = size, size // 2
        head["discard_pre"] = head["discard_post"] = 0
        kspace = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(images, axes=-1), norm="ortho"), axes=-1)
        return Readouts(head, kspace.astype(np.complex64, copy=False))

    def _images(self, rows: Index, cache: Cache) -> Complex:
        """The readouts `rows` as profiles along x: [readout, coil, x]."""
        size = self.encoding.encoded.matrix[2]
        found = np.empty((len(rows), self.samples.shape[1], size), np.complex64)
        names = ["discard_pre", "discard_post"] + ([] if self.gradient else ["center_sample"])
        keys = np.stack([self.reverse[rows], *(self.heads[name][rows] for name in names)], axis=1).astype(np.int64)
        for key in np.unique(keys, axis=0):
            chosen = np.flatnonzero((keys == key).all(axis=1))
            matrix = self._matrix(tuple(key.tolist()), size, cache)
            kept = self.samples[rows[chosen]][..., key[1] : self.samples.shape[2] - key[2]]
            found[chosen] = kept @ matrix.T
        return found

    def _matrix(self, key: tuple[int, ...], size: int, cache: Cache) -> Complex:
        """The matrix [x, sample] of lines with this direction, these discards and this centre."""
        reverse, pre, post, *centre = key
        count = self.samples.shape[2]

        def make() -> Complex:
            even = np.arange(count, dtype=np.float64) - sum(centre)
            k = even if self.gradient is None else positions(self.gradient, size)
            return inverse((-k if reverse else k)[pre : count - post], size)

        return cache.get(("echo-planar", self.gradient, key, count, size), make, size=lambda made: made.nbytes)

    def warnings(self, fits: Mapping[int, Fit | None]) -> Iterator[str]:
        """What is not corrected."""
        if self.gradient is None:
            yield UNDESCRIBED
        lines = self.group[~self.navigator]
        if any(fits[number] is None for number in np.unique(lines).tolist()):
            yield WITHOUT_NAVIGATORS


def _groups(heads: Heads, navigator: Mask) -> Index:
    """The number of the group of navigators that each readout belongs to, or is served by; −1 without one.

    Navigators that follow one another are a group. It serves the lines of its slice that come until the next one, and
    those before the first one of all.
    """
    names = np.stack([heads["slice"], heads["flags"] & np.uint64(Flag.IS_PARALLEL_CALIBRATION.mask)], axis=1)
    begins = navigator & np.r_[True, ~navigator[:-1] | (names[1:] != names[:-1]).any(axis=1)]
    number = np.cumsum(begins) - 1
    group = np.where(navigator, number, -1)
    for name in np.unique(names, axis=0):
        same = np.flatnonzero((names == name).all(axis=1))
        first = same[begins[same]]
        if len(first):
            before = np.searchsorted(first, same, side="right") - 1
            group[same] = number[first[np.maximum(before, 0)]]
    return group


# --- navigators ------------------------------------------------------------------------------------------------------


def fit_of(profiles: Complex, reverse: Mask) -> Fit | None:
    """What navigators [line, coil, x] say, of which some are `reverse` [line]; None where they are too few.

    Each line is compared with its two neighbours of the other direction, brought to the line's time by the phase that
    off-resonance adds between them (O. Heid, Proc. ISMRM 1997, 2014). Coils and voxels count by their signal, outliers
    less.
    """
    middles = [i for i in range(1, len(reverse) - 1) if reverse[i - 1] == reverse[i + 1] != reverse[i]]
    if not middles:
        return None
    drift = np.stack([_inner(profiles[i + 1], profiles[i - 1]) for i in middles]).sum(axis=0)
    constant, slope = straight_line(drift)
    x = np.arange(len(drift)) - len(drift) // 2
    half = np.exp(0.5j * (constant + slope * x)).astype(np.complex64)
    total = np.zeros_like(drift)
    for i in middles:
        between = _inner(profiles[i], profiles[i - 1] * half + profiles[i + 1] * half.conj())
        total += between if reverse[i] else between.conj()
    return Fit(*straight_line(total), turn=float(np.angle(drift.sum())) / 2)


def _inner(one: Complex, other: Complex) -> Complex:
    """Σ one · conj(other) over coils [x], whose phase is how far `one` is ahead."""
    inner: Complex = (one * other.conj()).sum(axis=0)
    return inner


def straight_line(profile: Complex) -> tuple[float, float]:
    """Phase of `profile` [x] at its middle and per voxel, fitted where it is bright, outliers counting less.

    The slope's first estimate is the phase between neighbours (doi:10.1109/TMI.1987.4307795), which cannot wrap.
    """
    weight = np.abs(profile).astype(np.float64)
    if not weight.any():
        return 0.0, 0.0
    x = np.arange(len(profile)) - len(profile) // 2
    slope = float(np.angle((profile[1:] * profile[:-1].conj()).sum()))
    constant = float(np.angle((profile * np.exp(-1j * slope * x)).sum()))
    for _ in range(ROUNDS):
        rest = np.angle(profile * np.exp(-1j * (constant + slope * x)))
        far = OUTLIER * _median(np.abs(rest), weight)
        trust = weight * np.minimum(1, far / np.maximum(np.abs(rest), SMALLEST))
        more_slope, more = np.polyfit(x, rest, 1, w=np.sqrt(trust))
        constant, slope = constant + float(more), slope + float(more_slope)
    return constant, slope


def _median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """What half of the weight lies below; SMALLEST at least."""
    order = np.argsort(values)
    share = np.cumsum(weight[order])
    return max(float(values[order][np.searchsorted(share, share[-1] / 2)]), SMALLEST)


# --- displacement ----------------------------------------------------------------------------------------------------


def displacement(
    header: ScanHeader, encoding: Encoding, heads: Heads, fits: Mapping[int, Fit | None]
) -> dict[str, str]:
    """Image attributes: how far off-resonance displaces along the phase direction, and by how much it does on average.

    A frequency f adds the phase 2πf·t, so that voxels move against the order of the lines by f · (time between
    neighbouring lines) · lines. Empty where the header does not give the echo spacing.
    """
    spacing_s, step = echo_spacing_s(header, encoding), line_step(heads)
    if not spacing_s or not step:
        return {}
    voxels_per_hz = -spacing_s / step * encoding.encoded.matrix[1]
    said = {"EpiDisplacementVoxelsPerHz": voxels_per_hz}
    turns = [fit.turn for fit in fits.values() if fit is not None]
    if turns:
        frequency = float(np.mean(turns)) / (2 * np.pi * spacing_s)
        voxel_mm = encoding.encoded.spacing_mm[1]
        said["EpiOffResonanceHz"], said["EpiDisplacementVoxels"] = frequency, frequency * voxels_per_hz
        said["EpiDisplacementMm"] = frequency * voxels_per_hz * voxel_mm
    return {name: f"{value:.6g}" for name, value in said.items()}


def echo_spacing_s(header: ScanHeader, encoding: Encoding) -> float:
    """Seconds from one line to the next of a shot, 0 where the header does not say."""
    gradient = trapezoid_of(encoding)
    if gradient is not None:
        return (gradient.echo_spacing_us or gradient.total_us) * 1e-6
    return header.echo_spacing_ms[0] / 1000 if header.echo_spacing_ms else 0.0


def line_step(heads: Heads) -> int:
    """How far apart in k-space lines are that follow one another in a shot: their usual distance, with its sign."""
    lines = heads[is_imaging(heads["flags"])]
    steps = np.diff(lines["kspace_encode_step_1"].astype(np.int64))
    values, counts = np.unique(steps[steps != 0], return_counts=True)
    return int(values[counts.argmax()]) if len(values) else 0


def _displaced(attributes: Mapping[str, str]) -> tuple[str, ...]:
    voxels = float(attributes.get("EpiDisplacementVoxels", 0))
    if abs(voxels) < NOTEWORTHY:
        return ()
    return (
        f"off-resonance of {float(attributes['EpiOffResonanceHz']):.1f} Hz on average (from the navigators) displaces"
        f" the object by {voxels:.2f} voxels ({float(attributes['EpiDisplacementMm']):.1f} mm) along the phase"
        " direction: it is not corrected",
    )

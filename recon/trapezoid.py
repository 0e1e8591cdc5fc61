"""Samples taken while the readout gradient rises and falls: where they lie in k-space, and their image on a grid.

The header's trajectory description gives the trapezoid as ISMRMRD's converters write it for echo-planar scans: times in
µs named rampUpTime, flatTopTime, rampDownTime, acqDelayTime (from the ramp's begin to the first sample), dwellTime and
echoSpacing, and numSamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex
from recon.errors import HeaderError
from recon.scan import Encoding, Trajectory

Vector = NDArray[np.float64]

TRAPEZOIDS = ("ConventionalEPI", "trapezoid")  # identifiers of descriptions that are understood
DAMPING = 1e-4  # of the samples' mean power: what the size of a pixel costs where samples are too far apart
ROUNDING_US = 1.0  # converters write whole microseconds


@dataclass(frozen=True, slots=True)
class Trapezoid:
    """One lobe of the readout gradient, µs, and the `samples` taken of it, `dwell_us` apart, after `delay_us`.

    `echo_spacing_us` is the time from one line to the next, 0 where it is not said.
    """

    up_us: float
    flat_us: float
    down_us: float
    delay_us: float
    dwell_us: float
    samples: int
    echo_spacing_us: float = 0.0

    @property
    def total_us(self) -> float:
        """The lobe's length."""
        return self.up_us + self.flat_us + self.down_us


def trapezoid_of(encoding: Encoding) -> Trapezoid | None:
    """The readout gradient that `encoding` describes, None where it describes none; raises HeaderError.

    A description that lacks one of the times, or whose samples do not lie on the gradient, is refused.
    """
    described = encoding.description
    if encoding.trajectory is not Trajectory.EPI or described is None or described.identifier not in TRAPEZOIDS:
        return None
    names = ("rampUpTime", "flatTopTime", "rampDownTime", "acqDelayTime", "dwellTime", "numSamples")
    up, flat, down, delay, dwell, samples = (_number(described.values, name) for name in names)
    spacing = _number(described.values, "echoSpacing") if "echoSpacing" in described.values else 0.0
    found = Trapezoid(up, flat, down, delay, dwell, int(samples), spacing)
    _check(found)
    return found


def _number(values: Mapping[str, float | str], name: str) -> float:
    value = values.get(name)
    if not isinstance(value, int | float) or not isfinite(value) or value < 0:
        shown = "missing" if value is None else repr(value)
        raise HeaderError(
            f"{name} of the trajectory description is {shown}, expected a number of at least 0 (times in µs):"
            " correct the header"
        )
    return float(value)


def _check(found: Trapezoid) -> None:
    if found.samples < 2 or not found.dwell_us or not found.total_us:
        raise HeaderError(
            f"the trajectory description has {found.samples} samples, {found.dwell_us:g} µs apart, on a gradient of"
            f" {found.total_us:g} µs, expected at least 2, more than 0 and more than 0: correct the header"
        )
    end = found.delay_us + found.samples * found.dwell_us
    if end > found.total_us + ROUNDING_US:
        raise HeaderError(
            f"the trajectory description contradicts itself: {found.samples} samples of {found.dwell_us:g} µs after"
            f" {found.delay_us:g} µs end at {end:g} µs, the gradient (rampUpTime + flatTopTime + rampDownTime) at"
            f" {found.total_us:g} µs: correct the header"
        )
    if found.echo_spacing_us and found.echo_spacing_us < found.total_us - ROUNDING_US:
        raise HeaderError(
            f"the trajectory description contradicts itself: echoSpacing is {found.echo_spacing_us:g} µs, the gradient"
            f" of one line takes {found.total_us:g} µs: correct the header"
        )


def positions(gradient: Trapezoid, size: int) -> Vector:
    """k [sample] of a line measured forwards, in cycles per encoded field of view; a reversed line has −k.

    The middle of each sample's dwell counts. k = 0 is at half of the gradient's area, and what the samples cover is as
    wide as the `size` points of the encoded grid.
    """
    begin = np.array([gradient.delay_us])
    end = begin + gradient.samples * gradient.dwell_us
    middle = gradient.delay_us + (np.arange(gradient.samples, dtype=np.float64) + 0.5) * gradient.dwell_us
    covered = area(gradient, end) - area(gradient, begin)
    return np.asarray((area(gradient, middle) - area(gradient, np.array([gradient.total_us])) / 2) * (size / covered))


def area(gradient: Trapezoid, time_us: Vector) -> Vector:
    """The gradient's area in µs of its flat top, from the ramp's begin to `time_us` [...] after it."""
    up = np.clip(time_us, 0, gradient.up_us)
    flat = np.clip(time_us - gradient.up_us, 0, gradient.flat_us)
    down = np.clip(time_us - gradient.up_us - gradient.flat_us, 0, gradient.down_us)
    total = flat + down
    if gradient.up_us:
        total = total + up**2 / (2 * gradient.up_us)
    if gradient.down_us:
        total = total - down**2 / (2 * gradient.down_us)
    return np.asarray(total, np.float64)


def inverse(k: Vector, size: int) -> Complex:
    """The matrix [x, sample] that makes an image of `size` voxels of samples at `k` (cycles per field of view).

    The damped least-squares inverse of the transform, scaled like a centred orthonormal inverse DFT
    (doi:10.1002/mrm.1910230211); exact for evenly spaced samples but for the damping.
    """
    x = np.arange(size) - size // 2
    model = np.exp(-2j * np.pi / size * np.multiply.outer(k, x)) / np.sqrt(size)
    normal = model.conj().T @ model
    normal += DAMPING * np.trace(normal).real / size * np.eye(size)
    return np.asarray(np.linalg.solve(normal, model.conj().T), np.complex64)

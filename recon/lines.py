"""Which lines or shots one frame of an encoding has: ranges of the counters and how many make a frame complete."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import HeaderError
from recon.scan import COUNTERS, Encoding, Limit, Trajectory

STEP_1, STEP_2, AVERAGE, SEGMENT = (
    COUNTERS.index(name) for name in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "segment")
)
CARTESIAN = (Trajectory.CARTESIAN, Trajectory.EPI)
ANY = 65535  # the largest counter that the wire can carry


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Ranges `low` and `high` [counter] in the order of COUNTERS; how many readouts one frame has.

    `total` distinct (average, step 2, step 1) fill a frame, 0 where the header does not say; `needed` are the fewest
    that the declared acceleration leaves. Counters times `strides`, less `first`, number the readouts of a frame.
    Of frames that are joined over counters all of this holds for them together.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    strides: NDArray[np.int64]
    first: int
    total: int
    needed: int
    word: str  # what one readout of a frame is called: line or shot

    def code(self, counters: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number per readout from `counters` [readout, counter]: equal where average and both steps are."""
        code: NDArray[np.int64] = counters @ self.strides - self.first
        return code


def is_cartesian(encoding: Encoding) -> bool:
    """Whether the readouts of `encoding` are lines of a grid."""
    return encoding.trajectory in CARTESIAN


def step_limits(encoding: Encoding) -> tuple[Limit, Limit]:
    """The limits of both encoding steps; those that the header leaves out span the encoded matrix."""
    nz, ny, _ = encoding.encoded.matrix
    default = Limit(0, ny - 1, ny // 2) if is_cartesian(encoding) else Limit(0, ANY, 0)
    step_1 = encoding.limits.get("kspace_encode_step_1", default)
    return step_1, encoding.limits.get("kspace_encode_step_2", Limit(0, nz - 1, nz // 2))


def lines_of(encoding: Encoding, joined: tuple[str, ...] = ()) -> Lines:
    """The lines that one frame of `encoding` has; raises HeaderError where the limits contradict the matrix.

    With `joined` counters, those of all frames together that these tell apart.

    A counter whose limit the header leaves out may only be 0, as in other MRD software; the encoding steps then span
    the encoded matrix, and segments are free.
    """
    limits = [encoding.limits.get(name, Limit(0, 0, 0)) for name in COUNTERS]
    limits[STEP_1], limits[STEP_2] = step_limits(encoding)
    limits[SEGMENT] = encoding.limits.get("segment", Limit(0, ANY, 0))
    _check(encoding, limits)
    low, high = (np.array([getattr(limit, end) for limit in limits], np.int64) for end in ("minimum", "maximum"))
    n1, n2, averages = (int(high[i] - low[i]) + 1 for i in (STEP_1, STEP_2, AVERAGE))
    strides = np.zeros(len(COUNTERS), np.int64)
    strides[[STEP_1, STEP_2, AVERAGE]] = 1, n1, n1 * n2
    # Of slices excited together each line is measured once, with one phase of many.
    partitions = 1 if encoding.multiband else n2
    total, needed = n1 * n2 * averages, _accelerated(n1, partitions, encoding.acceleration) * averages
    # Shots of a volume need no partitions: how many step 2 counts is said by the header or not known.
    unsaid = {"kspace_encode_step_1", *(["kspace_encode_step_2"] if encoding.encoded.matrix[0] > 1 else [])}
    if not is_cartesian(encoding) and unsaid - encoding.limits.keys():
        total, needed = 0, 1
    for place in (COUNTERS.index(name) for name in joined):
        strides[place], count = total, int(high[place] - low[place]) + 1
        total, needed = total * count, needed * count
    word = "line" if is_cartesian(encoding) else "shot"
    return Lines(low, high, strides, int(low @ strides), total, needed, word)


def _accelerated(n1: int, n2: int, acceleration: tuple[int, int]) -> int:
    return max(n1 // max(acceleration[0], 1), 1) * max(n2 // max(acceleration[1], 1), 1)


def _check(encoding: Encoding, limits: list[Limit]) -> None:
    for name, limit in zip(COUNTERS, limits, strict=True):
        if not 0 <= limit.minimum <= limit.maximum <= ANY:
            raise HeaderError(
                f"the limits of {name} are {limit.minimum} to {limit.maximum}, expected a rising range within"
                f" 0 to {ANY}: correct the header"
            )
    if not is_cartesian(encoding):
        return
    for i, size in ((STEP_1, encoding.encoded.matrix[1]), (STEP_2, encoding.encoded.matrix[0])):
        count = limits[i].maximum - limits[i].minimum + 1
        if count > size:
            raise HeaderError(
                f"the limits of {COUNTERS[i]} span {count} lines, the encoded matrix has {size}: correct the header"
            )


def completeness(lines: Lines, found: int) -> tuple[bool, tuple[str, ...]]:
    """Whether `found` distinct readouts make a complete frame, and what is missing in words."""
    missing = lines.needed - found
    if missing <= 0:
        return True, ()
    verb = "was" if missing == 1 else "were"
    return False, (f"{missing} of {lines.needed} {lines.word}s {verb} not received, their k-space is taken as zero",)

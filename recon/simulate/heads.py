"""Readout heads: counters, first-and-last flags, geometry and time stamps of a simulated measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recon.scan import READOUT_HEAD, TICK_S, Flag, Geometry
from recon.simulate.phantom import Vector

Heads = NDArray[np.void]
FIRST_TICK = 14_400_000  # time stamps count from midnight: these scans begin at ten in the morning
IMAGE = ("slice", "contrast", "phase", "repetition", "set")
# Which counters must agree for readouts to share a first and a last flag.
GROUPS = (
    (Flag.FIRST_IN_ENCODE_STEP1, Flag.LAST_IN_ENCODE_STEP1, (*IMAGE, "kspace_encode_step_2")),
    (Flag.FIRST_IN_ENCODE_STEP2, Flag.LAST_IN_ENCODE_STEP2, IMAGE),
    (Flag.FIRST_IN_SLICE, Flag.LAST_IN_SLICE, IMAGE),
    (Flag.FIRST_IN_AVERAGE, Flag.LAST_IN_AVERAGE, (*IMAGE, "average")),
    (Flag.FIRST_IN_CONTRAST, Flag.LAST_IN_CONTRAST, ("contrast", "repetition")),
    (Flag.FIRST_IN_SET, Flag.LAST_IN_SET, ("set", "repetition")),
    (Flag.FIRST_IN_SEGMENT, Flag.LAST_IN_SEGMENT, ("segment", "repetition")),
    (Flag.FIRST_IN_PHASE, Flag.LAST_IN_PHASE, ("phase", "repetition")),
    (Flag.FIRST_IN_REPETITION, Flag.LAST_IN_REPETITION, ("repetition",)),
)


def heads(count: int, *, samples: int, coils: int, sample_time_us: float, axes: int = 0) -> Heads:
    """`count` heads [readout] that agree with arrays of these sizes; counters, flags and places are still zero."""
    head = np.zeros(count, READOUT_HEAD)
    head["version"] = 1
    head["number_of_samples"], head["center_sample"] = samples, samples // 2
    head["available_channels"] = head["active_channels"] = coils
    head["channel_mask"] = [(1 << max(0, min(64, coils - 64 * word))) - 1 for word in range(16)]
    head["trajectory_dimensions"], head["sample_time_us"] = axes, sample_time_us
    return head


def place(head: Heads, geometries: Sequence[Geometry]) -> None:
    """Write each readout's position and directions; its slice counter picks the geometry."""
    which = head["slice"]
    for name in ("read_dir", "phase_dir", "slice_dir"):
        head[name] = np.array([getattr(geometry, name) for geometry in geometries])[which]
    head["position"] = np.array([geometry.position_mm for geometry in geometries])[which]


def flag(head: Heads) -> None:
    """Set the FIRST_IN and LAST_IN flags that follow from the counters, and LAST_IN_MEASUREMENT."""
    for first, last, names in GROUPS:
        keys = np.stack([head[name] for name in names], axis=-1)
        head["flags"][_first_of_each(keys)] |= np.uint64(first.mask)
        head["flags"][len(head) - 1 - _first_of_each(keys[::-1])] |= np.uint64(last.mask)
    head["flags"][-1] |= np.uint64(Flag.LAST_IN_MEASUREMENT.mask)


def _first_of_each(keys: NDArray[np.uint16]) -> NDArray[np.int64]:
    return np.unique(keys, axis=0, return_index=True)[1]


def stamp(head: Heads, start_s: Vector, *, since_beat_s: Vector | None = None) -> None:
    """Write time stamps of `start_s` [readout] seconds after the scan's begin, and ticks since the last heartbeat."""
    head["acquisition_time_stamp"] = FIRST_TICK + np.floor(start_s / TICK_S).astype(np.int64)
    if since_beat_s is not None:
        head["physiology_time_stamp"][:, 0] = np.floor(since_beat_s / TICK_S).astype(np.int64)

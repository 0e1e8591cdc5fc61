"""Small scans made by hand: headers, heads and runs of readouts for tests of assembly and reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.scan import READOUT_HEAD, Encoding, Limit, Readouts, ScanHeader, Shape3, Space, Trajectory

Limits = Mapping[str, tuple[int, int] | tuple[int, int, int]]


def header(
    encoded: Shape3 = (1, 8, 8),
    *,
    recon: Shape3 | None = None,
    limits: Limits | None = None,
    coils: int | None = 2,
    trajectory: Trajectory = Trajectory.CARTESIAN,
    acceleration: tuple[int, int] = (1, 1),
    calibration_mode: str = "",
) -> ScanHeader:
    """One encoding with voxels of 1 × 2 × 3 mm (x, y, z); `limits` are (minimum, maximum[, center])."""
    recon = recon or encoded
    spaces = [Space(n, (3.0 * n[0], 2.0 * n[1], 1.0 * n[2])) for n in (encoded, recon)]
    ranges = {name: Limit(*(*limit, 0)[:3]) for name, limit in (limits or {}).items()}
    for name, size in (("kspace_encode_step_1", encoded[1]), ("kspace_encode_step_2", encoded[0])):
        ranges.setdefault(name, Limit(0, size - 1, size // 2))
    return ScanHeader(b"", (Encoding(spaces[0], spaces[1], ranges, trajectory, acceleration, calibration_mode),), coils)


def heads(count: int, *, samples: int = 8, coils: int = 2, **fields: Any) -> NDArray[np.void]:
    """`count` heads [readout] with the echo in the middle; `fields` set anything else."""
    head = np.zeros(count, READOUT_HEAD)
    head["number_of_samples"], head["center_sample"], head["active_channels"] = samples, samples // 2, coils
    head["sample_time_us"], head["scan_counter"] = 5.0, np.arange(count)
    for name, values in fields.items():
        head[name] = values
    return head


def lines(encoded: Shape3) -> dict[str, NDArray[np.int64]]:
    """The counters of a full grid in natural order: step 1 runs fastest."""
    step_2, step_1 = np.divmod(np.arange(encoded[0] * encoded[1]), encoded[1])
    return {"kspace_encode_step_1": step_1, "kspace_encode_step_2": step_2}


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """Complex normal numbers with σ = 1 in each part."""
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def readouts_of(kspace: NDArray[np.complex64], **fields: Any) -> Readouts:
    """The readouts of a full Cartesian grid [coil, kz, ky, kx] in natural order."""
    coils, nz, ny, nx = kspace.shape
    head = heads(nz * ny, samples=nx, coils=coils, **(lines((nz, ny, nx)) | fields))
    return Readouts(head, np.ascontiguousarray(kspace.transpose(1, 2, 0, 3)).reshape(nz * ny, coils, nx))

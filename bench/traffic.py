"""What the load generator sends: frames serialised before the clock starts, so that sending costs only the socket.

`Frames` is an endless Cartesian scan of equal frames whose repetition counter alone is rewritten between frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.mrd import wire
from recon.mrd.header import write_header
from recon.scan import READOUT_HEAD, Encoding, Flag, Limit, Readouts, ScanHeader, Space, Trajectory

MAX_FRAMES = 65535  # the repetition counter has 16 bits


@dataclass(frozen=True, slots=True)
class FrameSize:
    """One Cartesian frame: `lines` × `samples`/2 voxels, every `acceleration`-th line and the full centre measured."""

    coils: int = 32
    lines: int = 256
    samples: int = 512
    acceleration: int = 1
    calibration: int = 24

    @property
    def measured(self) -> NDArray[np.int64]:
        """The numbers of the measured lines."""
        line = np.arange(self.lines)
        centre = np.abs(line - self.lines // 2 + 0.5) < self.calibration / 2
        return np.flatnonzero((line % self.acceleration == 0) | centre)

    @property
    def bytes(self) -> int:
        """k-space bytes of one frame."""
        return 8 * self.coils * len(self.measured) * self.samples


def frame_header(size: FrameSize, *, station: str = "") -> bytes:
    """MRD header XML of an endless scan of such frames, 300 mm field of view; `station` names the scanner."""
    encoded = Space((1, size.lines, size.samples), (5.0, 300.0, 600.0))
    recon = Space((1, size.lines, size.samples // 2), (5.0, 300.0, 300.0))
    limits = {
        "kspace_encode_step_1": Limit(0, size.lines - 1, size.lines // 2),
        "repetition": Limit(0, MAX_FRAMES - 1, 0),
    }
    encoding = Encoding(encoded, recon, limits, Trajectory.CARTESIAN, acceleration=(size.acceleration, 1))
    return write_header(
        ScanHeader(b"", (encoding,), coils=size.coils, tr_ms=(3.0,), te_ms=(1.5,), field_t=3.0, station=station)
    )


def frame_readouts(size: FrameSize, *, seed: int) -> Readouts:
    """One frame of complex Gaussian samples with the counters, flags and directions of a 2-D scan."""
    head = np.zeros(len(size.measured), READOUT_HEAD)
    head["version"] = 1
    head["number_of_samples"] = size.samples
    head["available_channels"] = head["active_channels"] = size.coils
    head["center_sample"] = size.samples // 2
    head["sample_time_us"] = 5.0
    head["read_dir"][:, 0] = head["phase_dir"][:, 1] = head["slice_dir"][:, 2] = 1
    head["kspace_encode_step_1"] = size.measured
    head["flags"][0] = Flag.FIRST_IN_SLICE.mask
    head["flags"][-1] = Flag.LAST_IN_SLICE.mask
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((len(head), size.coils, size.samples, 2), dtype=np.float32)
    return Readouts(head, samples.view(np.complex64)[..., 0])


class Frames:
    """The bytes of one frame, renumbered in place."""

    def __init__(self, size: FrameSize, *, config: str, seed: int = 0) -> None:
        self.size = size
        self._config = wire.encode_config_file(config)
        self._openings: dict[str, bytes] = {}
        self._bytes = np.frombuffer(bytearray(wire.encode_readouts(frame_readouts(size, seed=seed))), np.uint8)
        count = len(size.measured)
        stride = self._bytes.size // count
        offset = 2 + READOUT_HEAD.fields["repetition"][1]  # type: ignore[index]  # a structured dtype has fields
        self._repetition = self._bytes.reshape(count, stride)[:, offset : offset + 2]

    def opening(self, station: str = "") -> bytes:
        """Configuration and header of a scan by the scanner of that name."""
        if station not in self._openings:
            self._openings[station] = self._config + wire.encode_header(frame_header(self.size, station=station))
        return self._openings[station]

    def frame(self, number: int) -> NDArray[np.uint8]:
        """The frame's messages as bytes; the same memory at every call."""
        self._repetition[:] = np.frombuffer(np.uint16(number).tobytes(), np.uint8)
        return self._bytes

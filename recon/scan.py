"""The frozen types that flow through a reconstruction; none of them knows how to compute itself.

Axis order is `(z, y, x)` for grids and `[..., coil, ...]` as written. Lengths are millimetres, times milliseconds
unless a name says otherwise. Positions and directions are in patient coordinates, LPS (left, posterior, superior),
as in MRD and DICOM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from recon.errors import HeaderError, ScanError

Shape3 = tuple[int, int, int]
Vector3 = tuple[float, float, float]

TICK_MS = 2.5  # MRD time stamps count ticks of this length
TICK_S = TICK_MS / 1000

# One record per readout: the MRD v1 acquisition header as it stands on the wire (packed, little-endian, 340 bytes),
# its `idx` members flattened. Keeping the wire's own layout makes a run of messages readable without conversion.
READOUT_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("channel_mask", "<u8", (16,)),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)),
        ("phase_dir", "<f4", (3,)),
        ("slice_dir", "<f4", (3,)),
        ("patient_table_position", "<f4", (3,)),
        ("kspace_encode_step_1", "<u2"),
        ("kspace_encode_step_2", "<u2"),
        ("average", "<u2"),
        ("slice", "<u2"),
        ("contrast", "<u2"),
        ("phase", "<u2"),
        ("repetition", "<u2"),
        ("set", "<u2"),
        ("segment", "<u2"),
        ("user", "<u2", (8,)),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
    ]
)
assert READOUT_HEAD.itemsize == 340

COUNTERS = (
    "kspace_encode_step_1",
    "kspace_encode_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
    "segment",
)


class Flag(IntEnum):
    """MRD v1 acquisition flags by their bit number (1-based, as the standard counts them)."""

    FIRST_IN_ENCODE_STEP1 = 1
    LAST_IN_ENCODE_STEP1 = 2
    FIRST_IN_ENCODE_STEP2 = 3
    LAST_IN_ENCODE_STEP2 = 4
    FIRST_IN_AVERAGE = 5
    LAST_IN_AVERAGE = 6
    FIRST_IN_SLICE = 7
    LAST_IN_SLICE = 8
    FIRST_IN_CONTRAST = 9
    LAST_IN_CONTRAST = 10
    FIRST_IN_PHASE = 11
    LAST_IN_PHASE = 12
    FIRST_IN_REPETITION = 13
    LAST_IN_REPETITION = 14
    FIRST_IN_SET = 15
    LAST_IN_SET = 16
    FIRST_IN_SEGMENT = 17
    LAST_IN_SEGMENT = 18
    IS_NOISE_MEASUREMENT = 19
    IS_PARALLEL_CALIBRATION = 20
    IS_PARALLEL_CALIBRATION_AND_IMAGING = 21
    IS_REVERSE = 22
    IS_NAVIGATION_DATA = 23
    IS_PHASECORR_DATA = 24
    LAST_IN_MEASUREMENT = 25
    IS_HPFEEDBACK_DATA = 26
    IS_DUMMYSCAN_DATA = 27
    IS_RTFEEDBACK_DATA = 28
    IS_SURFACECOILCORRECTIONSCAN_DATA = 29
    IS_PHASE_STABILIZATION_REFERENCE = 30
    IS_PHASE_STABILIZATION = 31

    @property
    def mask(self) -> int:
        """The flag as a bit of the 64-bit `flags` field."""
        return 1 << (self.value - 1)


class Trajectory(StrEnum):
    """Trajectory kinds of the MRD header."""

    CARTESIAN = "cartesian"
    EPI = "epi"
    RADIAL = "radial"
    GOLDEN_ANGLE = "goldenangle"
    SPIRAL = "spiral"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Space:
    """A grid of the header: `matrix` (z, y, x) voxels over `field_of_view_mm` (z, y, x)."""

    matrix: Shape3
    field_of_view_mm: Vector3

    def __post_init__(self) -> None:
        if min(self.matrix) < 1:
            raise HeaderError(f"matrix (z, y, x) is {self.matrix}, every size must be at least 1: correct the header")
        if not all(np.isfinite(self.field_of_view_mm)) or min(self.field_of_view_mm) <= 0:
            raise HeaderError(
                f"field of view (z, y, x) is {self.field_of_view_mm} mm, every side must be positive: "
                "correct the header"
            )

    @property
    def spacing_mm(self) -> Vector3:
        """Voxel spacing (z, y, x) in mm."""
        z, y, x = (f / n for f, n in zip(self.field_of_view_mm, self.matrix, strict=True))
        return z, y, x


@dataclass(frozen=True, slots=True)
class Limit:
    """Range of one counter, inclusive; `center` is the counter value that holds the k-space centre."""

    minimum: int
    maximum: int
    center: int


@dataclass(frozen=True, slots=True)
class TrajectoryDescription:
    """What the header says of a trajectory beyond its kind: whose description it is, and its `values` by name."""

    identifier: str
    values: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Multiband:
    """Slices that are excited together: `spacing_mm` [group][slice] from a group's position along its slice direction.

    One group stands for all. Partition kz of a group has turned the slice at distance z by exp(−2πi kz · delta_kz · z),
    `delta_kz` in cycles/mm. `calibration` says what the scan of the slices one by one is, which has the encoding
    `calibration_encoding`.
    """

    factor: int
    spacing_mm: tuple[tuple[float, ...], ...]
    delta_kz: float
    calibration: str  # separable2D, full3D or other
    calibration_encoding: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """One `<encoding>` of the header; `limits` maps the names in COUNTERS to their ranges."""

    encoded: Space
    recon: Space
    limits: Mapping[str, Limit]
    trajectory: Trajectory
    acceleration: tuple[int, int] = (1, 1)  # (kspace_encode_step_1, kspace_encode_step_2)
    calibration_mode: str = ""  # embedded, interleaved, separate, external, other, or ""
    echo_train_length: int = 1
    description: TrajectoryDescription | None = None
    multiband: Multiband | None = None


@dataclass(frozen=True, slots=True)
class Diffusion:
    """One diffusion weighting: `b_s_mm2` s/mm² along the unit vector `direction` (LPS; zeros where there is none)."""

    b_s_mm2: float
    direction: Vector3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ScanHeader:
    """What the MRD header says of a scan; `xml` is the header exactly as received."""

    xml: bytes
    encodings: tuple[Encoding, ...]
    coils: int | None = None  # receiver channels, where the header says
    tr_ms: tuple[float, ...] = ()
    te_ms: tuple[float, ...] = ()
    ti_ms: tuple[float, ...] = ()
    flip_angle_deg: tuple[float, ...] = ()
    echo_spacing_ms: tuple[float, ...] = ()
    diffusion: tuple[Diffusion, ...] = ()
    diffusion_dimension: str = ""  # the counter that numbers `diffusion`
    field_t: float | None = None
    frequency_hz: float | None = None
    relative_noise_bandwidth: float | None = None
    patient_position: str = "HFS"
    measurement_id: str = ""
    dependencies: tuple[tuple[str, str], ...] = ()  # (dependencyType, measurementID) of other measurements
    coil_names: tuple[str, ...] = ()  # of the receiver channels, in the order of the header
    protocol: str = ""
    manufacturer: str = ""
    model: str = ""
    station: str = ""
    institution: str = ""
    series_description: str = ""
    study_uid: str = ""
    frame_of_reference_uid: str = ""
    patient: Mapping[str, str] = field(default_factory=dict)  # MRD subjectInformation names: patientName, patientID, …
    study: Mapping[str, str] = field(default_factory=dict)  # MRD studyInformation names
    user: Mapping[str, float | str] = field(default_factory=dict)  # MRD userParameters by name


@dataclass(frozen=True, slots=True, eq=False)
class Readouts:
    """A run of equal-sized readouts: `head` [readout], `samples` [readout, coil, sample], `trajectory` as on the wire.

    `trajectory` is [readout, sample, axis] with axes (x, y[, z][, density]) in cycles per encoded voxel, or None.
    The arrays may be views of a receive buffer; the producer says how long they stay valid.
    """

    head: NDArray[np.void]
    samples: NDArray[np.complex64]
    trajectory: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.head)
        if self.samples.ndim != 3 or len(self.samples) != n:
            raise ScanError(
                f"samples have shape {self.samples.shape}, expected [readout, coil, sample] with {n} readouts"
            )
        if self.trajectory is not None and self.trajectory.shape[:2] != (n, self.samples.shape[2]):
            raise ScanError(
                f"trajectory has shape {self.trajectory.shape}, expected ({n}, {self.samples.shape[2]}, axes)"
            )


class Physiology(IntEnum):
    """MRD v1 waveform ids."""

    ECG = 0
    PULSE = 1
    RESPIRATION = 2
    EXTERNAL_1 = 3
    EXTERNAL_2 = 4


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """One block of physiology: `samples` uint32 [channel, sample], `sample_time_us`, wire `kind` (see Physiology)."""

    samples: NDArray[np.uint32]
    sample_time_us: float
    kind: int
    time_stamp: int
    flags: int = 0
    measurement_uid: int = 0
    scan_counter: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """Which frame of a scan: the counters that name it."""

    encoding: int = 0
    slice: int = 0
    contrast: int = 0
    phase: int = 0
    repetition: int = 0
    set: int = 0


def vector3(values: NDArray[np.floating]) -> Vector3:
    """Three numbers (x, y, z) of a head as plain floats."""
    x, y, z = (float(v) for v in values)
    return x, y, z


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What one frame is made of: exactly its own `readouts`, as runs in the order of arrival, and what goes with them.

    `noise` are the scan's noise readouts, `waveforms` its physiology (for gated frames), `counters` the frame's name
    where it is not that of its first readout.
    """

    readouts: Sequence[Readouts]
    noise: Sequence[Readouts] = ()
    waveforms: Sequence[Waveform] = ()
    counters: Counters | None = None


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a frame lies: centre and unit directions in patient coordinates (LPS), mm."""

    position_mm: Vector3 = (0.0, 0.0, 0.0)
    read_dir: Vector3 = (1.0, 0.0, 0.0)
    phase_dir: Vector3 = (0.0, 1.0, 0.0)
    slice_dir: Vector3 = (0.0, 0.0, 1.0)
    table_position_mm: Vector3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class FieldMap:
    """Off-resonance `hz` [*grid] of the image's grid ([z,] y, x), and the range of it where there is signal."""

    hz: NDArray[np.float64]
    bounds_hz: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """All k-space of one image or volume.

    Cartesian: `kspace` [coil, kz, ky, kx] complex64 and `sampled` [kz, ky] bool (measured lines; others are zero).
    Otherwise: `kspace` [coil, shot, sample], `trajectory` [shot, sample, axis] float32 in radians per encoded voxel
    with axes ([z,] y, x), and `density` [shot, sample] float32 where the wire carried it.
    `reference` holds the calibration lines of a separate scan, or of the frames next to this one in time, on the same
    grid; of shots these are `echoes`, a frame for each contrast, from which the `field` is found that the image is
    corrected by.
    """

    kspace: NDArray[np.complex64]
    encoding: Encoding
    counters: Counters
    geometry: Geometry
    sampled: NDArray[np.bool_] | None = None
    trajectory: NDArray[np.float32] | None = None
    density: NDArray[np.float32] | None = None
    time_stamp: int = 0  # acquisition_time_stamp of the first readout, in ticks
    physiology_time_stamp: tuple[int, int, int] = (0, 0, 0)
    measurement_uid: int = 0
    sample_time_us: float = 0.0
    user_int: tuple[int, ...] = (0,) * 8  # of the first readout, whatever the sequence put there
    user_float: tuple[float, ...] = (0.0,) * 8
    warnings: tuple[str, ...] = ()
    reference: Frame | None = None
    echoes: tuple[Frame, ...] = ()
    te_ms: float = 0.0  # echo time, of calibration echoes
    field: FieldMap | None = None
    averages: float = 1.0  # readouts to a measured line, in the mean: they divide the noise's power


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What later stages need of the receiver: `whitening` [coil, coil], coil `maps` [map, coil, z, y, x].

    `hash` names the content.
    """

    whitening: NDArray[np.complex64] | None = None
    maps: NDArray[np.complex64] | None = None
    hash: str = ""


class Quantity(Enum):
    """What a pixel means; the value is the MRD image type number (0 where MRD has none)."""

    MAGNITUDE = 1
    PHASE = 2
    REAL = 3
    IMAG = 4
    COMPLEX = 5


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an image came to be: recipe and its hash, weights hash of learned methods, worker, software version."""

    method: str = ""
    recipe_hash: str = ""
    weights_hash: str = ""
    worker: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A reconstructed image: `pixels` [channel, z, y, x] float32 or complex64, `spacing_mm` (z, y, x), its place."""

    pixels: NDArray[np.float32] | NDArray[np.complex64]
    spacing_mm: Vector3
    geometry: Geometry
    counters: Counters
    series: int = 1
    index: int = 1  # 1-based number of the image inside its series
    quantity: Quantity = Quantity.MAGNITUDE
    unit: str = "arbitrary"
    time_stamp: int = 0
    physiology_time_stamp: tuple[int, int, int] = (0, 0, 0)
    measurement_uid: int = 0
    user_int: tuple[int, ...] = (0,) * 8
    user_float: tuple[float, ...] = (0.0,) * 8
    comments: tuple[str, ...] = ()  # warnings a reader of the image must see
    attributes: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance = Provenance()
    patient_position: str = "HFS"

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4:
            raise ScanError(f"pixels have shape {self.pixels.shape}, expected [channel, z, y, x]")


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """A whole scan in memory: header, readouts in wire order, physiology."""

    header: ScanHeader
    readouts: tuple[Readouts, ...]
    waveforms: tuple[Waveform, ...] = ()

"""What a DICOM MR image says of one plane, module by module of the standard (PS3.3 A.4.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.export.parts import STORED_MAX, Plane
from recon.export.place import first_voxel, voxel_axes
from recon.export.uids import Uids, name_plane
from recon.labels import INVERSION_IN, Labels, labels_of
from recon.lines import is_cartesian
from recon.scan import TICK_MS, Encoding, Image, Quantity, ScanHeader, Trajectory

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Elements = dict[str, Any]  # DICOM keyword -> value; None leaves the element out

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
SOFTWARE = "recon-cluster"
DAY_MS = 86_400_000
PHASE_SERIES = 500  # the phase of complex images is a series of its own, numbered this much higher
COMPONENT = {Quantity.MAGNITUDE: "M", Quantity.PHASE: "P", Quantity.REAL: "R", Quantity.IMAG: "I"}
POSITIONS = ("HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL")
STANDARD_AXES = (np.eye(3)[0], np.eye(3)[1], np.eye(3)[2])
NO_DIRECTIONS = "The scan gave no directions: orientation and position are assumed, not known"


def describe(plane: Plane, header: ScanHeader, *, scan_id: str) -> Elements:
    """All elements of the file that holds `plane`."""
    place = (plane.channel, plane.z)
    uids = name_plane(plane.image, header, scan_id=scan_id, quantity=plane.quantity, plane=place)
    return (
        _identity(uids)
        | _patient(header)
        | _study(header)
        | _series(plane, header)
        | _equipment(plane, header)
        | _content(plane)
        | _timing(plane, header)
        | _place(plane)
        | _acquisition(plane, header)
        | _pixels(plane)
    )


def series_number(plane: Plane) -> int:
    """The image's series; the phase that belongs to a complex image goes to a series of its own."""
    derived = plane.quantity is Quantity.PHASE and plane.image.quantity is not Quantity.PHASE
    return plane.image.series + PHASE_SERIES * derived


def _identity(uids: Uids) -> Elements:
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": MR_IMAGE_STORAGE,
        "SOPInstanceUID": uids.instance,
        "StudyInstanceUID": uids.study,
        "SeriesInstanceUID": uids.series,
        "FrameOfReferenceUID": uids.frame_of_reference,
        "PositionReferenceIndicator": "",
    }


def _patient(header: ScanHeader) -> Elements:
    facts = header.patient
    gender = facts.get("patientGender", "")
    return {
        "PatientName": _words(facts.get("patientName", "")),
        "PatientID": _words(facts.get("patientID", "")),
        "PatientBirthDate": _date(facts.get("patientBirthdate", "")),
        "PatientSex": gender if gender in ("M", "F", "O") else "",
        "PatientWeight": _decimal(facts.get("patientWeight_kg")),
        "PatientSize": _decimal(facts.get("patientHeight_m")),
    }


def _study(header: ScanHeader) -> Elements:
    facts = header.study
    return {
        "StudyDate": _date(facts.get("studyDate", "")),
        "StudyTime": _time(facts.get("studyTime", "")),
        "StudyID": _words(facts.get("studyID", ""), 16),
        "AccessionNumber": _words(facts.get("accessionNumber", ""), 16),
        "ReferringPhysicianName": _words(facts.get("referringPhysicianName", "")),
        "StudyDescription": _words(facts.get("studyDescription", "")) or None,
    }


def _series(plane: Plane, header: ScanHeader) -> Elements:
    position = plane.image.patient_position or header.patient_position
    return {
        "Modality": "MR",
        "SeriesNumber": series_number(plane),
        "SeriesDescription": _words(header.series_description or header.protocol) or None,
        "ProtocolName": _words(header.protocol) or None,
        "PatientPosition": position if position in POSITIONS else "",
        "Laterality": "",
    }


def _equipment(plane: Plane, header: ScanHeader) -> Elements:
    """The scanner as the equipment, and this software as what contributed the reconstruction."""
    return {
        "Manufacturer": _words(header.manufacturer),
        "ManufacturerModelName": _words(header.model) or None,
        "StationName": _words(header.station, 16) or None,
        "InstitutionName": _words(header.institution) or None,
        "ContributingEquipmentSequence": [_contribution(plane.image)],
    }


def _contribution(image: Image) -> Dataset:
    from pydicom.dataset import Dataset

    origin = image.provenance
    facts = {
        "method": origin.method,
        "recipe": origin.recipe_hash,
        "weights": origin.weights_hash,
        "worker": origin.worker,
    }
    purpose, contribution = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    contribution.PurposeOfReferenceCodeSequence = [purpose]
    contribution.Manufacturer = SOFTWARE
    contribution.SoftwareVersions = _words(origin.version) or "unknown"
    contribution.ContributionDescription = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
    return contribution


def _content(plane: Plane) -> Elements:
    image = plane.image
    channels, slices = image.pixels.shape[:2]
    notes = list(image.comments)
    if channels > 1:
        notes.append(f"Channel {plane.channel + 1} of {channels}")
    if voxel_axes(image.geometry) is None:
        notes.append(NO_DIRECTIONS)
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", COMPONENT[plane.quantity]],
        "InstanceNumber": ((image.index - 1) * channels + plane.channel) * slices + plane.z + 1,
        "AcquisitionNumber": image.counters.repetition + 1,
        "ImageComments": _words("; ".join(notes), 10240) or None,
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
    }


def _timing(plane: Plane, header: ScanHeader) -> Elements:
    """Clock time, place among repetitions, delay after the heart's trigger; absent where the scan gave none."""
    image = plane.image
    repetitions, phases = (_count(header, image, name) for name in ("repetition", "phase"))
    clock = _clock(image.time_stamp)
    return {
        "ContentDate": _date(header.study.get("studyDate", "")) or None,
        "ContentTime": clock,
        "AcquisitionDate": _date(header.study.get("studyDate", "")) or None,
        "AcquisitionTime": clock,
        "TemporalPositionIdentifier": image.counters.repetition + 1 if repetitions > 1 else None,
        "NumberOfTemporalPositions": repetitions if repetitions > 1 else None,
        "TriggerTime": _decimal(image.physiology_time_stamp[0] * TICK_MS) if _gated(header, image) else None,
        "CardiacNumberOfImages": phases if phases > 1 else None,
    }


def _place(plane: Plane) -> Elements:
    """Image plane: rows run along the read direction, columns along the phase direction."""
    image = plane.image
    axes = voxel_axes(image.geometry) or STANDARD_AXES
    first = first_voxel(image, axes, plane.z)
    dz, dy, dx = image.spacing_mm
    return {
        "ImageOrientationPatient": [_decimal(value) for axis in axes[:2] for value in axis],
        "ImagePositionPatient": [_decimal(value) for value in first],
        "PixelSpacing": [_decimal(dy), _decimal(dx)],
        "SliceThickness": _decimal(dz),
        "SpacingBetweenSlices": _decimal(dz) if image.pixels.shape[1] > 1 else None,
        "SliceLocation": _decimal(float(first @ axes[2])),
    }


def _acquisition(plane: Plane, header: ScanHeader) -> Elements:
    image = plane.image
    encoding = _encoding(header, image)
    contrast, labels = image.counters.contrast, labels_of(header, image)
    return {
        "ScanningSequence": _sequence(encoding, inverted=bool(labels.ti_ms)),
        "SequenceVariant": "NONE",
        "ScanOptions": "CG" if _gated(header, image) else "",
        "MRAcquisitionType": "3D" if image.pixels.shape[1] > 1 else "2D",
        "RepetitionTime": _decimal(labels.tr_ms) or "",
        "EchoTime": _decimal(labels.te_ms) or "",
        "InversionTime": _decimal(labels.ti_ms),
        "EchoNumbers": contrast + 1,
        "EchoTrainLength": encoding.echo_train_length if encoding else "",
        "FlipAngle": _decimal(labels.flip_deg),
        "MagneticFieldStrength": _decimal(header.field_t),
        "ImagingFrequency": _decimal(header.frequency_hz and header.frequency_hz / 1e6),
        "InPlanePhaseEncodingDirection": "COL" if encoding and is_cartesian(encoding) else None,
    } | _weighting(labels)


def _weighting(labels: Labels) -> Elements:
    """Diffusion and velocity: of the enhanced MR image's modules, which a plain one may carry as an extension."""
    weighting, venc = labels.diffusion, labels.venc_cm_s
    directed = bool(weighting and any(weighting.direction))
    return {
        "DiffusionBValue": weighting and weighting.b_s_mm2,
        "DiffusionDirectionality": ("DIRECTIONAL" if directed else "NONE") if weighting else None,
        "DiffusionGradientOrientation": list(weighting.direction) if weighting and directed else None,
        "VelocityEncodingDirection": list(labels.velocity_direction) if labels.velocity_direction else None,
        "VelocityEncodingMinimumValue": None if venc is None else -venc,
        "VelocityEncodingMaximumValue": venc,
    }


def _sequence(encoding: Encoding | None, *, inverted: bool) -> list[str]:
    """What an MRD header tells of the sequence; RM (research mode) stands for the rest, which it does not tell."""
    planar = encoding is not None and encoding.trajectory is Trajectory.EPI
    return ["RM"] + ["EP"] * planar + ["IR"] * inverted


def _pixels(plane: Plane) -> Elements:
    stored = np.rint((plane.values.astype(np.float64) - plane.intercept) / plane.slope)
    low, high = plane.shown
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": plane.values.shape[0],
        "Columns": plane.values.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleIntercept": f"{plane.intercept:.8e}",
        "RescaleSlope": f"{plane.slope:.8e}",
        "RescaleType": "US",
        "WindowCenter": _decimal((low + high) / 2),
        "WindowWidth": _decimal(high - low),
        "VOILUTFunction": "LINEAR_EXACT",  # plain LINEAR forbids widths below 1, which magnitudes may well have
        "PixelData": np.clip(stored, 0, STORED_MAX).astype("<u2").tobytes(),
    }


def _encoding(header: ScanHeader, image: Image) -> Encoding | None:
    number = image.counters.encoding
    return header.encodings[number] if number < len(header.encodings) else None


def _gated(header: ScanHeader, image: Image) -> bool:
    """Cardiac gating: the header counts phases, or inversion times follow the heart."""
    return _count(header, image, "phase") > 1 or (INVERSION_IN in header.user and image.physiology_time_stamp[0] > 0)


def _count(header: ScanHeader, image: Image, counter: str) -> int:
    """How many values the header allows `counter`; 1 where it says nothing."""
    encoding = _encoding(header, image)
    limit = encoding.limits.get(counter) if encoding else None
    return limit.maximum - limit.minimum + 1 if limit else 1


def _clock(time_stamp: int) -> str | None:
    """Ticks since midnight as a DICOM time; None for 0 and for clocks that do not count from midnight."""
    milliseconds = round(time_stamp * TICK_MS)
    if not 0 < milliseconds < DAY_MS:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}{seconds // 60 % 60:02}{seconds % 60:02}.{rest:03}"


def _date(text: str) -> str:
    """MRD's YYYY-MM-DD as DICOM writes it; "" for anything else."""
    match = re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)", text.strip()[:10])
    return "".join(match.groups()) if match else ""


def _time(text: str) -> str:
    """MRD's hh:mm:ss[.f] as DICOM writes it; "" for anything else."""
    match = re.match(r"(\d\d):?(\d\d):?(\d\d)(\.\d{1,6})?", text.strip())
    return "".join(part or "" for part in match.groups()) if match else ""


def _words(text: str, longest: int = 64) -> str:
    """`text` without what DICOM forbids (backslash, control characters), cut at `longest`."""
    return re.sub(r"[\\\x00-\x1f\x7f]", " ", text)[:longest].strip()


def _decimal(value: float | str | None) -> Any:
    """A decimal string of at most 16 characters; None stays None, and what is no number becomes None."""
    from pydicom.valuerep import DSfloat

    try:
        return None if value is None else DSfloat(float(value), auto_format=True)
    except (ValueError, OverflowError):  # the header's text was no number, or not a finite one: the element is optional
        return None

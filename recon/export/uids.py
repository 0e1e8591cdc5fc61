"""Names for DICOM objects that depend on nothing but what they name: a second export gives the same UIDs."""

from __future__ import annotations

import hashlib
import re
from dataclasses import astuple, dataclass
from uuid import UUID, uuid5

from recon.scan import Image, Quantity, ScanHeader

NAMESPACE = UUID("b0f3a1de-5a0c-4d9e-9d35-3a1f2c7be1a4")  # made once for this project; a change renames every export
LEGAL = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
LONGEST = 64
STUDY_FIELDS = ("studyID", "studyDate", "studyTime", "accessionNumber")


@dataclass(frozen=True, slots=True)
class Uids:
    """The identifiers of one plane of an image."""

    study: str
    series: str
    instance: str
    frame_of_reference: str


def derive(*parts: object) -> str:
    """A UID under 2.25 made of `parts` alone (DICOM PS3.5 B.2; the UUID is of RFC 9562 version 5)."""
    return f"2.25.{uuid5(NAMESPACE, chr(0).join(str(part) for part in parts)).int}"


def name_plane(image: Image, header: ScanHeader, *, scan_id: str, quantity: Quantity, plane: tuple[int, int]) -> Uids:
    """UIDs of `plane` (channel, z) of `image`: the header's own for study and frame of reference where they are legal.

    A series is one scan's image series under one recipe, weights and version: other pixels never get the same name.
    """
    scan = (hashlib.sha256(header.xml).hexdigest(), scan_id, image.measurement_uid)
    study = _study(header, scan)
    origin = image.provenance
    made_by = (origin.recipe_hash or origin.method, origin.weights_hash, origin.version)
    series = derive("series", study, *scan, image.series, quantity.name, *made_by)
    instance = derive("instance", series, *astuple(image.counters), image.index, *plane)
    return Uids(study, series, instance, _legal(header.frame_of_reference_uid) or derive("frame of reference", study))


def _study(header: ScanHeader, scan: tuple[object, ...]) -> str:
    """The header's study, else one named by its study fields, else by the scan, then a study of its own."""
    fields = [header.study.get(name, "") for name in STUDY_FIELDS]
    if any(fields):
        scan = (header.patient.get("patientID", ""), *fields)
    return _legal(header.study_uid) or derive("study", *scan)


def _legal(uid: str) -> str:
    """`uid` if it is a legal UID, else a UID derived from it; "" stays ""."""
    legal = len(uid) <= LONGEST and LEGAL.fullmatch(uid)
    return uid if legal or not uid else derive("illegal", uid)

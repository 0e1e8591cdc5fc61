"""Images as DICOM files: MR Image Storage, one file per plane; exporting the same images again gives the same files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

from recon.errors import PackageError
from recon.export.elements import SOFTWARE, describe, series_number
from recon.export.parts import Plane, split
from recon.export.uids import derive
from recon.scan import Image, ScanHeader

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
READABLE = 0o644 << 16  # a ZIP entry's Unix permissions; without them some programs unpack files that nobody may open


def to_dicom(image: Image, header: ScanHeader, *, scan_id: str = "") -> list[bytes]:
    """`image` as DICOM files in the order of `parts.split`; `scan_id` tells scans with equal headers apart.

    Raises ScanError for NaN pixels and for directions that are not perpendicular, PackageError without pydicom.
    """
    return [_encode(plane, header, scan_id) for plane in split(image)]


def stream_zip(images: Iterable[Image], header: ScanHeader, *, scan_id: str = "") -> Iterator[bytes]:
    """A ZIP archive of `images` as series-NNN/image-NNNNN.dcm, in their order; raises as `to_dicom`.

    It comes piece by piece as `images` come: one image and one file are in memory at a time.
    """
    outlet = _Outlet()
    with zipfile.ZipFile(outlet, "w") as archive:
        for name, content in _files(images, header, scan_id):
            entry = zipfile.ZipInfo(name)  # dated 1980 for want of a clock: equal images make equal archives
            entry.external_attr = READABLE
            archive.writestr(entry, content)
            yield outlet.take()
    yield outlet.take()


def _files(images: Iterable[Image], header: ScanHeader, scan_id: str) -> Iterator[tuple[str, bytes]]:
    counts: dict[int, int] = {}
    for image in images:
        for plane in split(image):
            series = series_number(plane)
            counts[series] = counts.get(series, 0) + 1
            yield f"series-{series:03}/image-{counts[series]:05}.dcm", _encode(plane, header, scan_id)


def _encode(plane: Plane, header: ScanHeader, scan_id: str) -> bytes:
    try:
        from pydicom import Dataset, dcmwrite
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import UID
    except ImportError as error:
        raise PackageError(
            "DICOM output needs the package pydicom, which is not installed: install the extra [dicom] or choose .h5"
        ) from error
    dataset, buffer = Dataset(), io.BytesIO()
    for keyword, value in describe(plane, header, scan_id=scan_id).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE_ENDIAN)
    dataset.file_meta.ImplementationClassUID = UID(derive("implementation"))
    dataset.file_meta.ImplementationVersionName = SOFTWARE.upper()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


class _Outlet(io.RawIOBase):
    """A file that cannot seek: what the archive writes waits here until it is taken."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.waiting += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken

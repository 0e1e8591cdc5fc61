"""Stored images in the formats that people open: HDF5, DICOM, PNG."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from cluster.job import DiskFullError, NotFoundError, no_descriptor
from cluster.service import Service
from cluster.stream import wire_limits
from recon.errors import FileError, LimitError, PackageError, ReconError
from recon.export.dicom import stream_zip, to_dicom
from recon.export.png import to_png
from recon.mrd.hdf5 import write_images
from recon.mrd.header import parse_header
from recon.mrd.wire import Decoder, HeaderXml, ImageMessage
from recon.scan import Image, ScanHeader

_PICTURE_PIXELS = 1 << 26
_FOLDERS = "images-"  # how the names of our folders in the data folder begin


def image(service: Service, scan: str, number: int) -> Image:
    """Image `number` (from 0) of `scan`; raises NotFoundError."""
    for data in service.stored(scan, start=number):
        for message in Decoder(wire_limits(service.config)).feed(data):
            if isinstance(message, ImageMessage):
                return message.image
    record = service.scan(scan)
    found = (
        f"scan {scan} is {record.state.value} and has {record.images} images, numbered from 0, and no image {number}"
    )
    raise NotFoundError(f"{found}: {'ask for one of them' if record.state.final else 'wait for it'}")


def png(service: Service, scan: str, number: int) -> bytes:
    """Image `number` as PNG, the planes of a volume side by side."""
    return to_png([image(service, scan, number)])


def png_of_all(service: Service, scan: str) -> bytes:
    """All images in one PNG; raises LimitError when they are too many for one."""
    service.scan(scan)
    images: list[Image] = []
    pixels = 0
    for each in service.images(scan):
        pixels += each.pixels.size
        if pixels > _PICTURE_PIXELS:
            raise LimitError(f"the images have more than {_PICTURE_PIXELS} pixels, too many for one PNG: choose HDF5")
        images.append(each)
    return to_png(images)


def dicom(service: Service, scan: str, number: int, *, plane: int = 0) -> bytes:
    """Plane `plane` of image `number` as a DICOM file; raises NotFoundError."""
    with _lacking_here():
        files = to_dicom(image(service, scan, number), header(service, scan), scan_id=scan)
    if plane >= len(files):
        raise NotFoundError(f"image {number} has {len(files)} planes, numbered from 0, not one {plane}: choose another")
    return files[plane]


def dicom_archive(service: Service, scan: str) -> Iterator[bytes]:
    """All images as a ZIP archive of DICOM files; what keeps the first from being made is raised at once."""
    pieces = stream_zip(service.images(scan), header(service, scan), scan_id=scan)
    with _lacking_here():
        first = next(pieces)
    return chain([first], pieces)


@contextmanager
def _lacking_here() -> Iterator[None]:
    """Say of a missing package that the server lacks it, not whoever asked."""
    try:
        yield
    except PackageError as error:
        raise PackageError(f"on the server, {error}") from error


def hdf5(service: Service, scan: str) -> Path:
    """All images as an ISMRMRD file, alone in a folder that the caller removes."""
    service.scan(scan)
    try:
        return _written(service, scan)
    except (FileError, OSError) as error:
        fault = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(fault, OSError):
            raise
        # Not the error itself, which names a path of the server's.
        why = os.strerror(fault.errno or errno.EIO)
        words = f"the file cannot be made ({why}): check the server's disk, or ask for application/x-mrd"
        raise no_descriptor(fault, "make the file") or DiskFullError(words, retry_after_s=60.0) from error


def _written(service: Service, scan: str) -> Path:
    path = Path(tempfile.mkdtemp(prefix=_FOLDERS, dir=service.config.data)) / f"{scan}.h5"
    try:
        write_images(path, service.images(scan))
    except BaseException:  # whatever it was, images of a patient must not stay behind
        shutil.rmtree(path.parent, ignore_errors=True)
        raise
    return path


def sweep(data: Path) -> None:
    """Remove the folders that a server which was killed left below `data`; none may be in use."""
    for folder in data.glob(_FOLDERS + "*"):
        shutil.rmtree(folder, ignore_errors=True)


def header(service: Service, scan: str) -> ScanHeader:
    """The header that `scan` came with; raises ReconError when none did."""
    decoder = Decoder(wire_limits(service.config), buffer_bytes=1 << 16)
    with (service.config.spool_folder / f"{scan}.mrd").open("rb", buffering=0) as file:
        while count := file.readinto(decoder.get_buffer()):
            for message in decoder.received(count):
                if isinstance(message, HeaderXml):
                    return parse_header(message.xml)
    raise ReconError(f"scan {scan} came without a header, which DICOM needs: look at its log")

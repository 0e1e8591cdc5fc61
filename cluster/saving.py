"""Where a client writes images: one file per kind of ending, never half a file under its final name."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.job import ScanRecord
from cluster.sources import HDF5_TYPE, MRD_TYPE
from recon.errors import FileError

ZIP_TYPE = "application/zip"
_WHOLE = {".h5": HDF5_TYPE, ".hdf5": HDF5_TYPE, ".mrd": MRD_TYPE, "": ZIP_TYPE}
_SINGLE = {".png": "image/png", ".dcm": "application/dicom"}


@dataclass(frozen=True, slots=True)
class Target:
    """What to fetch (`resource` below the scan, `accept`) and where it goes."""

    resource: str
    accept: str
    path: Path


def check_ending(path: Path) -> None:
    """Raise FileError for an ending that no images are written for."""
    if path.suffix.lower() not in (*_WHOLE, *_SINGLE):
        known = ", ".join(ending for ending in (*_WHOLE, *_SINGLE) if ending)
        raise FileError(
            f"images cannot be written as {path.name!r}, expected an ending of {known} or a folder: rename it"
        )


def plan(record: ScanRecord, path: Path) -> list[Target]:
    """The files to fetch for images at `path`; raises FileError for an unknown ending or when there is no image."""
    check_ending(path)
    if not record.images:
        raise FileError(f"scan {record.id} has no images to write to {path} ({record.state.value}): look at its log")
    ending = path.suffix.lower()
    if ending in _WHOLE:
        return [Target("/images", _WHOLE[ending], path)]
    return [
        Target(f"/images/{number}{ending}", _SINGLE[ending], _numbered(path, number, record.images))
        for number in range(record.images)
    ]


def _numbered(path: Path, number: int, count: int) -> Path:
    return path if count == 1 else path.with_name(f"{path.stem}-{number:0{len(str(count - 1))}}{path.suffix}")


@contextmanager
def writing(target: Target, written: list[Path]) -> Iterator[BinaryIO]:
    """A file to write what was fetched into; it gets its name, and `written` its paths, when nothing went wrong."""
    target.path.parent.mkdir(parents=True, exist_ok=True)
    part = target.path.with_name(target.path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        written += _finish(part, target)
    finally:
        part.unlink(missing_ok=True)


def _finish(part: Path, target: Target) -> list[Path]:
    if target.accept != ZIP_TYPE:
        part.replace(target.path)
        return [target.path]
    with zipfile.ZipFile(part) as archive:
        return [Path(archive.extract(name, target.path)) for name in archive.namelist()]

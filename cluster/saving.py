"""Where images are written: the media type for each ending, and never half a file under its final name."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cluster.sources import HDF5_TYPE, MRD_TYPE
from recon.errors import FileError, RecipeError
from recon.mrd.wire import encode_close, encode_image
from recon.recipe import NULL, resolve
from recon.scan import Image, ScanHeader

ZIP_TYPE = "application/zip"
PNG_TYPE = "image/png"
_TYPES = {".h5": HDF5_TYPE, ".hdf5": HDF5_TYPE, ".mrd": MRD_TYPE, ".png": PNG_TYPE, "": ZIP_TYPE}


def media_type(path: Path) -> str:
    """What to ask the server for, by the ending of `path`; raises FileError for one that images are not written as."""
    ending = path.suffix.lower()
    if ending not in _TYPES:
        known = ", ".join(known for known in _TYPES if known)
        raise FileError(f"images cannot be written as {path.name!r}, expected {known} or a folder: rename it")
    return _TYPES[ending]


def check(path: Path) -> None:
    """Raise FileError where images could not be written to `path`, without leaving anything there."""
    kind, path = media_type(path), _named(path)
    if kind != ZIP_TYPE and path.is_dir():
        raise FileError(f"{path} is a folder, images as {path.suffix} need a file: name another")
    _refuse_taken(path, kind)
    place = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            """Whether there can be a file is found by making one: permissions alone do not say."""
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror}): choose another place") from error


def _named(path: Path) -> Path:
    """`path` by a name of its own, which `.`, `..` and folders that end in them lack; raises FileError for `/`."""
    named = path.resolve() if path.name in ("", "..") else path
    if not named.name:
        raise FileError(f"{path} is the root of the file system, images need a file or folder of their own: name one")
    return named


def expect_images(method: str) -> None:
    """Raise RecipeError where images are to be written by a recipe that, as far as is known here, makes none."""
    try:
        made = resolve(method).method != NULL
    except RecipeError:
        made = True  # a server may know more methods, and says so if it does not
    if not made:
        raise RecipeError("the method null makes no images, --out wants them: give one of the two")


def keep_apart(out: Path, inputs: Sequence[Path]) -> None:
    """Raise FileError where writing images to `out` would destroy raw data."""
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            raise FileError(f"{out} holds the raw data, images would replace them: choose another place for the images")


@contextmanager
def writing(path: Path, written: list[Path]) -> Iterator[BinaryIO]:
    """A file for the bytes of `path`'s media type; when all went well it gets its name, and `written` what came of it.

    A ZIP archive is unpacked into the folder `path`. Raises FileError when something cannot be written.
    """
    path = _named(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
        written += _finish(part, path)
    except (OSError, zipfile.BadZipFile) as error:
        raise FileError(f"{path} cannot be written ({error}): choose another place") from error
    finally:
        with suppress(OSError):  # it was never made
            part.unlink(missing_ok=True)


def empty(file: BinaryIO) -> None:
    """Begin `file` again."""
    file.seek(0)
    file.truncate()


def save(images: Sequence[Image], path: Path, *, header: ScanHeader, scan_id: str) -> list[Path]:
    """Write `images` by `path`'s ending; the files written. DICOM needs the `header` of their scan, and its id.

    Raises FileError when something cannot be written, PackageError where a package for it is missing.
    """
    written: list[Path] = []
    kind = media_type(path)
    with writing(path, written) as file:
        if kind == HDF5_TYPE:
            _write_hdf5(images, Path(file.name))
        else:
            for piece in _pieces(images, kind, header=header, scan_id=scan_id):
                file.write(piece)
    return written


def _write_hdf5(images: Sequence[Image], path: Path) -> None:
    from recon.mrd.hdf5 import write_images

    path.unlink()  # HDF5 makes its own file, and takes an empty one for a broken one
    write_images(path, images)


def _pieces(images: Sequence[Image], kind: str, *, header: ScanHeader, scan_id: str) -> Iterator[bytes]:
    from recon.export.dicom import stream_zip
    from recon.export.png import to_png

    if kind == PNG_TYPE:
        yield to_png(images)
    elif kind == ZIP_TYPE:
        yield from stream_zip(images, header, scan_id=scan_id)
    else:
        yield from (encode_image(image) for image in images)
        yield encode_close()


def _refuse_taken(path: Path, kind: str) -> None:
    """Raise FileError where a folder of DICOM files would mix with what is there."""
    if kind == ZIP_TYPE and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileError(f"{path} already exists and is not an empty folder, DICOM needs one of its own: name another")


def _finish(part: Path, path: Path) -> list[Path]:
    kind = media_type(path)
    if kind != ZIP_TYPE:
        part.replace(path)
        return [path]
    _refuse_taken(path, kind)
    with zipfile.ZipFile(part) as archive:
        return [Path(archive.extract(name, path)) for name in archive.namelist()]

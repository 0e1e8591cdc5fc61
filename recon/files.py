"""A scan from a file in either of its two forms: ISMRMRD HDF5, or the bytes of an MRD stream."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from recon.errors import FileError, HeaderError, WireError
from recon.mrd.header import parse_header
from recon.mrd.wire import (
    AcquisitionRun,
    Close,
    ConfigFile,
    ConfigText,
    Decoder,
    HeaderXml,
    Message,
    Text,
    WaveformMessage,
)
from recon.recipe import AUTO, Recipe, apply_text, resolve
from recon.scan import Readouts, Scan, ScanHeader, Waveform

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(slots=True)
class _Contents:
    header: ScanHeader | None = None
    readouts: list[Readouts] = field(default_factory=list)
    waveforms: list[Waveform] = field(default_factory=list)
    recipe: Recipe = field(default_factory=Recipe)


def read_file(path: Path, *, method: str = AUTO) -> tuple[Scan, Recipe]:
    """The scan in the file at `path`, and the recipe: `method`, or what a stream asks for itself where that is "auto".

    Raises FileError where the file is neither form, and what the readers of the two raise.
    """
    recipe = resolve(method)
    try:
        signature = _start_of(path)
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}): name a file that is there") from error
    if signature == HDF5_SIGNATURE:
        from recon.mrd.hdf5 import read_scan

        return read_scan(path), recipe
    contents = _read_stream(path)
    if contents.header is None:
        raise HeaderError(f"{path} holds no header: an MRD stream has one before its readouts")
    scan = Scan(contents.header, tuple(contents.readouts), tuple(contents.waveforms))
    return scan, contents.recipe if recipe.method == AUTO else recipe


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE))


def _read_stream(path: Path) -> _Contents:
    """The messages of a stream, its samples as views of the mapped file."""
    if not path.stat().st_size:
        raise FileError(f"{path} is empty, expected an ISMRMRD HDF5 file or an MRD stream: name another")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    decoder, contents = Decoder(), _Contents()
    try:
        _take_all(decoder.feed(mapped), contents)
        decoder.finish()
    except WireError as error:
        if decoder.position:
            raise
        raise FileError(f"{path} is neither ISMRMRD HDF5 nor an MRD stream ({error})") from error
    return contents


def _take_all(messages: Iterable[Message], contents: _Contents) -> None:
    for message in messages:
        _take(message, contents)
        if isinstance(message, Close):
            return


def _take(message: Message, contents: _Contents) -> None:
    if isinstance(message, AcquisitionRun):
        contents.readouts.append(message.readouts)
    elif isinstance(message, WaveformMessage):
        contents.waveforms.append(message.waveform)
    elif isinstance(message, HeaderXml):
        contents.header = parse_header(message.xml)
    elif isinstance(message, ConfigFile):
        contents.recipe = resolve(message.name)
    elif isinstance(message, ConfigText):
        contents.recipe = resolve(message.text)
    elif isinstance(message, Text) and contents.header is not None and message.text.lstrip().startswith("{"):
        contents.recipe = apply_text(contents.recipe, message.text)

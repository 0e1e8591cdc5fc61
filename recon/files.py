"""A scan from a file in either of its two forms: ISMRMRD HDF5, or the bytes of an MRD stream.

`form_of_file` tells which: here, and before a client sends a file.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from recon.errors import FileError, HeaderError, WireError
from recon.interpreter import Interpreter
from recon.mrd.wire import AcquisitionRun, Decoder, Message, MessageId, WaveformMessage
from recon.recipe import AUTO, Recipe, resolve
from recon.scan import Readouts, Scan, Waveform

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ID_BYTES = 2  # of a message


class Form(Enum):
    """The two forms of a scan in a file."""

    HDF5 = "ISMRMRD HDF5"
    STREAM = "an MRD stream"


@dataclass(slots=True)
class _Contents:
    meaning: Interpreter
    readouts: list[Readouts] = field(default_factory=list)
    waveforms: list[Waveform] = field(default_factory=list)


def form_of(start: bytes) -> Form | None:
    """The form of what begins with the 8 bytes `start`; None where it is neither."""
    if start.startswith(_SIGNATURE):
        return Form.HDF5
    number = int.from_bytes(start[:_ID_BYTES], "little")
    return Form.STREAM if len(start) >= _ID_BYTES and number in set(MessageId) else None


def form_of_file(path: Path) -> Form:
    """The form of the file at `path`; raises FileError where it is neither, empty, or cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_SIGNATURE))
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}): name a file that is there") from error
    if not start:
        raise FileError(f"{path} is empty, expected an ISMRMRD HDF5 file or an MRD stream: name another")
    form = form_of(start)
    if form is None:
        raise FileError(f"{path} is neither ISMRMRD HDF5 nor an MRD stream (it begins with {start!r}): name another")
    return form


def read_file(path: Path, *, method: str = AUTO, group: str = "") -> tuple[Scan, Recipe]:
    """The scan in the file at `path`, and its recipe: by `method`, or what a stream asks for where that is "auto".

    `group` names the group of an HDF5 file that holds the scan, where it is not the usual one. Raises FileError where
    the file is neither form, and what the readers of the two raise.
    """
    recipe = resolve(method)
    if form_of_file(path) is Form.HDF5:
        from recon.mrd.hdf5 import GROUP, read_scan

        return read_scan(path, group=group or GROUP), recipe
    refuse_group(path, group)
    contents = _read_stream(path, method)
    meaning = contents.meaning
    if meaning.header is None:
        raise HeaderError(f"{path} holds no header: an MRD stream has one before its readouts")
    return Scan(meaning.header, tuple(contents.readouts), tuple(contents.waveforms)), meaning.recipe


def refuse_group(path: Path, group: str) -> None:
    """Raise FileError where a group is asked for of a stream."""
    if group:
        raise FileError(f"the group {group!r} is asked for, but {path} is an MRD stream, which has none: leave it out")


def _read_stream(path: Path, method: str) -> _Contents:
    """The messages of a stream, its samples as views of the mapped file."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    decoder, contents = Decoder(), _Contents(Interpreter(method))
    try:
        for message in decoder.feed(mapped):
            _take(message, contents)
            if contents.meaning.closed:
                break
        decoder.finish()
    except WireError as error:
        if decoder.position:
            raise
        raise FileError(f"{path} is neither ISMRMRD HDF5 nor an MRD stream ({error})") from error
    return contents


def _take(message: Message, contents: _Contents) -> None:
    contents.meaning.take(message)
    if isinstance(message, AcquisitionRun):
        contents.readouts.append(message.readouts)
    elif isinstance(message, WaveformMessage):
        contents.waveforms.append(message.waveform)

"""A scan from a file in either of its two forms: ISMRMRD HDF5, or the bytes of an MRD stream."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path

from recon.errors import FileError, HeaderError, WireError
from recon.interpreter import Interpreter
from recon.mrd.wire import AcquisitionRun, Decoder, Message, WaveformMessage
from recon.recipe import AUTO, Recipe, resolve
from recon.scan import Readouts, Scan, Waveform

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(slots=True)
class _Contents:
    meaning: Interpreter
    readouts: list[Readouts] = field(default_factory=list)
    waveforms: list[Waveform] = field(default_factory=list)


def read_file(path: Path, *, method: str = AUTO) -> tuple[Scan, Recipe]:
    """The scan in the file at `path`, and its recipe: by `method`, or what a stream asks for where that is "auto".

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
    contents = _read_stream(path, method)
    meaning = contents.meaning
    if meaning.header is None:
        raise HeaderError(f"{path} holds no header: an MRD stream has one before its readouts")
    return Scan(meaning.header, tuple(contents.readouts), tuple(contents.waveforms)), meaning.recipe


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE))


def _read_stream(path: Path, method: str) -> _Contents:
    """The messages of a stream, its samples as views of the mapped file."""
    if not path.stat().st_size:
        raise FileError(f"{path} is empty, expected an ISMRMRD HDF5 file or an MRD stream: name another")
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

"""What a client may send: a file, bytes, a scan in memory or an iterable of bytes, as chunks of one content type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recon.errors import FileError
from recon.files import HDF5_SIGNATURE
from recon.mrd.wire import encode_close, encode_header, encode_readouts, encode_waveform
from recon.scan import Scan

MRD_TYPE = "application/x-mrd"
HDF5_TYPE = "application/x-hdf5"
CHUNK_BYTES = 1 << 20  # httpx sends chunks of this size ten times faster than one large body

Sendable = str | Path | bytes | bytearray | memoryview | Scan | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes to send: `chunks()` starts them from the beginning, which can be done once only unless `repeatable`."""

    content_type: str
    chunks: Callable[[], Iterator[bytes]]
    size: int | None = None
    repeatable: bool = True


def source(content: Sendable) -> Source:
    """`content` as chunks; raises FileError when it is a path that cannot be read."""
    if isinstance(content, str | Path):
        return _of_file(Path(content))
    if isinstance(content, Scan):
        return Source(MRD_TYPE, lambda: encode_scan(content))
    if isinstance(content, bytes | bytearray | memoryview):
        view = memoryview(content).cast("B")
        return Source(_type_of(bytes(view[:8])), lambda: _slices(view), size=len(view))
    iterator = iter(content)
    return Source(MRD_TYPE, lambda: iterator, repeatable=False)


def encode_scan(scan: Scan) -> Iterator[bytes]:
    """`scan` as an MRD stream: header, physiology, readouts, CLOSE."""
    yield encode_header(scan.header.xml)
    for waveform in scan.waveforms:
        yield encode_waveform(waveform)
    for readouts in scan.readouts:
        yield from _slices(encode_readouts(readouts).data)
    yield encode_close()


def _slices(view: memoryview) -> Iterator[bytes]:
    # Pieces are bytes, not views: httpx joins what it is given.
    return (bytes(view[at : at + CHUNK_BYTES]) for at in range(0, len(view), CHUNK_BYTES))


def _of_file(path: Path) -> Source:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(len(HDF5_SIGNATURE))
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}): give a readable file") from error
    if not size:
        raise FileError(f"{path} is empty, expected an ISMRMRD HDF5 file or an MRD stream: give another file")
    return Source(_type_of(start), lambda: _read(path), size=size)


def _type_of(start: bytes) -> str:
    return HDF5_TYPE if start == HDF5_SIGNATURE else MRD_TYPE


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

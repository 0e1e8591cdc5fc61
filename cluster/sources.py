"""What a client may send: a file, bytes, a scan in memory or an iterable of bytes, as chunks of one content type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recon.files import Form, form_of, form_of_file, refuse_group
from recon.mrd.wire import encode_close, encode_header, encode_readouts, encode_waveform
from recon.scan import Readouts, Scan

MRD_TYPE = "application/x-mrd"
HDF5_TYPE = "application/x-hdf5"
_TYPES: Mapping[Form | None, str] = {Form.HDF5: HDF5_TYPE, Form.STREAM: MRD_TYPE}
CHUNK_BYTES = 1 << 20  # httpx sends chunks of this size ten times faster than one large body


@dataclass(frozen=True, slots=True)
class GroupOf:
    """The scan in an HDF5 file's group of another name than the usual `dataset`."""

    path: Path
    group: str


Sendable = str | Path | GroupOf | bytes | bytearray | memoryview | Scan | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes to send: `chunks()` starts them from the beginning, which can be done once only unless `repeatable`."""

    content_type: str
    chunks: Callable[[], Iterator[bytes]]
    size: int | None = None
    repeatable: bool = True
    params: Mapping[str, str] = field(default_factory=dict)  # of the request


def source(content: Sendable) -> Source:
    """`content` as chunks; raises FileError when it is a path that cannot be read, or of what is no whole scan."""
    if isinstance(content, str | Path):
        return _of_file(Path(content), group="")
    if isinstance(content, GroupOf):
        return _of_file(content.path, group=content.group)
    if isinstance(content, Scan):
        return Source(MRD_TYPE, lambda: encode_scan(content))
    if isinstance(content, bytes | bytearray | memoryview):
        view = memoryview(content).cast("B")
        return Source(_TYPES.get(form_of(bytes(view[:8])), MRD_TYPE), lambda: _slices(view), size=len(view))
    iterator = iter(content)
    return Source(MRD_TYPE, lambda: iterator, repeatable=False)


def encode_scan(scan: Scan) -> Iterator[bytes]:
    """`scan` as an MRD stream: header, physiology, readouts, CLOSE."""
    yield encode_header(scan.header.xml)
    for waveform in scan.waveforms:
        yield encode_waveform(waveform)
    memory = np.empty(CHUNK_BYTES, np.uint8)
    for readouts in scan.readouts:
        for piece in _pieces(readouts):
            yield from _slices(encode_readouts(piece, memory=memory).data)
    yield encode_close()


def _pieces(readouts: Readouts) -> Iterator[Readouts]:
    """Runs of about a chunk's bytes: encoded at once, the readouts would stand in memory a second time."""
    head, samples, points = readouts.head, readouts.samples, readouts.trajectory
    each = sum(array[:1].nbytes for array in (head, samples, points) if array is not None)
    step = max(1, CHUNK_BYTES // (each + 2))
    for first in range(0, len(head), step):
        rows = slice(first, first + step)
        yield Readouts(head[rows], samples[rows], None if points is None else points[rows])


def _slices(view: memoryview) -> Iterator[bytes]:
    # Pieces are bytes, not views: httpx joins what it is given.
    return (bytes(view[at : at + CHUNK_BYTES]) for at in range(0, len(view), CHUNK_BYTES))


def _of_file(path: Path, *, group: str) -> Source:
    form = form_of_file(path)
    if form is Form.STREAM:
        refuse_group(path, group)
    else:
        from recon.mrd.hdf5 import GROUP, check_scan  # with h5py, which streams do without

        check_scan(path, group=group or GROUP)  # the server could say so only once all of it was sent
    params = {"group": group} if group else {}
    return Source(_TYPES[form], lambda: _read(path), size=path.stat().st_size, params=params)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

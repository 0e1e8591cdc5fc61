"""ISMRMRD HDF5 files: read in bulk, written as the `ismrmrd` package and library write them.

A file holds `/dataset/xml`, `/dataset/data` (one record per readout: head, and trajectory and samples of variable
length), `/dataset/waveforms`, and a group of `header`, `attributes` and `data` per image series. The group `dataset`
may have another name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from recon.errors import FileError, LimitError, ReconError
from recon.mrd import wire
from recon.mrd.header import parse_header
from recon.mrd.images import IMAGE_HEAD, PIXELS, image_head, image_meta, pixel_shape, to_image
from recon.mrd.wire import DEFAULT_LIMITS, WAVEFORM_HEAD, Bytes, WireLimits
from recon.scan import READOUT_HEAD, Image, Readouts, Scan, Waveform

GROUP = "dataset"  # where nothing else is said
COLUMNS = ("head", "traj", "data")  # of a readout's record
SLICE_BYTES = 32 << 20  # of samples read at a time: enough for full speed, small beside a scan
SLICE_ROWS = 4096
_MOST_NAMES = 20  # of what a file holds, in a message
_BLIND_ROWS = 64  # read at a time where a file's layout hides how long they are (compressed or contiguous records)

# The head as files nest it: the counters stand in a compound of their own, at the same bytes.
_DESCR = READOUT_HEAD.descr
_FROM, _TO = ([entry[0] for entry in _DESCR].index(name) for name in ("kspace_encode_step_1", "user_int"))
_NESTED = np.dtype([*_DESCR[:_FROM], ("idx", _DESCR[_FROM:_TO]), *_DESCR[_TO:]])
_READOUT = np.dtype([("head", _NESTED), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32))])
_WAVEFORM = np.dtype([("head", WAVEFORM_HEAD), ("data", h5py.vlen_dtype(np.uint32))])


@contextmanager
def _reading(path: str | Path) -> Iterator[h5py.File]:
    """The file; whatever h5py raises on one that is not what it should be becomes one FileError."""
    if not Path(path).is_file():
        raise FileError(f"{path} does not exist or is no file: name an ISMRMRD HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except ReconError:
        raise
    # On damaged or foreign files the library's failures arrive as any of these.
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise FileError(
            f"{path} is not a readable ISMRMRD HDF5 file ({_one_line(fault)}): check that it is whole"
        ) from fault


@contextmanager
def _writing(path: str | Path, mode: str) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, mode) as file:
            yield file
    except OSError as fault:
        raise FileError(f"{path} cannot be written ({_one_line(fault)}): choose another place") from fault


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).split())


def _own(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """What stands at `path` below `group`, None where nothing does.

    A soft or external link on the way, and values that another file holds, would let whoever wrote this file read any
    HDF5 file and any bytes that this process can: only hard links and values of this file are followed.
    """
    node: Any = group
    for name in filter(None, path.split("/")):
        links = node.id.links if isinstance(node, h5py.Group) else None
        if links is None or not links.exists(name.encode()):  # asks for the link itself and opens nothing
            return None
        if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise _elsewhere(node, name, why="behind a link")
        node = node[name]
    if isinstance(node, h5py.Dataset) and (node.external or node.is_virtual):
        raise _elsewhere(group, path, why="in other files")
    return node


def _elsewhere(group: h5py.Group, name: str, *, why: str) -> FileError:
    return FileError(
        f"{group.file.filename} keeps {group.name.rstrip('/')}/{name} {why}, expected all of a scan inside its own "
        "file: copy it in"
    )


def _group(file: h5py.File, name: str) -> h5py.Group:
    found = _own(file, name)
    if not isinstance(found, h5py.Group):
        raise FileError(_without_group(file, name))
    return found


def _without_group(file: h5py.File, name: str) -> str:
    """That `file` has no group `name`, and which one was perhaps meant."""
    scans = [other for other in islice(file, _MOST_NAMES) if _looks_like_scan(file, other)]
    if not scans:
        held = ", ".join(sorted(islice(file, _MOST_NAMES))) or "nothing"
        return f"{file.filename} holds {held}, expected the group {name!r} of an ISMRMRD file: check its origin"
    names = " and ".join(map(repr, scans))
    advice = "looks like a scan: ask for it" if len(scans) == 1 else "look like scans: ask for one"
    return f"{file.filename} has no group {name!r}, but {names} {advice} by name (--group {scans[0]!r})"


def _looks_like_scan(file: h5py.File, name: str) -> bool:
    with suppress(FileError):  # something of it is in another file
        return all(isinstance(_own(file, f"{name}/{part}"), h5py.Dataset) for part in ("xml", "data"))
    return False


def _list(group: h5py.Group, name: str) -> h5py.Dataset:
    found = _own(group, name)
    if not isinstance(found, h5py.Dataset) or found.ndim < 1:
        raise FileError(f"{group.file.filename} has no list {group.name}/{name}: check that it is an ISMRMRD file")
    return found


def _table(group: h5py.Group, name: str, *, columns: tuple[str, ...]) -> h5py.Dataset:
    found = _list(group, name)
    if not set(columns) <= set(found.dtype.names or ()):
        raise FileError(
            f"{group.file.filename} has in {group.name}/{name} no records of {', '.join(columns)}: check its origin"
        )
    return found


# ---- reading scans ----


def read_scan(path: str | Path, *, group: str = GROUP, limits: WireLimits = DEFAULT_LIMITS) -> Scan:
    """The whole scan in memory; raises FileError, HeaderError or LimitError."""
    with _reading(path) as file:
        dataset = _group(file, group)
        header = parse_header(_xml(dataset, limits))
        return Scan(header, tuple(_readouts(dataset, limits)), tuple(_waveforms(dataset, limits)))


def check_scan(path: str | Path, *, group: str = GROUP) -> None:
    """Raises FileError where the file is cut short, no HDF5, or holds no scan; looks at none of its readouts."""
    with _reading(path) as file:
        dataset = _group(file, group)
        _list(dataset, "xml")
        _table(dataset, "data", columns=COLUMNS)


def stream_scan(
    path: str | Path, *, group: str = GROUP, limits: WireLimits = DEFAULT_LIMITS
) -> Iterator[bytes | Bytes]:
    """The file as an MRD stream from header to close, in bounded memory; physiology goes before later readouts."""
    with _reading(path) as file:
        dataset = _group(file, group)
        xml = _xml(dataset, limits)
        parse_header(xml)  # refuse here what the receiver would
        yield wire.encode_header(xml)
        for part in _in_time(_readouts(dataset, limits), _waveforms(dataset, limits)):
            yield wire.encode_readouts(part) if isinstance(part, Readouts) else wire.encode_waveform(part)
        yield wire.encode_close()


def _in_time(readouts: Iterator[Readouts], waveforms: Iterator[Waveform]) -> Iterator[Readouts | Waveform]:
    """Both by their time stamps, which count the same clock."""
    waiting = next(waveforms, None)
    for run in readouts:
        last = int(run.head["acquisition_time_stamp"].max())
        while waiting is not None and waiting.time_stamp <= last:
            yield waiting
            waiting = next(waveforms, None)
        yield run
    if waiting is not None:
        yield waiting
        yield from waveforms


def _xml(group: h5py.Group, limits: WireLimits) -> bytes:
    (text,) = _list(group, "xml")[:1]
    xml: bytes = text if isinstance(text, bytes) else str(text).encode()
    if len(xml) > limits.header_bytes:
        raise LimitError(
            f"the header is {len(xml)} bytes long, and the limit header_bytes is {limits.header_bytes}: shorten it, or "
            "raise the limit"
        )
    return xml


def _readouts(group: h5py.Group, limits: WireLimits) -> Iterator[Readouts]:
    dataset = _table(group, "data", columns=COLUMNS)
    for first, last in _slices(dataset, limits.acquisition_bytes, name="acquisition_bytes"):
        rows = dataset[first:last]
        head = _flat(rows["head"])
        sizes = np.stack([head["number_of_samples"], head["active_channels"], head["trajectory_dimensions"]], axis=1)
        edges = [0, *(1 + np.flatnonzero((sizes[1:] != sizes[:-1]).any(axis=1))), len(rows)]
        for begin, end in pairwise(edges):
            yield _run(head[begin:end], rows[begin:end], first=first + begin)


def _run(head: NDArray[np.void], rows: NDArray[np.void], *, first: int) -> Readouts:
    samples, coils, axes = (
        int(head[name][0]) for name in ("number_of_samples", "active_channels", "trajectory_dimensions")
    )
    values = _joined(rows["data"], 2 * coils * samples, what="sample values", first=first)
    trajectory = None
    if axes:
        points = _joined(rows["traj"], samples * axes, what="trajectory values", first=first)
        trajectory = points.reshape(len(head), samples, axes)
    return Readouts(head, values.view("<c8").reshape(len(head), coils, samples), trajectory)


def _joined(rows: NDArray[np.object_], size: int, *, what: str, first: int) -> NDArray[np.float32]:
    """All rows one after the other; each must hold `size` numbers."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    wrong = np.flatnonzero(lengths != size)
    if len(wrong):
        raise FileError(
            f"readout {first + wrong[0]} holds {lengths[wrong[0]]} {what}, its head says {size}: write the file again"
        )
    return np.concatenate(list(rows)).astype("<f4", copy=False)


def _flat(nested: NDArray[np.void]) -> NDArray[np.void]:
    """Heads as READOUT_HEAD; a file may lay the same fields out with other gaps."""
    if nested.dtype == _NESTED:
        return np.ascontiguousarray(nested).view(READOUT_HEAD)
    head = np.zeros(len(nested), READOUT_HEAD)
    for name in READOUT_HEAD.names or ():
        head[name] = nested[name] if name in (nested.dtype.names or ()) else nested["idx"][name]
    return head


def _waveforms(group: h5py.Group, limits: WireLimits) -> Iterator[Waveform]:
    if _own(group, "waveforms") is None:
        return
    dataset = _table(group, "waveforms", columns=("head", "data"))
    for first, last in _slices(dataset, limits.waveform_bytes, name="waveform_bytes"):
        rows = dataset[first:last]
        for head, samples in zip(_by_name(rows["head"], WAVEFORM_HEAD), rows["data"], strict=True):
            yield wire.to_waveform(head, samples.astype("<u4", copy=False))


def _by_name(records: NDArray[np.void], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    same = np.zeros(len(records), dtype)
    for name in dtype.names or ():
        same[name] = records[name]
    return same


# ---- how much to read at a time ----


def _slices(dataset: h5py.Dataset, limit: int, *, name: str) -> Iterator[tuple[int, int]]:
    """Ranges of rows (first, last) holding about SLICE_BYTES; raises LimitError before a row beyond `limit` is read."""
    first = row = held = 0
    for sizes in _row_bytes(dataset):
        if sizes.max(initial=0) > limit:
            raise LimitError(
                f"record {row + int(sizes.argmax())} of {dataset.name} holds {sizes.max()} bytes, and the limit {name} "
                f"is {limit}: leave it out, or raise the limit"
            )
        for part in np.split(sizes, 1 + np.flatnonzero(np.diff(np.cumsum(sizes) // SLICE_BYTES))):
            if held and (held + part.sum() > SLICE_BYTES or row - first >= SLICE_ROWS):
                yield first, row
                first, held = row, 0
            row, held = row + len(part), held + int(part.sum())
    if row > first:
        yield first, row


def _row_bytes(dataset: h5py.Dataset) -> Iterator[NDArray[np.int64]]:
    """Bytes of variable length in each row, chunk by chunk, from the records and not from what they refer to.

    A record of a few bytes can name the same long block as a thousand others; only this tells before it is too late.
    """
    rows = len(dataset)
    if dataset.chunks is None or dataset.id.get_create_plist().get_nfilters():
        share = SLICE_BYTES // _BLIND_ROWS
        yield from (np.full(min(_BLIND_ROWS, rows - first), share) for first in range(0, rows, _BLIND_ROWS))
        return
    for first in range(0, rows, dataset.chunks[0]):
        _, raw = dataset.id.read_direct_chunk((first,))
        yield _lengths(dataset, raw)[: rows - first]


def _lengths(dataset: h5py.Dataset, raw: bytes) -> NDArray[np.int64]:
    """Bytes of variable length in each record of a raw chunk: HDF5 puts a 32-bit count before each reference."""
    kind = dataset.id.get_type()
    records = np.frombuffer(raw, np.uint8).reshape(-1, kind.get_size())
    total = np.zeros(len(records), np.int64)
    for i, name in enumerate(dataset.dtype.names):
        base = h5py.check_vlen_dtype(dataset.dtype[name])
        if base is not None:
            at = kind.get_member_offset(i)
            total += records[:, at : at + 4].copy().view("<u4")[:, 0].astype(np.int64) * base.itemsize
    return total


# ---- writing scans ----


def write_scan(path: str | Path, scan: Scan) -> None:
    """A new ISMRMRD file of `scan`, replacing one that stands there; raises FileError."""
    with _writing(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[scan.header.xml], dtype=h5py.special_dtype(vlen=bytes))
        for run in scan.readouts:
            _append(group, "data", rows=_records(run))
        if scan.waveforms:
            _append(group, "waveforms", rows=_waveform_records(scan.waveforms))


def _append(group: h5py.Group, name: str, *, rows: NDArray[np.generic], chunk: int = 64) -> None:
    if name not in group:
        shape = rows.shape[1:]
        group.create_dataset(name, (0, *shape), rows.dtype, maxshape=(None, *shape), chunks=(chunk, *shape))
    dataset = group[name]
    start = len(dataset)
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows


def _records(run: Readouts) -> NDArray[np.void]:
    rows: NDArray[np.void] = np.empty(len(run.head), _READOUT)
    rows["head"] = np.ascontiguousarray(run.head).view(_NESTED)
    rows["data"] = _objects(_by_readout(np.ascontiguousarray(run.samples, "<c8").view("<f4")))
    empty = np.empty((len(rows), 0), "<f4")
    points = empty if run.trajectory is None else run.trajectory.astype("<f4", copy=False)
    rows["traj"] = _objects(_by_readout(points))
    return rows


def _by_readout(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _objects(rows: Sequence[Any] | NDArray[Any]) -> NDArray[np.object_]:
    column = np.empty(len(rows), object)
    for i, row in enumerate(rows):  # assigning them all at once would make a two-dimensional array of numbers
        column[i] = row
    return column


def _waveform_records(waveforms: Sequence[Waveform]) -> NDArray[np.void]:
    rows: NDArray[np.void] = np.zeros(len(waveforms), _WAVEFORM)
    rows["head"] = np.array([wire.waveform_head(w) for w in waveforms], WAVEFORM_HEAD)
    rows["data"] = _objects([w.samples.astype("<u4", copy=False).reshape(-1) for w in waveforms])
    return rows


# ---- images ----


def write_images(path: str | Path, images: Iterable[Image], *, group: str = GROUP) -> None:
    """Append images to `path` (made where there is none) at `/dataset/image_<series>`; raises FileError.

    The images of a series share one shape and pixel type, as MRD files demand.
    """
    with _writing(path, "a") as file:
        top = file.require_group(group)
        for series, members in groupby(images, key=lambda image: image.series):
            for image in members:
                _append_image(top.require_group(f"image_{series}"), image)


def _append_image(group: h5py.Group, image: Image) -> None:
    pixels = image.pixels if image.pixels.dtype in (np.float32, np.complex64) else image.pixels.astype(np.float32)
    values = _stored(pixels)
    _check_series(group, values)
    meta = image_meta(image)
    head: NDArray[np.void] = np.array([image_head(image, attribute_bytes=len(meta))], IMAGE_HEAD)
    _append(group, "header", rows=head)
    _append_text(group, meta)
    _append(group, "data", rows=values[None], chunk=1)


def _stored(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Complex pixels as the pairs that files hold."""
    pixels = np.ascontiguousarray(pixels)
    return pixels.view([("real", "<f4"), ("imag", "<f4")]) if np.iscomplexobj(pixels) else pixels


def _check_series(group: h5py.Group, values: NDArray[np.generic]) -> None:
    held = group.get("data")
    if held is not None and (held.shape[1:] != values.shape or held.dtype != values.dtype):
        raise FileError(
            f"{group.name} holds images of {held.shape[1:]} {held.dtype}, got one of {values.shape} {values.dtype}: "
            "give images of another shape another series"
        )


def _append_text(group: h5py.Group, meta: bytes) -> None:
    if "attributes" not in group:
        group.create_dataset("attributes", (0,), h5py.special_dtype(vlen=str), maxshape=(None,), chunks=(64,))
    attributes = group["attributes"]
    attributes.resize(len(attributes) + 1, axis=0)
    attributes[-1] = meta.decode()


def read_images(path: str | Path, *, group: str = GROUP, limits: WireLimits = DEFAULT_LIMITS) -> list[Image]:
    """All images of the file in the order of their series; raises FileError, WireError or LimitError."""
    with _reading(path) as file:
        top = _group(file, group)
        nodes = [_own(top, name) for name in top]
        series = [node for node in nodes if isinstance(node, h5py.Group) and _own(node, "header") is not None]
        images = [image for node in series for image in _series(node, limits)]
    return sorted(images, key=lambda image: image.series)


def _series(group: h5py.Group, limits: WireLimits) -> Iterator[Image]:
    heads = _by_name(_list(group, "header")[:], IMAGE_HEAD)
    data, attributes = _list(group, "data"), _list(group, "attributes")
    for i, head in enumerate(heads):
        where = f"image {i} of {group.name}"
        _check_image(head, data, where=where, limits=limits)
        text = attributes[i]
        yield to_image(head, text if isinstance(text, bytes) else text.encode(), pixels=_complex(data[i]), where=where)


def _check_image(head: np.void, data: h5py.Dataset, *, where: str, limits: WireLimits) -> None:
    if data.shape[1:] != pixel_shape(head):
        raise FileError(f"{where} is {data.shape[1:]}, its header declares {pixel_shape(head)}: write the file again")
    size = int(np.prod(data.shape[1:], dtype=np.int64)) * data.dtype.itemsize
    if size > limits.image_bytes:
        raise LimitError(f"{where} is {size} bytes, and the limit image_bytes is {limits.image_bytes}: raise the limit")


def _complex(values: NDArray[np.generic]) -> NDArray[np.generic]:
    if values.dtype.names is None:
        return values
    return values.view(PIXELS[7] if values.dtype.itemsize == 8 else PIXELS[8])

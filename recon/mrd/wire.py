"""MRD v1 messages on a byte stream, in both directions: little-endian `uint16` id, then a body.

A run of equal-sized acquisitions is one strided NumPy view, so no Python runs per readout. Every length is checked
against `WireLimits` as soon as it is known and before anything is allocated for it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from mmap import mmap
from typing import NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from recon.errors import LimitError, ScanError, WireError
from recon.mrd.images import IMAGE_HEAD, image_head, image_meta, pixel_shape, pixel_type, to_image
from recon.scan import READOUT_HEAD, Image, Readouts, Waveform

Bytes = NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview | mmap | Bytes

ERROR = "ERROR "  # how a server's text begins that says why a scan did not work


class MessageId(IntEnum):
    """Message ids of MRD v1 streaming; ARRAY is known by name only, to refuse it."""

    CONFIG_FILE = 1
    CONFIG_TEXT = 2
    HEADER = 3
    CLOSE = 4
    TEXT = 5
    QUERY = 6
    RESPONSE = 7
    ACQUISITION = 1008
    IMAGE = 1022
    WAVEFORM = 1026
    ARRAY = 1030


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The name of a recipe; `offset` is, as in every message, the byte of the stream at which the message begins."""

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class ConfigText:
    """A recipe as text."""

    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class HeaderXml:
    """The scan's header, as bytes of XML."""

    xml: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Text:
    """Words for the other side: parameters from a client, `ERROR …` from a server."""

    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class Query:
    """A question by name; the response carries the same `correlation`."""

    name: str
    correlation: int
    offset: int


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to the query of the same `correlation`."""

    text: str
    correlation: int
    offset: int


@dataclass(frozen=True, slots=True)
class Close:
    """The last message of a stream."""

    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class AcquisitionRun:
    """Equal-sized acquisitions `stride` bytes apart from `offset` on; `readouts` are views of the bytes received."""

    readouts: Readouts
    offset: int
    stride: int


@dataclass(frozen=True, slots=True, eq=False)
class WaveformMessage:
    """A block of physiology, owning its samples."""

    waveform: Waveform
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class ImageMessage:
    """An image, owning its pixels."""

    image: Image
    offset: int


Message = (
    ConfigFile
    | ConfigText
    | HeaderXml
    | Text
    | Query
    | Response
    | Close
    | AcquisitionRun
    | WaveformMessage
    | ImageMessage
)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """The largest message of each kind that is accepted; the defaults leave room above the largest scanners'."""

    header_bytes: int = 8 << 20
    text_bytes: int = 1 << 20
    acquisition_bytes: int = 64 << 20
    waveform_bytes: int = 16 << 20
    image_bytes: int = 1 << 30
    attribute_bytes: int = 1 << 20
    coils: int = 1024  # what the channel mask of the acquisition header can name
    samples: int = 65_535


DEFAULT_LIMITS = WireLimits()

# On the wire and in files the waveform header is the C struct with its natural alignment.
WAVEFORM_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("time_stamp", "<u4"),
        ("number_of_samples", "<u2"),
        ("channels", "<u2"),
        ("sample_time_us", "<f4"),
        ("waveform_id", "<u2"),
    ],
    align=True,
)
assert WAVEFORM_HEAD.itemsize == 40

CONFIG_FILE_BYTES = 1024
_ID = 2
_ACQUISITION = _ID + READOUT_HEAD.itemsize
_IMAGE = _ID + IMAGE_HEAD.itemsize + 8
_WAVEFORM = _ID + WAVEFORM_HEAD.itemsize

# Bytes of each message up to where its whole length is known.
_HEAD_BYTES = {
    MessageId.CONFIG_FILE: _ID + CONFIG_FILE_BYTES,
    MessageId.CONFIG_TEXT: _ID + 4,
    MessageId.HEADER: _ID + 4,
    MessageId.CLOSE: _ID,
    MessageId.TEXT: _ID + 4,
    MessageId.QUERY: _ID + 24,
    MessageId.RESPONSE: _ID + 16,
    MessageId.ACQUISITION: _ACQUISITION,
    MessageId.IMAGE: _IMAGE,
    MessageId.WAVEFORM: _WAVEFORM,
}
_WORDS = {  # ids as a reader of an error knows them
    MessageId.CONFIG_FILE: "config file",
    MessageId.CONFIG_TEXT: "config text",
    MessageId.HEADER: "header",
    MessageId.CLOSE: "close",
    MessageId.TEXT: "text",
    MessageId.QUERY: "query",
    MessageId.RESPONSE: "response",
    MessageId.ACQUISITION: "acquisition",
    MessageId.IMAGE: "image",
    MessageId.WAVEFORM: "waveform",
    MessageId.ARRAY: "array",
}
_KINDS = {kind.value: kind for kind in _HEAD_BYTES}

# What makes acquisitions alike: the id and the three sizes, and where in the message they stand.
_SAMPLES, _COILS, _AXES = (
    _ID + READOUT_HEAD.fields[name][1]  # type: ignore[index]
    for name in ("number_of_samples", "active_channels", "trajectory_dimensions")
)
_ALIKE = (0, _SAMPLES, _COILS, _AXES)
_KEY = struct.Struct("<H" + "".join(f"{b - a - 2}xH" for a, b in pairwise(_ALIKE)))
_SAMPLE, _POINT = np.dtype("<c8"), np.dtype("<f4")
_WAVEFORM_SIZES = struct.Struct("<HH")
_WAVEFORM_SIZES_AT = _ID + WAVEFORM_HEAD.fields["number_of_samples"][1]  # type: ignore[index]


def _within(size: int, limits: WireLimits, *, name: str, what: Callable[[], str]) -> int:
    """`size`, unless it is beyond the limit called `name`; the words are put together only when they are needed."""
    limit: int = getattr(limits, name)
    if size > limit:
        raise LimitError(f"{what()}, and this server's limit {name} is {limit}: send less, or raise the limit")
    return size


@dataclass(frozen=True, slots=True)
class _Place:
    """One message in a buffer: `at` is its index there, `offset` its byte in the stream."""

    data: Bytes
    at: int
    offset: int
    limits: WireLimits

    def unpack(self, code: str, skip: int) -> tuple[int, ...]:
        return struct.unpack_from("<" + code, self.data.data, self.at + skip)

    def bytes(self, skip: int, size: int) -> bytes:
        return self.data[self.at + skip : self.at + skip + size].tobytes()

    def record(self, dtype: np.dtype[np.void], skip: int) -> np.void:
        return cast(np.void, np.frombuffer(self.bytes(skip, dtype.itemsize), dtype)[0])


# ---- how long a message is ----


def _needed(place: _Place, have: int) -> int:
    """Bytes of the message at `place`, as far as the `have` bytes present tell: all of it once its head is there."""
    if have < _ID:
        return _ID
    kind = _kind(place)
    head = _HEAD_BYTES[kind]
    return head if have < head or kind not in _BODY else head + _BODY[kind](place)


def _kind(place: _Place) -> MessageId:
    (number,) = place.unpack("H", 0)
    kind = _KINDS.get(number)
    if kind is None:
        _refuse(number, place.offset)
    return kind


def _refuse(number: int, offset: int) -> NoReturn:
    if number == MessageId.ARRAY:
        raise WireError(f"message {number} (array) at byte {offset} is not accepted: send acquisitions (1008) instead")
    known = ", ".join(str(n) for n in _KINDS)
    raise WireError(f"unknown message id {number} at byte {offset}, expected one of {known}: correct the sender")


def _text_body(kind: MessageId, limit: str, *, code: str, skip: int) -> Callable[[_Place], int]:
    def measure(place: _Place) -> int:
        (size,) = place.unpack(code, skip)
        what = f"the {_WORDS[kind]} at byte {place.offset} is {size} bytes long"
        return _within(size, place.limits, name=limit, what=lambda: what)

    return measure


def _acquisition_body(place: _Place) -> int:
    _, samples, coils, axes = _KEY.unpack_from(place.data.data, place.at)
    size: int = samples * (8 * coils + 4 * axes)

    def what() -> str:
        return (
            f"the acquisition at byte {place.offset} declares {samples} samples × {coils} coils "
            f"with {axes} trajectory axes, {size} bytes"
        )

    _within(samples, place.limits, name="samples", what=what)
    _within(coils, place.limits, name="coils", what=what)
    return _within(size, place.limits, name="acquisition_bytes", what=what)


def _waveform_body(place: _Place) -> int:
    samples, channels = _WAVEFORM_SIZES.unpack_from(place.data.data, place.at + _WAVEFORM_SIZES_AT)
    size: int = 4 * channels * samples
    what = f"the waveform at byte {place.offset} declares {channels} channels × {samples} samples, {size} bytes"
    return _within(size, place.limits, name="waveform_bytes", what=lambda: what)


def _image_body(place: _Place) -> int:
    attributes, pixels = _image_sizes(place)
    return attributes + pixels


def _image_sizes(place: _Place) -> tuple[int, int]:
    head = place.record(IMAGE_HEAD, _ID)
    where = f"the image at byte {place.offset}"
    (attributes,) = place.unpack("Q", _ID + IMAGE_HEAD.itemsize)
    text = f"{where} declares {attributes} bytes of attributes"
    _within(attributes, place.limits, name="attribute_bytes", what=lambda: text)
    channels, z, y, x = pixel_shape(head)
    pixels = channels * z * y * x * pixel_type(head, where=where).itemsize
    what = f"{where} declares {channels} channels × {z} × {y} × {x} voxels, {pixels} bytes"
    return attributes, _within(pixels, place.limits, name="image_bytes", what=lambda: what)


_BODY: dict[MessageId, Callable[[_Place], int]] = {
    MessageId.CONFIG_TEXT: _text_body(MessageId.CONFIG_TEXT, "text_bytes", code="I", skip=_ID),
    MessageId.HEADER: _text_body(MessageId.HEADER, "header_bytes", code="I", skip=_ID),
    MessageId.TEXT: _text_body(MessageId.TEXT, "text_bytes", code="I", skip=_ID),
    MessageId.QUERY: _text_body(MessageId.QUERY, "text_bytes", code="Q", skip=_ID + 16),
    MessageId.RESPONSE: _text_body(MessageId.RESPONSE, "text_bytes", code="Q", skip=_ID + 8),
    MessageId.ACQUISITION: _acquisition_body,
    MessageId.IMAGE: _image_body,
    MessageId.WAVEFORM: _waveform_body,
}


# ---- what a message says ----

_PLAIN: dict[MessageId, type[ConfigFile] | type[ConfigText] | type[Text]] = {
    MessageId.CONFIG_FILE: ConfigFile,
    MessageId.CONFIG_TEXT: ConfigText,
    MessageId.TEXT: Text,
}


def _read(place: _Place, size: int) -> Message:
    """The message of `size` bytes at `place`; acquisitions are read in runs elsewhere."""
    kind = _kind(place)
    if kind == MessageId.CLOSE:
        return Close(place.offset)
    if kind == MessageId.WAVEFORM:
        return _read_waveform(place, size)
    if kind == MessageId.IMAGE:
        return _read_image(place)
    return _read_text(place, kind, size=size)


def _read_text(place: _Place, kind: MessageId, *, size: int) -> Message:
    head = _ID if kind == MessageId.CONFIG_FILE else _HEAD_BYTES[kind]
    data = place.bytes(head, size - head)
    if kind == MessageId.HEADER:
        return HeaderXml(data.rstrip(b"\0"), place.offset)
    if kind == MessageId.CONFIG_FILE:
        data = data.partition(b"\0")[0]  # a C string in a fixed field: what follows the terminator is not text
    text = _decode(data.rstrip(b"\0"), kind, offset=place.offset)
    if kind == MessageId.QUERY:
        return _read_query(place, text)
    if kind == MessageId.RESPONSE:
        return Response(text, place.unpack("Q", _ID)[0], place.offset)
    return _PLAIN[kind](text, place.offset)


def _read_query(place: _Place, text: str) -> Query:
    reserved, correlation = place.unpack("QQ", _ID)
    if reserved:
        raise WireError(f"the query at byte {place.offset} has {reserved} in its reserved bytes, expected 0: send 0")
    return Query(text, correlation, place.offset)


def _decode(data: bytes, kind: MessageId, *, offset: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as fault:
        raise WireError(f"the {_WORDS[kind]} at byte {offset} is not UTF-8 ({fault}): send UTF-8") from fault


def _read_waveform(place: _Place, size: int) -> WaveformMessage:
    head = place.record(WAVEFORM_HEAD, _ID)
    samples = np.frombuffer(place.bytes(_WAVEFORM, size - _WAVEFORM), "<u4")
    return WaveformMessage(to_waveform(head, samples), place.offset)


def to_waveform(head: np.void, samples: NDArray[np.uint32]) -> Waveform:
    """A Waveform from its wire header and flat samples."""
    _, flags, measurement, counter, time, count, channels, sample_time, kind = head.item()
    return Waveform(samples.reshape(channels, count), sample_time, kind, time, flags, measurement, counter)


def waveform_head(waveform: Waveform) -> np.void:
    """The wire header of a waveform."""
    head = np.zeros((), WAVEFORM_HEAD)
    head["version"], head["flags"], head["waveform_id"] = 1, waveform.flags, waveform.kind
    head["measurement_uid"], head["scan_counter"] = waveform.measurement_uid, waveform.scan_counter
    head["time_stamp"], head["sample_time_us"] = waveform.time_stamp, waveform.sample_time_us
    head["channels"], head["number_of_samples"] = waveform.samples.shape
    return cast(np.void, head[()])


def _read_image(place: _Place) -> ImageMessage:
    attributes, pixels = _image_sizes(place)
    head, where = place.record(IMAGE_HEAD, _ID), f"the image at byte {place.offset}"
    start = place.at + _IMAGE + attributes
    values = place.data[start : start + pixels].view(pixel_type(head, where=where)).reshape(pixel_shape(head))
    return ImageMessage(to_image(head, place.bytes(_IMAGE, attributes), pixels=values, where=where), place.offset)


# ---- runs of acquisitions ----


def _views(data: Bytes, at: int, *, count: int) -> Readouts:
    """`count` acquisitions of the size of the one at index `at`, as views."""
    _, samples, coils, axes = _KEY.unpack_from(data.data, at)
    begin = at + _ACQUISITION
    stride = _ACQUISITION + samples * (8 * coils + 4 * axes)
    trajectory = None
    if axes:
        trajectory = np.ndarray((count, samples, axes), "<f4", data, begin, (stride, 4 * axes, 4))
    return Readouts(
        np.ndarray((count,), READOUT_HEAD, data, at + _ID, (stride,)),
        np.ndarray((count, coils, samples), "<c8", data, begin + 4 * axes * samples, (stride, 8 * samples, 8)),
        trajectory,
    )


def _run_length(data: Bytes, at: int, *, stride: int, most: int) -> int:
    """How many messages from `at` on are acquisitions of the size of the first, at most `most`.

    The window grows as the run does, so that the work stays in proportion to the run found and not to the buffer.
    """
    if most > 1 and _KEY.unpack_from(data.data, at) != _KEY.unpack_from(data.data, at + stride):
        return 1  # readouts of two sizes in turn are common, and arrays cost more than the one comparison
    found, window = 1, 16
    while found < most:
        size = min(window, most - found)
        equal = _alike(data, at, at=at + found * stride, stride=stride, count=size)
        if not equal.all():
            return found + int(equal.argmin())
        found, window = found + size, 4 * window
    return found


def _alike(data: Bytes, first: int, *, at: int, stride: int, count: int) -> NDArray[np.bool_]:
    """Which of `count` messages at `at`, `stride` apart, have the id and sizes of the message at `first`."""
    equal: NDArray[np.bool_] = np.ones(count, np.bool_)
    for place, wanted in zip(_ALIKE, _KEY.unpack_from(data.data, first), strict=True):
        equal &= np.ndarray((count,), "<u2", data, at + place, (stride,)) == wanted
    return equal


def view_run(buffer: Buffer, *, count: int) -> Readouts:
    """The `count` (≥ 1) acquisition messages of one size at the start of `buffer`, as views of it; raises WireError."""
    data = np.frombuffer(buffer, np.uint8)
    # Whoever received these bytes has checked them against the limits in force; here only the buffer itself limits.
    place = _Place(data, 0, 0, WireLimits(acquisition_bytes=len(data), coils=65_535))
    found = 0
    if len(data) >= _ACQUISITION and _kind(place) == MessageId.ACQUISITION:
        stride = _needed(place, len(data))
        found = _run_length(data, 0, stride=stride, most=min(count, len(data) // stride))
    if found < count:
        raise WireError(
            f"{len(data)} bytes begin with {found} acquisitions of one size, expected {count}: read the extent again"
        )
    return _views(data, 0, count=count)


# ---- the decoder ----


class Decoder:
    """Bytes in, messages out: any split of the stream gives the same messages; take them all before giving more bytes.

    For sockets, `received(socket.recv_into(decoder.get_buffer()))`: acquisitions are views of the buffer, valid until
    the next `get_buffer`. `feed` takes bytes that the caller keeps; its acquisitions are views of those.
    """

    def __init__(self, limits: WireLimits = DEFAULT_LIMITS, *, buffer_bytes: int = 4 << 20) -> None:
        self.limits = limits
        self.position = 0  # bytes of the stream consumed as whole messages
        self._buffer_bytes = buffer_bytes
        self._buffer: Bytes = np.empty(0, np.uint8)
        self._start = self._stop = 0  # the bytes received and not yet consumed
        self._closed = False

    def get_buffer(self) -> memoryview:
        """Writable space for the next bytes; it grows with the bytes received, at most to the message they announce."""
        if self._start == self._stop:
            fits = len(self._buffer) == self._buffer_bytes
            self._move(self._buffer if fits else np.empty(self._buffer_bytes, np.uint8))
        elif len(self._buffer) - self._stop < max(len(self._buffer), self._buffer_bytes) // 8:
            self._make_room()
        return self._buffer.data[self._stop :]

    def received(self, count: int) -> Iterator[Message]:
        """The messages completed by the `count` bytes just written; raises WireError or LimitError where they break."""
        self._stop += count
        return self._drain()

    def feed(self, data: Buffer) -> Iterator[Message]:
        """The messages completed by `data`, read in place; the few that began in earlier bytes own theirs."""
        rest: Bytes = np.frombuffer(data, np.uint8)
        while len(rest) and self._start < self._stop:
            taken = self._complete(rest)
            yield from self.received(taken)
            rest = rest[taken:]
        at = 0
        while at < len(rest) and (found := self._next(rest, at, stop=len(rest))):
            message, size = found
            at += size
            yield message
        if len(rest):
            self._buffer, self._start, self._stop = rest[at:].copy(), 0, len(rest) - at

    def read(self, data: Buffer) -> Iterator[Message]:
        """The whole messages at the start of `data`, read in place; what follows them is not kept but given again.

        For a caller that has the stream in one piece, as in a mapped file: `data` begins at its byte `position`.
        """
        rest: Bytes = np.frombuffer(data, np.uint8)
        at = 0
        while at < len(rest) and (found := self._next(rest, at, stop=len(rest))):
            message, size = found
            at += size
            yield message

    def finish(self) -> None:
        """Raises WireError if the stream stops inside a message."""
        have = self._stop - self._start
        if have:
            place = _Place(self._buffer, self._start, self.position, self.limits)
            need = _needed(place, have)
            kind = _WORDS[_kind(place)] if have >= _ID else "next"
            raise WireError(
                f"the stream stops inside the {kind} message at byte {self.position}, "
                f"{have} of {need} or more bytes came: send the rest"
            )

    def _drain(self) -> Iterator[Message]:
        while self._start < self._stop and (found := self._next(self._buffer, self._start, stop=self._stop)):
            message, size = found
            self._start += size
            yield message

    def _next(self, data: Bytes, start: int, *, stop: int) -> tuple[Message, int] | None:
        """The message at `start` and its bytes, or None if not all of it is there before `stop`."""
        if self._closed:
            raise WireError(f"bytes follow the close message at byte {self.position}: open a new stream for a new scan")
        place = _Place(data, start, self.position, self.limits)
        size = _needed(place, stop - start)
        if stop - start < size:
            return None
        message, taken = _take(place, size, have=stop - start)
        self._closed = isinstance(message, Close)
        self.position += taken
        return message, taken

    def _complete(self, rest: Bytes) -> int:
        """Append to the carried bytes as much of `rest` as the message they begin may need; returns how much."""
        need = self._need()
        if self._start + need > len(self._buffer):
            self._move(np.empty(self._grown(need), np.uint8))
        taken = min(len(rest), min(self._start + need, len(self._buffer)) - self._stop)
        self._buffer[self._stop : self._stop + taken] = rest[:taken]
        return taken

    def _make_room(self) -> None:
        need = self._need()
        wanted = max(self._buffer_bytes, self._grown(need))
        if wanted > len(self._buffer):
            self._move(np.empty(wanted, np.uint8))
        elif self._start:
            self._move(self._buffer)

    def _need(self) -> int:
        return _needed(_Place(self._buffer, self._start, self.position, self.limits), self._stop - self._start)

    def _grown(self, need: int) -> int:
        """Bytes of buffer for a message of `need`: a small multiple of what has come: a claim alone costs nothing."""
        return min(need, max(2 * (self._stop - self._start), 1 << 16))

    def _move(self, buffer: Bytes) -> None:
        """Carry on in `buffer`, with the bytes not yet consumed at its front."""
        have = self._stop - self._start
        buffer[:have] = self._buffer[self._start : self._stop]
        self._buffer, self._start, self._stop = buffer, 0, have


def _take(place: _Place, size: int, *, have: int) -> tuple[Message, int]:
    """The message at `place` and its bytes; an acquisition comes with all those of its size that follow it."""
    if _kind(place) != MessageId.ACQUISITION:
        return _read(place, size), size
    count = _run_length(place.data, place.at, stride=size, most=have // size)
    return AcquisitionRun(_views(place.data, place.at, count=count), place.offset, size), count * size


# ---- encoding ----


def encode_config_file(name: str) -> bytes:
    """A CONFIG_FILE message; raises WireError for a name beyond 1023 bytes."""
    data = name.encode()
    if len(data) >= CONFIG_FILE_BYTES:
        raise WireError(f"the config file name is {len(data)} bytes long, {CONFIG_FILE_BYTES - 1} fit: shorten it")
    return struct.pack(f"<H{CONFIG_FILE_BYTES}s", MessageId.CONFIG_FILE, data)


def encode_config_text(text: str) -> bytes:
    """A CONFIG_TEXT message."""
    return _encode_text(MessageId.CONFIG_TEXT, text.encode())


def encode_header(xml: bytes) -> bytes:
    """A HEADER message."""
    return _encode_text(MessageId.HEADER, xml)


def encode_text(text: str) -> bytes:
    """A TEXT message."""
    return _encode_text(MessageId.TEXT, text.encode())


def _encode_text(kind: MessageId, data: bytes) -> bytes:
    return struct.pack("<HI", kind, len(data)) + data


def encode_query(name: str, *, correlation: int) -> bytes:
    """A QUERY message."""
    data = name.encode()
    return struct.pack("<HQQQ", MessageId.QUERY, 0, correlation, len(data)) + data


def encode_response(text: str, *, correlation: int) -> bytes:
    """A RESPONSE message."""
    data = text.encode()
    return struct.pack("<HQQ", MessageId.RESPONSE, correlation, len(data)) + data


def encode_close() -> bytes:
    """A CLOSE message."""
    return struct.pack("<H", MessageId.CLOSE)


def encode_waveform(waveform: Waveform) -> bytes:
    """A WAVEFORM message."""
    samples = np.ascontiguousarray(waveform.samples, "<u4")
    return struct.pack("<H", MessageId.WAVEFORM) + waveform_head(waveform).tobytes() + samples.tobytes()


def encode_image(image: Image) -> bytes:
    """An IMAGE message with float32 or complex64 pixels."""
    meta = image_meta(image)
    head = image_head(image, attribute_bytes=len(meta))
    pixels = np.ascontiguousarray(image.pixels, "<c8" if np.iscomplexobj(image.pixels) else "<f4")
    length = struct.pack("<Q", len(meta))
    return b"".join((struct.pack("<H", MessageId.IMAGE), head.tobytes(), length, meta, pixels.data))


def encode_readouts(readouts: Readouts, *, memory: Bytes | None = None) -> Bytes:
    """The ACQUISITION messages of a whole run, one after the other; raises ScanError if heads and arrays disagree.

    They stand at the start of `memory`, contiguous [byte], where it is given and large enough, else in memory of their
    own. Whoever sends piece after piece gives the same again: the first touch of new memory costs more than the copy.
    """
    _check_sizes(readouts)
    parts = [_rows(readouts.head, READOUT_HEAD), _rows(readouts.samples, _SAMPLE)]
    if readouts.trajectory is not None:
        parts.insert(1, _rows(readouts.trajectory, _POINT))
    count, stride = len(readouts.head), _ID + sum(part.shape[1] for part in parts)
    if memory is None or len(memory) < count * stride:
        memory = np.empty(count * stride, np.uint8)
    data = memory[: count * stride].reshape(count, stride)
    data[:, :_ID].view("<u2")[...] = MessageId.ACQUISITION.value
    begin = _ID
    for part in parts:
        data[:, begin : begin + part.shape[1]] = part
        begin += part.shape[1]
    return data.reshape(-1)


def _rows(array: NDArray[np.generic], dtype: np.dtype[np.generic]) -> Bytes:
    """The bytes of each readout, [readout, byte]: copied bytewise, unaligned rows move at the speed of memory."""
    array = array.astype(dtype, copy=False).reshape(len(array), math.prod(array.shape[1:]))
    if array.strides[-1] != dtype.itemsize:
        array = np.ascontiguousarray(array)
    return array.view(np.uint8)


def _check_sizes(readouts: Readouts) -> None:
    _, coils, samples = readouts.samples.shape
    axes = 0 if readouts.trajectory is None else readouts.trajectory.shape[2]
    for name, size in (("number_of_samples", samples), ("active_channels", coils), ("trajectory_dimensions", axes)):
        wrong = readouts.head[name] != size
        if np.count_nonzero(wrong):
            first = int(wrong.argmax())
            raise ScanError(
                f"{name} is {readouts.head[name][first]} in the head of readout {first}, but its array has {size}: "
                "make the head agree"
            )

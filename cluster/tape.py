"""A simulated scan as the bytes that its scanner sends, with the moment at which each message is due."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.mrd.wire import encode_close, encode_config_file, encode_header, encode_readouts, encode_waveform
from recon.multiband import bands_of
from recon.scan import TICK_S, Counters, Flag, Readouts, ScanHeader
from recon.simulate import SimulatedScan
from recon.simulate.heads import FIRST_TICK


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """A scan as bytes: message i ends at `ends`[i] in `data` and is due at `due_s`[i]; with it `readouts`[i] are sent.

    Times count from the scan's begin; a readout is due when it has been measured. `images` names the message that
    completes each image.
    """

    data: memoryview
    ends: NDArray[np.int64]
    due_s: NDArray[np.float64]
    readouts: NDArray[np.int64]
    images: Mapping[Counters, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One message of a tape; `images` are what it completes."""

    due_s: float
    data: bytes | memoryview
    readout: bool = False
    images: tuple[Counters, ...] = ()


def record(simulated: SimulatedScan, *, method: str = "auto") -> Tape:
    """The scan on tape: config file, header, readouts and physiology in the order of time, close."""
    scan = simulated.scan
    begin = encode_config_file(method) + encode_header(scan.header.xml)
    parts = [_Part(0.0, begin), *_physiology(simulated), *_measured(simulated)]
    parts.sort(key=lambda part: part.due_s)  # stable: readouts keep their order
    parts.append(_Part(parts[-1].due_s, encode_close()))
    return Tape(
        data=memoryview(b"".join(part.data for part in parts)),
        ends=np.cumsum([len(part.data) for part in parts]),
        due_s=np.array([part.due_s for part in parts]),
        readouts=np.cumsum([part.readout for part in parts]),
        images={image: i for i, part in enumerate(parts) for image in part.images},
    )


def _physiology(simulated: SimulatedScan) -> Iterator[_Part]:
    for waveform in simulated.scan.waveforms:
        seconds = waveform.samples.shape[1] * waveform.sample_time_us * 1e-6
        yield _Part((waveform.time_stamp - FIRST_TICK) * TICK_S + seconds, encode_waveform(waveform))


def _measured(simulated: SimulatedScan) -> Iterator[_Part]:
    first = 0
    for run in simulated.scan.readouts:
        starts = simulated.start_s[first : first + len(run.head)]
        first += len(run.head)
        seconds = run.head["number_of_samples"] * run.head["sample_time_us"] * 1e-6
        messages = encode_readouts(run).reshape(len(run.head), -1)
        completed = _completed(run, simulated.scan.header)
        for due_s, message, images in zip((starts + seconds).tolist(), messages, completed, strict=True):
            yield _Part(due_s, message.data, readout=True, images=images)


def _completed(run: Readouts, header: ScanHeader) -> list[tuple[Counters, ...]]:
    last = (run.head["flags"] & np.uint64(Flag.LAST_IN_SLICE.mask)) != 0
    return [_images(head, header) if ends else () for head, ends in zip(run.head, last, strict=True)]


def _images(head: np.void, header: ScanHeader) -> tuple[Counters, ...]:
    """The images that a frame's last readout completes: one, or that of each slice excited together."""
    names = ("slice", "contrast", "phase", "repetition", "set")
    frame = Counters(**{name: int(head[name]) for name in names})
    encoding = header.encodings[int(head["encoding_space_ref"])]
    slices = (frame.slice,) if encoding.multiband is None else bands_of(encoding, frame.slice).slices
    return tuple(replace(frame, slice=number) for number in slices)

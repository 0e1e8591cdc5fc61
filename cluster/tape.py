"""A simulated scan as the bytes that its scanner sends, with the moment at which each message is due."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.mrd.wire import encode_close, encode_config_file, encode_header, encode_readouts, encode_waveform
from recon.scan import TICK_S, Counters, Flag, Readouts
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
    """One message of a tape; `image` is what it completes."""

    due_s: float
    data: bytes | memoryview
    readout: bool = False
    image: Counters | None = None


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
        images={part.image: i for i, part in enumerate(parts) if part.image is not None},
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
        for due_s, message, image in zip((starts + seconds).tolist(), messages, _completed(run), strict=True):
            yield _Part(due_s, message.data, readout=True, image=image)


def _completed(run: Readouts) -> list[Counters | None]:
    names = ("slice", "contrast", "phase", "repetition", "set")
    last = (run.head["flags"] & np.uint64(Flag.LAST_IN_SLICE.mask)) != 0
    return [
        Counters(**{name: int(head[name]) for name in names}) if ends else None
        for head, ends in zip(run.head, last, strict=True)
    ]

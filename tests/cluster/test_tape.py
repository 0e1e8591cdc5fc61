"""A scan on tape: the bytes mean the scan, and nothing is due before it has been measured."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cluster.tape import Tape, record
from recon.mrd.wire import AcquisitionRun, Close, ConfigFile, Decoder, HeaderXml, Message, WaveformMessage
from recon.multiband import groups_of
from recon.simulate import PROTOCOLS, SimulatedScan, simulate

NAMES = tuple(PROTOCOLS)
IMAGE = ("slice", "contrast", "phase", "repetition", "set")


@cache
def scan(name: str) -> SimulatedScan:
    return simulate(name, matrix=16, coils=2, repetitions=2)


@cache
def tape(name: str) -> Tape:
    return record(scan(name), method="fft")


def messages(name: str) -> list[Message]:
    decoder = Decoder()
    found = list(decoder.feed(tape(name).data))
    decoder.finish()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_are_the_scan(name: str) -> None:
    found = messages(name)
    assert found[0] == ConfigFile("fft", 0)
    assert isinstance(found[1], HeaderXml)
    assert found[1].xml == scan(name).scan.header.xml
    assert isinstance(found[-1], Close)
    runs = [message.readouts for message in found if isinstance(message, AcquisitionRun)]
    for mine in scan(name).scan.readouts:
        size = mine.samples.shape[2]
        theirs = [run for run in runs if run.samples.shape[2] == size]
        assert b"".join(run.head.tobytes() for run in theirs) == mine.head.tobytes()
        np.testing.assert_array_equal(np.concatenate([run.samples for run in theirs]), mine.samples)
    waveforms = [message.waveform for message in found if isinstance(message, WaveformMessage)]
    assert [w.time_stamp for w in waveforms] == [w.time_stamp for w in scan(name).scan.waveforms]


@pytest.mark.parametrize("name", NAMES)
def test_the_ismrmrd_package_reads_the_tape(name: str) -> None:
    from ismrmrd import Acquisition, Waveform
    from ismrmrd.serialization import ProtocolDeserializer

    with ProtocolDeserializer(io.BytesIO(tape(name).data)) as reader:
        found = list(reader.deserialize())
    readouts = [item for item in found if isinstance(item, Acquisition)]
    expected = np.concatenate([run.head["scan_counter"] for run in scan(name).scan.readouts])
    assert [readout.scan_counter for readout in readouts] == expected.tolist()
    np.testing.assert_array_equal(readouts[-1].data, scan(name).scan.readouts[-1].samples[-1])
    assert sum(isinstance(item, Waveform) for item in found) == len(scan(name).scan.waveforms)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_due_before_it_is_measured(name: str) -> None:
    on = tape(name)
    assert on.ends[-1] == len(on.data)
    assert len(on.ends) == len(on.due_s) == len(on.readouts)
    assert (np.diff(on.due_s) >= 0).all()
    first = np.flatnonzero(np.diff(on.readouts, prepend=0))
    heads = np.concatenate([run.head[["number_of_samples", "sample_time_us"]] for run in scan(name).scan.readouts])
    measured = scan(name).start_s + heads["number_of_samples"] * heads["sample_time_us"] * 1e-6
    np.testing.assert_allclose(on.due_s[first], measured, rtol=0, atol=1e-9)
    assert on.readouts[-1] == len(measured)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("heart-cine", "heart-free")]
)  # known afterwards
def test_every_image_is_completed_by_its_last_readout(name: str) -> None:
    on, head = tape(name), scan(name).scan.readouts[-1].head
    assert set(on.images) == {truth.counters for truth in scan(name).truth}
    before, encoding = len(scan(name).start_s) - len(head), scan(name).scan.header.encodings[0]
    for counters, message in on.images.items():
        # Slices excited together are one frame, which is numbered by their group.
        frame = replace(counters, slice=counters.slice % groups_of(encoding))
        same = np.all([head[n] == getattr(frame, n) for n in IMAGE], axis=0)
        assert on.readouts[message] == before + np.flatnonzero(same)[-1] + 1

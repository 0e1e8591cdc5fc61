"""What the load generator sends decodes to the frames that it claims."""

from __future__ import annotations

import numpy as np
import pytest

from bench.traffic import Frames, FrameSize, frame_header, frame_readouts
from recon.assemble import Assembler
from recon.mrd.header import parse_header
from recon.mrd.wire import AcquisitionRun, ConfigFile, Decoder, HeaderXml, encode_close

SIZES = [
    FrameSize(coils=2, lines=12, samples=16),
    FrameSize(coils=3, lines=32, samples=20, acceleration=2, calibration=6),
]


@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_are_a_scan_of_the_claimed_frames(size: FrameSize) -> None:
    frames = Frames(size, config="fft", seed=3)
    count = 3
    stream = frames.opening() + b"".join(frames.frame(number).tobytes() for number in range(count)) + encode_close()
    opening, header, *runs, _close = Decoder().feed(stream)
    assert isinstance(opening, ConfigFile)
    assert opening.name == "fft"
    assert isinstance(header, HeaderXml)
    heads = np.concatenate([run.readouts.head for run in runs if isinstance(run, AcquisitionRun)])
    samples = np.concatenate([run.readouts.samples for run in runs if isinstance(run, AcquisitionRun)])
    measured = len(size.measured)
    assert samples.nbytes == count * size.bytes
    np.testing.assert_array_equal(heads["repetition"], np.repeat(np.arange(count), measured))
    np.testing.assert_array_equal(heads["kspace_encode_step_1"], np.tile(size.measured, count))
    expected = frame_readouts(size, seed=3).samples
    np.testing.assert_array_equal(samples, np.tile(expected, (count, 1, 1)))  # only the counter is rewritten


@pytest.mark.parametrize("size", SIZES)
def test_each_frame_is_one_by_the_header(size: FrameSize) -> None:
    header = parse_header(frame_header(size))
    (encoding,) = header.encodings
    assert encoding.encoded.matrix == (1, size.lines, size.samples)
    assert encoding.recon.matrix == (1, size.lines, size.samples // 2)
    assert (header.coils, encoding.acceleration) == (size.coils, (size.acceleration, 1))
    assembler = Assembler(header)
    (frame,) = assembler.add(frame_readouts(size, seed=0).head)
    assert frame.rows.tolist() == list(range(len(size.measured)))


def test_the_measured_lines() -> None:
    assert SIZES[0].measured.tolist() == list(range(12))
    assert SIZES[1].measured.tolist() == sorted({*range(0, 32, 2), *range(13, 19)})
    assert FrameSize().bytes == 32 * 256 * 512 * 8


def test_frames_are_the_same_memory() -> None:
    frames = Frames(SIZES[0], config="null")
    assert frames.frame(1) is frames.frame(65534)
    (run,) = Decoder().feed(frames.frame(65534).tobytes())
    assert isinstance(run, AcquisitionRun)
    assert set(run.readouts.head["repetition"].tolist()) == {65534}

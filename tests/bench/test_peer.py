"""The server that ours is compared with takes the same scans, over a real socket, and its images are right."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench import peer, server
from bench.traffic import Frames, FrameSize, frame_readouts
from recon.mrd.wire import encode_close, encode_waveform
from recon.scan import Waveform
from tests import tolerances
from tests.end_to_end.running import Heard, listen
from tests.laws import assert_near

SIZE = FrameSize(coils=2, lines=12, samples=16)


@contextmanager
def serving(handler: peer.Handler) -> Iterator[socket.socket]:
    """A connection to the server's loop in a thread."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30.0)
        thread = threading.Thread(target=_serve, args=(theirs, handler))
        thread.start()
        yield ours
        thread.join(30.0)
        assert not thread.is_alive()


def _serve(connection: socket.socket, handler: peer.Handler) -> None:
    peer.serve(connection, handler)
    connection.shutdown(socket.SHUT_WR)


def converse(handler: peer.Handler, count: int) -> Heard:
    """Send `count` frames; what came back."""
    frames = Frames(SIZE, config="fft", seed=3)
    with serving(handler) as connection:
        connection.sendall(frames.opening())
        for number in range(count):
            connection.sendall(frames.frame(number).data)
        connection.sendall(encode_close())
        return listen(connection)


def test_images_are_the_inverse_dft() -> None:
    heard = converse(peer.Reconstruct(), 2)
    assert heard.closed
    assert [image.counters.repetition for image in heard.images] == [0, 1]
    kspace = frame_readouts(SIZE, seed=3).samples.transpose(1, 0, 2).astype(np.complex128)
    axes = (1, 2)
    coils = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes), axes=axes), axes)
    truth = np.sqrt((np.abs(coils) ** 2).sum(axis=0))[:, 4:12]
    for image in heard.images:
        assert_near(image.pixels[0, 0], truth, tolerances.rss_image(kspace[0].size, len(kspace)))


def test_what_is_dropped_is_taken_all_the_same() -> None:
    heard = converse(peer.Handler(), 2)
    assert (heard.closed, heard.images, heard.texts) == (True, [], [])


def test_what_is_kept_is_all_there(tmp_path: Path) -> None:
    assert converse(peer.Keep(tmp_path / "scan"), 2).closed
    kept = (tmp_path / "scan").read_bytes()
    readouts = frame_readouts(SIZE, seed=3)
    assert len(kept) == 2 * (SIZE.bytes + readouts.head.nbytes)
    assert kept[readouts.head.itemsize :].startswith(readouts.samples[0].tobytes())


def test_a_message_it_does_not_read_is_named() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode_waveform(Waveform(np.zeros((1, 4), np.uint32), 1000.0, kind=0, time_stamp=0)))
        with pytest.raises(ValueError, match="met message id 1026, it reads 1, 3, 4 and 1008"):
            peer.serve(theirs, peer.Handler())


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    with server.peer("keep", tmp_path / "scan") as endpoint:
        for _ in range(2):  # one connection after another
            with socket.create_connection((endpoint.host, endpoint.port), timeout=30.0) as connection:
                frames = Frames(SIZE, config="null")
                connection.sendall(frames.opening() + frames.frame(0).tobytes() + encode_close())
                assert listen(connection).closed
            assert (tmp_path / "scan").stat().st_size > SIZE.bytes

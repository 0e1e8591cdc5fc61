"""A minimal MRD server read message by message, one Python object per acquisition: what our ingest is compared with.

It has the shape of the serial Python servers in use today (blocking `recv` of each field, one array per acquisition,
NumPy FFT at the end of each frame), written here from the protocol. With `keep` it appends the samples to a file, as a
server must that wants to have them after a crash, and syncs it at CLOSE; otherwise nothing is kept.

    python -m bench.peer drop|fft|keep [FILE]      prints its port, serves connections one by one until it is killed
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.mrd import wire
from recon.scan import READOUT_HEAD, Counters, Flag, Geometry, Image

LAST = Flag.LAST_IN_SLICE.mask


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One acquisition as such servers hold it: `head` a record, `data` [coil, sample]."""

    head: NDArray[np.void]
    data: NDArray[np.complex64]


def receive(connection: socket.socket, length: int) -> bytes:
    """Exactly `length` bytes; EOFError when the sender left."""
    data = connection.recv(length, socket.MSG_WAITALL)
    if len(data) != length:
        raise EOFError
    return data


def read_acquisition(connection: socket.socket) -> Acquisition:
    """The body of one acquisition message."""
    head = np.frombuffer(receive(connection, READOUT_HEAD.itemsize), READOUT_HEAD)[0]
    samples, coils = int(head["number_of_samples"]), int(head["active_channels"])
    receive(connection, 4 * samples * int(head["trajectory_dimensions"]))
    data = np.frombuffer(receive(connection, 8 * samples * coils), np.complex64).reshape(coils, samples)
    return Acquisition(head, data)


def transform(group: list[Acquisition]) -> Image:
    """Centred inverse FFT, readout oversampling of 2 removed, root-sum-of-squares: a plain NumPy chain."""
    kspace = np.stack([acquisition.data for acquisition in group], axis=1)
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2))), axes=(1, 2))
    quarter = kspace.shape[2] // 4
    image = np.sqrt((np.abs(images[:, :, quarter:-quarter]) ** 2).sum(axis=0)).astype(np.float32)
    counters = Counters(repetition=int(group[-1].head["repetition"]))
    return Image(image[None, None], (1.0, 1.0, 1.0), Geometry(), counters)


class Handler:
    """What becomes of the acquisitions of one scan."""

    def take(self, acquisition: Acquisition, connection: socket.socket) -> None:
        """One came: drop it."""

    def close(self) -> None:
        """The scan is complete."""


class Reconstruct(Handler):
    """An image after each frame."""

    def __init__(self) -> None:
        self._group: list[Acquisition] = []

    def take(self, acquisition: Acquisition, connection: socket.socket) -> None:
        """Collect it; send the image after the last of a slice."""
        self._group.append(acquisition)
        if int(acquisition.head["flags"]) & LAST:
            connection.sendall(wire.encode_image(transform(self._group)))
            self._group = []


class Keep(Handler):
    """Append it to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def take(self, acquisition: Acquisition, connection: socket.socket) -> None:
        """Write head and samples."""
        self._file.write(acquisition.head.tobytes())
        self._file.write(acquisition.data.data)

    def close(self) -> None:
        """Have it on the disk."""
        os.fdatasync(self._file.fileno())
        self._file.close()


def serve(connection: socket.socket, handler: Handler) -> None:
    """One scan: read until CLOSE, answer CLOSE."""
    while True:
        (message,) = struct.unpack("<H", receive(connection, 2))
        if message == wire.MessageId.ACQUISITION:
            handler.take(read_acquisition(connection), connection)
        elif message == wire.MessageId.CONFIG_FILE:
            receive(connection, 1024)
        elif message == wire.MessageId.HEADER:
            receive(connection, struct.unpack("<I", receive(connection, 4))[0])
        elif message == wire.MessageId.CLOSE:
            handler.close()
            connection.sendall(wire.encode_close())
            return
        else:
            raise ValueError(f"the comparison server met message id {message}, it reads 1, 3, 4 and 1008")


def main() -> None:
    """Serve connections one after another."""
    mode, *path = sys.argv[1:]
    handlers: dict[str, Callable[[], Handler]] = {
        "drop": Handler,
        "fft": Reconstruct,
        "keep": lambda: Keep(Path(*path)),
    }
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                serve(connection, handlers[mode]())


if __name__ == "__main__":
    main()

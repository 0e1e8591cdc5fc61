"""Files of ISMRMRD's own generator through every door: `submit`, `reconstruct`, MRD over TCP; and its own judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.__main__ import main
from cluster.events import State
from recon.mrd.hdf5 import read_images, stream_scan
from recon.scan import Image
from tests.end_to_end.running import Running, converse, running
from tests.recon.judges import ismrmrd_recon, shepp_logan

FILES = {
    "plain": ("-m", "48", "-c", "4"),
    "repetitions": ("-m", "32", "-c", "3", "-r", "3"),
    "noise scans": ("-m", "32", "-c", "4", "-C"),
    "accelerated": ("-m", "48", "-c", "4", "-a", "2"),
    "calibrated": ("-m", "48", "-c", "4", "-a", "2", "-w", "8"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


def in_order(images: list[Image]) -> list[Image]:
    """By the counters that tell the images of these files apart."""
    return sorted(images, key=lambda image: (image.series, image.counters.repetition))


def check_equal(images: list[Image], others: list[Image]) -> None:
    """The same pictures: one batch or another, one process or another."""
    assert len(images) == len(others)
    for image, other in zip(in_order(images), in_order(others), strict=True):
        assert image.counters == other.counters
        np.testing.assert_allclose(image.pixels, other.pixels, rtol=0, atol=1e-5 * float(other.pixels.max()))


@pytest.mark.parametrize("name", FILES)
def test_the_same_images_through_every_door(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = shepp_logan(tmp_path / "scan.h5", *FILES[name])
    assert main(["submit", str(path), "--server", server.http, "--out", str(tmp_path / "submitted.h5")]) == 0
    said = capsys.readouterr()
    assert f"{path}: " in said.out
    assert main(["reconstruct", str(path), "--device", "cpu", "--out", str(tmp_path / "here.h5")]) == 0
    submitted, here = read_images(tmp_path / "submitted.h5"), read_images(tmp_path / "here.h5")
    heard = converse(server.mrd, b"".join(bytes(piece) for piece in stream_scan(path)))
    assert (heard.texts, heard.closed) == ([], True)
    check_equal(submitted, here)
    check_equal(heard.images, here)
    assert not zero_filled(submitted) and "zero-filled" not in said.err  # the accelerated repetitions are interleaved


def zero_filled(images: list[Image]) -> bool:
    """Whether an image says so of itself."""
    return any("zero-filled" in comment for image in images for comment in image.comments)


def test_what_was_not_measured_is_said(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = shepp_logan(tmp_path / "scan.h5", *FILES["accelerated"]), tmp_path / "images.h5"
    assert main(["submit", str(path), "--server", server.http, "--method", "fft", "--out", str(out)]) == 0
    assert zero_filled(read_images(out)) and "zero-filled" in capsys.readouterr().err


def test_ismrmrds_own_reconstruction_agrees(server: Running, tmp_path: Path) -> None:
    path = shepp_logan(tmp_path / "scan.h5", *FILES["plain"])
    out = tmp_path / "images.h5"
    assert main(["submit", str(path), "--server", server.http, "--method", "fft", "--out", str(out)]) == 0
    (image,) = read_images(out)
    judged = ismrmrd_recon(path)
    ours = image.pixels[0, 0]
    scale = float(np.vdot(ours, judged) / np.vdot(ours, ours))  # it does not normalise its transform
    np.testing.assert_allclose(scale * ours, judged, rtol=0, atol=1e-4 * float(judged.max()))


def test_the_record_tells_the_story(server: Running, tmp_path: Path) -> None:
    path = shepp_logan(tmp_path / "scan.h5", *FILES["noise scans"])
    assert main(["submit", str(path), "--server", server.http, "--priority", "stat"]) == 0
    record = server.service.scans(limit=1)[0]
    assert (record.state, record.priority.name, record.chosen, record.transport) == (State.DONE, "STAT", "fft", "http")

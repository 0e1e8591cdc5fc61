"""Images out, in every form."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from cluster.client import Client, Options
from recon.errors import FileError, PackageError
from recon.mrd.hdf5 import read_images
from recon.mrd.wire import Close, Decoder, ImageMessage
from recon.scan import Image
from tests.cluster import scans
from tests.cluster.gateway.http.conversation import (
    MRD,
    begun,
    check_problem,
    decode,
)
from tests.end_to_end.running import Running, eventually, running


def test_images_as_an_mrd_stream(http: httpx.Client, done: str) -> None:
    for query in ("", "?follow=1"):
        answer = http.get(f"/v1/scans/{done}/images{query}", headers={"accept": "application/x-mrd"})
        assert answer.headers["content-type"] == "application/x-mrd"
        images, texts, closed = decode(answer.content)
        assert (len(images), texts, closed) == (3, [], True)
    rest = decode(http.get(f"/v1/scans/{done}/images?start=2").content)[0]
    np.testing.assert_array_equal(rest[0].pixels, images[2].pixels)
    assert len(rest) == 1
    assert decode(http.get(f"/v1/scans/{done}/images?start=99").content) == ([], [], True)


def test_images_are_followed_as_they_are_made(server: Running) -> None:
    stream = scans.stream(scans.frames(2))
    first = len(stream) - 2 - 11 * (len(stream) // 30)  # the first frame, and a part of the second
    with (
        begun(server, stream, first, until=lambda record: record.images == 1) as (connection, scan),
        httpx.Client(base_url=server.http, timeout=30.0) as client,
        client.stream("GET", f"/v1/scans/{scan}/images?follow=1") as answer,
    ):
        decoder, images, closed = Decoder(), 0, False
        for data in answer.iter_bytes():
            for message in decoder.feed(data):
                closed = closed or isinstance(message, Close)
                if isinstance(message, ImageMessage):
                    images += 1
                    if images == 1:  # the rest is sent only once the first image is here
                        connection.sendall(stream[first:])
    assert (images, closed) == (2, True)


def test_images_as_hdf5_dicom_and_png(server: Running, http: httpx.Client, done: str, tmp_path: Path) -> None:
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": "application/x-hdf5"})
    (tmp_path / "images.h5").write_bytes(answer.content)
    stored = list(server.service.images(done))
    for image, expected in zip(read_images(tmp_path / "images.h5"), stored, strict=True):
        np.testing.assert_array_equal(image.pixels, expected.pixels)
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 3
        assert all(archive.read(name)[128:132] == b"DICM" for name in archive.namelist())
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": "image/png"})
    assert answer.content.startswith(b"\x89PNG")
    assert not list(server.service.config.data.glob("images-*"))  # nothing is left of making the HDF5 file


def test_a_server_without_pydicom_says_so_before_it_answers(
    server: Running, http: httpx.Client, done: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    words = (
        "on the server, DICOM output needs the package pydicom, which is not installed:"
        " install the extra [dicom] or choose .h5"
    )
    for path, accept in (("images", "application/zip"), ("images/0.dcm", "*/*")):
        answer = http.get(f"/v1/scans/{done}/{path}", headers={"accept": accept})
        check_problem(answer, 501, words)
        assert answer.json()["type"] == "urn:recon-cluster:problem:package"
    said: list[str] = []
    with Client(server.http, options=Options(notice=said.append)) as client, pytest.raises(PackageError) as caught:
        client.scan(done).save(tmp_path / "dicom")
    assert (str(caught.value), said) == (words, [])  # at the first attempt
    assert not [*tmp_path.iterdir()]


def test_one_image_as_png_and_as_dicom(http: httpx.Client, done: str) -> None:
    from PIL import Image as pillow

    answer = http.get(f"/v1/scans/{done}/images/1.png")
    assert answer.headers["content-type"] == "image/png"
    with pillow.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (scans.SAMPLES, scans.LINES)
    answer = http.get(f"/v1/scans/{done}/images/1.dcm")
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.content[128:132] == b"DICM"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/x-mrd"),
        ("application/zip;q=0.5, application/x-hdf5;q=0.9, text/html", "application/x-hdf5"),
        ("image/*", "image/png"),
        ("application/x-hdf5;q=nonsense", "application/x-hdf5"),
    ],
)
def test_the_form_of_images_is_negotiated(http: httpx.Client, done: str, accept: str, chosen: str) -> None:
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, chosen)


def test_a_form_that_nobody_offers(http: httpx.Client, done: str) -> None:
    answer = http.get(f"/v1/scans/{done}/images", headers={"accept": "text/html, application/zip;q=0"})
    check_problem(answer, 406, "text/html", "application/x-mrd")


def test_no_images_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images-killed").mkdir()
    (tmp_path / "images-killed" / "scan.h5").write_bytes(b"of a patient")
    wanted = {"accept": "application/x-hdf5"}
    with running(tmp_path) as server:
        assert not list(tmp_path.glob("images-*"))
        answer = httpx.post(f"{server.http}/v1/scans", content=scans.stream(scans.frames(1)), headers=MRD)
        scan = answer.json()["scan"]
        server.service.wait(scan, 30.0)
        assert httpx.get(f"{server.http}/v1/scans/{scan}/images", headers=wanted).status_code == 200
        assert eventually(lambda: not list(tmp_path.glob("images-*")))

        def half(path: Path, images: Iterator[Image]) -> None:
            path.write_bytes(next(iter(images)).pixels.tobytes())
            raise FileError("the disk is full: free some space")

        monkeypatch.setattr("cluster.gateway.pictures.write_images", half)
        check_problem(httpx.get(f"{server.http}/v1/scans/{scan}/images", headers=wanted), 400, "the disk is full")
        assert not list(tmp_path.glob("images-*"))

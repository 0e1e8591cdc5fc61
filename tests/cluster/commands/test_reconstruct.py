"""`recon-cluster reconstruct`: every form of input and output, and every exit status."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
from PIL import Image as Picture

from cluster.__main__ import main
from recon.mrd import wire
from recon.mrd.hdf5 import read_images, stream_scan
from recon.mrd.header import write_header
from recon.scan import Scan
from recon.simulate import save, simulate
from tests.recon.builders import header, noise, readouts_of


def command(*words: object) -> int:
    """The exit status of the command line."""
    return main(["reconstruct", *map(str, words), "--device", "cpu"])


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "brain.h5"
    save(path, simulate("brain-se", seed=1, coils=2, matrix=32))
    return path


@pytest.fixture(scope="module")
def stream_file(scan_file: Path) -> Path:
    path = scan_file.with_name("brain.mrd")
    path.write_bytes(b"".join(bytes(part) for part in stream_scan(scan_file)))
    return path


def test_an_ismrmrd_file_becomes_images_that_the_ismrmrd_package_reads(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "images.h5"
    assert command(scan_file, "--out", out) == 0
    with ismrmrd.Dataset(out, create_if_needed=False) as dataset:
        assert dataset.number_of_images("image_1") == 5
        image = dataset.read_image("image_1", 0)
    assert image.data.shape == (1, 1, 32, 32) and image.field_of_view[0] == pytest.approx(240)
    printed, complained = capsys.readouterr()
    assert printed.startswith("5 images of 32 × 32 × 1 voxels, 7.5 × 7.5 × 5 mm, by fft\n5 images in ")
    assert printed.endswith(f" s → {out}\n") and complained == ""


def test_threads_share_the_work(scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for threads in (1, 2):
        assert (
            command(scan_file, "--method", "cg-sense", "--threads", threads, "--out", tmp_path / f"{threads}.h5") == 0
        )
        found.append([image.pixels for image in read_images(tmp_path / f"{threads}.h5")])
    # Sums over coils are added in another order: ten iterations of it.
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-4 * np.abs(found[0]).max())
    with pytest.raises(SystemExit):
        command(scan_file, "--threads", 0)
    assert "'0' threads, expected 1 or more" in capsys.readouterr().err


def test_a_stream_gives_the_same_images_as_the_file(scan_file: Path, stream_file: Path, tmp_path: Path) -> None:
    for path in (scan_file, stream_file):
        assert command(path, "--out", tmp_path / f"{path.suffix[1:]}.h5") == 0
    one, other = (list(read_images(tmp_path / name)) for name in ("h5.h5", "mrd.h5"))
    assert len(one) == len(other) == 5
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)


def test_a_file_that_is_there_is_replaced(scan_file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert command(scan_file, "--out", tmp_path / "images.h5") == 0
    with h5py.File(tmp_path / "images.h5") as file:
        assert len(file["dataset/image_1/data"]) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["images.h5"]


def test_encoding_spaces_of_different_size_share_a_file(tmp_path: Path) -> None:
    """Files hold images of one size in a series, so each encoding space has a series of its own."""
    spaces = [header((1, n, n), limits={"repetition": (0, 1)}) for n in (16, 24)]
    both = replace(spaces[0], encodings=tuple(space.encodings[0] for space in spaces))
    runs = [
        readouts_of(noise(np.random.default_rng(n), (2, 1, n, n)), encoding_space_ref=i, repetition=repetition)
        for repetition in range(2)
        for i, n in enumerate((16, 24))
    ]
    path, out = tmp_path / "scan.mrd", tmp_path / "images.h5"
    sent = [wire.encode_header(write_header(both)), *(bytes(wire.encode_readouts(run)) for run in runs)]
    path.write_bytes(b"".join([*sent, wire.encode_close()]))
    assert command(path, "--out", out) == 0
    found = [(image.series, image.index, image.counters.repetition, image.pixels.shape) for image in read_images(out)]
    sizes = ((1, 1, 16, 16), (1, 1, 24, 24))
    assert found == [(series, 1 + i, i, sizes[series - 1]) for series in (1, 2) for i in range(2)]


def test_images_as_a_stream_a_picture_and_a_folder(scan_file: Path, tmp_path: Path) -> None:
    for name in ("images.mrd", "images.png", "dicom"):
        assert command(scan_file, "--out", tmp_path / name) == 0
    messages = list(wire.Decoder().feed((tmp_path / "images.mrd").read_bytes()))
    assert [type(message) for message in messages] == [wire.ImageMessage] * 5 + [wire.Close]
    with Picture.open(tmp_path / "images.png") as picture:
        assert picture.mode == "L" and picture.size[0] >= 64
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 5


def test_without_out_it_only_says_what_it_made(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(scan_file) == 0
    assert "→" not in capsys.readouterr().out


def test_warnings_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stream_of(tmp_path, lines=range(0, 16, 2))
    assert command(path) == 0
    assert capsys.readouterr().err == (
        "1 image: 8 of 16 lines were not received, their k-space is taken as zero\n"
        "1 image: undersampled along kspace_encode_step_1: 8 of 16 lines are zero-filled, the image is aliased\n"
    )


def test_a_stream_names_its_own_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stream_of(tmp_path, before=wire.encode_config_file("null"))
    assert command(path) == 0
    assert capsys.readouterr().out.startswith("0 images in ")
    assert command(path, "--method", "fft") == 0
    assert capsys.readouterr().out.startswith("1 image of 16 × 16 × 1 voxels")


def test_a_stream_sets_parameters_in_a_text(tmp_path: Path) -> None:
    path = stream_of(tmp_path, after=wire.encode_text('{"parameters": {"output": "complex"}}'))
    assert command(path, "--out", tmp_path / "images.h5") == 0
    (image,) = read_images(tmp_path / "images.h5")
    assert image.pixels.dtype == np.complex64


def stream_of(
    folder: Path, *, before: bytes = b"", after: bytes = b"", lines: range = range(16), bad: bool = False
) -> Path:
    """A stream of one random image, with messages before and after its header."""
    run = readouts_of(noise(np.random.default_rng(1), (2, 1, 16, 16)))
    if bad:
        run.samples[3, 0, 5] = np.nan
    kept = type(run)(
        run.head[lines.start : lines.stop : lines.step], run.samples[lines.start : lines.stop : lines.step]
    )
    scan = Scan(header((1, 16, 16)), (kept,))
    parts = [before, wire.encode_header(write_header(scan.header)), after, bytes(wire.encode_readouts(kept))]
    path = folder / "scan.mrd"
    path.write_bytes(b"".join([*parts, wire.encode_close()]))
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: object, status: int = 2) -> str:
    assert command(*words) == status
    printed, complained = capsys.readouterr()
    assert printed == "" and complained.count("\n") == 1
    return complained


def test_a_failed_reconstruction_is_status_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, stream_of(tmp_path, bad=True), status=4)
    assert "in coil 0, sample 5, expected finite samples" in message


def test_a_method_for_other_scans_is_status_2(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gridding needs a trajectory" in refused(capsys, scan_file, "--method", "gridding")


def test_an_unknown_method_is_status_2(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'nonsense' is unknown, expected one of auto" in refused(capsys, scan_file, "--method", "nonsense")


def test_an_unknown_ending_is_status_2_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, tmp_path / "no.h5", "--out", tmp_path / "images.jpeg")
    assert (
        message == "images cannot be written as 'images.jpeg', expected .h5, .hdf5, .mrd, .png or a folder: rename it\n"
    )


def test_images_never_replace_the_raw_data(scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw.h5"
    raw.write_bytes(scan_file.read_bytes())
    message = refused(capsys, raw, "--out", raw)
    assert message == f"{raw} holds the raw data, images would replace them: choose another place for the images\n"
    assert raw.read_bytes() == scan_file.read_bytes()


@pytest.mark.parametrize("name", ["images.h5", "images.mrd", "images.png", "dicom"])
def test_a_place_that_cannot_be_written_is_status_2(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "file").touch()  # a folder without the right to write would not stop root
    message = refused(capsys, scan_file, "--out", tmp_path / "file" / name)
    assert re.match(rf"{tmp_path}/file/{name} cannot be written \(.*\): choose another place\n$", message)
    (tmp_path / "taken" / name).mkdir(parents=True)
    (tmp_path / "taken" / name / "other").touch()
    message = refused(capsys, scan_file, "--out", tmp_path / "taken" / name)
    assert f"taken/{name} " in message
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["file", "taken", name, "other"])


@pytest.mark.parametrize("name", ["images.h5", "images.mrd", "images.png", "dicom"])
def test_a_folder_that_is_missing_is_made(scan_file: Path, tmp_path: Path, name: str) -> None:
    assert command(scan_file, "--out", tmp_path / "deep" / "down" / name) == 0
    assert [path.name for path in (tmp_path / "deep" / "down").iterdir()] == [name]


def test_a_missing_package_is_status_2(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "needs the package pydicom" in refused(capsys, scan_file, "--out", tmp_path / "dicom")


def test_a_file_that_is_not_there_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read (No such file or directory)" in refused(capsys, tmp_path / "no.h5")


@pytest.mark.parametrize("content", [b"hello, world", b"\x89HDF\r\n\x1a\nbut no more"])
def test_what_is_neither_form_is_status_2(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.h5"
    path.write_bytes(content)
    assert "scan.h5 is n" in refused(capsys, path)


def test_an_empty_file_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scan.mrd").touch()
    assert "scan.mrd is empty, expected an ISMRMRD HDF5 file or an MRD stream" in refused(capsys, tmp_path / "scan.mrd")


def test_a_broken_off_stream_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stream_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(capsys, path)


def test_a_stream_without_header_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.mrd"
    path.write_bytes(wire.encode_text("hello") + wire.encode_close())
    assert "scan.mrd holds no header" in refused(capsys, path)

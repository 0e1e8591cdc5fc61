"""DICOM files: judged by dciodvfy, read by DCMTK and pydicom, compared with the image that they came from."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest

from recon.errors import PackageError
from recon.export.dicom import stream_zip, to_dicom
from recon.scan import Counters, Diffusion, Geometry, Image, Quantity, ScanHeader
from tests.recon.export.builders import header, image, oblique


def need(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian package {package})")


def read(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def only(made: Image, about: ScanHeader) -> pydicom.Dataset:
    (content,) = to_dicom(made, about)
    return read(content)


def complex_volume() -> np.ndarray:
    rng = np.random.default_rng(2)
    return (rng.standard_normal((1, 3, 6, 8)) + 1j * rng.standard_normal((1, 3, 6, 8))).astype(np.complex64)


NOWHERE = Geometry((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
WEIGHTED = {"diffusion": (Diffusion(0.0), Diffusion(1000.0, (0.6, -0.8, 0.0))), "diffusion_dimension": "set"}
VELOCITY = {"VelocityEncoding_1": 80.0, "VelocityEncodingDirection_1": "0 0 1"}
CASES = {
    "magnitude": (image(), header()),
    "empty header": (image(), ScanHeader(b"", ())),
    "oblique volume": (image(np.ones((1, 4, 6, 8), np.float32), geometry=oblique(1)), header()),
    "complex": (image(complex_volume()), header()),
    "coil images": (image(np.ones((3, 1, 6, 8), np.float32)), header()),
    "signed": (image(-np.ones((1, 1, 6, 8), np.float32), quantity=Quantity.REAL), header()),
    "black": (image(np.zeros((1, 1, 6, 8), np.float32)), header()),
    "no directions": (image(geometry=NOWHERE), header()),
    "cine": (image(counters=Counters(phase=2), physiology_time_stamp=(40, 0, 0)), header(phases=20)),
    "repetitions": (image(counters=Counters(repetition=2), time_stamp=14_400_000), header(repetitions=5)),
    "diffusion": (image(counters=Counters(set=1)), header(**WEIGHTED)),
    "no diffusion": (image(), header(**WEIGHTED)),
    "velocity": (image(counters=Counters(set=1), quantity=Quantity.PHASE), header(user=VELOCITY)),
    "inversion": (image(counters=Counters(contrast=1)), header(ti_ms=(50.0, 150.0))),
    "warnings": (image(comments=("undersampled", "täble moved\\twice")), header(patient_position="FFDL")),
}


@pytest.mark.parametrize("case", CASES)
def test_dciodvfy_finds_no_error(case: str, tmp_path: Path) -> None:
    need("dciodvfy", "dicom3tools")
    for number, content in enumerate(to_dicom(*CASES[case])):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        verdict = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        errors = [line for line in (verdict.stdout + verdict.stderr).splitlines() if line.startswith("Error")]
        assert (verdict.returncode, errors) == (0, [])


def test_dcmtk_reads_the_same_pixels_and_place(tmp_path: Path) -> None:
    need("dcm2xml", "dcmtk")
    made = image(geometry=oblique(7))
    (content,) = to_dicom(made, header())
    (tmp_path / "a.dcm").write_bytes(content)
    command = ["dcm2xml", "--write-binary-data", "--encode-base64", tmp_path / "a.dcm"]
    tree = ElementTree.fromstring(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = {element.get("name"): element.text or "" for element in tree.iter("element")}

    stored = np.frombuffer(base64.b64decode(found["PixelData"]), ">u2").reshape(6, 8)  # dcm2xml encodes big-endian
    slope, intercept = (float(found[name]) for name in ("RescaleSlope", "RescaleIntercept"))
    # Half a step of the stored numbers, and the rounding of float32 in the image's own pixels.
    np.testing.assert_allclose(stored * slope + intercept, made.pixels[0, 0], atol=slope / 2 + 1e-7)
    assert stored.max() == 65535
    directions = [float(value) for value in found["ImageOrientationPatient"].split("\\")]
    np.testing.assert_allclose(directions, [*made.geometry.read_dir, *made.geometry.phase_dir], atol=1e-6)


def place(dataset: pydicom.Dataset, y: int, x: int) -> np.ndarray:
    """PS3.3 C.7.6.2.1.1: where the centre of pixel (y, x) lies."""
    along_row, along_column = np.reshape([float(v) for v in dataset.ImageOrientationPatient], (2, 3))
    between_rows, between_columns = (float(v) for v in dataset.PixelSpacing)
    first = np.array([float(v) for v in dataset.ImagePositionPatient])
    return first + x * between_columns * along_row + y * between_rows * along_column


@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("shape", [(1, 6, 8), (5, 7, 6), (4, 6, 9)])
def test_a_marked_voxel_lies_where_the_file_says(shape: tuple[int, int, int], left_handed: bool) -> None:
    geometry = oblique(11, left_handed=left_handed)
    nz, ny, nx = shape
    z, y, x = nz - 1, 1, nx - 2
    pixels = np.zeros((1, *shape), np.float32)
    pixels[0, z, y, x] = 1
    made = image(pixels, geometry=geometry, spacing_mm=(3.0, 1.5, 2.0))
    # A centred DFT puts the scan's position at index N//2.
    steps_mm = np.array([(z - nz // 2) * 3.0, (y - ny // 2) * 1.5, (x - nx // 2) * 2.0])
    directions = np.array([geometry.slice_dir, geometry.phase_dir, geometry.read_dir])
    marked = np.array(geometry.position_mm) + steps_mm @ directions

    datasets = [read(content) for content in to_dicom(made, header())]
    (bright,) = [dataset for dataset in datasets if dataset.pixel_array.any()]
    row, column = np.argwhere(bright.pixel_array)[0]
    np.testing.assert_allclose(place(bright, row, column), marked, atol=1e-5)  # float32 directions over some 50 mm
    gaps = np.diff([[float(v) for v in dataset.ImagePositionPatient] for dataset in datasets], axis=0)
    np.testing.assert_allclose(gaps, np.tile(3.0 * directions[0], (nz - 1, 1)), atol=1e-5)
    assert len({dataset.SliceLocation for dataset in datasets}) == nz


def test_the_same_images_give_the_same_bytes_again() -> None:
    assert to_dicom(*CASES["complex"]) == to_dicom(*CASES["complex"])


def test_what_the_header_knows_stands_in_the_file() -> None:
    made = image(
        counters=Counters(contrast=1, repetition=2), time_stamp=14_400_001, comments=("undersampled",), index=4
    )
    dataset = only(made, header(repetitions=5))
    expected = {
        "Modality": "MR",
        "PatientName": "Döe^Jane",
        "PatientID": "P1",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "StudyDate": "20260102",
        "StudyTime": "101112.5",
        "StudyID": "S7",
        "StudyDescription": "knee left",  # a backslash would split the value
        "Manufacturer": "Simulated",
        "ProtocolName": "t2_tse",
        "SeriesDescription": "t2_tse",
        "PatientPosition": "HFS",
        "RepetitionTime": 500,
        "EchoTime": 24,
        "EchoNumbers": 2,
        "EchoTrainLength": 3,
        "FlipAngle": 90,
        "MagneticFieldStrength": 1.5,
        "ImagingFrequency": 63.87,
        "MRAcquisitionType": "2D",
        "InPlanePhaseEncodingDirection": "COL",
        "PixelSpacing": [20, 20],
        "SliceThickness": 5,
        "AcquisitionTime": "100000.002",  # 14,400,001 ticks of 2.5 ms
        "TemporalPositionIdentifier": 3,
        "NumberOfTemporalPositions": 5,
        "InstanceNumber": 4,
        "ImageComments": "undersampled",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    }
    assert {keyword: dataset[keyword].value for keyword in expected} == expected
    (software,) = dataset.ContributingEquipmentSequence
    assert (software.Manufacturer, software.SoftwareVersions) == ("recon-cluster", "0.1.0")
    assert software.ContributionDescription == "method fft, recipe ab12, worker worker-0"


def test_what_the_header_does_not_know_is_not_made_up() -> None:
    dataset = only(image(counters=Counters(contrast=2)), header(patient={}, study={}))
    assert dataset.EchoTime is None  # the header has echo times for two contrasts, this is the third
    assert (dataset.PatientName, dataset.PatientBirthDate, dataset.StudyDate) == ("", "", "")
    for keyword in ("AcquisitionTime", "InversionTime", "TriggerTime", "TemporalPositionIdentifier", "ImageComments"):
        assert keyword not in dataset


def test_a_cine_frame_carries_its_delay_after_the_trigger() -> None:
    dataset = only(*CASES["cine"])
    assert (dataset.TriggerTime, dataset.CardiacNumberOfImages, dataset.ScanOptions) == (100.0, 20, "CG")


def test_an_inversion_time_names_the_inversion() -> None:
    dataset = only(*CASES["inversion"])
    assert (dataset.InversionTime, list(dataset.ScanningSequence)) == (150.0, ["RM", "IR"])


def test_missing_directions_are_said_in_the_comment() -> None:
    dataset = only(*CASES["no directions"])
    assert dataset.ImageComments == "The scan gave no directions: orientation and position are assumed, not known"


def test_a_complex_image_is_two_series_of_magnitude_and_phase() -> None:
    pixels = complex_volume()
    datasets = [read(content) for content in to_dicom(image(pixels), header())]
    values = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets])
    steps = [float(d.RescaleSlope) for d in datasets]
    np.testing.assert_allclose(values[:3], np.abs(pixels[0]), atol=steps[0])
    np.testing.assert_allclose(values[3:], np.angle(pixels[0]), atol=steps[3])
    assert [(d.SeriesNumber, d.ImageType[2], d.InstanceNumber) for d in datasets] == [
        *((1, "M", n) for n in (1, 2, 3)),
        *((501, "P", n) for n in (1, 2, 3)),
    ]
    assert len({d.SeriesInstanceUID for d in datasets}) == 2


def test_channels_are_numbered_and_named() -> None:
    datasets = [read(content) for content in to_dicom(image(np.ones((3, 1, 6, 8), np.float32), index=2), header())]
    assert [(d.InstanceNumber, d.ImageComments) for d in datasets] == [(3 + n, f"Channel {n} of 3") for n in (1, 2, 3)]


def series_of_two() -> Iterator[Image]:
    yield image(index=1, counters=Counters(slice=0))
    yield image(index=2, counters=Counters(slice=1))
    yield image(np.ones((1, 2, 6, 8), np.float32), series=2)


def test_an_archive_holds_one_file_per_plane() -> None:
    pieces = list(stream_zip(series_of_two(), header(), scan_id="s"))
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "series-001/image-00001.dcm",
            "series-001/image-00002.dcm",
            "series-002/image-00001.dcm",
            "series-002/image-00002.dcm",
        ]
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o644}
        datasets = [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 4
    assert len({dataset.StudyInstanceUID for dataset in datasets}) == 1
    assert len({dataset.FrameOfReferenceUID for dataset in datasets}) == 1


def test_a_zip_is_sent_while_images_still_come() -> None:
    asked = []

    def slow() -> Iterator[Image]:
        for number, made in enumerate(series_of_two()):
            asked.append(number)
            yield made

    pieces = stream_zip(slow(), header())
    assert b"series-001/image-00001.dcm" in next(pieces)
    assert asked == [0]


def test_without_pydicom_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(PackageError) as caught:
        to_dicom(image(), header())
    assert str(caught.value) == (
        "DICOM output needs the package pydicom, which is not installed: install the extra [dicom] or choose .h5"
    )


def test_weightings_are_told() -> None:
    strong, none, fast = (only(*CASES[name]) for name in ("diffusion", "no diffusion", "velocity"))
    assert (strong.DiffusionBValue, strong.DiffusionGradientOrientation) == (1000.0, [0.6, -0.8, 0.0])
    assert (none.DiffusionBValue, "DiffusionGradientOrientation" in none) == (0.0, False)
    assert (fast.VelocityEncodingMinimumValue, fast.VelocityEncodingMaximumValue) == (-80.0, 80.0)
    assert fast.VelocityEncodingDirection == [0, 0, 1]
    triggered = only(image(physiology_time_stamp=(40, 0, 0)), header(user={"InversionTimeUserInt": 7}))
    assert (triggered.TriggerTime, triggered.ScanOptions) == (100, "CG")
    assert "DiffusionBValue" not in only(image(), header())

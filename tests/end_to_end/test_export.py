"""From a file of ISMRMRD's own generator to DICOM that an outside checker accepts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

import kernels
from cluster.saving import save
from recon.mrd.hdf5 import read_scan
from recon.pipeline import reconstruct
from recon.recipe import Recipe

TOOLS = {"ismrmrd_generate_cartesian_shepp_logan": "ismrmrd-tools", "dciodvfy": "dicom3tools"}


def test_a_generated_file_becomes_dicom_without_an_error(tmp_path: Path) -> None:
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian package {package})")
    made = tmp_path / "made.h5"
    command = ["ismrmrd_generate_cartesian_shepp_logan", "-m", "64", "-c", "4", "-r", "3", "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True)

    scan = read_scan(made)
    images = list(reconstruct(scan, Recipe("fft"), kernels.on("cpu")))
    written = save(images, tmp_path / "dicom", header=scan.header, scan_id="")
    assert len(written) == len(images) == 3
    for path, image in zip(written, images, strict=True):
        verdict = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert verdict.returncode == 0, verdict.stdout + verdict.stderr
        dataset = pydicom.dcmread(path)
        slope = float(dataset.RescaleSlope)
        # Half a step of the stored numbers, and float32's rounding of the image's own pixels.
        step = slope / 2 + float(image.pixels.max()) * np.finfo(np.float32).eps
        np.testing.assert_allclose(dataset.pixel_array * slope, image.pixels[0, 0], rtol=0, atol=step)
        assert (dataset.TemporalPositionIdentifier, dataset.NumberOfTemporalPositions) == (
            image.counters.repetition + 1,
            3,
        )

"""Noise scans kept for later scans: which are found, what the images become, and what is said where none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.config import ClusterConfig
from cluster.events import Extent
from cluster.gateway.upload import Hdf5Upload, feed
from cluster.job import ScanRequest
from cluster.noise import NoiseRef, NoiseStore
from cluster.service import Service
from recon.mrd.hdf5 import write_scan
from recon.mrd.header import parse_header, write_header
from recon.mrd.wire import encode_close, encode_config_file, encode_header, encode_readouts
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Image, Readouts, Scan, ScanHeader
from recon.simulate import simulate
from tests.cluster import scans

WITH_NOISE = simulate("brain-ir", seed=3, matrix=16, coils=2).scan
NOISE, IMAGING = WITH_NOISE.readouts
DEPENDENT = replace(WITH_NOISE.header, measurement_id="later", dependencies=(("Noise", "first"),))
ALONE = replace(WITH_NOISE.header, measurement_id="first")
GONE = "the noise scan 'first' that the header names is not there: the image is not whitened"


def stream(header: ScanHeader, *runs: Readouts) -> bytes:
    parts = [encode_config_file("fft"), encode_header(write_header(header))]
    return b"".join([*parts, *(encode_readouts(run).tobytes() for run in runs), encode_close()])


def images(service: Service, data: bytes) -> list[Image]:
    record = scans.run(service, data)
    assert record.state.value == "done", record.reason
    return list(service.images(record.id))


def pixels(found: list[Image]) -> np.ndarray:
    return np.stack([image.pixels for image in sorted(found, key=lambda image: image.index)])


@pytest.mark.parametrize("runs", [(NOISE,), (NOISE, IMAGING)], ids=["noise alone", "noise and images"])
def test_a_named_noise_scan_whitens_as_one_of_the_scans_own(runs: tuple[Readouts, ...], tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        own = images(service, stream(WITH_NOISE.header, NOISE, IMAGING))
        scans.run(service, stream(ALONE, *runs))
        later = images(service, stream(DEPENDENT, IMAGING))
    np.testing.assert_array_equal(pixels(later), pixels(own))
    assert not any(image.comments for image in later)


def test_noise_of_a_file_whose_stream_was_cut_serves_later_scans(tmp_path: Path) -> None:
    write_scan(tmp_path / "scan.h5", Scan(parse_header(write_header(ALONE)), (NOISE, IMAGING)))
    with scans.serving(tmp_path / "data") as service:
        own = images(service, stream(WITH_NOISE.header, NOISE, IMAGING))
        intake = service.open_scan(ScanRequest("http", method="fft"))
        upload = Hdf5Upload(intake, service.config.spool_folder / f"{intake.scan_id}.h5", service.config)
        feed(upload, (tmp_path / "scan.h5").read_bytes())
        upload.finish()
        record = service.wait(intake.scan_id, 30.0)
        kept = (service.config.spool_folder / f"{record.id}.mrd").stat().st_size
        later = images(service, stream(DEPENDENT, IMAGING))
    assert kept < record.bytes - IMAGING.samples.nbytes
    np.testing.assert_array_equal(pixels(later), pixels(own))


def test_a_missing_noise_scan_leaves_the_image_unwhitened_and_says_so(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        record = scans.run(service, stream(DEPENDENT, IMAGING))
        found = list(service.images(record.id))
        plain = images(service, stream(WITH_NOISE.header, IMAGING))
        lines = [line.text for line in service.log(record.id)]
    np.testing.assert_array_equal(pixels(found), pixels(plain))
    assert all(image.comments == (GONE,) for image in found)
    assert record.warnings == (GONE,)
    assert lines.count(f"warning: {GONE}") == 1
    assert not any(image.comments for image in plain)


def test_without_a_server_it_is_said_too() -> None:
    from kernels import on

    found = list(reconstruct(replace(WITH_NOISE, header=DEPENDENT, readouts=(IMAGING,)), Recipe("fft"), on("cpu")))
    assert all(image.comments == (GONE,) for image in found)
    unasked = Recipe("fft", {"whiten": False})
    found = list(reconstruct(replace(WITH_NOISE, header=DEPENDENT, readouts=(IMAGING,)), unasked, on("cpu")))
    assert not any(image.comments for image in found)


def test_by_scanner_and_coils_where_the_configuration_says_so(tmp_path: Path) -> None:
    with scans.serving(tmp_path, noise_reuse="configuration") as service:
        (*_, early) = images(service, stream(WITH_NOISE.header, IMAGING))
        own = images(service, stream(WITH_NOISE.header, NOISE, IMAGING))
        later = images(service, stream(WITH_NOISE.header, IMAGING))
        other = images(service, stream(replace(WITH_NOISE.header, station="elsewhere"), IMAGING))
    np.testing.assert_array_equal(pixels(later), pixels(own))
    nothing = "no noise scan of this scanner and these coils is stored: the image is not whitened"
    assert early.comments == other[0].comments == (nothing,)


def store(tmp_path: Path, **changes: str) -> tuple[NoiseStore, NoiseRef]:
    config = ClusterConfig(data=tmp_path, **changes)  # type: ignore[arg-type]
    config.spool_folder.mkdir()
    spool = config.spool_folder / "01A.mrd"
    spool.write_bytes(b"raw")
    return NoiseStore(config), NoiseRef(spool, (Extent(10, 100, 128),), 2)


def test_what_is_found_is_what_was_kept(tmp_path: Path) -> None:
    kept, noise = store(tmp_path)
    assert kept.find(DEPENDENT, 2) is None
    kept.keep(ALONE, noise)
    assert kept.find(DEPENDENT, 2) == noise
    assert kept.find(DEPENDENT, 3) is None  # of other coils
    assert kept.find(replace(DEPENDENT, station="elsewhere"), 2) is None
    assert kept.find(replace(DEPENDENT, dependencies=(("SenMap", "first"),)), 2) is None
    assert kept.find(replace(DEPENDENT, dependencies=()), 2) is None  # nobody asked
    noise.spool.unlink()
    assert kept.find(DEPENDENT, 2) is None  # retention took it


def test_names_of_coils_tell_configurations_apart(tmp_path: Path) -> None:
    kept, noise = store(tmp_path, noise_reuse="configuration")
    head, knee = (replace(WITH_NOISE.header, coil_names=(f"{place} 1", f"{place} 2")) for place in ("head", "knee"))
    kept.keep(head, noise)
    assert kept.find(head, 2) == noise
    assert kept.find(knee, 2) is None


def test_an_identity_from_the_wire_names_no_file_of_its_own(tmp_path: Path) -> None:
    kept, noise = store(tmp_path)
    kept.keep(replace(ALONE, measurement_id="../../escape"), noise)
    assert kept.find(replace(DEPENDENT, dependencies=(("noise", "../../escape"),)), 2) == noise
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise", "spool"]
    assert all(len(path.name) == 64 + 5 for path in (tmp_path / "noise").iterdir())


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '{"spool": "01A.mrd", "extents": [[1]], "coils": 2}'])
def test_a_file_cut_short_is_no_noise_scan(text: str, tmp_path: Path) -> None:
    kept, noise = store(tmp_path)
    kept.keep(ALONE, noise)
    for path in (tmp_path / "noise").iterdir():
        path.write_text(text, encoding="utf-8")
    assert kept.find(DEPENDENT, 2) is None


def test_what_cannot_be_kept_harms_no_scan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept, noise = store(tmp_path)
    (tmp_path / "noise").write_text("in the way", encoding="utf-8")
    kept.keep(ALONE, noise)
    assert kept.find(DEPENDENT, 2) is None
    assert caplog.messages == ["a noise scan cannot be kept for later scans: File exists"]

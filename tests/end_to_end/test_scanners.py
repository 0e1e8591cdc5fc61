"""Simulated scanners and a whole server: what comes back is the truth, as near as the noise allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.client import Client
from cluster.scanner import SimulatedScanner, Stage, play
from cluster.verdict import judge
from recon.device import open_device
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.simulate import simulate
from tests.end_to_end.running import running

# Small heads; hearts as they are, because the 8 % are asked of them.
CHOICES: dict[str, dict[str, int]] = {
    "brain-se": {"matrix": 64},
    "head-gre3d": {"matrix": 40},
    "heart-radial": {"coils": 6},
    "heart-spiral": {"repetitions": 4},
}


def check(scanner: SimulatedScanner) -> None:
    """The criterion of the demo, and that nothing but what was asked for came."""
    verdicts = judge([scanner])
    assert len(scanner.images) == len(verdicts)
    for verdict in verdicts:
        assert verdict.passed, (scanner.name, verdict.truth.counters, verdict.words)
    spacing = scanner.simulated.scan.header.encodings[0].recon.spacing_mm
    for image in scanner.images:
        np.testing.assert_allclose(image.spacing_mm, spacing, rtol=1e-6)


def test_four_scanners_at_once_over_mrd(tmp_path: Path) -> None:
    scanners = [SimulatedScanner(simulate(name, seed=2, **choice), speed=0) for name, choice in CHOICES.items()]
    with running(tmp_path) as server:
        errors = play(scanners, lambda scanner: scanner.over_tcp(*server.mrd), watch=lambda statuses: None)
    assert not errors
    for scanner in scanners:
        status = scanner.status()
        assert status.stage is Stage.DONE
        assert status.readouts == status.readouts_of
        assert len(scanner.latencies_s) == status.images_of
        check(scanner)


def test_a_scanner_over_http(tmp_path: Path) -> None:
    scanner = SimulatedScanner(simulate("brain-se", seed=2, matrix=32), speed=20)
    with running(tmp_path) as server, Client(server.http) as client:
        scanner.over_http(client)
    assert scanner.status().stage is Stage.DONE
    check(scanner)


def test_the_capsule_is_on_the_patients_left(tmp_path: Path) -> None:
    """The brightest spot right of the head's edge, taken through the image's own geometry, is where the capsule is."""
    scanner = SimulatedScanner(simulate("head-gre3d", matrix=64, coils=4, noise=0.0), speed=0)
    with running(tmp_path) as server:
        scanner.over_tcp(*server.mrd)
    image = scanner.images[0]
    pixels, place = image.pixels[0], image.geometry
    axes = np.array([place.slice_dir, place.phase_dir, place.read_dir])
    offsets = np.indices(pixels.shape).reshape(3, -1).T - np.array(pixels.shape) // 2
    where = np.array(place.position_mm) + (offsets * image.spacing_mm) @ axes
    # Outside the scalp (76 × 98 × 92 mm) with a margin of two voxels there is nothing but the capsule at (83, 2, 4).
    outside = np.sum((where / [84, 106, 100]) ** 2, axis=1) > 1
    brightest = where[outside][pixels.ravel()[outside].argmax()]
    assert np.abs(brightest - [85, 2, 4]).max() < 6


def test_slices_excited_together_come_back_as_in_memory(tmp_path: Path) -> None:
    """Echo-planar lines, their navigators and the calibration of each slice find their frames, streamed or not."""
    simulated = simulate("head-epi-sms", matrix=32, coils=8)
    scanner = SimulatedScanner(simulated, speed=0)
    with running(tmp_path) as server:
        scanner.over_tcp(*server.mrd)
    assert scanner.status().stage is Stage.DONE
    assert len(scanner.latencies_s) == len(simulated.truth) == len(scanner.images)
    kernels = open_device("cpu")
    here = {image.counters: image for image in reconstruct(simulated.scan, Recipe(), kernels)}
    for image in scanner.images:
        same = here[image.counters]
        assert image.provenance.method == "slice-grappa"
        np.testing.assert_array_equal(image.pixels, same.pixels)
        assert image.geometry.position_mm == pytest.approx(same.geometry.position_mm)
        assert image.attributes["EpiOffResonanceHz"] == same.attributes["EpiOffResonanceHz"]

"""The demo as a user runs it, and that its verdict can be no."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow

from cluster.__main__ import main
from cluster.scanner import SimulatedScanner
from cluster.verdict import CARTESIAN_FACTOR, GRIDDED_NRMSE, allowed_nrmse, judge, summary, surplus
from recon.scan import Counters, Geometry, Image, Trajectory
from recon.simulate import simulate


def run_demo(folder: Path, *options: str) -> dict[str, Any]:
    """Its summary."""
    command = [sys.executable, "-m", "cluster", "demo", "--speed", "0", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads((folder / "recon-demo/summary.json").read_text(encoding="utf-8"))
    return document


def errors_of(document: dict[str, Any]) -> list[float]:
    """How far each image is from its truth."""
    return [image["nrmse"] for scanner in document["scanners"] for image in scanner["images"]]


@pytest.mark.timeout(300)
def test_demo_runs_by_itself_and_leaves_its_pictures(tmp_path: Path) -> None:
    document = run_demo(tmp_path)
    assert document["passed"]
    assert [one["name"] for one in document["scanners"]] == ["brain-se", "head-gre3d", "heart-radial", "heart-spiral"]
    assert document["total"]["images"] == sum(len(one["images"]) for one in document["scanners"]) == 38
    with pillow.open(tmp_path / "recon-demo/montage.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 10  # there is something to see
    log = (tmp_path / "recon-demo/server.log").read_text(encoding="utf-8")
    assert "workers are actors of Ray (local)" in log
    assert "WARNING" not in log
    (tmp_path / "plain").mkdir()
    other = run_demo(tmp_path / "plain", "--ray", "off", "--seed", "1")
    assert other["passed"]
    assert "ray" not in (tmp_path / "plain/recon-demo/server.log").read_text(encoding="utf-8").lower()
    pairs = zip(errors_of(document), errors_of(other), strict=True)
    assert all(one != another for one, another in pairs)  # other coils and other noise


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recon-demo").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 2
    place = tmp_path / "recon-demo"
    assert capsys.readouterr().err == f"{place} cannot be written (File exists): run the demo in another folder\n"


def perfect(scanner: SimulatedScanner) -> list[Image]:
    """The truth, as if it had come back."""
    return [
        Image(truth.pixels[np.newaxis], (1.0, 1.0, 1.0), Geometry(), truth.counters)
        for truth in scanner.simulated.truth
    ]


def test_verdicts_tell_near_images_from_others() -> None:
    scanner = SimulatedScanner(simulate("brain-se", matrix=32))
    images = perfect(scanner)
    allowed = CARTESIAN_FACTOR * scanner.simulated.truth[1].predicted_nrmse
    scanner.images = [
        images[0],
        replace(images[1], pixels=images[1].pixels * np.float32(1 + 0.99 * allowed)),
        replace(images[2], pixels=images[2].pixels * np.float32(1 + 1.5 * allowed)),
        replace(images[3], pixels=images[3].pixels[:, :, 1:]),
    ]
    verdicts = judge([scanner])
    assert [verdict.passed for verdict in verdicts] == [True, True, False, False, False]
    assert verdicts[1].nrmse == pytest.approx(0.99 * allowed, rel=1e-4)
    assert verdicts[2].words.startswith("NRMSE")
    assert verdicts[3].words == verdicts[4].words == "no image of the right size came"


@pytest.mark.parametrize("kind", Trajectory)
def test_every_cartesian_image_is_held_to_its_noise(kind: Trajectory) -> None:
    simulated = simulate("brain-se", matrix=32)
    scan = simulated.scan
    encodings = (replace(scan.header.encodings[0], trajectory=kind),)
    named = replace(simulated, scan=replace(scan, header=replace(scan.header, encodings=encodings)))
    truth = simulated.truth[0]
    lines = kind in (Trajectory.CARTESIAN, Trajectory.EPI)
    assert allowed_nrmse(named, truth) == (CARTESIAN_FACTOR * truth.predicted_nrmse if lines else GRIDDED_NRMSE)


def test_images_that_nobody_expects_fail_the_run() -> None:
    scanner = SimulatedScanner(simulate("brain-se", matrix=32))
    images = perfect(scanner)

    def verdict(more: list[Image]) -> tuple[bool, list[str]]:
        scanner.images = images + more
        document = summary([scanner], judge([scanner]), speed=0)
        assert document["surplus"] == surplus([scanner])
        return document["passed"], document["surplus"]

    assert verdict([]) == (True, [])
    twice, unknown = images[2], replace(images[0], counters=Counters(repetition=7))
    assert verdict([twice]) == (False, [f"brain-se, {twice.counters}: came 2 times, expected 1"])
    assert verdict([unknown]) == (False, [f"brain-se, {unknown.counters}: came 1 times, expected 0"])

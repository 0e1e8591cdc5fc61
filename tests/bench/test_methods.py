"""The table of methods: errors on simulated scans, and the page made of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import kernels
from bench import methods, planar, realtime
from bench.methods import CASES, JUDGES, Case, measure, undersampled
from bench.report import Row
from recon.assemble import is_calibration
from recon.methods import METHODS
from recon.simulate import PROTOCOLS, simulate

ROOT = Path(__file__).parents[2]
CPU = kernels.on("cpu")


def test_cases_name_what_exists() -> None:
    assert {case.protocol for case in CASES} <= set(PROTOCOLS)
    assert {case.method for case in CASES} <= set(METHODS)
    assert len({case.name for case in CASES}) == len(CASES)


def test_judges_are_asked_by_the_tests_that_are_named() -> None:
    asked = {"BART": "Bart(", "BART's SENSE": "Bart(", "`ismrmrd_recon_cartesian_2d`": "ismrmrd_recon("}
    for judge, test in JUDGES.values():
        assert asked[judge] in (ROOT / test).read_text(encoding="utf-8"), test


def test_an_undersampled_scan_keeps_its_noise_scan_its_lattice_and_its_centre() -> None:
    scan = simulate("brain-se", matrix=48, coils=2).scan
    thin = undersampled(scan, 3)
    assert len(thin.readouts[0].head) == len(scan.readouts[0].head)
    head = thin.readouts[1].head
    lines = np.unique(head["kspace_encode_step_1"])
    assert {0, 3, 6, 9, 45} <= set(lines.tolist())
    assert set(range(12, 36)) <= set(lines.tolist())
    assert len(lines) == 24 + 8  # and every third of the other 24
    only = np.unique(head["kspace_encode_step_1"][is_calibration(head["flags"])])
    assert (only % 3 != 0).all()
    assert thin.header.encodings[0].acceleration == (3, 1)


def test_full_scans_err_as_predicted_and_undersampled_ones_more() -> None:
    full, half = measure(CPU, [Case("a", "brain-ir", "fft"), Case("b", "brain-se", "grappa", 2)], matrix=48, coils=6)
    assert full.ratio == pytest.approx(1.0, abs=0.05)
    assert half.ratio is not None
    assert 1.0 < half.ratio < 3.0
    assert (len(full.samples), len(half.samples)) == (6, 5)


def test_patterns_are_unfolded_and_completed() -> None:
    """Zero-filled images are the ones to beat; a smaller grid would spend all its lines on the centre."""
    cases = [case for case in CASES if case.sampled in ("poisson", "half")]
    rows = {row.id: row.value for row in measure(CPU, cases, matrix=48, coils=6)}
    assert set(rows) == {case.name for case in cases}
    for method in ("cg-sense", "l1-wavelet"):
        assert rows[f"methods.head-gre3d.poisson.{method}"] < rows["methods.head-gre3d.poisson.fft"]
    half = "methods.brain-se.half.fft.partial_fourier-"
    for how in ("homodyne", "pocs"):
        assert rows[half + how] < rows[half + "off"]


def test_real_time_frames_are_timed_one_by_one() -> None:
    found = realtime.measure(CPU, matrix=32, frames=2)
    assert found.unit == "ms/frame" and found.baseline == realtime.FRAME_MS
    assert len(found.samples) == 2 and all(0 < ms < 10_000 for ms in found.samples)
    assert found.ratio == pytest.approx(found.value / realtime.FRAME_MS)


def test_the_page_shows_the_newest_result(tmp_path: Path) -> None:
    rows = [asdict(Row(case.name, 0.04, "NRMSE", 0.02, 2.0)) for case in CASES]
    rows.append(asdict(Row(realtime.NAME, 31.4, "ms/frame", 50.0, 0.63)))
    about = {"date": "2026-01-02T03:04:05+00:00", "commit": "abc"}
    for day in ("2026-01-01", "2026-01-02"):
        stored = tmp_path / f"{day}-cpu-abc-methods.json"
        stored.write_text(json.dumps({"environment": about, "rows": rows}), encoding="utf-8")
    assert methods.newest(tmp_path).name.startswith("2026-01-02")
    page = methods.page(methods.newest(tmp_path))
    judge = "BART's SENSE ([test](../tests/recon/methods/test_unfolding.py))"
    row = f"| 2-D spin echo, undersampled | `grappa` | `brain-se` | 2 | 4.00 % | 2.00 % | 2.00 | {judge} |"
    assert row in page
    assert "whenever 17 more are there: 31 ms a frame on one core (median); 50 ms are wanted." in page
    with pytest.raises(FileNotFoundError, match="no result of `recon-cluster bench methods` lies in"):
        methods.newest(tmp_path / "empty")


def test_the_page_says_what_else_is_asked_of_echo_planar_images(tmp_path: Path) -> None:
    rows = [
        asdict(Row("methods.head-epi.ghost", 0.004, "", 0.28, 0.0142)),
        asdict(Row("methods.head-epi.displacement", -1.78, "voxels", -1.76, 1.01)),
        asdict(Row("methods.head-epi-sms.mb3.leakage", 0.0123, "", 0.03, 0.41)),
    ]
    stored = tmp_path / "2026-01-01-cpu-abc-methods.json"
    about = {"date": "2026-01-01T03:04:05+00:00", "commit": "abc"}
    stored.write_text(json.dumps({"environment": about, "rows": rows}), encoding="utf-8")
    page = methods.page(stored)
    assert "| ghost of a single shot | 0.40 % | 28.0 % without navigators |" in page
    assert "| displacement by 50 Hz | -1.780 voxels | -1.760 voxels predicted |" in page
    assert "| leakage between 3 slices | 1.23 % | 3 % |" in page


def test_ghosts_leakage_and_displacement_are_measured_as_asked() -> None:
    """At a size small enough for a test, where leakage and ghosts are largest."""
    made = planar.Maker(CPU, 32, 8)
    single, shots = made.ghosts()
    for row in (single, shots):
        assert row.value < 0.01 and row.ratio is not None and row.ratio < 0.05
    assert made.displacement().ratio == pytest.approx(1, abs=0.06)  # 0.6 voxels, of a profile sampled once a voxel
    assert made.leakage(3).value < 0.03


def test_the_document_is_the_page() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == methods.page(methods.newest()), "python -m bench.methods > docs/methods.md"

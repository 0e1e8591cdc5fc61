"""The rows that `bench.calibration` measures, on a small image: the same jobs, not the same figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import calibration, espirit_process
from tests.recon.builders import noise


@pytest.mark.parametrize("bart", [True, False])
def test_every_row_is_measured(bart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MATRIX", 64)
    monkeypatch.setattr(calibration, "GRAPPA_COILS", 8)
    if not bart:
        monkeypatch.setattr(calibration.shutil, "which", lambda _: None)
    elif calibration.shutil.which("bart") is None:
        pytest.skip("bart is not installed: apt-get install bart")
    rows = {row.id: row for row in calibration.measure(rounds=2)}
    assert list(rows) == [
        "espirit.256-8c",
        "espirit.256-8c.process",
        "grappa.256-32c-r3",
        "grappa.256-32c-r3.nrmse",
    ]
    assert all(row.value > 0 for row in rows.values())
    assert (rows["espirit.256-8c"].baseline is not None) == bart
    ratio = rows["grappa.256-32c-r3.nrmse"].ratio
    assert ratio is not None and ratio < 1


def test_files_are_read_back(tmp_path: Path) -> None:
    array = noise(np.random.default_rng(1), (3, 1, 5, 7))
    espirit_process.write_cfl(tmp_path / "array", array)
    assert np.array_equal(espirit_process.read_cfl(tmp_path / "array"), array)

"""The demo's picture: panels where they belong, brightness as stated, the words there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

from recon.errors import ReconError, ScanError
from recon.export import montage
from recon.export.montage import HEADING, LABEL, MARGIN, PANEL, Comparison, draw_montage, write_montage


def comparison(*, error: float = 0.0, nrmse: float = 0.01, spacing_mm: tuple[float, float] = (1.0, 1.0)) -> Comparison:
    truth = np.full((16, 16), 2.0, np.float32)
    return Comparison(
        "brain-se", "2-D spin echo\n8 coils, 16 × 16", truth + np.float32(error), truth, nrmse, 0.02, spacing_mm
    )


def panel(picture: pillow.Image, row: int, column: int) -> np.ndarray:
    left, top = LABEL + column * (PANEL + MARGIN), HEADING + row * (PANEL + MARGIN)
    return np.array(picture.crop((left, top, left + PANEL, top + PANEL)).convert("L"))


def test_image_truth_and_magnified_difference_stand_side_by_side() -> None:
    picture = draw_montage([comparison(), comparison(error=-0.1)], title="two scans")
    assert {int(panel(picture, 0, column)[8, 8]) for column in (0, 1)} == {255}
    assert panel(picture, 0, 2).max() == 0
    # A difference of 0.1 against a white of 2, magnified ten times, is half of white.
    np.testing.assert_allclose(panel(picture, 1, 2), 127.5, atol=1)


def test_a_plane_keeps_its_true_proportions() -> None:
    shown = panel(draw_montage([comparison(spacing_mm=(1.0, 2.0))], title=""), 0, 1) == 255
    assert (shown.any(axis=1).sum(), shown.any(axis=0).sum()) == (PANEL // 2, PANEL)


@pytest.mark.parametrize(("nrmse", "colour"), [(0.01, montage.GOOD), (0.03, montage.BAD)])
def test_the_error_is_written_in_the_colour_of_the_verdict(nrmse: float, colour: str) -> None:
    picture = draw_montage([comparison(nrmse=nrmse)], title="")
    found = {f"#{red:02x}{green:02x}{blue:02x}" for _, (red, green, blue) in picture.getcolors(1 << 20) or []}
    assert colour in found
    assert {montage.GOOD, montage.BAD} - {colour} - found


def test_words_that_the_font_lacks_are_spelt_out(tmp_path: Path) -> None:
    write_montage([], tmp_path / "a.png", title="128² × 2 − Größe")
    write_montage([], tmp_path / "b.png", title="128^2 x 2 - Groe")  # NFKD knows no ß
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_grids_that_differ_are_refused() -> None:
    with pytest.raises(ScanError) as caught:
        Comparison("brain-se", "", np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), 0.0, 0.0)
    assert str(caught.value) == (
        "image of brain-se has shape (2, 3) and its truth (3, 2), expected the same [y, x]: "
        "compare one plane on one grid"
    )


def test_without_pillow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ReconError) as caught:
        draw_montage([], title="")
    assert str(caught.value) == "the montage needs the package pillow, which is not installed: install it"

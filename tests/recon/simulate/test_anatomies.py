"""What the anatomies promise: flow, breathing, labels."""

from __future__ import annotations

import numpy as np
import pytest

from recon.simulate.anatomies import ANATOMIES, BREAST, CAROTID, abdomen_regions, carotid_regions, labels, laminar
from recon.simulate.objects import Region


def area(region: Region) -> float:
    return float(np.pi * np.prod(region.radii_mm[:2]))


@pytest.mark.parametrize("rings", [1, 4, 7])
def test_a_laminar_vessel_carries_half_its_peak_velocity(rings: int) -> None:
    made = laminar(Region("vessel", "blood", "muscle", (0, 0, 0), (3, 2, 40)), 100.0, rings=rings)
    areas = [area(region) for region in made] + [0.0]
    flow = sum((a - b) * region.velocity_cm_s for region, a, b in zip(made, areas[:-1], areas[1:], strict=True))
    assert flow == pytest.approx(area(made[0]) * 50.0, rel=1e-12)
    speeds = [region.velocity_cm_s for region in made]
    assert speeds == sorted(speeds)


def test_labels_name_the_innermost_region() -> None:
    names = [region.name for region in BREAST]
    places = np.array([[11.0, -14.0, 6.0], [-25.0, -8.0, 0.0], [0.0, 48.0, 0.0], [200.0, 0.0, 0.0]])
    assert [names[i] if i >= 0 else "air" for i in labels(BREAST, places)] == ["tumour", "gland", "fat", "air"]


def test_only_the_left_carotid_is_narrow() -> None:
    by_name = {region.name: region for region in CAROTID}
    assert area(by_name["left internal"]) < 0.6 * area(by_name["right internal"])
    assert by_name["plaque"].within == "left internal wall"
    assert by_name["plaque"].center_mm[0] > 0  # LPS: +x is the patient's left


def test_the_pulse_scales_every_velocity() -> None:
    for still, fast in zip(carotid_regions(), carotid_regions(1.8), strict=True):
        assert fast.velocity_cm_s == pytest.approx(1.8 * still.velocity_cm_s)


def test_breathing_moves_organs_down_and_nothing_else() -> None:
    out, deep = abdomen_regions(), abdomen_regions(1.0)
    moves = {a.name: np.subtract(b.center_mm, a.center_mm) for a, b in zip(out, deep, strict=True)}
    assert moves["liver"].tolist() == [0, 0, -15]
    assert moves["left kidney"].tolist() == [0, 0, -10]
    assert not any(moves[name].any() for name in ("fat", "muscle", "spine", "aorta"))


def test_the_four_anatomies() -> None:
    assert list(ANATOMIES) == ["head", "carotid", "breast", "abdomen"]

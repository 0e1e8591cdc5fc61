"""The head and the chest: regions lie where their names say, and each has the brightness of its tissue."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from recon.simulate.anatomies import ANATOMIES, abdomen_regions
from recon.simulate.objects import CHEST, HEAD, Region, chest, fill, head, heart, heart_regions, join
from recon.simulate.phantom import density, inside
from recon.simulate.tissue import TISSUES, Tissue

STATES = (0.0, 0.35, 1.0)
OBJECTS = {"head": HEAD} | {f"heart {state}": (*CHEST, *heart_regions(state)) for state in STATES}
OBJECTS |= {f"{name} with vessels" if name == "head" else name: regions for name, regions in ANATOMIES.items()}
OBJECTS |= {f"abdomen, breath {breath}": abdomen_regions(breath) for breath in (0.5, 1.0)}


def signal(kind: Tissue) -> complex:
    return complex(kind.density, kind.offset_hz / 100)


def surface(region: Region) -> np.ndarray:
    """Many points on the region's edge."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((4000, len(region.radii_mm)))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    shape = fill([region], signal, around=[Region(region.within, "fat", "", region.center_mm, region.radii_mm)])
    return shape.center[0] + direction @ shape.semiaxes[0].T


@pytest.mark.parametrize("name", OBJECTS)
def test_regions_lie_within_their_region_and_apart_from_others(name: str) -> None:
    regions = OBJECTS[name]
    place = {region.name: i for i, region in enumerate(regions)}
    shapes = fill(regions, signal)
    for region in regions:
        if region.within:
            assert inside(shapes, surface(region))[place[region.within]].all(), region.name
    for one, other in combinations(regions, 2):
        if one.within == other.within:
            assert not inside(shapes, surface(one))[place[other.name]].any(), (one.name, other.name)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_region_is_as_bright_as_its_tissue(name: str) -> None:
    regions = OBJECTS[name]
    points = np.concatenate([surface(region) for region in regions])
    covered = inside(fill(regions, signal), points)
    depth = {"": 0}
    for region in regions:
        depth[region.name] = depth[region.within] + 1
    order = np.array([depth[region.name] for region in regions])
    innermost = np.where(covered, order[:, None], 0).argmax(axis=0)
    bright = np.array([signal(TISSUES[region.tissue]) for region in regions])
    expected = np.where(covered.any(axis=0), bright[innermost], 0)
    # Sums of a few numbers of order 1.
    np.testing.assert_allclose(density(fill(regions, signal), points), expected, atol=1e-14)


def test_the_parts_of_the_chest_add_up() -> None:
    whole = fill((*CHEST, *heart_regions(0.4)), signal)
    parts = join(chest(signal), heart(signal, 0.4))
    np.testing.assert_array_equal(parts.center, whole.center)
    np.testing.assert_array_equal(parts.semiaxes, whole.semiaxes)
    np.testing.assert_array_equal(parts.intensity, whole.intensity)


def test_the_heart_ejects_what_hearts_eject() -> None:
    cavity = {state: next(r for r in heart_regions(state) if r.name == "left cavity") for state in (0.0, 1.0)}
    area = {state: np.prod(region.radii_mm) for state, region in cavity.items()}
    assert 0.5 < 1 - area[1.0] / area[0.0] < 0.7


def test_only_the_left_side_of_the_head_carries_the_capsule() -> None:
    capsule = next(region for region in HEAD if region.tissue == "oil")
    left = np.array(capsule.center_mm, np.float64)
    assert left[0] > 0  # LPS: +x is the patient's left
    mirror = left * [-1, 1, 1]
    assert density(head(signal), left[None])[0] == signal(TISSUES["oil"])
    assert density(head(signal), mirror[None])[0] == 0

"""What lies in the simulated scanners: a head in patient coordinates, a chest with a beating heart in its own plane."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from recon.simulate.phantom import Shapes, Vector
from recon.simulate.tissue import TISSUES, Tissue


@dataclass(frozen=True, slots=True)
class Region:
    """A tissue filling an ellipse or ellipsoid `within` another region ("" for air).

    `angle_deg` turns it from the first axis towards the second; `velocity_cm_s` is that of its blood, towards the head.
    """

    name: str
    tissue: str
    within: str
    center_mm: tuple[float, ...]
    radii_mm: tuple[float, ...]
    angle_deg: float = 0.0
    velocity_cm_s: float = 0.0


# Patient coordinates (LPS): x to the patient's left, y to the back, z to the top of the head.
HEAD = (
    Region("scalp", "skin", "", (0, 0, 0), (76, 98, 92)),
    Region("skull", "bone", "scalp", (0, 0, 0), (70, 92, 86)),
    Region("fluid space", "fluid", "skull", (0, 1, -1), (65, 86, 80)),
    Region("cortex", "grey matter", "fluid space", (0, 1, -2), (61, 82, 76)),
    Region("white matter", "white matter", "cortex", (0, 2, -2), (51, 70, 64)),
    Region("left ventricle", "fluid", "white matter", (13, -6, 8), (8, 29, 15), 14),
    Region("right ventricle", "fluid", "white matter", (-13, -6, 8), (7, 27, 14), -14),
    Region("left thalamus", "grey matter", "white matter", (15, 26, -22), (9, 15, 12), -20),
    Region("right thalamus", "grey matter", "white matter", (-15, 26, -22), (9, 15, 12), 20),
    Region("third ventricle", "fluid", "white matter", (0, 6, -16), (3, 12, 9)),
    Region("cerebellum", "grey matter", "white matter", (0, 32, -42), (22, 14, 7)),
    Region("lesion", "lesion", "white matter", (34, 0, 12), (8, 6, 9), 30),
    Region("occipital lesion", "lesion", "white matter", (-22, 46, 6), (4, 5, 6)),
    # On the left side of the scalp only, so that a flipped image is seen at once.
    Region("oil capsule", "oil", "", (83, 2, 4), (5, 7, 7)),
)


def head(signal: Callable[[Tissue], complex]) -> Shapes:
    """The head as ellipsoids in patient coordinates, each tissue as bright as `signal` says."""
    return fill(HEAD, signal)


def heart_regions(contraction: float) -> tuple[Region, ...]:
    """The moving regions: `contraction` 0 at the end of diastole, 1 at the end of systole (ejected area about 60 %)."""
    cavity = 24.0 - 9.0 * contraction
    left = (24.0 - 1.5 * contraction, -12.0 - 1.0 * contraction)
    wall = 33.0 - 2.0 * contraction
    papillary = 0.62 * cavity
    return (
        Region("right ventricle", "blood", "muscle", (-29, -25), (16 - 4 * contraction, 27 - 5 * contraction), 12),
        Region("left wall", "heart", "muscle", left, (wall, wall)),
        Region("left cavity", "blood", "left wall", left, (cavity, cavity)),
        Region("front muscle", "heart", "left cavity", (left[0] + papillary, left[1] - 3), (3.5, 4.5), 20),
        Region("back muscle", "heart", "left cavity", (left[0] - 4, left[1] + papillary), (4.5, 3.5)),
    )


# The plane's own coordinates: x along read, y along phase direction.
CHEST = (
    Region("skin", "fat", "", (0, 0), (146, 106)),
    Region("muscle", "muscle", "skin", (0, 0), (136, 95)),
    Region("right lung", "lung", "muscle", (-86, 4), (34, 62), 6),
    Region("left lung", "lung", "muscle", (92, 10), (29, 52), -8),
    Region("spine", "marrow", "muscle", (-8, 66), (19, 16)),
    Region("aorta", "blood", "muscle", (24, 56), (11, 11)),
)


def chest(signal: Callable[[Tissue], complex]) -> Shapes:
    """The resting part of the chest as ellipses in the imaging plane."""
    return fill(CHEST, signal)


def heart(signal: Callable[[Tissue], complex], contraction: float) -> Shapes:
    """The heart at `contraction` in [0, 1], to be added to the chest."""
    return fill(heart_regions(contraction), signal, around=CHEST)


def fill(regions: Iterable[Region], signal: Callable[[Tissue], complex], *, around: Iterable[Region] = ()) -> Shapes:
    """Shapes that give each region its tissue's signal: a shape adds the difference to the region it lies within."""
    return fill_regions(regions, lambda region: signal(TISSUES[region.tissue]), around=around)


def fill_regions(
    regions: Iterable[Region], signal: Callable[[Region], complex], *, around: Iterable[Region] = ()
) -> Shapes:
    """The same for a signal that depends on more than the tissue, such as the velocity."""
    regions = tuple(regions)
    bright = {region.name: signal(region) for region in (*around, *regions)} | {"": 0j}
    return Shapes(
        np.array([region.center_mm for region in regions], np.float64),
        np.array([_semiaxes(region) for region in regions]),
        np.array([bright[region.name] - bright[region.within] for region in regions], np.complex128),
    )


def join(*parts: Shapes) -> Shapes:
    """Several objects as one."""
    return Shapes(
        np.concatenate([part.center for part in parts]),
        np.concatenate([part.semiaxes for part in parts]),
        np.concatenate([part.intensity for part in parts]),
        parts[0].blur_mm,
    )


def _semiaxes(region: Region) -> Vector:
    angle = np.deg2rad(region.angle_deg)
    turn = np.eye(len(region.radii_mm))
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.asarray(turn @ np.diag(region.radii_mm), np.float64)

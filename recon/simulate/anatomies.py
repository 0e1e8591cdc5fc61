"""Further anatomies in patient coordinates (LPS, mm), made of ellipsoids: their k-space is exact like the head's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from recon.simulate.objects import HEAD, Region, fill_regions
from recon.simulate.phantom import Vector, inside

RINGS = 4  # steps of a parabolic velocity profile


def laminar(vessel: Region, peak_cm_s: float, *, rings: int = RINGS) -> tuple[Region, ...]:
    """`vessel` as nested regions of equal area whose velocities step through a parabola, `peak_cm_s` on the axis.

    Each has the parabola's mean over its ring, so that the flow is that of the parabola: half the peak times the area.
    """
    edges = np.sqrt(np.arange(rings, -1, -1) / rings)
    made: list[Region] = []
    for i, (outer, inner) in enumerate(pairwise(edges)):
        radii = (*(radius * outer for radius in vessel.radii_mm[:2]), vessel.radii_mm[2])
        name, within = (f"{vessel.name} {i}" if i else vessel.name, made[-1].name if made else vessel.within)
        speed = float(peak_cm_s * (1 - (outer**2 + inner**2) / 2))
        made.append(replace(vessel, name=name, within=within, radii_mm=radii, velocity_cm_s=speed))
    return tuple(made)


# What diffusion, perfusion and angiography look at.
VESSELS = (
    *HEAD,
    Region("left rising tract", "rising tract", "white matter", (34, 24, 2), (4, 5, 20)),
    Region("right rising tract", "rising tract", "white matter", (-34, 24, 2), (4, 5, 20)),
    Region("callosum", "crossing tract", "white matter", (0, -6, 31), (14, 20, 5)),
    Region("infarct", "infarct", "white matter", (-34, -8, 6), (8, 11, 10)),
    *laminar(Region("left middle artery", "blood", "white matter", (24, -18, -30), (14, 2, 2), 8), 60),
    *laminar(Region("right middle artery", "blood", "white matter", (-24, -18, -30), (14, 2, 2), -8), 60),
    *laminar(Region("basilar artery", "blood", "white matter", (0, -14, -44), (2.2, 2.2, 12)), 45),
    Region("sagittal sinus", "venous blood", "fluid space", (0, 0, 76.5), (2.5, 10, 1.5), 0, -20),
)


def carotid_regions(beat: float = 1.0) -> tuple[Region, ...]:
    """A neck; `beat` scales all velocities (1: their mean over the heartbeat).

    The left internal carotid has an eccentric plaque with a calcification, the right one is healthy.
    """
    neck = (
        Region("skin", "fat", "", (0, 0, 0), (62, 68, 160)),
        Region("muscle", "muscle", "skin", (0, 0, 0), (58, 64, 150)),
        Region("vertebrae", "marrow", "muscle", (0, 26, 0), (16, 15, 100)),
        Region("airway", "air", "muscle", (0, -26, 0), (9, 8, 100)),
    )
    vessels = [*_side("left", 1, beat), *_side("right", -1, beat)]
    plaque = (
        Region("plaque", "plaque", "left internal wall", (30.1, -4, 33), (1.3, 2.8, 14)),
        Region("calcification", "calcification", "plaque", (29.8, -4.5, 33), (0.6, 1.2, 5)),
    )
    return (*neck, *vessels, *plaque)


def _side(side: str, sign: int, beat: float) -> list[Region]:
    narrow = side == "left"
    lumen = (1.5, 2.6) if narrow else (0.0, 3.6)  # off the wall's centre, radius
    regions: list[Region] = []
    for name, place, wall, (shift, radius), peak in (
        ("common", (28, -8, -46), (5.0, 5.0, 43), (0.0, 3.7), 75.0),
        ("internal", (33, -4, 33), (5.5, 5.5, 32), lumen, 130.0 if narrow else 70.0),
        ("external", (22, -15, 33), (3.2, 3.2, 32), (0.0, 2.2), 65.0),
    ):
        x, y, z = place
        full, outer = f"{side} {name}", (sign * x, y, z)
        regions.append(Region(f"{full} wall", "vessel wall", "muscle", outer, wall))
        blood = Region(full, "blood", f"{full} wall", (sign * (x + shift), y, z), (radius, radius, wall[2] - 3))
        regions += laminar(blood, beat * peak)
    vein = Region(f"{side} jugular", "venous blood", "muscle", (sign * 44, 6, 0), (5, 5, 70))
    return [*regions, *laminar(vein, -20 * beat)]


CAROTID = carotid_regions()

BREAST = (
    Region("skin", "skin", "", (0, 0, 0), (64, 60, 62)),
    Region("fat", "breast fat", "skin", (0, 0, 0), (61, 57, 59)),
    Region("gland", "gland", "fat", (0, -8, 0), (34, 32, 34)),
    Region("tumour", "tumour", "gland", (11, -14, 6), (7, 6, 6), 25),
    Region("cyst", "fluid", "gland", (-14, 2, -8), (5, 4, 5)),
    Region("pectoral muscle", "muscle", "fat", (0, 40, 0), (28, 5, 30)),
    *laminar(Region("artery", "blood", "fat", (-42, 6, 0), (2.5, 2.5, 24)), 30),
)


def abdomen_regions(breath: float = 0.0) -> tuple[Region, ...]:
    """An abdomen; `breath` 0 at the end of expiration, 1 of inspiration: the diaphragm pushes the organs downwards."""
    down, kidneys = -15.0 * breath, -10.0 * breath
    return (
        Region("fat", "fat", "", (0, 0, 0), (168, 118, 185)),
        Region("muscle", "muscle", "fat", (0, 0, 0), (152, 101, 170)),
        Region("spine", "marrow", "muscle", (0, 70, 0), (20, 17, 90)),
        *laminar(Region("aorta", "blood", "muscle", (14, 42, 0), (9, 9, 110)), -60),
        *laminar(Region("vena cava", "venous blood", "muscle", (-13, 40, 0), (9, 8, 110)), 25),
        Region("liver", "liver", "muscle", (-72, -22, 25 + down), (58, 50, 55)),
        Region("gall bladder", "fluid", "liver", (-52, -38, 0 + down), (10, 8, 12)),
        Region("iron-laden part", "iron-laden liver", "liver", (-96, -18, 35 + down), (14, 12, 12)),
        Region("spleen", "spleen", "muscle", (94, 22, 30 + down), (24, 30, 38)),
        Region("stomach", "fluid", "muscle", (58, -42, 35 + down), (34, 25, 28)),
        Region("left kidney", "kidney cortex", "muscle", (64, 44, -48 + kidneys), (24, 19, 32)),
        Region("left kidney marrow", "kidney marrow", "left kidney", (62, 43, -48 + kidneys), (12, 9, 20)),
        Region("right kidney", "kidney cortex", "muscle", (-64, 46, -58 + kidneys), (24, 19, 32)),
        Region("right kidney marrow", "kidney marrow", "right kidney", (-62, 45, -58 + kidneys), (12, 9, 20)),
    )


ABDOMEN = abdomen_regions()

ANATOMIES: Mapping[str, tuple[Region, ...]] = MappingProxyType(
    {"head": VESSELS, "carotid": CAROTID, "breast": BREAST, "abdomen": ABDOMEN}
)


def labels(regions: Iterable[Region], points: Vector) -> NDArray[np.int64]:
    """The number of the innermost of `regions` at each of `points` [..., axis] mm → [...]; −1 in the air around."""
    regions = tuple(regions)
    covered = inside(fill_regions(regions, lambda _: 1), points)
    found = np.full(points.shape[:-1], -1, np.int64)
    for i, region in enumerate(regions):  # a region stands behind the one it lies within
        assert not region.within or region.within in {other.name for other in regions[:i]}
        found[covered[i]] = i
    return found

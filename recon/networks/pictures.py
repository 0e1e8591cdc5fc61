"""What is drawn of a library: a crop of a photograph, or a head in a contrast of its own, at high resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon.networks.sources import Library, Real
from recon.simulate.phantom import Shapes, Vector
from recon.simulate.tissue import Timing, Tissue, gradient_echo, spin_echo

Complex = NDArray[np.complex64]
SHARE_OF_HEADS = 0.5
SHARE_INSIDE = 0.7  # of photographs that lie in air, as a body does


def picture(rng: Generator, library: Library, size: int) -> Real:
    """Something of the library [size, size], from 0 to about 1."""
    drawn = _head(rng, library, size) if rng.random() < SHARE_OF_HEADS else _photograph(rng, library, size)
    drawn = np.rot90(drawn, int(rng.integers(4)))
    return np.ascontiguousarray(drawn[:, ::-1] if rng.random() < 0.5 else drawn)


def _photograph(rng: Generator, library: Library, size: int) -> Real:
    photograph = library.photographs[rng.integers(len(library.photographs))]
    side = round(min(photograph.shape) * rng.uniform(0.5, 1))
    y, x = (rng.integers(n - side + 1) for n in photograph.shape)
    scaled = resized(photograph[y : y + side, x : x + side], size)
    scaled = np.abs((rng.random() < 0.3) - scaled) ** np.float32(rng.uniform(0.6, 1.6))
    return scaled * ellipse(rng, size) if rng.random() < SHARE_INSIDE else scaled


def _head(rng: Generator, library: Library, size: int) -> Real:
    if rng.random() < 0.5:
        plane = library.template[rng.integers(len(library.template))] ** np.float32(rng.uniform(0.6, 1.6))
    else:
        plane = contrast(rng, library.tissues)[library.labels[rng.integers(len(library.labels))]]
    view = round(max(plane.shape) * rng.uniform(0.95, 1.3))
    square = np.zeros((view, view), np.float32)
    part = plane[:view, :view]
    y, x = ((view - n) // 2 for n in part.shape)
    square[y : y + part.shape[0], x : x + part.shape[1]] = part
    return resized(square, size)


def contrast(rng: Generator, tissues: Mapping[int, Tissue]) -> Real:
    """How bright each label [256] is in a sequence drawn at random, the brightest 1."""
    timing = Timing(
        tr_ms=float(np.exp(rng.uniform(np.log(8), np.log(6000)))),
        te_ms=float(rng.uniform(3, 120)),
        flip_deg=float(rng.uniform(8, 90)),
    )
    signal: Callable[[Tissue, Timing], complex] = spin_echo if rng.random() < 0.5 else gradient_echo
    bright = np.zeros(256, np.float32)
    for label, tissue in tissues.items():
        bright[label] = abs(signal(tissue, timing))
    return bright / (bright.max() or np.float32(1))


def ellipse(rng: Generator, size: int) -> Real:
    """1 inside an ellipse drawn at random, 0 outside [size, size]."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2, indexing="ij")
    (cy, cx), (ry, rx), turn = rng.uniform(-0.1, 0.1, 2), rng.uniform(0.6, 0.95, 2), rng.uniform(0, np.pi)
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
    inside: Real = ((u / rx) ** 2 + (v / ry) ** 2 < 1).astype(np.float32)
    return inside


def ellipses(rng: Generator, count: int, view_mm: float) -> Shapes:
    """A body and `count` things in it, with k-space in closed form: axes (x, y), `view_mm` the field of view."""
    center, semiaxes, bright = [np.zeros(2)], [np.diag(view_mm * rng.uniform(0.32, 0.46, 2))], [1.0]
    for _ in range(count):
        turn, radii = rng.uniform(0, np.pi), view_mm * np.exp(rng.uniform(np.log(0.008), np.log(0.15), 2))
        direction = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        place = semiaxes[0] @ rng.uniform(-0.6, 0.6, 2)
        center, semiaxes = [*center, place], [*semiaxes, direction @ np.diag(radii)]
        bright.append(rng.uniform(-0.6, 0.8))
    return Shapes(np.array(center), np.array(semiaxes), np.array(bright, np.complex128))


def smooth_phase(rng: Generator, size: int) -> Complex:
    """exp(iφ) [size, size] of a phase of a few slow waves, as transmit coils and shims leave it."""
    place = np.linspace(-0.5, 0.5, size)
    total = np.full((size, size), rng.uniform(-np.pi, np.pi))
    for wave in rng.uniform(-1, 1, (3, 2)):
        start = rng.uniform(0, 2 * np.pi)
        turns = 2 * np.pi * (place[:, None] * wave[0] + place * wave[1]) + start
        total += rng.uniform(0, 1) * np.sin(turns)
    return np.exp(1j * total).astype(np.complex64)


def resized(plane: Real, size: int) -> Real:
    """`plane` [y, x] with `size` pixels along each axis, averaged where it has more and interpolated where fewer."""
    from PIL import Image

    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR), np.float32)


def places(size: int, view_mm: float) -> Vector:
    """Points (x, y) mm of the centred grid [size, size, axis]."""
    line = (np.arange(size) - size // 2) * (view_mm / size)
    return np.stack(np.broadcast_arrays(line, line[:, None]), axis=-1)

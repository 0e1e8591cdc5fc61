"""Coordinates and weights, the same for every device: checks, folding, density compensation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Kernels, Real

EVEN = 0.02  # how far the mean of d dᵀ over even directions d may be from a third of the identity
FOLD_LIMIT = np.pi * (1 + 1e-6)  # rounding of a float32 π is legal, anything further is a wrong unit


def check_points(points: Real, shape: tuple[int, ...]) -> None:
    """`points` must be real [*samples, axis] within ±π(1 + 1e-6), with the axes of `shape`.

    Raises TypeError or ValueError where they are not; NaN and infinity are beyond π too.
    """
    if points.dtype not in (np.float32, np.float64):
        raise TypeError(f"points have dtype {points.dtype}, expected float32 or float64: convert them first")
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise ValueError(f"shape is {shape}, expected one to three sizes of at least 1: correct the shape")
    if points.ndim < 2 or points.shape[-1] != len(shape) or points.size == 0:
        raise ValueError(f"points have shape {points.shape}, expected [*samples, {len(shape)}] for a grid of {shape}")
    largest = float(np.abs(points).max())
    if not largest <= FOLD_LIMIT:
        raise ValueError(
            f"points reach {largest:g} radians per voxel, expected at most π = {np.pi:.6f}: check the unit"
        )


def fold(points: Real, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """`points` [*samples, axis] in radians per voxel, folded into [−π, π) in float64, for a grid of `shape`.

    Raises as `check_points` does.
    """
    check_points(points, shape)
    exact = points.astype(np.float64) + np.pi
    exact %= 2 * np.pi
    exact -= np.pi
    return exact


def smooth(number: int) -> bool:
    """Whether `number` has no factor but 2, 3 and 5."""
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number == 1


def density_radial(points: Real) -> Real:
    """Density compensation of 2-D spokes through the centre: points [shot, sample, 2] → weights [shot, sample].

    A weight is |ρ|Δρ times half the angle between the neighbouring spokes, over (2π)²: adjoint(weights · y)
    approximates the continuous inverse transform (see `density_pipe_menon`). Raises ValueError where the points are no
    spokes, or reach further on one side only.
    """
    spokes = fold_spokes(points)
    across = spokes[:, -1] - spokes[:, 0]
    angles = np.arctan2(across[:, 0], across[:, 1])
    radii = signed_radii(spokes, angles)
    centre_out = bool(radii[:, 0].min() > -np.diff(radii, axis=1).min() / 2)
    gaps = angular_gaps(angles, 2 * np.pi if centre_out else np.pi)
    lengths = [ramp_out(spoke) if centre_out else ramp_across(spoke) for spoke in radii]
    return (gaps[:, np.newaxis] * lengths / (2 * np.pi) ** 2).astype(np.float32)


def density_koosh(points: Real) -> Real:
    """Density compensation of 3-D spokes through the centre: points [shot, sample, 3] → weights [shot, sample].

    A weight is ρ²Δρ times an even share of all directions, over (2π)³; ρ² has no kink in the centre that would need
    more. Raises ValueError where the points are no spokes, or do not point in all directions evenly.
    """
    if points.ndim != 3 or points.shape[1] < 2 or points.shape[2] != 3:
        raise ValueError(f"points have shape {points.shape}, expected [shot, sample, 3]: use density_pipe_menon")
    spokes = points.astype(np.float64)
    across = spokes[:, -1] - spokes[:, 0]
    along = across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-12)
    radii = np.einsum("ijk,ik->ij", spokes, along)
    spacing = np.diff(radii, axis=1)
    beside = np.linalg.norm(spokes - radii[..., np.newaxis] * along[:, np.newaxis], axis=-1).max()
    if spacing.min() <= 0 or beside > spacing.max():
        raise ValueError("points are not straight spokes through the centre: use density_pipe_menon")
    spread = np.abs(along.T @ along / len(along) - np.eye(3) / 3).max()
    if spread > EVEN:
        raise ValueError(f"directions are uneven by {spread:.2g}, expected at most {EVEN}: use density_pipe_menon")
    share = (4 if radii[:, 0].min() > -spacing.max() else 2) * np.pi / len(along)
    weights: Real = (share * radii**2 * np.gradient(radii, axis=1) / (2 * np.pi) ** 3).astype(np.float32)
    return weights


def fold_spokes(points: Real) -> NDArray[np.float64]:
    """Points [shot, sample, 2] in float64; raises ValueError for any other shape."""
    if points.ndim != 3 or points.shape[1] < 2 or points.shape[2] != 2:
        raise ValueError(f"points have shape {points.shape}, expected [shot, sample, 2]: use density_pipe_menon")
    return points.astype(np.float64)


def signed_radii(spokes: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position of each sample along its spoke [shot, sample]; raises ValueError for what is not a set of equal spokes.

    A spoke may pass the centre at one sample's distance, as gradient delays make it.
    """
    along = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    radii: NDArray[np.float64] = (spokes * along[:, np.newaxis]).sum(axis=-1)
    beside = np.abs((spokes * along[:, np.newaxis, ::-1] * [1, -1]).sum(axis=-1)).max()
    spacing = np.diff(radii, axis=1)
    if spacing.min() <= 0 or beside > spacing.max():
        raise ValueError("points are not straight spokes through the centre: use density_pipe_menon")
    uneven = np.abs(radii[:, 0] + radii[:, -1]).max()
    if radii[:, 0].min() < -spacing.max() and uneven > 2 * spacing.max():
        raise ValueError(f"spokes reach {uneven:g} radians further on one side: use density_pipe_menon")
    return radii


def angular_gaps(angles: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """The angle that each spoke stands for: half the way to both neighbours, modulo `period`; they sum to `period`."""
    order = np.argsort(angles % period)
    ordered = angles[order] % period
    following = np.append(ordered[1:], ordered[0] + period)
    preceding = np.append(ordered[-1] - period, ordered[:-1])
    gaps = np.empty_like(ordered)
    gaps[order] = (following - preceding) / 2
    return gaps


def ramp_across(radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of ∫|ρ| f(ρ) dρ over a spoke through the centre, from its samples at `radii`.

    The kink of |ρ| costs the sum Σ|ρ|Δρ f the amount B₂(a) Δρ² f(0) (Euler and Maclaurin; B₂ is the second Bernoulli
    polynomial, a the place of the centre between two samples), which those two samples get back.
    """
    after = int(np.searchsorted(radii, 0, side="right"))
    step = radii[after] - radii[after - 1]
    place = -radii[after - 1] / step
    weights = ramp(radii)
    weights[after - 1 : after + 1] += np.array([1 - place, place]) * bernoulli(place) * step**2
    return weights


def ramp_out(radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of ∫ρ f(ρ) dρ over a spoke that begins at the centre; see `ramp_across`, of which it is one half."""
    step = radii[1] - radii[0]
    weights = ramp(radii)
    weights[0] += bernoulli(radii[0] / step) / 2 * step**2
    return weights


def ramp(radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """|ρ| Δρ, where Δρ reaches half the way to both neighbours."""
    return np.abs(radii) * np.gradient(radii, np.arange(len(radii)))


def bernoulli(place: float) -> float:
    """The second Bernoulli polynomial."""
    return place**2 - place + 1 / 6


def density_pipe_menon(
    kernels: Kernels, points: Real, shape: tuple[int, ...], *, iterations: int = 10, round_view: bool = False
) -> Real:
    """Density compensation for any trajectory: points [*samples, axis], grid `shape` → weights [*samples] (positive).

    Iterates w ← w / (w ⊛ ψ) (doi:10.1002/(SICI)1522-2594(199901)41:1<179::AID-MRM25>3.0.CO;2-V), ψ being the
    transform of the autocorrelation of the field of view: of the triangle 1 − |r|/N on each axis, which is zero at the
    distances of Cartesian samples, or with `round_view` of the inscribed ellipse's (doi:10.1002/mrm.21840), for
    trajectories that meet Nyquist's condition in a round field of view only, as spirals do.
    Scale: for y_j = X(k_j) = Σ_r x_r exp(−i k_j·r), adjoint(w · y) approximates
    x_r = (2π)⁻ᵈ ∫ X(k) exp(i k·r) dk, so w is an area over (2π)ᵈ, and exactly 1/∏N for a Cartesian trajectory
    (without `round_view`). For k-space of the orthonormal DFT the image is √∏N · adjoint(w · y). Points and weights
    are the host's, the iteration is the device's.
    """
    plan = kernels.nufft(points, tuple(2 * n for n in shape))
    window = ellipse_overlap(shape) if round_view else box_overlap(shape)
    least = window.sum(dtype=np.float64)  # ψ(0); as ψ ≥ 0, anything less at a sample is rounding
    weights = np.ones(plan.samples, np.float32)
    window, weights = kernels.to_device(window), kernels.to_device(weights)
    for _ in range(iterations):
        blurred = plan.forward(window * plan.adjoint(weights.astype(np.complex64)))
        weights /= np.maximum(blurred.real, np.float32(least) * weights)
    return kernels.to_host(weights)


def box_overlap(shape: tuple[int, ...]) -> Real:
    """How much a box of `shape` overlaps itself moved by r, on the doubled grid; 1 at r = 0."""
    window = np.ones((1,) * len(shape), np.float32)
    for axis, n in enumerate(shape):
        triangle = (1 - np.abs(np.arange(-n, n)) / n).astype(np.float32)
        window = window * triangle.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return window


def ellipse_overlap(shape: tuple[int, ...]) -> Real:
    """The same for the ellipse (ellipsoid) inscribed in the box."""
    square = np.zeros((1,) * len(shape))
    for axis, n in enumerate(shape):
        square = square + (np.arange(-n, n) / n).reshape(-1, *(1,) * (len(shape) - 1 - axis)) ** 2
    moved = np.minimum(np.sqrt(square), 1)  # in diameters
    if len(shape) == 1:
        return (1 - moved).astype(np.float32)
    if len(shape) == 2:
        lens: Real = (2 / np.pi * (np.arccos(moved) - moved * np.sqrt(1 - moved**2))).astype(np.float32)
        return lens
    return (1 - 1.5 * moved + 0.5 * moved**3).astype(np.float32)


def density_voronoi(points: Real) -> Real:
    """Density compensation by the cell of each sample: points [*samples, axis] of 2 or 3 axes → weights [*samples].

    A weight is the part of k-space that is nearer to the sample than to any other, over (2π)ᵈ, inside the smallest
    disc (ball) round the centre that holds all samples, or inside the box ±π where samples reach its corners.
    Samples at one place, within 1e-6 radians, share a cell evenly. Scale: see `density_pipe_menon`. Where spokes meet,
    the cell is half as large again as `density_radial` has it, which lifts the image by a constant.
    Raises ValueError for other axes, or fewer than axes + 2 places.
    """
    axes = points.shape[-1]
    if axes not in (2, 3):
        raise ValueError(f"points have {axes} axes, expected 2 or 3: use density_pipe_menon")
    check_points(points, (1,) * axes)
    rounded = np.rint(points.reshape(-1, axes).astype(np.float64) * 1e6) / 1e6
    places, owner, shared = np.unique(rounded, axis=0, return_inverse=True, return_counts=True)
    if len(places) <= axes + 1:
        raise ValueError(f"points lie at {len(places)} places, expected at least {axes + 2}: use density_pipe_menon")
    volumes = cell_volumes(np.concatenate([places, *mirrored(places)]))[: len(places)]
    weights = (volumes / shared)[owner.ravel()] / (2 * np.pi) ** axes
    compensation: Real = weights.reshape(points.shape[:-1]).astype(np.float32)
    return compensation


def mirrored(places: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Copies of `places` [place, axis] on the other side of the boundary, which cut the cells off there."""
    radius = np.linalg.norm(places, axis=-1, keepdims=True)
    reach = radius.max()
    if reach > 1.1 * np.pi:
        sides = [(axis, side) for axis in range(places.shape[1]) for side in (-np.pi, np.pi)]
        return [np.where(np.arange(places.shape[1]) == axis, 2 * side - places, places) for axis, side in sides]
    beyond = reach * (1 + 1e-3)  # not quite at the outermost samples, which would meet their copies
    outer = radius[:, 0] > 0
    return [places[outer] * (2 * beyond / radius[outer] - 1)]


def cell_volumes(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area or volume of the Voronoi cell of each place [place, axis]; of no meaning where a cell is not bounded.

    A cell is a pyramid over each of its facets: the facet's area times half the distance to the neighbour, over d.
    """
    from scipy.spatial import Voronoi  # a CUDA worker need not have SciPy

    diagram = Voronoi(places)
    bounded = [all(corner >= 0 for corner in facet) for facet in diagram.ridge_vertices]
    facets = [facet for facet, whole in zip(diagram.ridge_vertices, bounded, strict=True) if whole]
    pairs = diagram.ridge_points[bounded]
    heights = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=-1) / 2
    parts = facet_areas(diagram.vertices, facets) * heights / places.shape[1]
    return np.bincount(pairs.ravel(), np.repeat(parts, 2), minlength=len(places)).astype(np.float64)


def facet_areas(corners: NDArray[np.float64], facets: list[list[int]]) -> NDArray[np.float64]:
    """Length of each edge (two corners) or area of each convex polygon (corners in order, as a fan of triangles)."""
    if corners.shape[1] == 2:
        ends = corners[np.array(facets)]
        lengths: NDArray[np.float64] = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)
        return lengths
    triangles = np.array([len(facet) - 2 for facet in facets])
    fans = [(facet[0], *pair) for facet in facets for pair in pairwise(facet[1:])]
    a, b, c = np.moveaxis(corners[np.array(fans)], 1, 0)
    halves = np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2
    return np.bincount(np.repeat(np.arange(len(facets)), triangles), halves).astype(np.float64)

"""Frames whose images are known in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import kernels
from kernels.contract import Complex
from recon.cache import Cache
from recon.methods import METHODS, Workbench
from recon.recipe import Recipe, Value
from recon.scan import Calibration, Counters, Encoding, Frame, Geometry, Image, Shape3, Space, Trajectory, Vector3
from tests.recon.builders import noise

CPU = kernels.on("cpu")


def encoding(
    encoded: Shape3,
    *,
    recon: Shape3 | None = None,
    field_mm: Vector3 | None = None,
    kind: Trajectory = Trajectory.CARTESIAN,
) -> Encoding:
    """Encoded voxels of 1 mm; the image is the same unless `recon` and `field_mm` (z, y, x) say otherwise."""
    whole = Space(encoded, (float(encoded[0]), float(encoded[1]), float(encoded[2])))
    image = recon or encoded
    field = field_mm or (float(image[0]), float(image[1]), float(image[2]))
    return Encoding(whole, Space(image, field), {}, kind)


def frame_of(kspace: Complex, *, space: Encoding | None = None, sampled: NDArray[np.bool_] | None = None) -> Frame:
    """A Cartesian frame of k-space [coil, kz, ky, kx], all of it measured unless `sampled` says otherwise."""
    _, nz, ny, nx = kspace.shape
    mask = np.ones((nz, ny), np.bool_) if sampled is None else sampled
    kept = (kspace * mask[None, :, :, None]).astype(np.complex64)
    return Frame(kept, space or encoding((nz, ny, nx)), Counters(), Geometry(), sampled=mask)


def shots_of(kspace: Complex, points: NDArray[np.float32], *, space: Encoding) -> Frame:
    """A frame of k-space [coil, shot, sample] at `points` [shot, sample, axis]."""
    return Frame(kspace, space, Counters(), Geometry(), trajectory=points)


def image_by(
    method: str,
    frame: Frame,
    *,
    calibration: Calibration | None = None,
    cache: Cache | None = None,
    **parameters: Value,
) -> Image:
    """The one image that a method makes of a frame."""
    bench = Workbench(CPU, Cache() if cache is None else cache)
    (image,) = METHODS[method].run(frame, calibration or Calibration(), Recipe(method, parameters), bench)
    return image


def noise_kspace(shape: tuple[int, ...]) -> Complex:
    """Complex noise, the same every time."""
    return noise(np.random.default_rng(5), shape)


# A Gaussian ρ(r) = exp(−|r − c|² / 2σ²) with r in encoded voxels: limited in band and space to 1e-7 for σ = 2 on 32
# voxels and more, so that its continuous transform is its DFT.
SIGMA = 2.0


def blob(shape: tuple[int, ...], center: tuple[float, ...], *, spacing: float = 1.0) -> NDArray[np.float64]:
    """The Gaussian at the voxels of a grid with the given spacing in encoded voxels."""
    axes = np.meshgrid(*((np.arange(n) - n // 2) * spacing for n in shape), indexing="ij")
    return np.asarray(np.exp(-sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)) / (2 * SIGMA**2)))


def blob_kspace(points: NDArray[np.floating], center: tuple[float, ...], voxels: int) -> Complex:
    """Its k-space at `points` [..., axis] (radians per encoded voxel), in units of an orthonormal DFT of `voxels`."""
    d = points.shape[-1]
    envelope = (2 * np.pi * SIGMA**2) ** (d / 2) * np.exp(-(SIGMA**2) * (points.astype(float) ** 2).sum(axis=-1) / 2)
    return (envelope * np.exp(-1j * points @ np.array(center)) / np.sqrt(voxels)).astype(np.complex64)


def grid_points(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The points of a Cartesian grid [*shape, axis] in radians per voxel."""
    axes = np.meshgrid(*(2 * np.pi * (np.arange(n) - n // 2) / n for n in shape), indexing="ij")
    return np.stack(axes, axis=-1)


def spokes(count: int, samples: int) -> NDArray[np.float32]:
    """`count` even spokes [shot, sample, (y, x)] through the centre."""
    angle = np.pi * np.arange(count) / count
    radius = 2 * np.pi * (np.arange(samples) - samples // 2) / samples
    return (radius[None, :, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)[:, None]).astype(np.float32)


def distance(image: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Relative distance in norm."""
    return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))

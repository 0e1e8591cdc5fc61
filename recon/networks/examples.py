"""Measurements simulated from pictures: what a network is shown, and the truth beside it.

No picture is transformed at the resolution that it is reconstructed at: it is drawn finer, multiplied by coils and
phase there, and k-space is cropped; k-space of ellipses is exact. So the data hold the truncation and the coils'
fall-off that measured data hold (doi:10.1073/pnas.2117203119).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft

from kernels.contract import Kernels
from kernels.geometry import density_radial
from recon.networks.measured import Measured, cartesian, weighted
from recon.networks.pictures import Complex, ellipses, picture, places, smooth_phase
from recon.networks.sources import Library, Real
from recon.simulate.coils import Coils, coil_grid_spectrum, fit, loops, receive_field
from recon.simulate.phantom import Shapes, Vector, grid_spectrum
from recon.simulate.phantom import density as density_at
from recon.simulate.trajectories import golden_spokes

VIEW_MM = 220.0
FINER = 2  # pixels of what is measured to one of the image
FINEST = 4  # where the truth is the mean over a voxel
SHARE_EXACT = 0.2  # of examples that are ellipses
COILS = (6, 8, 12, 16)
SIGNAL = (8.0, 300.0)  # the brightest hundredth of the image, over the noise
FEWEST_CENTRE, WIDEST_CENTRE = 8, 0.12  # lines, share of them


@dataclass(frozen=True, slots=True, eq=False)
class Undersampled:
    """K-space [coil, kx, ky], zero where `lines` [ky] is, of the image `truth` [x, y].

    Noise σ = 1 in each part of a sample; `maps` [coil, x, y] with Σ|S|² = 1.
    """

    kspace: Complex
    maps: Complex
    lines: Real
    truth: Complex


@dataclass(frozen=True, slots=True, eq=False)
class Spokes:
    """Samples [coil, spoke, sample] at `points` [spoke, sample, axis] in radians per voxel; the rest as `Undersampled`.

    `acceleration` is the spokes that Nyquist asks for over those that there are.
    """

    samples: Complex
    points: Real
    maps: Complex
    truth: Complex
    acceleration: float


@dataclass(frozen=True, slots=True, eq=False)
class Noisy:
    """An `image` [y, x] with noise σ = `noise` [y, x] in each part, and the `truth` [y, x], each voxel's mean."""

    image: Complex
    noise: Real
    truth: Complex


def undersampled(rng: Generator, library: Library, size: int) -> Undersampled:
    """An example of layer 1, `size` pixels along each axis: 2 to 8 times undersampled, coils and noise at random."""
    coils = random_coils(rng, int(rng.choice(COILS)))
    lines = mask(rng, size, acceleration=float(rng.uniform(2, 8)))
    signal = float(np.exp(rng.uniform(*np.log(SIGNAL))))
    if rng.random() < SHARE_EXACT:
        return of_shapes(rng, ellipses(rng, int(rng.integers(4, 30)), VIEW_MM), coils, lines=lines, signal=signal)
    drawn = picture(rng, library, FINER * size)
    return of_picture(rng, drawn, coils, lines=lines, signal=signal)


def of_picture(rng: Generator, drawn: Real, coils: Coils, *, lines: Real, signal: float) -> Undersampled:
    """What `coils` measure of a picture [x, y], with a phase of its own, on a grid that has `lines` along y."""
    grid = round(len(lines) * drawn.shape[0] / drawn.shape[1]), len(lines)
    body = drawn * phase_like(rng, drawn.shape)
    fine = unit_norm(maps_on(coils, drawn.shape)) * body
    exact = cropped(centred(fft.fft2, fine), grid)
    return _measured(rng, exact, unit_norm(maps_on(coils, grid)), lines=lines, signal=signal)


def of_shapes(rng: Generator, shapes: Shapes, coils: Coils, *, lines: Real, signal: float) -> Undersampled:
    """The same of ellipses, by the transform in closed form; the image is as bright as the coils together see it."""
    size = len(lines)
    exact = coil_grid_spectrum(shapes, coils, matrix=(size, size), field_of_view_mm=np.full(2, VIEW_MM))
    maps = unit_norm(maps_on(coils, (size, size)))
    return _measured(rng, exact.astype(np.complex64), maps, lines=lines, signal=signal)


def _measured(rng: Generator, exact: Complex, maps: Complex, *, lines: Real, signal: float) -> Undersampled:
    """Scale exact k-space of fully sampled coils so that the image is `signal` times the noise, and measure it."""
    truth = (maps.conj() * centred(fft.ifft2, exact)).sum(axis=0)
    scale = brightness(truth, signal)
    kspace = (scale * exact + white(rng, exact.shape)) * lines
    return Undersampled(kspace, maps, lines, scale * truth)


def spokes(rng: Generator, library: Library, size: int, kernels: Kernels) -> Spokes:
    """A radial example of layer 1, measured on the finer grid with the CPU's `kernels`: 1 to 8 times undersampled."""
    coils, drawn = random_coils(rng, int(rng.choice(COILS))), picture(rng, library, FINER * size)
    acceleration, signal = float(rng.uniform(1, 8)), float(np.exp(rng.uniform(*np.log(SIGNAL))))
    fine = unit_norm(maps_on(coils, drawn.shape)) * (drawn * phase_like(rng, drawn.shape))
    maps = unit_norm(maps_on(coils, (size, size)))
    truth = (maps.conj() * centred(fft.ifft2, cropped(centred(fft.fft2, fine), (size, size)))).sum(axis=0)
    points: Real = np.float32(2 * np.pi) * golden_spokes(round(np.pi / 2 * size / acceleration), FINER * size)
    exact = kernels.nufft(np.float32(1 / FINER) * points, fine.shape[1:]).forward(fine) * np.float32(
        1 / (size * FINER**2)
    )
    scale = brightness(truth, signal)
    return Spokes(scale * exact + white(rng, exact.shape), points, maps, scale * truth, acceleration)


def measured(example: Undersampled | Spokes, kernels: Kernels) -> Measured:
    """The example as the data of a network, on the device of `kernels`."""
    maps = kernels.to_device(example.maps)
    if isinstance(example, Undersampled):
        return cartesian(kernels, kernels.to_device(example.kspace), maps, kernels.to_device(example.lines))
    plan, density = kernels.nufft(example.points, example.truth.shape), density_radial(example.points)
    samples = kernels.to_device(example.samples)
    return weighted(kernels, plan, samples, maps, density=kernels.to_device(density), acceleration=example.acceleration)


def noisy(rng: Generator, library: Library, size: int) -> Noisy:
    """An example of layer 2: truncated, now and then interpolated or partly measured on one side, noise uneven."""
    acquired = size if rng.random() < 0.6 else 2 * round(size * rng.uniform(0.3, 0.5))
    signal = float(np.exp(rng.uniform(*np.log(SIGNAL))))
    if rng.random() < SHARE_EXACT:
        exact, truth = truncated_shapes(ellipses(rng, int(rng.integers(4, 30)), VIEW_MM), size, acquired)
    else:
        drawn = picture(rng, library, FINEST * size) * smooth_phase(rng, FINEST * size)
        exact, truth = truncated(drawn, size, acquired)
    return noised(rng, exact, truth, signal=signal, factor=uneven(rng, size), part=one_sided(rng, acquired))


def truncated(drawn: Complex, size: int, acquired: int) -> tuple[Complex, Complex]:
    """K-space [acquired, acquired] of an object [fine, fine], and the mean of each voxel on a grid of `size`.

    A voxel is as large as `acquired` samples resolve. Its mean has no ringing, and edges that are no wider than those
    of the truncated image: a step rises from 10 to 90 % within 0.80 voxels, with truncation within 0.89.
    """
    spectrum = centred(fft.fft2, drawn)
    fine = len(drawn)
    sinc = np.sinc((np.arange(fine) - fine // 2) / acquired).astype(np.float32)
    means = centred(fft.ifft2, spectrum * sinc[:, None] * sinc)
    step = fine // size
    start = (fine // 2) % step
    return cropped(spectrum, (acquired, acquired)), means[start::step, start::step]


def truncated_shapes(shapes: Shapes, size: int, acquired: int) -> tuple[Complex, Complex]:
    """The same of ellipses: exact k-space, and means over 4 × 4 points of each voxel."""
    k = (np.arange(acquired) - acquired // 2) / VIEW_MM
    exact = grid_spectrum(shapes, (k, k)) * (acquired / VIEW_MM**2)
    total = np.zeros((size, size), np.complex128)
    voxel = VIEW_MM / acquired
    for y in (np.arange(4) - 1.5) / 4 * voxel:
        for x in (np.arange(4) - 1.5) / 4 * voxel:
            total += density_at(shapes, places(size, VIEW_MM) + np.array([x, y]))
    return exact.astype(np.complex64), (total / 16).astype(np.complex64)


def noised(rng: Generator, exact: Complex, truth: Complex, *, signal: float, factor: Real, part: Real) -> Noisy:
    """The image of k-space [acquired, acquired] on the grid of `truth`, with noise of `factor` [y, x].

    Of the lines of k-space, `part` [acquired, 1] are measured (1) or not (0).
    """
    size, acquired = len(truth), len(exact)
    scale = brightness(truth, signal)
    image = centred(fft.ifft2, filled(exact * part, size)) * np.float32(size / acquired)
    noise = centred(fft.ifft2, filled(white(rng, exact.shape) * part, size)) * np.float32(size / acquired)
    noise /= np.sqrt(part.mean())  # σ = 1 whatever was measured
    return Noisy(scale * image + factor * noise, factor, scale * truth)


def one_sided(rng: Generator, lines: int) -> Real:
    """Which lines [ky, 1] are measured: all, or from one side to a little past the centre."""
    part = np.ones((lines, 1), np.float32)
    if rng.random() < 0.2:
        part[round(lines * rng.uniform(0.65, 0.9)) :] = 0
    return part[::-1].copy() if rng.random() < 0.5 else part


def uneven(rng: Generator, size: int) -> Real:
    """A geometry factor [y, x] from 1 upwards, smooth, or 1 everywhere."""
    if rng.random() < 0.4:
        return np.ones((size, size), np.float32)
    place = np.linspace(0, 1, size)
    waves = rng.uniform(0.5, 3, 2)
    y, x = (np.sin(np.pi * wave * place + rng.uniform(0, np.pi)) ** 2 for wave in waves)
    return (1 + rng.uniform(0, 2) * np.outer(y, x)).astype(np.float32)


def random_coils(rng: Generator, count: int) -> Coils:
    """Loops round the field of view, as far away and as large as a head's or a body's, turned by any angle."""
    radii = VIEW_MM * rng.uniform(0.55, 0.8, 2)
    size = float(rng.uniform(0.7, 1.4) * np.pi * radii.mean() / count)
    corners = loops(count, radii_mm=(radii[0], radii[1]), stagger_mm=float(rng.uniform(0, 30)), loop_mm=size)
    turn, height = rng.uniform(0, 2 * np.pi), float(rng.uniform(-20, 20))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def field(points: Vector) -> NDArray[np.complex128]:
        return receive_field(corners, np.column_stack([points @ rotation, np.full(len(points), height)]))

    return fit(field, np.full(2, VIEW_MM))


def maps_on(coils: Coils, grid: tuple[int, ...]) -> Complex:
    """The sensitivities [coil, y, x] of coils on a grid that covers VIEW_MM along each axis."""
    lines = [(np.arange(n) - n // 2) / n * VIEW_MM for n in grid]
    waves = [
        np.exp(2j * np.pi * np.outer(line, coils.harmonics[:, axis]) / coils.period_mm[axis]).astype(np.complex64)
        for line, axis in zip(lines, (1, 0), strict=True)
    ]
    mixed = coils.coefficients.astype(np.complex64)[:, None] * waves[0]  # [coil, y, harmonic]
    maps: Complex = mixed @ waves[1].T
    return maps


def mask(rng: Generator, count: int, *, acceleration: float) -> Real:
    """About one in `acceleration` of `count` lines [ky], some of the centre among them; the others evenly or not."""
    wanted = max(count / acceleration, FEWEST_CENTRE + 2)
    centre = round(min(max(rng.uniform(0.04, WIDEST_CENTRE) * count, FEWEST_CENTRE), 0.6 * wanted))
    return lines_of(rng, count, centre=centre, more=max(round(wanted) - centre, 1), even=rng.random() < 0.7)


def lines_of(rng: Generator, count: int, *, centre: int, more: int, even: bool) -> Real:
    """Of `count` lines [ky], `centre` in the middle and `more` others, evenly spaced or at random and denser inside."""
    lines = np.zeros(count, np.float32)
    lines[count // 2 - centre // 2 :][:centre] = 1
    outside = np.flatnonzero(lines == 0)
    if even:
        step = len(outside) / more
        chosen = outside[(rng.uniform(0, step) + step * np.arange(more)).astype(np.int64)]
    else:
        likely = np.exp(-np.abs(outside - count // 2) / count * log(16))
        chosen = rng.choice(outside, more, replace=False, p=likely / likely.sum())
    lines[chosen] = 1
    return lines


def brightness(truth: Complex, signal: float) -> np.float32:
    """What makes the brightest hundredth of `truth` as large as `signal`, or a tenth of its peak if that is more."""
    magnitude = np.abs(truth)
    bright = max(float(np.percentile(magnitude, 99)), 0.1 * float(magnitude.max()))
    return np.float32(signal / bright if bright else 1)


def white(rng: Generator, shape: tuple[int, ...]) -> Complex:
    """Noise with σ = 1 in each part."""
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def unit_norm(maps: Complex) -> Complex:
    """Maps [coil, y, x] with Σ|S|² = 1."""
    norm: Complex = maps / np.sqrt((maps.real**2 + maps.imag**2).sum(axis=0))
    return norm


def centred(transform: Callable[..., Complex], x: Complex) -> Complex:
    """The centred orthonormal DFT of the last two axes by fft.fft2 or fft.ifft2."""
    moved = transform(fft.ifftshift(x, axes=(-2, -1)), norm="ortho", overwrite_x=True)
    shifted: Complex = fft.fftshift(moved, axes=(-2, -1))
    return shifted


def cropped(spectrum: Complex, grid: tuple[int, ...]) -> Complex:
    """The centre of k-space [..., ky, kx], scaled so that pixels keep their values."""
    before = spectrum.shape[-2:]
    y, x = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(before, grid, strict=True))
    scale = np.float32(np.sqrt(np.prod(grid) / np.prod(before)))
    return np.ascontiguousarray(spectrum[..., y, x]) * scale


def filled(spectrum: Complex, size: int) -> Complex:
    """K-space [ky, kx] with zeros around, [size, size]."""
    out = np.zeros((size, size), np.complex64)
    start = size // 2 - len(spectrum) // 2
    out[start : start + len(spectrum), start : start + len(spectrum)] = spectrum
    return out


def phase_like(rng: Generator, shape: tuple[int, ...]) -> Complex:
    """A smooth phase on a grid of any shape."""
    return smooth_phase(rng, max(shape))[: shape[0], : shape[1]]

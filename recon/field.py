"""Off-resonance along a trajectory: the field from two echoes, and its phase as a sum over a few moments.

exp(2πi f t) ≈ Σ_l B_l(t) exp(2πi f t_l) for all frequencies f of the object, B in the least-squares sense
(doi:10.1109/42.75611, doi:10.1109/TMI.2002.808360): each moment t_l is one transform of the image times a phase.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels
from recon.errors import CalibrationError

EXACT = 1e-3  # of the signal is what the sum over moments may be off by
MOST = 64  # moments; some hundred turns of phase in one readout
FREQUENCIES = 128  # between the lowest and the highest, for which B is found
SEEN = 0.1  # of the brightest voxel's signal: where the field counts for the range of frequencies
SMOOTH = 2.0  # voxels, standard deviation: continues the field a little beyond the object's edge

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """`weights` [moment, sample] (B) and `phases` [moment, *grid] (exp(2πi f t_l)), arrays of the device."""

    weights: Complex
    phases: Complex


def field_from(first: Complex, second: Complex, interval_s: float, kernels: Kernels) -> tuple[Floats, Floats]:
    """The field in Hz and the signal's size, both [*grid] on the host, from images [coil, *grid] of two echoes.

    Coils agree on the phase between the echoes, each with the weight of its signal; neighbours are averaged with it.
    """
    between = kernels.to_host(kernels.combine(second, first)).astype(np.complex128)
    smooth = _smoothed(between)
    return np.angle(smooth) / (2 * np.pi * interval_s), np.sqrt(np.abs(smooth))


def _smoothed(values: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """A Gaussian average, by way of frequencies; edges wrap round."""
    spectrum = np.fft.fftn(values)
    for axis, size in enumerate(values.shape):
        bell = np.exp(-2 * (np.pi * SMOOTH * np.fft.fftfreq(size)) ** 2)
        spectrum *= bell.reshape(-1, *(1,) * (values.ndim - 1 - axis))
    return np.asarray(np.fft.ifftn(spectrum), np.complex128)


def range_of(field_hz: Floats, size: Floats) -> tuple[float, float]:
    """The lowest and highest frequency where there is signal; raises CalibrationError where there is none."""
    seen = size > SEEN * size.max()
    if not size.max() > 0 or not np.isfinite(size).all():
        raise CalibrationError("the calibration echoes hold no signal")
    return float(field_hz[seen].min()), float(field_hz[seen].max())


def moments_for(time_s: Floats, low_hz: float, high_hz: float) -> tuple[Floats, NDArray[np.complex128]]:
    """The fewest moments [moment] that are EXACT, and their weights [moment, time], for frequencies of a range.

    Raises CalibrationError where MOST would not do.
    """
    frequencies = np.linspace(low_hz, high_hz, FREQUENCIES)
    wanted = np.exp(2j * np.pi * np.outer(frequencies, time_s))
    for count in range(1, MOST + 1):
        moments = np.linspace(time_s.min(), time_s.max(), count) if count > 1 else np.array([time_s.mean()])
        basis = np.exp(2j * np.pi * np.outer(frequencies, moments))
        weights = np.linalg.lstsq(basis, wanted, rcond=1e-9)[0]
        if np.abs(basis @ weights - wanted).max() <= EXACT:
            return moments, weights
    raise CalibrationError(
        f"frequencies from {low_hz:.0f} to {high_hz:.0f} Hz turn too often in a readout of"
        f" {1e3 * np.ptp(time_s):.1f} ms"
    )


def segments_of(field_hz: Floats, bounds_hz: tuple[float, float], time_s: Floats, *, like: Complex) -> Segments:
    """The segments for a field [*grid], whose values beyond `bounds_hz` belong to no signal."""
    moments, weights = moments_for(time_s, *bounds_hz)
    inside = np.clip(field_hz, *bounds_hz)
    phases = np.exp(2j * np.pi * inside * moments.reshape(-1, *(1,) * field_hz.ndim))
    return Segments(
        np.asarray(weights.astype(np.complex64), like=like), np.asarray(phases.astype(np.complex64), like=like)
    )

"""What happens to readouts before an image is made: noise whitening and the removal of readout oversampling."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels
from recon.arrays import contiguous
from recon.errors import RecipeError, ScanError
from recon.recipe import Value
from recon.scan import Calibration, Frame, Readouts, ScanHeader

Covariance = NDArray[np.complex128]

SAMPLES_PER_COIL = 2  # fewer than the coils give a singular covariance, just as many a useless one
DEAD = 1e-8  # noise power relative to the median coil's: no working receiver is 80 dB quieter than its neighbours
DEPENDENT = 1e-6  # smallest eigenvalue of the correlation: below it single precision cannot tell the coils apart
CENTRE_LINES = 24  # of k-space along each axis that coils are compressed by
LOST = 1e-3  # of the signal's energy, that `auto` may leave out
REMEDY = "acquire the noise scan again or set whiten to false"


def noise_covariance(samples: Complex) -> Covariance:
    """Covariance E[n nᴴ] of complex noise: samples [readout, coil, sample] → [coil, coil], in double precision."""
    coils = samples.shape[1]
    total = np.zeros((coils, coils), np.complex128)
    for readout in samples:
        noise = readout.astype(np.complex128)
        total += noise @ noise.conj().T
    total /= len(samples) * samples.shape[2]
    return total


def whitening(noise: Sequence[Readouts], *, header: ScanHeader, sample_time_us: float) -> Calibration:
    """Calibration whose whitening [coil, coil] gives noise of σ = 1 in each of the real and imaginary parts.

    `noise` are the readouts of the noise scan, `sample_time_us` is the imaging readouts' dwell time. Noise power is
    proportional to bandwidth: the covariance is scaled by noise dwell ÷ imaging dwell and divided by the header's
    relative receiver noise bandwidth (doi:10.1002/mrm.20713). Raises ScanError where it cannot be inverted.
    """
    bandwidth = header.relative_noise_bandwidth or 1.0
    if not (isfinite(bandwidth) and bandwidth > 0):
        raise ScanError(f"relative receiver noise bandwidth is {bandwidth:g}, expected above 0: correct the header")
    check_noise(noise)
    matrix = whitening_matrix(imaging_covariance(noise, sample_time_us) / bandwidth)
    return Calibration(whitening=matrix, hash=hashlib.sha256(matrix.tobytes()).hexdigest())


def imaging_covariance(noise: Sequence[Readouts], sample_time_us: float) -> Covariance:
    """Covariance [coil, coil] that the noise scan predicts for readouts of dwell time `sample_time_us`."""
    coils = noise[0].samples.shape[1]
    total, count = np.zeros((coils, coils), np.complex128), 0
    for run in noise:
        size = len(run.samples) * run.samples.shape[2]
        total += size * dwell_ratio(run, sample_time_us) * noise_covariance(run.samples)
        count += size
    total /= count
    return total


def check_noise(noise: Sequence[Readouts]) -> None:
    """Raises ScanError unless all runs have the same coils and together enough samples."""
    coils = {run.samples.shape[1] for run in noise}
    if len(coils) != 1:
        raise ScanError(f"the noise scan has runs of {sorted(coils)} coils, expected one number: {REMEDY}")
    count, wanted = sum(len(run.samples) * run.samples.shape[2] for run in noise), SAMPLES_PER_COIL * min(coils)
    if count < wanted:
        raise ScanError(
            f"the noise scan has {count} samples of {min(coils)} coils, expected at least {wanted}: {REMEDY}"
        )


def dwell_ratio(run: Readouts, sample_time_us: float) -> float:
    """Noise dwell ÷ imaging dwell; 1 where a header leaves either out, since both then come from one protocol."""
    dwell_us = float(run.head["sample_time_us"][0])
    known = all(isfinite(t) and t > 0 for t in (dwell_us, sample_time_us))
    return dwell_us / sample_time_us if known else 1.0


def whitening_matrix(covariance: Covariance) -> Complex:
    """W [coil, coil] with W Ψ Wᴴ = 2 I, the inverse of Ψ's Cholesky factor; raises ScanError where Ψ has none."""
    power = covariance.diagonal().real
    if not np.isfinite(power).all():
        raise ScanError(f"the noise scan's coil {_worst(~np.isfinite(power))} holds NaN or infinity: {REMEDY}")
    if (power <= DEAD * np.median(power)).any():
        dead = power <= DEAD * np.median(power)
        raise ScanError(f"the noise scan's coil {_worst(dead)} holds no noise, it is not connected: {REMEDY}")
    sigma = np.sqrt(power)
    smallest = np.linalg.eigvalsh(covariance / np.outer(sigma, sigma))[0]
    if smallest < DEPENDENT:
        raise ScanError(
            f"the noise scan's coils are not independent (smallest eigenvalue of their correlation {smallest:.1e},"
            f" expected at least {DEPENDENT:g}): {REMEDY}"
        )
    factor = np.linalg.cholesky(covariance)
    return np.ascontiguousarray(np.sqrt(2) * np.linalg.inv(factor), dtype=np.complex64)


def _worst(bad: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(bad)[0])


def compressed_together(
    frames: Sequence[Frame], calibration: Calibration, coils: Value
) -> tuple[list[Frame], Calibration]:
    """`frames` with fewer, virtual coils, white where the calibration makes them so, and what is left to whiten.

    `coils` is how many, "auto" for as few as lose at most LOST of the energy of k-space's centre, or "all". They are
    the strongest combinations of coils in that centre (doi:10.1016/j.mri.2007.04.010) and orthogonal, so that white
    noise stays white. Raises FloatingPointError where that centre is not finite.
    """
    have = len(frames[0].kspace)
    if coils == "all" or (coils != "auto" and int(coils) >= have):
        return list(frames), calibration
    whitening = calibration.whitening
    centre = np.concatenate([_centre(frame.reference or frame).reshape(have, -1) for frame in frames], axis=1)
    if not np.isfinite(centre).all():
        raise FloatingPointError("the centre of k-space is not finite")
    matrix = strongest(centre if whitening is None else whitening @ centre, coils)
    mixing = matrix if whitening is None else matrix @ whitening
    white = None if whitening is None else np.asarray(np.eye(len(matrix), dtype=np.complex64), like=mixing)
    return [_mixed(frame, mixing) for frame in frames], replace(calibration, whitening=white)


def strongest(samples: Complex, coils: Value) -> Complex:
    """Orthonormal combinations [virtual, coil] with most power in `samples` [coil, sample], strongest first."""
    powers, vectors = np.linalg.eigh(samples @ samples.conj().T)
    if coils == "auto":
        lost = np.cumsum(np.maximum(powers, 0))
        coils = max(1, int((lost > LOST * lost[-1]).sum()))
    chosen: Complex = vectors[:, ::-1][:, : int(coils)].conj().T
    return chosen


def compressed_geometrically(
    frames: Sequence[Frame], calibration: Calibration, coils: Value, kernels: Kernels
) -> tuple[list[Frame], Calibration]:
    """As `compressed_together`, with combinations of their own at each place along the readout of Cartesian `frames`.

    Fewer are enough there, since a coil sees but a part of the object; neighbours are turned to be alike, so that the
    virtual coils are smooth (doi:10.1002/mrm.24267). Raises RecipeError for k-space with a trajectory.
    """
    have = len(frames[0].kspace)
    if any(frame.trajectory is not None for frame in frames):
        raise RecipeError(
            f"compression is geometric, which needs Cartesian k-space, the scan is {frames[0].encoding.trajectory}:"
            " ask for compression svd"
        )
    if coils == "all" or (coils != "auto" and int(coils) >= have):
        return list(frames), calibration
    whitening = calibration.whitening
    centre = np.concatenate([_lines(frame.reference or frame).reshape(have, -1, _width(frame)) for frame in frames], 1)
    if not np.isfinite(centre).all():
        raise FloatingPointError("the centre of k-space is not finite")
    seen = kernels.ifft(centre if whitening is None else np.tensordot(whitening, centre, axes=1), axes=1)
    matrices = aligned(strongest_along(seen, coils))
    mixing = matrices if whitening is None else matrices @ whitening
    white = None if whitening is None else np.asarray(np.eye(matrices.shape[1], dtype=np.complex64), like=mixing)
    return [_mixed_along(frame, mixing, kernels) for frame in frames], replace(calibration, whitening=white)


def strongest_along(samples: Complex, coils: Value) -> Complex:
    """Orthonormal combinations [x, virtual, coil] with most power at each x of `samples` [coil, line, x]."""
    along = np.moveaxis(samples, -1, 0)
    powers, vectors = np.linalg.eigh(along @ along.conj().swapaxes(-1, -2))
    if coils == "auto":
        lost = np.cumsum(np.where(powers > 0, powers, 0).sum(axis=0))
        coils = max(1, int((lost > LOST * lost[-1]).sum()))
    chosen: Complex = vectors[..., ::-1][..., : int(coils)].conj().swapaxes(-1, -2)
    return chosen


def aligned(bases: Complex) -> Complex:
    """`bases` [x, virtual, coil], each turned within its own space to be as like the one before as can be."""
    turned = [bases[0]]
    for basis in bases[1:]:
        left, _, right = np.linalg.svd(basis @ turned[-1].conj().T)
        turned.append((left @ right).conj().T @ basis)
    return np.stack(turned)


def _mixed_along(frame: Frame, mixing: Complex, kernels: Kernels) -> Frame:
    """`frame` and its reference in the virtual coils of `mixing` [x, virtual, coil]; what was not measured stays 0."""
    reference = None if frame.reference is None else _mixed_along(frame.reference, mixing, kernels)
    measured = (frame.kspace != 0).any(axis=(0, 1, 2))
    images = kernels.ifft(frame.kspace, axes=1)
    mixed = np.moveaxis(mixing @ np.moveaxis(images, -1, 0).reshape(len(mixing), len(images), -1), 0, -1)
    kspace = kernels.fft(contiguous(mixed), axes=1).reshape(mixing.shape[1], *images.shape[1:])
    return replace(frame, kspace=kspace * measured, reference=reference)


def _lines(frame: Frame) -> Complex:
    """The lines round the centre of k-space, whole: [coil, kz, ky, kx]."""
    z, y = (slice(max(0, (n - CENTRE_LINES) // 2), (n + CENTRE_LINES) // 2) for n in frame.kspace.shape[1:3])
    return frame.kspace[:, z, y]


def _width(frame: Frame) -> int:
    return int(frame.kspace.shape[-1])


def _centre(frame: Frame) -> Complex:
    """K-space's centre [coil, ...], or all of it along a trajectory, of which every shot passes the centre."""
    if frame.trajectory is not None:
        return frame.kspace
    cuts = [slice(max(0, (n - CENTRE_LINES) // 2), (n + CENTRE_LINES) // 2) for n in frame.kspace.shape[1:]]
    return frame.kspace[:, cuts[0], cuts[1], cuts[2]]


def _mixed(frame: Frame, mixing: Complex) -> Frame:
    """`frame` and its calibration in the virtual coils of `mixing` [virtual, coil]."""
    reference = None if frame.reference is None else _mixed(frame.reference, mixing)
    kspace = np.tensordot(mixing, frame.kspace, axes=1).astype(np.complex64, copy=False)
    echoes = tuple(_mixed(echo, mixing) for echo in frame.echoes)
    return replace(frame, kspace=kspace, reference=reference, echoes=echoes)

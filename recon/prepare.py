"""What happens to readouts before an image is made: noise whitening and the removal of readout oversampling."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from recon.errors import ScanError
from recon.scan import Calibration, Readouts, ScanHeader

Covariance = NDArray[np.complex128]


def noise_covariance(samples: NDArray[np.complex64]) -> Covariance:
    """Covariance [coil, coil] of complex noise: samples [readout, coil, sample] → E[n nᴴ], complex128."""
    coils = samples.shape[1]
    flat = samples.transpose(1, 0, 2).reshape(coils, -1).astype(np.complex128)
    return flat @ flat.conj().T / flat.shape[1]


def whitening(noise: Iterable[Readouts], *, header: ScanHeader, sample_time_us: float) -> Calibration:
    """Calibration whose whitening [coil, coil] gives noise of σ = 1 in each of the real and imaginary parts.

    `noise` are the readouts of the noise scan, `sample_time_us` the imaging readouts' dwell time. Noise power is
    proportional to bandwidth: the covariance is scaled by noise dwell ÷ imaging dwell and divided by the header's
    relative receiver noise bandwidth. Raises ScanError where the covariance cannot be inverted.
    """
    runs = list(noise)
    samples = np.concatenate([run.samples for run in runs])
    dwell_us = float(runs[0].head["sample_time_us"][0])
    # The receiver's filter lets less noise into the noise scan than its nominal bandwidth would: doi:10.1002/mrm.20713.
    ratio = dwell_us / sample_time_us / (header.relative_noise_bandwidth or 1.0)
    covariance = noise_covariance(samples) * ratio
    matrix = whitening_matrix(covariance)
    return Calibration(whitening=matrix, hash=hashlib.sha256(matrix.tobytes()).hexdigest())


def whitening_matrix(covariance: Covariance) -> NDArray[np.complex64]:
    """W [coil, coil] with W Ψ Wᴴ = 2 I: noise of σ = 1 in each of the real and imaginary parts."""
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise ScanError("the noise scan's covariance is singular") from error
    return np.ascontiguousarray(np.sqrt(2) * np.linalg.inv(factor), dtype=np.complex64)

"""Cartesian k-space with its readouts transformed, and the calibration region at its centre."""

from __future__ import annotations

import numpy as np

from kernels.contract import Complex, Kernels
from recon.arrays import contiguous
from recon.assemble import SEPARATE, shares
from recon.grappa import Box, Mask, centre_of
from recon.methods.combine import whitened
from recon.methods.grids import resize, voxels
from recon.scan import Calibration, Encoding, Frame


def hybrid(kspace: Complex, sampled: Mask, kept: int, calibration: Calibration, kernels: Kernels) -> Complex:
    """White [coil, x, kz, ky] of the `kept` central x from `kspace` [coil, kz, ky, kx], zero where not `sampled`.

    Every line is measured from end to end, so that each x is a problem of its own in (kz, ky).
    """
    if sampled.all():
        lines = whitened(kernels.ifft(kspace, axes=1, crop=(kept,)), calibration, kernels)
        return contiguous(np.moveaxis(lines, -1, 1))
    mask = np.asarray(sampled, like=kspace)
    measured = whitened(kernels.ifft(kspace[:, mask], axes=1, crop=(kept,)), calibration, kernels)
    grid = np.zeros((len(measured), kept, *sampled.shape), np.complex64, like=measured)
    grid[:, :, mask] = measured.swapaxes(1, 2)
    return grid


def region(lines: Complex, box: Box, kernels: Kernels) -> Complex:
    """K-space [coil, kz, ky, kx] of the lines in `box` of hybrid `lines` [coil, x, kz, ky]; an empty box has none."""
    inside = contiguous(np.moveaxis(lines[:, :, box[0], box[1]], 1, -1))
    return kernels.fft(inside, axes=1) if inside.size else inside


def calibration_of(frame: Frame, lines: Complex, calibration: Calibration, kernels: Kernels) -> Complex:
    """White k-space [coil, kz, ky, kx] to calibrate with, as wide as the frame's hybrid `lines`.

    The fully sampled centre of a separate scan where the frame has one, otherwise of the frame itself.
    """
    source = frame.reference or frame
    assert source.sampled is not None
    if source is not frame:
        lines = hybrid(source.kspace, source.sampled, lines.shape[1], calibration, kernels)
    return region(lines, centre_of(source.sampled), kernels)


def middle(kspace: Complex, widest: int) -> Complex:
    """At most the `widest` central samples along each of the last three axes of `kspace`."""
    z, y, x = (min(n, widest) for n in kspace.shape[-3:])
    return resize(kspace, (z, y, x))


def reference_bytes(encoding: Encoding, coils: int) -> int:
    """What calibration lines of other frames or of a separate scan take, where the header has them: twice a grid."""
    apart = encoding.calibration_mode in SEPARATE or shares(encoding)
    return 16 * coils * voxels(encoding) if apart else 0

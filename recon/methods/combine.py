"""Whitening and combination of coil images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Complex, Kernels
from recon.arrays import contiguous
from recon.maps import walsh
from recon.scan import Calibration


def whitened(images: Complex, calibration: Calibration, kernels: Kernels) -> Complex:
    """`images` [coil, *grid] (or k-space) with white noise, where the calibration knows how."""
    if calibration.whitening is None:
        return images
    flat = kernels.whiten(calibration.whitening, images.reshape(len(images), -1))
    return flat.reshape(images.shape)


def combined(
    images: Complex, calibration: Calibration, kernels: Kernels, *, how: str
) -> NDArray[np.float32] | NDArray[np.complex64]:
    """One image [*grid] from coil images [coil, *grid]: root-sum-of-squares for "rss", Σ conj(S)·I for "adaptive".

    The maps S come from the images themselves (doi:10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G).
    """
    images = whitened(images, calibration, kernels)
    return kernels.rss(images) if how == "rss" else kernels.combine(images, maps_from(images))


def maps_from(images: Complex) -> Complex:
    """Coil maps [coil, z, y, x] from coil images of this shape; raises FloatingPointError where they are not finite."""
    check_finite(images)
    return walsh(images)


def check_finite(samples: Complex) -> None:
    """Raises FloatingPointError unless all of the images or k-space `samples` are finite.

    One bad sample has spread over a coil's whole image, and maps of it would be an error of linear algebra at best.
    """
    values = contiguous(samples).view(np.float32)
    if values.size and not (np.isfinite(values.max()) and np.isfinite(values.min())):
        raise FloatingPointError("the coil images are not finite")

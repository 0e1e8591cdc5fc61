"""Density compensation for round fields of view: the overlap of a disc with itself, and the weights of even spokes."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from kernels.geometry import density_pipe_menon, ellipse_overlap
from tests import tolerances


@pytest.mark.parametrize("shape", [(400,), (160, 120), (48, 40, 56)])
def test_the_window_is_the_overlap_of_the_inscribed_ellipse_with_itself(shape: tuple[int, ...]) -> None:
    axes = np.meshgrid(*((np.arange(n) + 0.5 - n / 2) / (n / 2) for n in shape), indexing="ij")
    inside = (sum(axis**2 for axis in axes) < 1).astype(float)
    doubled = tuple(2 * n for n in shape)
    spectrum = np.fft.fftn(inside, doubled, axes=range(len(shape)))
    overlap = np.fft.fftshift(np.fft.ifftn(np.abs(spectrum) ** 2).real)
    # A rasterised boundary is off by half a voxel: a share of about 2 / diameter.
    np.testing.assert_allclose(ellipse_overlap(shape), overlap / overlap.max(), atol=2 / min(shape))


def test_weights_of_spokes_share_out_the_disc_that_they_cover() -> None:
    n, spokes = 32, 80
    angle = np.pi * np.arange(spokes) / spokes
    radius = 2 * np.pi * (np.arange(2 * n) - n) / (2 * n)
    points = radius[None, :, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)[:, None]
    weights = density_pipe_menon(kernels.on("cpu"), points.astype(np.float32), (n, n), iterations=10, round_view=True)
    assert weights.min() > 0
    # π²·π / (2π)² of the band, give or take one sample's width at the rim, beyond which there is nothing.
    assert float(weights.sum()) == pytest.approx(np.pi / 4, rel=4 / n)
    # Inside, a weight is the area between neighbours, |k| Δk Δφ, and what ψ misses beyond the rim: even spokes, 6 to 24
    # samples from the centre.
    ramp = np.abs(radius) * (radius[1] - radius[0]) * np.pi / spokes / (2 * np.pi) ** 2
    inner = slice(n + 6, n + 24)
    for weight, share, radius_of in zip(weights[:, inner].mean(axis=0), ramp[inner], radius[inner], strict=True):
        assert weight == pytest.approx(share, rel=tolerances.rim(n, np.pi - radius_of))

"""Off-resonance along the readout: parts of the head moved and stretched as the bandwidth says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.simulate import nrmse, simulate
from recon.simulate.coils import Coils, coil_grid_spectrum
from recon.simulate.evolution import Evolving, rate
from recon.simulate.measurement import geometry
from recon.simulate.phantom import Shapes, spectrum
from recon.simulate.shifted import DWELL_US, FAT_HZ, LOW_BAND, PLACE_MM, SE_VIEW_MM, head, read
from tests.recon.methods.phantoms import CPU

MATRIX = 48
FLAT = Coils(np.ones((1, 1), np.complex128), np.zeros((1, 2), np.int64), np.full(2, 2 * SE_VIEW_MM))
TURN_MM = 2 * SE_VIEW_MM * DWELL_US * 1e-6  # along the readout for each turn per second


def ellipse(center: tuple[float, float], semiaxes: np.ndarray, intensity: complex = 1.0) -> Shapes:
    return Shapes(np.array([center]), semiaxes[None], np.array([intensity], np.complex128))


def seen(shapes: Shapes) -> np.ndarray:
    """The same readout of something that does not turn."""
    view = np.array([2 * SE_VIEW_MM, SE_VIEW_MM])
    return coil_grid_spectrum(shapes, FLAT, matrix=(2 * MATRIX, MATRIX), field_of_view_mm=view)


def test_fat_is_read_at_another_place() -> None:
    """By its turns per second times the readout's duration in pixels, with the phase that it has at the echo."""
    shape = np.array([[9.0, 2], [-1, 5]])
    fat = Evolving(ellipse((20, -11), shape), np.array([rate(FAT_HZ)]), np.zeros((1, 2)))
    turned = np.exp(2j * np.pi * FAT_HZ * LOW_BAND.te_ms / 1000)
    moved = ellipse((20 - FAT_HZ * TURN_MM, -11), shape, turned)
    assert abs(FAT_HZ * TURN_MM) == pytest.approx(3.125, abs=0.01)
    # Contents of 150 in double precision.
    np.testing.assert_allclose(read(fat, FLAT, matrix=MATRIX), seen(moved), rtol=0, atol=1e-9)


def test_a_field_gradient_along_the_readout_stretches() -> None:
    """What lies d from the place that does not turn is read at d (1 − g · TURN_MM): narrower, as bright altogether."""
    shape, slope = np.array([[9.0, 2], [-1, 5]]), 6.0
    middle_hz = -slope * 20  # no turns in the middle of the ellipse
    field = Evolving(ellipse((20, -11), shape), np.array([rate(middle_hz)]), np.array([[slope, 0.0]]))
    wide = np.diag([1 - slope * TURN_MM, 1.0])
    along = ellipse((20, -11), wide @ shape, 1 / np.linalg.det(wide))
    # Until the echo the slope has turned it, which is a shift of its k-space.
    shift = np.array([slope * LOW_BAND.te_ms / 1000 / wide[0, 0], 0.0])
    kx, ky = (np.arange(2 * MATRIX) - MATRIX) / (2 * SE_VIEW_MM), (np.arange(MATRIX) - MATRIX // 2) / SE_VIEW_MM
    k = np.stack(np.broadcast_arrays(kx, ky[:, None]), axis=-1)
    expected = spectrum(along, k - shift) * np.exp(-2j * np.pi * shift[0] * 20)
    np.testing.assert_allclose(read(field, FLAT, matrix=MATRIX)[0], expected, rtol=0, atol=1e-9)
    assert wide[0, 0] == pytest.approx(0.914, abs=1e-3)


def test_the_head_has_fat_that_moves_and_parts_that_are_stretched() -> None:
    body = head(geometry(np.eye(3), (0.0, 0.0, PLACE_MM)))
    turns = body.rate_s.imag / (2 * np.pi)
    assert np.isclose(turns, FAT_HZ).sum() == 1  # the oil capsule
    assert np.any(body.gradient_hz_mm[:, 0] != 0) and np.any(body.gradient_hz_mm[:, 1] != 0)
    assert (body.rate_s.real < 0).all()


def test_images_err_by_their_noise_from_what_the_sequence_makes() -> None:
    scan = simulate("head-shift", seed=1, coils=4, matrix=64)
    (image,) = reconstruct(scan.scan, Recipe(), CPU)
    (truth,) = scan.truth
    assert nrmse(image.pixels[0], truth) == pytest.approx(truth.predicted_nrmse, rel=0.05)

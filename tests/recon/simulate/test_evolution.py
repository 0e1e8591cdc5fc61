"""Signals that change while they are read, against the Fourier integral of the object at that moment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.errors import ScanError
from recon.scan import Geometry
from recon.simulate.coils import Coils, coil_spectrum
from recon.simulate.evolution import Evolving, evolved_spectrum, evolving, rate, seen
from recon.simulate.measurement import head_array, seen_by
from recon.simulate.objects import Region, fill
from recon.simulate.phantom import Shapes, spectrum
from recon.simulate.tissue import TISSUES, Timing, Tissue, gradient_echo

RNG = np.random.default_rng(11)
FLAT = Coils(np.ones((1, 1), np.complex128), np.zeros((1, 2), np.int64), np.array([400.0, 400.0]))
REGIONS = (
    Region("outside", "fat", "", (3, -7), (60, 45), 20),
    Region("inside", "blood", "outside", (-10, 4), (18, 12), -30),
)
TILTED = Geometry((2.0, 3.0, 4.0), (0.8, 0.6, 0.0), (-0.36, 0.48, 0.8), (0.48, -0.64, 0.6))


def speed(tissue: Tissue) -> complex:
    return rate(tissue.offset_hz, tissue.t2_star_ms)


def test_constant_rates_are_the_gradient_echo_at_that_moment() -> None:
    coils, k = seen_by(head_array(3), Geometry(), np.array([240.0, 240.0])), RNG.uniform(-0.2, 0.2, (40, 2))
    start = evolving(REGIONS, lambda tissue: gradient_echo(tissue, Timing(8.0, 0.0, 20.0)), speed)
    for te in (0.0, 2.5, 19.0):
        later = fill(REGIONS, lambda tissue, te=te: gradient_echo(tissue, Timing(8.0, te, 20.0)))
        found = evolved_spectrum(start, coils, k, np.full(40, te / 1000))
        # Contents reach 3,000; double precision.
        np.testing.assert_allclose(found, coil_spectrum(later, coils, k), rtol=0, atol=1e-9)


def test_each_point_has_its_own_time() -> None:
    k, time = RNG.uniform(-0.2, 0.2, (30, 2)), RNG.uniform(0, 0.02, 30)
    start = evolving(REGIONS, lambda tissue: tissue.density, speed, slopes_hz_mm={"inside": (1.5, -0.7)})
    together = evolved_spectrum(start, FLAT, k, time)
    alone = [evolved_spectrum(start, FLAT, k[i : i + 1], time[i : i + 1])[:, 0] for i in range(30)]
    np.testing.assert_allclose(together, np.stack(alone, axis=1), rtol=0, atol=1e-9)


def test_a_linear_field_against_its_integral() -> None:
    """∫ρ(r) exp(2πi(f + g·r)t − t/T) exp(−2πi k·r) dr by Gauss–Legendre in radius, the trapezoid rule in angle."""
    slope, seconds, k = np.array([0.9, -0.4]), 0.013, np.array([0.021, -0.033])
    blood = TISSUES["blood"]
    one = evolving([replace(REGIONS[1], within="")], lambda _: 1, speed, slopes_hz_mm={"inside": (0.9, -0.4)})
    node, weight = np.polynomial.legendre.leggauss(60)
    angle = 2 * np.pi * np.arange(200) / 200
    ball = ((node + 1) / 2)[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    place = ball @ one.shapes.semiaxes[0].T + one.shapes.center[0]
    turn = 2j * np.pi * ((place @ slope + blood.offset_hz) * seconds - place @ k) - 1000 * seconds / blood.t2_star_ms
    values = np.exp(turn).mean(axis=1) * 2 * np.pi
    expected = 18 * 12 * np.sum(weight / 2 * (node + 1) / 2 * values)
    found = evolved_spectrum(one, FLAT, k[None], np.array([seconds]))[0, 0]
    assert abs(found - expected) < 1e-9


def test_seen_from_elsewhere_it_is_the_same_object() -> None:
    """A linear field in patient coordinates is one in the volume's, with another value at its centre."""
    solid = Shapes(np.array([[5.0, -4.0, 3.0]]), np.diag([30.0, 20.0, 25.0])[None], np.ones(1, np.complex128))
    field = Evolving(solid, np.array([rate(12.0, 40.0)]), np.array([[0.5, -0.3, 0.2]]))
    flat = Coils(np.ones((1, 1), np.complex128), np.zeros((1, 3), np.int64), np.full(3, 400.0))
    local = seen(field, TILTED, plane=False)
    turn = np.array([TILTED.read_dir, TILTED.phase_dir, TILTED.slice_dir])
    k, time = RNG.uniform(-0.05, 0.05, (20, 3)), RNG.uniform(0, 0.01, 20)
    here = evolved_spectrum(local, flat, k, time)[0]
    # k-space of the moved object: the new origin turns its phase by the patient's k.
    there = evolved_spectrum(field, flat, k @ turn, time)[0]
    # Contents of 63,000: double precision.
    moved = there * np.exp(2j * np.pi * (k @ turn) @ np.array(TILTED.position_mm))
    np.testing.assert_allclose(here, moved, rtol=0, atol=1e-8)


def test_a_plane_cuts_it_as_it_cuts_the_shapes() -> None:
    solid = Shapes(
        np.array([[5.0, -4.0, 3.0], [0.0, 0.0, 90.0]]),
        np.stack([np.diag([30.0, 20.0, 25.0]), 5 * np.eye(3)]),
        np.ones(2, np.complex128),
    )
    field = Evolving(solid, np.array([1j, 2j]), np.zeros((2, 3)))
    cut = seen(field, TILTED, plane=True)
    assert cut.rate_s.tolist() == [1j]
    k = RNG.uniform(-0.05, 0.05, (10, 2))
    np.testing.assert_array_equal(evolved_spectrum(cut, FLAT, k, np.zeros(10))[0], spectrum(cut.shapes, k))


def test_arrays_must_fit() -> None:
    shapes = fill(REGIONS, lambda _: 1)
    with pytest.raises(ScanError, match=r"rates \(3,\) and frequency gradients \(2, 2\) do not fit 2 shapes"):
        Evolving(shapes, np.zeros(3, np.complex128), np.zeros((2, 2)))

"""Signal formulas against limits known from theory and against the Bloch equations, pulse by pulse."""

from __future__ import annotations

import numpy as np
import pytest

from recon.simulate.tissue import TISSUES, Timing, balanced, gradient_echo, spin_echo

MATTER = TISSUES["white matter"]


def turn_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def relax(m: np.ndarray, ms: float, t1: float, t2: float) -> np.ndarray:
    e1, e2 = np.exp(-ms / t1), np.exp(-ms / t2)
    return m * [e2, e2, e1] + [0, 0, 1 - e1]


def test_a_slow_spin_echo_shows_proton_density() -> None:
    fresh = spin_echo(MATTER, Timing(tr_ms=1e6, te_ms=1e-6, flip_deg=90))
    assert fresh == pytest.approx(MATTER.density, rel=1e-6)


def test_spin_echo_against_bloch() -> None:
    timing, m = Timing(tr_ms=450, te_ms=12, flip_deg=90), np.array([0.0, 0, 1])
    for _ in range(40):
        m = np.array([0, 0, m[2]])  # spoiled before the pulse
        m = relax(turn_x(np.pi / 2) @ m, timing.te_ms / 2, MATTER.t1_ms, MATTER.t2_ms)
        m = relax(turn_x(np.pi) @ m, timing.te_ms / 2, MATTER.t1_ms, MATTER.t2_ms)
        echo = np.hypot(m[0], m[1])
        m = relax(m, timing.tr_ms - timing.te_ms, MATTER.t1_ms, MATTER.t2_ms)
    assert abs(spin_echo(MATTER, timing)) == pytest.approx(MATTER.density * echo, rel=1e-12)


def test_gradient_echo_against_bloch() -> None:
    timing, m = Timing(tr_ms=7, te_ms=3, flip_deg=12), np.array([0.0, 0, 1])
    for _ in range(2000):
        m = turn_x(np.deg2rad(timing.flip_deg)) @ [0, 0, m[2]]
        echo = relax(m, timing.te_ms, MATTER.t1_ms, MATTER.t2_star_ms)
        m = relax(m, timing.tr_ms, MATTER.t1_ms, MATTER.t2_star_ms)
    expected = MATTER.density * np.hypot(echo[0], echo[1])
    assert abs(gradient_echo(MATTER, timing)) == pytest.approx(expected, rel=1e-12)


def test_balanced_against_bloch() -> None:
    heart, timing, m = TISSUES["heart"], Timing(tr_ms=3, te_ms=1.5, flip_deg=50), np.array([0.0, 0, 1])
    for pulse in range(4000):
        m = turn_x(np.deg2rad(timing.flip_deg) * (-1) ** pulse) @ m
        echo = relax(m, timing.te_ms, heart.t1_ms, heart.t2_ms)
        m = relax(m, timing.tr_ms, heart.t1_ms, heart.t2_ms)
    expected = heart.density * np.hypot(echo[0], echo[1])
    assert abs(balanced(heart, timing)) == pytest.approx(expected, rel=1e-12)


def test_the_ernst_angle_is_brightest() -> None:
    ernst = np.degrees(np.arccos(np.exp(-7 / MATTER.t1_ms)))
    bright = [abs(gradient_echo(MATTER, Timing(7, 3, ernst + off))) for off in (-0.5, 0, 0.5)]
    assert bright[1] == max(bright)


def test_off_resonance_turns_the_gradient_echo() -> None:
    fat = TISSUES["fat"]
    angle = np.angle(gradient_echo(fat, Timing(7, 3, 12)))
    assert angle == pytest.approx(2 * np.pi * fat.offset_hz * 0.003, rel=1e-12)


def test_fresh_blood_has_not_met_a_pulse() -> None:
    blood, timing = TISSUES["blood"], Timing(9, 1, 15)
    expected = blood.density * np.sin(np.deg2rad(15)) * np.exp(-1 / blood.t2_star_ms)
    assert abs(gradient_echo(blood, timing, fresh=1.0)) == pytest.approx(expected, rel=1e-12)
    half = (gradient_echo(blood, timing, fresh=1.0) + gradient_echo(blood, timing)) / 2
    assert gradient_echo(blood, timing, fresh=0.5) == pytest.approx(half, rel=1e-12)

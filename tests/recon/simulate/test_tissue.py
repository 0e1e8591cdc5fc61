"""Signal formulas against limits known from theory and against the Bloch equations, pulse by pulse."""

from __future__ import annotations

import numpy as np
import pytest

from recon.simulate.tissue import (
    GADOLINIUM,
    TISSUES,
    Timing,
    balanced,
    decay,
    diffusion,
    diffusivity,
    enhanced,
    gradient_echo,
    inversion_recovery,
    prepared,
    pulsed,
    shown,
    spin_echo,
    velocity_phase,
)

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


def test_inversion_recovery_against_bloch() -> None:
    timing, ti, m = Timing(tr_ms=2500, te_ms=14, flip_deg=90), 320.0, np.array([0.0, 0, 1])
    for _ in range(30):
        m = relax(np.array([0, 0, -m[2]]), ti, MATTER.t1_ms, MATTER.t2_ms)
        m = relax(turn_x(np.pi / 2) @ [0, 0, m[2]], timing.te_ms / 2, MATTER.t1_ms, MATTER.t2_ms)
        m = relax(turn_x(np.pi) @ m, timing.te_ms / 2, MATTER.t1_ms, MATTER.t2_ms)
        echo = np.hypot(m[0], m[1])
        m = relax(m, timing.tr_ms - ti - timing.te_ms, MATTER.t1_ms, MATTER.t2_ms)
    assert abs(inversion_recovery(MATTER, timing, ti)) == pytest.approx(MATTER.density * echo, rel=1e-12)


def test_inversion_nulls_at_ln_2() -> None:
    timing = Timing(tr_ms=1e6, te_ms=1e-6, flip_deg=90)
    null = MATTER.t1_ms * np.log(2)
    assert abs(inversion_recovery(MATTER, timing, null)) < 1e-9
    assert inversion_recovery(MATTER, timing, null - 50).real < 0 < inversion_recovery(MATTER, timing, null + 50).real
    assert inversion_recovery(MATTER, timing, 0.0).real == pytest.approx(-MATTER.density, rel=1e-6)


def test_balanced_pulses_end_in_the_steady_state() -> None:
    heart, timing = TISSUES["heart"], Timing(tr_ms=3, te_ms=1.5, flip_deg=50)
    begun = prepared(-0.9, heart, timing)
    assert pulsed(begun, heart, timing, 0) == pytest.approx(begun, rel=1e-12)
    once = pulsed(pulsed(begun, heart, timing, 1), heart, timing, 1)
    assert pulsed(begun, heart, timing, 2) == pytest.approx(once, rel=1e-12)
    steady = balanced(heart, timing)
    assert shown(pulsed(begun, heart, timing, 100_000), heart, timing) == pytest.approx(steady, rel=1e-9)


def test_balanced_pulses_after_half_a_pulse_recover_with_one_rate() -> None:
    """1/T1* = cos²(α/2)/T1 + sin²(α/2)/T2 (doi:10.1002/mrm.20058), to first order in TR / T2."""
    heart, timing = TISSUES["heart"], Timing(tr_ms=2.5, te_ms=1.25, flip_deg=35)
    begun, steady = prepared(-1.0, heart, timing), balanced(heart, timing)
    left = [abs(shown(pulsed(begun, heart, timing, n), heart, timing) - steady) for n in (0, 40)]
    half = np.deg2rad(timing.flip_deg) / 2
    rate = np.cos(half) ** 2 / heart.t1_ms + np.sin(half) ** 2 / heart.t2_ms
    assert np.log(left[0] / left[1]) / (40 * timing.tr_ms) == pytest.approx(rate, rel=timing.tr_ms / heart.t2_ms)
    signs = np.sign([shown(pulsed(begun, heart, timing, n), heart, timing).real for n in range(200)])
    assert signs[0] < 0 < signs[-1] and np.count_nonzero(np.diff(signs)) == 1  # no oscillation: one null


def test_decay_halves_after_ln_2_and_turns() -> None:
    fat = TISSUES["fat"]
    assert abs(decay(fat, fat.t2_star_ms * np.log(2))) == pytest.approx(0.5, rel=1e-12)
    assert decay(fat, 0) == 1
    assert np.angle(decay(fat, 5.0)) == pytest.approx(2 * np.pi * fat.offset_hz * 0.005, rel=1e-12)


def test_diffusion_of_water_and_of_a_fibre() -> None:
    assert diffusion(TISSUES["fluid"], 1000.0) == pytest.approx(np.exp(-3.0), rel=1e-12)  # free water at 37 °C
    assert diffusion(MATTER, 0.0) == 1
    tract = TISSUES["rising tract"]
    along, across, between = (diffusivity(tract, g) for g in ((0, 0, 1), (0, 1, 0), (0.6, 0, 0.8)))
    assert (along, across) == (tract.adc_mm2_s + tract.along_mm2_s, tract.adc_mm2_s)
    assert between == pytest.approx(0.64 * along + 0.36 * across, rel=1e-12)  # gᵀDg


def test_the_encoded_velocity_turns_by_half_a_circle() -> None:
    assert velocity_phase(0.0, 80.0) == 1
    assert velocity_phase(80.0, 80.0) == pytest.approx(-1, abs=1e-15)
    assert np.angle(velocity_phase(-20.0, 80.0)) == pytest.approx(-np.pi / 4, rel=1e-12)


def test_agent_adds_to_rates_in_proportion() -> None:
    blood, agent = TISSUES["blood"], GADOLINIUM
    assert enhanced(blood, 0.0).t1_ms == pytest.approx(blood.t1_ms, rel=1e-12)
    for millimolar in (0.5, 5.0):
        after = enhanced(blood, millimolar)
        assert 1000 / after.t1_ms - 1000 / blood.t1_ms == pytest.approx(agent.r1 * millimolar, rel=1e-12)
        assert 1000 / after.t2_ms - 1000 / blood.t2_ms == pytest.approx(agent.r2 * millimolar, rel=1e-12)
        assert 1000 / after.t2_star_ms - 1000 / blood.t2_star_ms == pytest.approx(agent.r2_star * millimolar, rel=1e-12)

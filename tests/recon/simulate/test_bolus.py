"""Curves of a contrast agent: published values, conservation laws and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from recon.simulate.bolus import (
    EXCHANGES,
    PERFUSIONS,
    STEP_S,
    Exchange,
    Perfusion,
    exchanged,
    gamma_variate,
    perfused,
    population,
)

TIME_S = np.arange(8000) * STEP_S


def test_the_mean_patient() -> None:
    minutes = np.linspace(-1, 6, 4201)
    curve = population(minutes)
    assert (curve[minutes < 0] == 0).all()
    assert curve.max() == pytest.approx(6.1, abs=0.1)  # the paper's figure peaks at 6 mmol/l after 10 s
    assert minutes[curve.argmax()] == pytest.approx(0.17046, abs=0.005)


def test_a_first_pass_peaks_when_it_says() -> None:
    curve = gamma_variate(TIME_S, peak=8.0, rise_s=6.0)
    assert (curve.max(), TIME_S[curve.argmax()]) == (8.0, 6.0)
    assert gamma_variate(np.array([-3.0, 0.0]), peak=8.0, rise_s=6.0).tolist() == [0, 0]


@pytest.mark.parametrize("name", PERFUSIONS)
def test_areas_are_as_the_blood_volume(name: str) -> None:
    """All that flows in flows through: ∫C = volume · ∫Ca, however fast."""
    blood = gamma_variate(TIME_S, peak=8.0, rise_s=6.0)
    assert perfused(blood, PERFUSIONS[name]).sum() / blood.sum() == pytest.approx(PERFUSIONS[name].volume / 100)


def test_a_tissue_answers_a_step_as_an_exponential() -> None:
    step = np.ones(len(TIME_S))
    exchange, rate = Exchange(0.6, 0.3, 0.05), 0.6 / 60 / 0.3
    # A straight line from step to step is this step itself; values reach 0.35.
    np.testing.assert_allclose(exchanged(step, exchange), 0.05 + 0.3 * (1 - np.exp(-rate * TIME_S)), atol=1e-13)
    flow = Perfusion(60.0, 4.0)
    np.testing.assert_allclose(perfused(step, flow), 0.04 * (1 - np.exp(-TIME_S / flow.transit_s)), atol=1e-13)
    assert flow.transit_s == 4.0


def test_a_delay_only_delays() -> None:
    blood = gamma_variate(TIME_S, peak=8.0, rise_s=6.0)
    early, late = (perfused(blood, Perfusion(40.0, 3.0, delay)) for delay in (0.0, 2.0))
    np.testing.assert_array_equal(late[8:], early[:-8])


def test_a_tumour_takes_up_more_than_a_gland() -> None:
    plasma = population(TIME_S / 60) / 0.58
    assert exchanged(plasma, EXCHANGES["tumour"]).max() > 3 * exchanged(plasma, EXCHANGES["gland"]).max()

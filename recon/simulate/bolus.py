"""A contrast agent on its way: how much arrives by the artery, and what tissues make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType

import numpy as np

from recon.simulate.phantom import Vector

STEP_S = 0.25  # of the integrals; no curve here changes within it
HAEMATOCRIT = 0.42


@dataclass(frozen=True, slots=True)
class Exchange:
    """Transfer constant 1/min, extravascular and plasma volume (shares of the tissue's)."""

    ktrans_min: float
    ve: float
    vp: float


@dataclass(frozen=True, slots=True)
class Perfusion:
    """Blood flow in ml per 100 ml and minute, blood volume in ml per 100 ml, arrival after the artery's in s."""

    flow: float
    volume: float
    delay_s: float = 0.0

    @property
    def transit_s(self) -> float:
        """Mean transit time: the central volume theorem (doi:10.1152/jappl.1954.6.12.731)."""
        return 60 * self.volume / self.flow


# Plausible figures of a breast and a brain, as textbooks give them.
EXCHANGES: Mapping[str, Exchange] = MappingProxyType(
    {"tumour": Exchange(0.45, 0.40, 0.04), "gland": Exchange(0.06, 0.25, 0.01), "muscle": Exchange(0.05, 0.12, 0.01)}
)
PERFUSIONS: Mapping[str, Perfusion] = MappingProxyType(
    {
        "grey matter": Perfusion(60.0, 4.0, 1.0),
        "white matter": Perfusion(25.0, 2.0, 1.5),
        "infarct": Perfusion(8.0, 1.6, 4.0),
        "lesion": Perfusion(90.0, 8.0, 1.0),
    }
)


def population(minutes: Vector) -> Vector:
    """Agent in arterial blood, mmol/l, `minutes` after it arrives: a mean of patients (doi:10.1002/mrm.21066)."""
    time = np.maximum(minutes, 0)
    first = 0.809 / (0.0563 * sqrt(2 * np.pi)) * np.exp(-((time - 0.17046) ** 2) / (2 * 0.0563**2))
    second = 0.330 / (0.132 * sqrt(2 * np.pi)) * np.exp(-((time - 0.365) ** 2) / (2 * 0.132**2))
    washout = 1.050 * np.exp(-0.1685 * time) / (1 + np.exp(-38.078 * (time - 0.483)))
    return np.where(minutes < 0, 0.0, first + second + washout)


def gamma_variate(seconds: Vector, *, peak: float, rise_s: float, shape: float = 3.0) -> Vector:
    """A first pass that peaks with `peak` after `rise_s`: (t/r)^α exp(α(1 − t/r)) (doi:10.1161/01.RES.14.6.502)."""
    time = np.maximum(seconds, 0) / rise_s
    return np.asarray(peak * time**shape * np.exp(shape * (1 - time)), np.float64)


def exchanged(plasma: Vector, exchange: Exchange) -> Vector:
    """Agent in a tissue, mmol/l, from that in plasma at steps of STEP_S (extended Tofts model).

    vp·Cp + Ktrans·(Cp ⊗ exp(−Ktrans·t/ve)) (doi:10.1002/(SICI)1522-2586(199909)10:3<223::AID-JMRI2>3.0.CO;2-S).
    """
    ktrans = exchange.ktrans_min / 60
    return exchange.vp * plasma + ktrans * _convolved(plasma, rate=ktrans / exchange.ve)


def perfused(blood: Vector, perfusion: Perfusion) -> Vector:
    """Agent in a tissue that it does not leave the vessels of, mmol/l, from that in blood at steps of STEP_S.

    Flow · (Ca ⊗ exp(−t/MTT)) (doi:10.1002/mrm.1910360510).
    """
    late = round(perfusion.delay_s / STEP_S)
    arrived = np.concatenate([np.zeros(late), blood])[: len(blood)]
    return perfusion.flow / 6000 * _convolved(arrived, rate=1 / perfusion.transit_s)


def _convolved(values: Vector, *, rate: float) -> Vector:
    """∫ values(u) exp(−rate·(t − u)) du at each step: exact for values that run straight from step to step."""
    fade = np.exp(-rate * STEP_S)
    now = STEP_S * _share(rate * STEP_S)
    before = (1 - fade) / rate - now
    total = np.zeros(len(values))
    for i in range(1, len(values)):
        total[i] = fade * total[i - 1] + before * values[i - 1] + now * values[i]
    return total


def _share(x: float) -> float:
    # ∫₀¹ u exp(−x(1 − u)) du, the weight of a step's last value.
    return float((x - 1 + np.exp(-x)) / x**2)

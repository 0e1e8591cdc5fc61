"""Tissues at 1.5 T and the signal that a sequence gets from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, exp, pi, radians, sin
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Tissue:
    """Proton density (1 = free water), relaxation times in ms, and off-resonance at 1.5 T in Hz."""

    density: float
    t1_ms: float
    t2_ms: float
    t2_star_ms: float
    offset_hz: float = 0.0


# Relaxation of blood, heart and muscle: doi:10.1002/mrm.20605, 1.5 T. The other values are rounded textbook figures of
# living tissue: the simulation needs plausible contrast, not a particular person.
TISSUES: Mapping[str, Tissue] = MappingProxyType(
    {
        "white matter": Tissue(0.70, 620.0, 75.0, 60.0, 0.0),
        "grey matter": Tissue(0.80, 1020.0, 95.0, 70.0, 2.0),
        "fluid": Tissue(1.00, 4000.0, 2000.0, 400.0, 3.0),
        "lesion": Tissue(0.85, 1350.0, 140.0, 90.0, 5.0),
        "bone": Tissue(0.08, 400.0, 20.0, 5.0, -8.0),
        "skin": Tissue(0.55, 380.0, 60.0, 35.0, 10.0),
        "fat": Tissue(0.90, 290.0, 85.0, 45.0, 20.0),
        "oil": Tissue(0.95, 260.0, 110.0, 60.0, 25.0),
        "muscle": Tissue(0.78, 1008.0, 44.0, 30.0, 0.0),
        "heart": Tissue(0.79, 1030.0, 40.0, 32.0, 1.0),
        "blood": Tissue(0.86, 1441.0, 290.0, 150.0, 2.0),
        "lung": Tissue(0.18, 1200.0, 40.0, 2.0, -12.0),
        "marrow": Tissue(0.45, 550.0, 50.0, 15.0, 10.0),
    }
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Repetition time, echo time and flip angle of a sequence."""

    tr_ms: float
    te_ms: float
    flip_deg: float


def spin_echo(tissue: Tissue, timing: Timing) -> complex:
    """Signal of a 90°–180° spin echo in the steady state, fully relaxed water being 1; off-resonance is refocused."""
    recovery = 1 - 2 * exp(-(timing.tr_ms - timing.te_ms / 2) / tissue.t1_ms) + exp(-timing.tr_ms / tissue.t1_ms)
    return complex(tissue.density * recovery * exp(-timing.te_ms / tissue.t2_ms))


def gradient_echo(tissue: Tissue, timing: Timing, *, fresh: float = 0.0) -> complex:
    """Signal of a spoiled gradient echo (Ernst) with the phase that off-resonance gathers until the echo.

    `fresh` is the share of it, such as inflowing blood, that no pulse has met before.
    """
    alpha, e1 = radians(timing.flip_deg), exp(-timing.tr_ms / tissue.t1_ms)
    steady = (1 - e1) / (1 - e1 * cos(alpha))
    angle = 2 * pi * tissue.offset_hz * timing.te_ms / 1000
    echo = sin(alpha) * exp(-timing.te_ms / tissue.t2_star_ms) * complex(cos(angle), sin(angle))
    return tissue.density * (fresh + (1 - fresh) * steady) * echo


def balanced(tissue: Tissue, timing: Timing) -> complex:
    """Signal of a balanced steady-state sequence with alternating pulses on resonance (Freeman–Hill), echo at TR/2."""
    alpha, e1, e2 = radians(timing.flip_deg), exp(-timing.tr_ms / tissue.t1_ms), exp(-timing.tr_ms / tissue.t2_ms)
    steady = sin(alpha) * (1 - e1) / (1 - (e1 - e2) * cos(alpha) - e1 * e2)
    return complex(tissue.density * steady * exp(-timing.te_ms / tissue.t2_ms))

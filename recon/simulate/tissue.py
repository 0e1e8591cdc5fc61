"""Tissues at 1.5 T and the signal that a sequence gets from them, by the equations of the steady state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import cos, exp, pi, radians, sin
from types import MappingProxyType

import numpy as np

from recon.scan import Vector3


@dataclass(frozen=True, slots=True)
class Tissue:
    """Proton density (1 = free water), relaxation times in ms, and off-resonance at 1.5 T in Hz.

    `adc_mm2_s` is the diffusivity across `fibre` (unit vector, LPS; zeros where there is none), which along it is
    larger by `along_mm2_s`.
    """

    density: float
    t1_ms: float
    t2_ms: float
    t2_star_ms: float
    offset_hz: float = 0.0
    adc_mm2_s: float = 0.0
    along_mm2_s: float = 0.0
    fibre: Vector3 = (0.0, 0.0, 0.0)


# Relaxation at 1.5 T of blood, heart and muscle: doi:10.1002/mrm.20605, of liver, spleen, kidney and marrow:
# doi:10.1148/radiol.2303021331, of the breast: doi:10.1002/jmri.20469. The other values are rounded textbook figures of
# living tissue: the simulation needs plausible contrast, not a particular person.
TISSUES: Mapping[str, Tissue] = MappingProxyType(
    {
        "white matter": Tissue(0.70, 620.0, 75.0, 60.0, 0.0, 0.70e-3),
        "rising tract": Tissue(0.70, 620.0, 75.0, 60.0, 0.0, 0.40e-3, 1.00e-3, (0.0, 0.0, 1.0)),
        "crossing tract": Tissue(0.70, 620.0, 75.0, 60.0, 0.0, 0.35e-3, 1.25e-3, (1.0, 0.0, 0.0)),
        "grey matter": Tissue(0.80, 1020.0, 95.0, 70.0, 2.0, 0.80e-3),
        "fluid": Tissue(1.00, 4000.0, 2000.0, 400.0, 3.0, 3.00e-3),
        "lesion": Tissue(0.85, 1350.0, 140.0, 90.0, 5.0, 1.20e-3),
        "infarct": Tissue(0.82, 1150.0, 110.0, 75.0, 2.0, 0.40e-3),
        "bone": Tissue(0.08, 400.0, 20.0, 5.0, -8.0),
        "skin": Tissue(0.55, 380.0, 60.0, 35.0, 10.0, 0.30e-3),
        "fat": Tissue(0.90, 290.0, 85.0, 45.0, 20.0, 0.05e-3),
        "oil": Tissue(0.95, 260.0, 110.0, 60.0, 25.0, 0.05e-3),
        "muscle": Tissue(0.78, 1008.0, 44.0, 30.0, 0.0, 1.40e-3),
        "heart": Tissue(0.79, 1030.0, 40.0, 32.0, 1.0, 1.60e-3),
        "blood": Tissue(0.86, 1441.0, 290.0, 150.0, 2.0, 1.40e-3),
        "venous blood": Tissue(0.86, 1441.0, 180.0, 60.0, 8.0, 1.40e-3),
        "air": Tissue(0.00, 1000.0, 100.0, 50.0),
        "lung": Tissue(0.18, 1200.0, 40.0, 2.0, -12.0),
        "marrow": Tissue(0.45, 549.0, 49.0, 15.0, 10.0),
        "vessel wall": Tissue(0.72, 900.0, 50.0, 30.0, 0.0, 1.30e-3),
        "plaque": Tissue(0.60, 620.0, 32.0, 18.0, 4.0, 0.50e-3),
        "calcification": Tissue(0.10, 500.0, 10.0, 2.0, -10.0),
        "gland": Tissue(0.80, 1266.0, 58.0, 38.0, 0.0, 1.90e-3),
        "breast fat": Tissue(0.90, 296.0, 53.0, 35.0, 20.0, 0.10e-3),
        "tumour": Tissue(0.86, 1300.0, 75.0, 45.0, 2.0, 1.00e-3),
        "liver": Tissue(0.75, 586.0, 46.0, 25.0, 0.0, 1.10e-3),
        "iron-laden liver": Tissue(0.75, 560.0, 30.0, 8.0, 3.0, 0.90e-3),
        "spleen": Tissue(0.80, 1057.0, 79.0, 40.0, 1.0, 0.80e-3),
        "kidney cortex": Tissue(0.82, 966.0, 87.0, 55.0, 1.0, 2.00e-3),
        "kidney marrow": Tissue(0.86, 1412.0, 85.0, 45.0, 1.0, 1.90e-3),
    }
)

FAT_HZ = -217.0  # of fat's main methylene line against water at 1.5 T, 3.4 ppm


@dataclass(frozen=True, slots=True)
class Timing:
    """Repetition time, echo time and flip angle of a sequence."""

    tr_ms: float
    te_ms: float
    flip_deg: float


def spin_echo(tissue: Tissue, timing: Timing) -> complex:
    """Signal of a 90°–180° spin echo in the steady state, fully relaxed water being 1; off-resonance is refocused.

    Source: doi:10.1103/PhysRev.80.580, with recovery after the second pulse.
    """
    recovery = 1 - 2 * exp(-(timing.tr_ms - timing.te_ms / 2) / tissue.t1_ms) + exp(-timing.tr_ms / tissue.t1_ms)
    return complex(tissue.density * recovery * exp(-timing.te_ms / tissue.t2_ms))


def inversion_recovery(tissue: Tissue, timing: Timing, ti_ms: float) -> complex:
    """Signal of a spin echo `ti_ms` after an ideal inversion, in the steady state; negative before its null.

    Source: doi:10.1103/PhysRev.80.580, with recovery after each of the three pulses.
    """
    gone, echo = exp(-ti_ms / tissue.t1_ms), exp(-(timing.tr_ms - timing.te_ms / 2) / tissue.t1_ms)
    recovery = 1 - 2 * gone + 2 * echo - exp(-timing.tr_ms / tissue.t1_ms)
    return complex(tissue.density * recovery * exp(-timing.te_ms / tissue.t2_ms))


def gradient_echo(tissue: Tissue, timing: Timing, *, fresh: float = 0.0) -> complex:
    """Signal of a spoiled gradient echo (doi:10.1063/1.1719961) with the phase of off-resonance until the echo.

    `fresh` is the share of it, such as inflowing blood, that no pulse has met before.
    """
    alpha, e1 = radians(timing.flip_deg), exp(-timing.tr_ms / tissue.t1_ms)
    steady = (1 - e1) / (1 - e1 * cos(alpha))
    return tissue.density * (fresh + (1 - fresh) * steady) * sin(alpha) * decay(tissue, timing.te_ms)


def decay(tissue: Tissue, te_ms: float) -> complex:
    """What is left of transverse magnetisation after `te_ms` without a refocusing pulse: exp(−t/T2*) and its phase."""
    angle = 2 * pi * tissue.offset_hz * te_ms / 1000
    return exp(-te_ms / tissue.t2_star_ms) * complex(cos(angle), sin(angle))


def balanced(tissue: Tissue, timing: Timing) -> complex:
    """Signal of a balanced steady-state sequence with alternating pulses on resonance, echo at TR/2.

    Source: doi:10.1007/s00330-003-1957-x.
    """
    alpha, e1, e2 = radians(timing.flip_deg), exp(-timing.tr_ms / tissue.t1_ms), exp(-timing.tr_ms / tissue.t2_ms)
    steady = sin(alpha) * (1 - e1) / (1 - (e1 - e2) * cos(alpha) - e1 * e2)
    return complex(tissue.density * steady * exp(-timing.te_ms / tissue.t2_ms))


def recovered(along: float, tissue: Tissue, ms: float) -> float:
    """Longitudinal magnetisation `ms` after it was `along` (1 = fully relaxed), without pulses between."""
    return 1 + (along - 1) * exp(-ms / tissue.t1_ms)


# Transverse and longitudinal magnetisation before a balanced pulse, in a frame that turns with the pulses' phase: they
# alternate, so that every pulse turns by the flip angle and transverse magnetisation changes sign between two.
Balance = tuple[float, float]


def prepared(along: float, tissue: Tissue, timing: Timing) -> Balance:
    """The state before the first balanced pulse where longitudinal magnetisation was `along` half a TR earlier.

    Half a pulse of the other sign puts it on the path to the steady state (doi:10.1002/mrm.20058).
    """
    half, ms = radians(timing.flip_deg) / 2, timing.tr_ms / 2
    return -along * sin(half) * exp(-ms / tissue.t2_ms), recovered(along * cos(half), tissue, ms)


def pulsed(state: Balance, tissue: Tissue, timing: Timing, pulses: int) -> Balance:
    """The state before the next pulse after `pulses` of them, on resonance: it nears the steady state by a matrix."""
    alpha, e1, e2 = radians(timing.flip_deg), exp(-timing.tr_ms / tissue.t1_ms), exp(-timing.tr_ms / tissue.t2_ms)
    step = np.array([[-e2 * cos(alpha), -e2 * sin(alpha)], [-e1 * sin(alpha), e1 * cos(alpha)]])
    steady = np.linalg.solve(np.eye(2) - step, [0.0, 1 - e1])
    across, along = steady + np.linalg.matrix_power(step, pulses) @ (np.array(state) - steady)
    return float(across), float(along)


def shown(state: Balance, tissue: Tissue, timing: Timing) -> complex:
    """The echo of the balanced pulse that meets `state`: negative before the null of an inversion."""
    alpha, (across, along) = radians(timing.flip_deg), state
    echo = across * cos(alpha) + along * sin(alpha)
    return complex(tissue.density * echo * exp(-timing.te_ms / tissue.t2_ms))


def diffusivity(tissue: Tissue, direction: Vector3) -> float:
    """mm²/s along the unit vector `direction` (LPS): a tensor about one axis (doi:10.1016/S0006-3495(94)80775-1)."""
    cosine = sum(a * b for a, b in zip(tissue.fibre, direction, strict=True))
    return tissue.adc_mm2_s + tissue.along_mm2_s * cosine**2


def diffusion(tissue: Tissue, b_s_mm2: float, direction: Vector3 = (0.0, 0.0, 0.0)) -> float:
    """Share of the signal that diffusion weighting leaves, exp(−b·D) (doi:10.1063/1.1695690)."""
    return exp(-b_s_mm2 * diffusivity(tissue, direction))


def velocity_phase(velocity_cm_s: float, venc_cm_s: float) -> complex:
    """exp(iφ) of a velocity along the encoded direction, against one that is not encoded: φ = π·v/venc.

    Source: doi:10.1002/jmri.1880010404.
    """
    angle = pi * velocity_cm_s / venc_cm_s
    return complex(cos(angle), sin(angle))


@dataclass(frozen=True, slots=True)
class Agent:
    """A contrast agent: relaxivities per (mmol/l · s)."""

    r1: float
    r2: float
    r2_star: float


# Gd-BT-DO3A in plasma at 1.5 T: doi:10.1097/01.rli.0000184756.66360.d3; r2* in tissue at 1.5 T: a usual figure.
GADOLINIUM = Agent(r1=5.2, r2=6.1, r2_star=44.0)


def enhanced(tissue: Tissue, millimolar: float, agent: Agent = GADOLINIUM) -> Tissue:
    """`tissue` with `millimolar` (mmol/l) of a contrast agent: its relaxation rates grow by relaxivity · concentration.

    Source: doi:10.1097/01.rli.0000184756.66360.d3.
    """
    return replace(
        tissue,
        t1_ms=_faster(tissue.t1_ms, agent.r1 * millimolar),
        t2_ms=_faster(tissue.t2_ms, agent.r2 * millimolar),
        t2_star_ms=_faster(tissue.t2_star_ms, agent.r2_star * millimolar),
    )


def _faster(time_ms: float, rate_s: float) -> float:
    return 1 / (1 / time_ms + rate_s / 1000)

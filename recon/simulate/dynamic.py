"""Protocols that watch a contrast agent: T1-weighted volumes of the breast, T2*-weighted slices of the brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from recon.scan import Counters
from recon.simulate.anatomies import BREAST, VESSELS
from recon.simulate.bolus import (
    EXCHANGES,
    HAEMATOCRIT,
    PERFUSIONS,
    STEP_S,
    exchanged,
    gamma_variate,
    perfused,
    population,
)
from recon.simulate.measurement import Choice, Measurement, geometry, head_array, header, oblique
from recon.simulate.objects import Region
from recon.simulate.phantom import Vector
from recon.simulate.series import Series, Signal, encoding_of, measure, nested, plane, volume
from recon.simulate.tissue import TISSUES, Timing, enhanced, gradient_echo

DCE = Timing(tr_ms=5.0, te_ms=2.4, flip_deg=12.0)
DCE_VIEW_MM, DCE_INJECTION_S = 136.0, 20.0
DSC = Timing(tr_ms=1500.0, te_ms=30.0, flip_deg=60.0)
DSC_INJECTION_S, DSC_PEAK_MMOL, DSC_RISE_S, LINE_MS = 12.0, 6.0, 5.0, 0.5

Curves = Mapping[str, Vector]  # concentration mmol/l by tissue, [step]


def breast_curves(seconds: float, *, injection_s: float = DCE_INJECTION_S) -> Curves:
    """The agent in each tissue of the breast, every STEP_S from the beginning of the scan."""
    time = _steps(seconds) - injection_s
    blood = population(time / 60)
    plasma = blood / (1 - HAEMATOCRIT)
    return {"blood": blood} | {name: exchanged(plasma, exchange) for name, exchange in EXCHANGES.items()}


def brain_curves(seconds: float) -> Curves:
    """The agent's first pass through the brain, every STEP_S from the beginning of the scan."""
    time = _steps(seconds) - DSC_INJECTION_S
    blood = gamma_variate(time, peak=DSC_PEAK_MMOL, rise_s=DSC_RISE_S)
    return {"blood": blood} | {name: perfused(blood, perfusion) for name, perfusion in PERFUSIONS.items()}


def _steps(seconds: float) -> Vector:
    return np.asarray(np.arange(int(seconds / STEP_S) + 2) * STEP_S, np.float64)


def concentration(curves: Curves, tissue: str, seconds: float) -> float:
    """mmol/l in `tissue` at a moment of the scan; none where the agent does not go."""
    curve = curves.get(tissue)
    return 0.0 if curve is None else float(np.interp(seconds / STEP_S, np.arange(len(curve)), curve))


def enhancing(curves: Curves, seconds: float, timing: Timing) -> Signal:
    """How bright each region of a spoiled gradient echo is at a moment of the scan."""

    def signal(region: Region) -> complex:
        agent = concentration(curves, region.tissue, seconds)
        fresh = 0.5 if region.velocity_cm_s else 0.0
        return gradient_echo(enhanced(TISSUES[region.tissue], agent), timing, fresh=fresh)

    return signal


def breast_dce(choice: Choice, _: Generator) -> Measurement:
    """Volumes of the breast one after another, as the agent arrives; each as bright as at the centre of its k-space."""
    n, count = choice.matrix, choice.repetitions
    partitions = max(8, round(0.3 * n))
    encoding = encoding_of((partitions, n, n), (DCE_VIEW_MM,) * 3, repetition=count)
    scan = header("breast-dce", encoding, coils=choice.coils, timing=DCE)
    order = nested(state=count, kspace_encode_step_2=partitions, kspace_encode_step_1=n)
    start_s = np.arange(len(order["state"])) * DCE.tr_ms / 1000
    frame_s = partitions * n * DCE.tr_ms / 1000
    where = geometry(oblique((1, 0, 0), (0, 1, 0), about_x_deg=5, about_z_deg=-4), (0, 0, 0))
    view = volume(BREAST, where, field=head_array(choice.coils), view_mm=np.full(3, DCE_VIEW_MM))
    curves = breast_curves(count * frame_s)
    signals = [enhancing(curves, (i + 0.5) * frame_s, DCE) for i in range(count)]
    states = [Counters(repetition=i) for i in range(count)]
    return measure(scan, Series([view], states, order, start_s, sample_time_us=5.0, noise_std=0.0015), signals)


def brain_dsc(choice: Choice, _: Generator) -> Measurement:
    """Single shots of two slices, one a TR each, as the agent passes through the brain; all lines at the echo time."""
    n, count, slices = choice.matrix, choice.repetitions, 2
    encoding = encoding_of((1, n, n), (5.0, 240.0, 240.0), slice=slices, repetition=count)
    scan = header("brain-dsc", replace(encoding, echo_train_length=n), coils=choice.coils, timing=DSC)
    order = nested(state=count, slice=slices, kspace_encode_step_1=n)
    excitation = order["state"] + order["slice"] / slices
    start_s = (excitation * DSC.tr_ms + order["kspace_encode_step_1"] * LINE_MS) / 1000
    axes = oblique((1, 0, 0), (0, 1, 0), about_x_deg=6, about_z_deg=3)
    places = [geometry(axes, (0, 0, z)) for z in (-2.0, 14.0)]
    views = [plane(VESSELS, where, field=head_array(choice.coils), view_mm=240.0) for where in places]
    curves = brain_curves(count * DSC.tr_ms / 1000)
    signals = [enhancing(curves, (i + 0.5) * DSC.tr_ms / 1000, DSC) for i in range(count)]
    states = [Counters(repetition=i) for i in range(count)]
    return measure(scan, Series(views, states, order, start_s, sample_time_us=2.0, noise_std=0.004), signals)

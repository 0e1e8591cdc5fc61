"""A heart that beats and breathes: exact at each readout, and sharper when both are known."""

from __future__ import annotations

import numpy as np

from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Geometry, Physiology
from recon.simulate import nrmse, simulate
from recon.simulate.coils import coil_spectrum
from recon.simulate.free import FREE_PHASES, MOTION_MM, STATES
from recon.simulate.heart import VIEW_MM, Stage, balanced_signal, chest, heart
from recon.simulate.measurement import chest_array, seen_by
from recon.simulate.physiology import BASELINE, BELLOWS_SPAN, contraction
from recon.simulate.truth import unit
from tests.recon.methods.phantoms import CPU


def test_phases_gated_by_both_waveforms_are_nearer_to_the_truth() -> None:
    """And a readout is that of the heart as contracted and as far down as the ECG's and the belt's times say."""
    scan = simulate("heart-free", seed=1, coils=2, matrix=24, noise=0)
    assert {block.kind for block in scan.scan.waveforms} == {Physiology.ECG, Physiology.RESPIRATION}
    errors = []
    for values in ({}, {"respiration": "waveform"}):
        found = list(reconstruct(scan.scan, Recipe("cine", {"phases": FREE_PHASES, **values}), CPU))
        errors.append([nrmse(image.pixels[0], truth) for image, truth in zip(found, scan.truth, strict=True)])
        assert not any(text.startswith("not gated") for image in found for text in image.comments)
    assert (np.array(errors[1]) < np.array(errors[0])).all()

    (run,) = scan.scan.readouts
    assert run.trajectory is not None
    encoding = scan.scan.header.encodings[0]
    stage = Stage(encoding, seen_by(chest_array(2), Geometry(), np.full(2, VIEW_MM)), balanced_signal)
    belt = np.concatenate([b.samples[0] for b in scan.scan.waveforms if b.kind == Physiology.RESPIRATION])
    for row in (700, 2500):  # 2.1 and 7.5 s, on the belt's grid of 20 ms
        k = run.trajectory[row].astype(np.float64) / np.array(encoding.encoded.spacing_mm[:0:-1])
        down = (belt[row * 3 // 20] - float(BASELINE)) / BELLOWS_SPAN
        since_s = float(run.head["physiology_time_stamp"][row, 0]) * 0.0025
        states = [np.rint(contraction(np.array(since_s + late)) * STATES) / STATES for late in (0.0, 0.0025)]
        resting = coil_spectrum(chest(stage), stage.coils, k)
        expected = [
            unit(encoding.encoded, 2)
            * (resting + coil_spectrum(heart(stage, float(state)), stage.coils, k, moved_mm=down * MOTION_MM))
            for state in states
        ]
        # A tick of the counter is 2.5 ms: the heart is between both states, and the belt is rounded to a count.
        away = [float(np.abs(run.samples[row] - each).max()) for each in expected]
        apart = float(np.abs(expected[0] - expected[1]).max())
        assert min(away) <= apart + 1e-3 * float(np.abs(expected[0]).max())

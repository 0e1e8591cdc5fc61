"""`grappa` and `sense` judged by BART's SENSE (`pics`, `ecalib`) on the same lines: BART has no GRAPPA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recon.gather import gather, select
from recon.pipeline import frames_of
from recon.prepare import whitening
from recon.simulate import nrmse
from tests.recon.judges import Bart
from tests.recon.methods.phantoms import CPU
from tests.recon.methods.test_cg_sense import error, measured, thinned

# Weights and maps are two estimates of the same coils from the same lines; neither is better by a law.
ALIKE = 1.1


@pytest.mark.parametrize("noise", [0, 1])
@pytest.mark.parametrize("factor", [2, 3])
def test_bart_makes_no_better_image_of_the_same_lines(factor: int, noise: float, tmp_path: Path) -> None:
    bart = Bart(tmp_path)
    simulated = measured("brain-se", 96, noise=noise)
    scan = thinned(simulated.scan, (factor, 1))
    frames, known = frames_of(scan)
    (index,) = (each for each in frames if each.counters.slice == 0)
    kspace = gather(scan.header, select(scan.readouts, index.rows)).kspace
    kspace = CPU.fft(CPU.ifft(kspace, axes=1, crop=(96,)), axes=1)
    if noise:
        dwell_us = float(scan.readouts[-1].head["sample_time_us"][0])
        white = whitening(known, header=scan.header, sample_time_us=dwell_us).whitening
        kspace = np.tensordot(white, kspace, axes=1).astype(np.complex64)
    (truth,) = (each for each in simulated.truth if each.counters == index.counters)
    image = bart("pics -S -i10 -d0", kspace, bart("ecalib -m1 -r24 -c0", kspace)).reshape(1, 96, 96)
    # BART scales its result by the data; both estimate the truth, so the best factor is taken for it.
    size = np.abs(image).astype(np.float32)
    size *= np.float32(np.vdot(size, truth.pixels) / np.vdot(size, size))
    for method in ("grappa", "sense"):
        assert error(simulated, scan, method) < ALIKE * nrmse(size, truth)

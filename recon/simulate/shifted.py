"""Off-resonance while reading: a gradient echo of low bandwidth moves fat and stretches what lies in a field gradient.

The truth is the image that the sequence makes: what turns by f per second is read f · (length of the readout) pixels
away, since a phase that grows along k-space is a shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

from recon.scan import Geometry
from recon.simulate.cartesian import (
    OVERSAMPLING,
    SE_VIEW_MM,
    Slices,
    interleaved,
    measured,
    spin_echo_encoding,
)
from recon.simulate.coils import Coils
from recon.simulate.evolution import Evolving, evolved_spectrum, evolving, rate, seen
from recon.simulate.measurement import Choice, Measurement, geometry, head_array, header, oblique, seen_by
from recon.simulate.objects import HEAD
from recon.simulate.phantom import Spectrum, Vector
from recon.simulate.tissue import FAT_HZ, TISSUES, Timing, Tissue, gradient_echo
from recon.simulate.truth import mask, unit

LOW_BAND = Timing(tr_ms=90.0, te_ms=12.0, flip_deg=30.0)
DWELL_US, NOISE, PLACE_MM = 30.0, 0.003, 2.0
# Hz per mm along (x, y, z) of the patient, as bone and air nearby make them.
SLOPES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"left thalamus": (0.0, 4.0, 0.0), "occipital lesion": (3.0, -3.0, 0.0), "right ventricle": (-2.0, 1.0, 0.0)}
)


def head_shift(choice: Choice, _: Generator) -> Measurement:
    """One slice of the head with the oil capsule beside it, read for as long as T2* and fat allow."""
    where = geometry(oblique((1, 0, 0), (0, 1, 0), about_x_deg=4, about_z_deg=0), (0, 0, PLACE_MM))
    encoding = spin_echo_encoding(choice, slices=1)
    scan = header("head-shift", encoding, coils=choice.coils, timing=LOW_BAND)
    body, coils = head(where), seen_by(head_array(choice.coils), where, np.full(2, SE_VIEW_MM))
    kspace = unit(encoding.encoded, 2) * read(body, coils, matrix=choice.matrix)
    covered = mask(body.shapes, encoding.recon)
    slices = Slices(kspace.astype(np.complex64)[None, :, None], [covered], [where])
    order = interleaved(lines=choice.matrix, slices=1, repetitions=choice.repetitions, tr_ms=LOW_BAND.tr_ms)
    return measured(scan, slices, order=order, sample_time_us=DWELL_US, noise_std=NOISE)


def head(where: Geometry) -> Evolving:
    """The head at the moment of excitation, and how fast each part of it turns and decays."""
    excited = partial(gradient_echo, timing=replace(LOW_BAND, te_ms=0.0))
    return seen(evolving(HEAD, excited, speed, slopes_hz_mm=SLOPES), where, plane=True)


def speed(tissue: Tissue) -> complex:
    """1/s; fat turns slower than water."""
    fat = tissue in (TISSUES["fat"], TISSUES["oil"])
    return rate(FAT_HZ if fat else tissue.offset_hz, tissue.t2_star_ms)


def read(body: Evolving, coils: Coils, *, matrix: int) -> Spectrum:
    """Exact k-space [coil, ky, kx] of `body`, each sample at its own time after the excitation."""
    samples = OVERSAMPLING * matrix
    place = np.arange(samples) - samples // 2
    kx, ky = place / (OVERSAMPLING * SE_VIEW_MM), (np.arange(matrix) - matrix // 2) / SE_VIEW_MM
    k = np.stack(np.broadcast_arrays(kx, ky[:, None]), axis=-1)
    time_s: Vector = np.asarray(LOW_BAND.te_ms / 1000 + place * DWELL_US * 1e-6, np.float64)
    return evolved_spectrum(body, coils, k, np.broadcast_to(time_s, k.shape[:2]))

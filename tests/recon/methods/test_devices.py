"""Every method on a device as strict as CuPy makes the CPU's images, and asks little of the way between."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from kernels.contract import Kernels
from recon.cache import Cache
from recon.gather import select
from recon.methods import METHODS
from recon.pipeline import frames_of, reconstruct_material
from recon.recipe import EXTENSIONS, Recipe
from recon.scan import Image, Material, Readouts, Scan
from recon.simulate import simulate
from tests.cuda.shim import open_shim
from tests.foreign import ForeignKernels
from tests.recon.methods.phantoms import CPU, distance
from tests.recon.methods.test_cg_sense import thinned
from tests.recon.methods.test_reference import separated

MATRIX = {"head-gre3d": 40, "head-stars": 16, "breast-stars": 24}
LOOKED_AT = ("heart-radial", "head-stars", "breast-stars", "head-spiral")
# The same operations on the same numbers; only rows that BLAS finds aligned otherwise may round otherwise.
ALIKE = 1e-5
OWN_TABLES = 2  # of each further frame that is reconstructed together with a first one
TABLES = 18  # masks, indices and windows of one frame: each is a copy that the host does not wait for


@dataclass(frozen=True)
class Case:
    """A scan, a recipe for it, and how many single numbers the host may ask for; it asks for two where it iterates."""

    scan: str
    method: str
    parameters: dict[str, Any]
    numbers: int

    def __str__(self) -> str:
        return f"{self.scan} {self.method} {self.parameters}"


CASES = [
    Case("brain-se", "fft", {}, 0),
    Case("brain-se", "fft", {"combine": "adaptive", "coils": 3, "output": "phase"}, 4),
    Case("brain-se", "fft", {"coils": 3, "compression": "geometric"}, 3),
    Case("brain-se partial", "fft", {"partial_fourier": "homodyne", "output": "real"}, 3),
    Case("brain-se partial", "fft", {"partial_fourier": "pocs", "coils": "auto"}, 2 * 20 + 2),
    Case("head-gre3d", "fft", {"combine": "adaptive", "output": "complex"}, 3),
    Case("brain-se thinned", "grappa", {"combine": "adaptive", "gfactor": True}, 5),
    Case("head-gre3d thinned", "grappa", {}, 2),
    Case("brain-se thinned", "grappa", {"snr": "analytic"}, 2),
    Case("brain-se separate", "grappa", {"coils": 5}, 3),
    Case("brain-se thinned", "sense", {"gfactor": True}, 3),
    Case("head-gre3d thinned", "sense", {}, 3),
    Case("brain-se thinned", "cg-sense", {}, 2 * 10 + 2),
    Case("brain-se thinned", "cg-sense", {"sets": 2}, 2 * 10 + 2),
    Case("brain-se thinned", "cg-sense", {"maps": "walsh"}, 2 * 10 + 3),
    Case("brain-se separate", "cg-sense", {"lambda": 0.01}, 2 * 10 + 2),
    Case("heart-radial", "cg-sense", {}, 2 * 10 + 2),
    Case("heart-radial", "cg-sense", {"sets": 2}, 2 * 10 + 2),
    Case("heart-spiral", "cg-sense", {"maps": "walsh"}, 2 * 10 + 3),
    Case("brain-se thinned", "l1-wavelet", {"iterations": 5}, 3 * 5 + 3),
    Case("heart-radial", "l1-wavelet", {"iterations": 3, "whiten": False}, 3 * 3 + 2 * 12 + 3),
    Case("brain-se thinned", "tv", {"iterations": 5}, 3 * 5 + 2),
    Case("heart-radial", "gridding", {}, 0),
    Case("heart-spiral", "gridding", {"combine": "adaptive"}, 3),
    Case("head-stars", "gridding", {}, 0),
    Case("head-stars", "cg-sense", {"iterations": 2}, 2 * 2 + 2),
    Case("breast-stars", "grasp", {"window": 4, "iterations": 3}, 3 * 3 + 2 * 2 * 12 + 3),
    Case("breast-stars", "llr", {"over": "time", "window": 4, "iterations": 3}, 3 * 3 + 2 * 2 * 12 + 3),
    Case("brain-ir thinned", "llr", {"iterations": 4}, 3 * 4 + 3),
    Case("head-spiral", "gridding", {}, 0),
    Case("head-spiral", "cg-sense", {"iterations": 2}, 2 * 2 + 2),
    Case("head-epi-sms", "slice-grappa", {}, 4),
    Case("heart-cine", "cine", {"phases": 3}, 0),
    Case("brain-se", "null", {}, 0),
]


@cache
def scan_of(name: str) -> Scan:
    """A small noisy scan: whole, thinned regularly with a centre, calibrated apart, or with one side missing."""
    protocol, _, how = name.partition(" ")
    scan = simulate(protocol, seed=3, coils=6, matrix=MATRIX.get(protocol, 32), repetitions=1).scan
    if how == "thinned":
        return thinned(scan, (2, 2) if protocol == "head-gre3d" else (2, 1), centre=16)
    if how == "separate":
        return separated(scan, 2)
    return lower_lines_missing(scan) if how == "partial" else scan


def lower_lines_missing(scan: Scan) -> Scan:
    *noise, run = scan.readouts
    kept = run.head["kspace_encode_step_1"] >= 10
    return Scan(scan.header, (*noise, Readouts(run.head[kept], run.samples[kept])))


def first_frame(name: str, recipe: Recipe, kernels: Kernels, store: Cache) -> list[Image]:
    scan = scan_of(name)
    indices, noise = frames_of(scan, recipe)
    material = Material(select(scan.readouts, indices[0].rows), noise, scan.waveforms, indices[0].counters)
    return reconstruct_material(scan.header, material, recipe, kernels, store)


def test_every_method_has_a_case() -> None:
    assert {case.method for case in CASES} | {entry.name for entry in EXTENSIONS} == set(METHODS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_image_is_the_cpus(case: Case) -> None:
    recipe = Recipe(case.method, case.parameters)
    here, there = (first_frame(case.scan, recipe, kernels, Cache()) for kernels in (CPU, foreign()))
    together = 3 if case.method == "slice-grappa" else 1  # slices of a frame
    assert len(here) == len(there) == together * frames_in(case) + len({"gfactor", "snr"} & {*case.parameters})
    for one, other in zip(here, there, strict=True):
        assert type(other.pixels) is np.ndarray
        assert distance(other.pixels, one.pixels) < ALIKE
        assert other.comments == one.comments


def frames_in(case: Case) -> int:
    """How many frames the method makes of a frame's readouts."""
    windows = 2 if "window" in case.parameters else 6 if case.scan.startswith("brain-ir") else 1
    return (case.method != "null") * case.parameters.get("phases", windows)


def foreign() -> Any:
    return ForeignKernels(CPU)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_frame_crosses_once_each_way(case: Case) -> None:
    """K-space there, pixels back: the second frame of a scan, whose whitening, plan and densities are known."""
    kernels, store, recipe = foreign(), Cache(), Recipe(case.method, case.parameters)
    first_frame(case.scan, recipe, kernels, store)
    traffic = kernels.traffic
    sent, back, numbers = len(traffic.up), len(traffic.down), traffic.numbers
    images = first_frame(case.scan, recipe, kernels, store)
    up, down = traffic.up[sent:], traffic.down[back:]
    largest = max(up, default=0)
    echoes, apart = 2 * (case.scan == "head-spiral"), case.scan.endswith("separate") or case.method == "slice-grappa"
    frames = frames_in(case) + echoes + apart
    assert up.count(largest) == frames or not up
    assert len(up) - frames <= TABLES + OWN_TABLES * (frames_in(case) - 1)
    # Beside: which samples of a readout there are, what spokes measured about their middle, the phase of echoes.
    looked = "partial_fourier" in case.parameters or case.scan in LOOKED_AT
    assert len(down) == len(images) + looked
    assert traffic.numbers - numbers <= case.numbers


ON_SHIM = [
    Case("brain-se", "fft", {"combine": "adaptive"}, 0),
    Case("brain-se thinned", "grappa", {}, 0),
    Case("brain-se thinned", "sense", {}, 0),
    Case("brain-se thinned", "cg-sense", {"iterations": 4}, 0),
    Case("brain-se thinned", "l1-wavelet", {"iterations": 3}, 0),
    Case("heart-radial", "gridding", {}, 0),
    Case("heart-radial", "cg-sense", {"iterations": 4, "lambda": 0.01}, 0),
]
# Twice the accuracy that a recipe asks of NUFFTs, and what four iterations and ten of densities make of it.
NUFFT = 1e-3


@pytest.mark.parametrize("case", ON_SHIM, ids=str)
def test_cudas_own_source_makes_the_image(case: Case) -> None:
    """The same frame twice: what is kept from the first, plans and recorded loops, serves the second."""
    recipe, kernels, store = Recipe(case.method, case.parameters), open_shim(seed=2), Cache()
    expected = first_frame(case.scan, recipe, CPU, Cache())
    for _ in range(2):
        for one, other in zip(first_frame(case.scan, recipe, kernels, store), expected, strict=True):
            assert distance(one.pixels, other.pixels) < (NUFFT if case.scan.startswith("heart") else ALIKE)

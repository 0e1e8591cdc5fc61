"""Echo-planar scans small enough for tests, and how ghosts are measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

import kernels
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Encoding, Image, Scan
from recon.simulate import SimulatedScan, Truth, simulate
from recon.simulate.epi import ECHO_PLANAR, Plan, measured
from recon.simulate.measurement import Choice, Protocol

CPU = kernels.on("cpu", threads=1)
ONE_SLICE = Plan(slices_mm=(5.0,))


def scan_of(plan: Plan, *, matrix: int = 32, coils: int = 4, repetitions: int = 1) -> SimulatedScan:
    """What `plan` measures, without noise."""

    def measure(choice: Choice, _: np.random.Generator) -> object:
        return measured("planar", choice, plan)

    protocol = Protocol("planar", "", ECHO_PLANAR, Choice(repetitions, coils, matrix), measure)  # type: ignore[arg-type]
    return simulate(protocol, noise=0)


def images_of(scan: Scan, method: str = "auto") -> list[Image]:
    """The images of `scan` under default parameters."""
    return list(reconstruct(scan, Recipe(method), CPU))


def ghost_level(image: Image, truth: Truth) -> float:
    """Root mean square of what is wrong where only the ghost lies, relative to the object's mean.

    The ghost is the object half a field of view away, along y.
    """
    ghost = np.roll(truth.mask, truth.mask.shape[1] // 2, axis=1) & ~truth.mask
    wrong: NDArray[np.float32] = (image.pixels[0] - truth.pixels)[ghost]
    return float(np.sqrt(np.mean(wrong**2)) / truth.pixels[truth.mask].mean())


def with_encoding(scan: Scan, encoding: Encoding) -> Scan:
    """`scan` under a header that says something else."""
    return replace(scan, header=replace(scan.header, encodings=(encoding, *scan.header.encodings[1:])))

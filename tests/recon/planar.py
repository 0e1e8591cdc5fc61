"""Echo-planar scans small enough for tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import kernels
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Encoding, Image, Scan
from recon.simulate import SimulatedScan, simulate
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


def with_encoding(scan: Scan, encoding: Encoding) -> Scan:
    """`scan` under a header that says something else."""
    return replace(scan, header=replace(scan.header, encodings=(encoding, *scan.header.encodings[1:])))

"""Peak memory of the kernels, each in a process of its own, beside the arithmetic minimum that its docstring states.

The system counts the pages of a process, those of C libraries too; what is counted begins when a smaller piece of the
same work has loaded the code. `python -m bench.peak NAME` is such a process: it prints peak and minimum, MB.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import kernels
from bench.nufft_sides import koosh_ball, noise, radial
from bench.report import Row, row
from kernels.contract import Real
from kernels.cpu.nufft import plan_bytes, response_bytes
from recon.espirit import espirit, espirit_bytes
from recon.grappa import SLAB_BYTES, SOURCES, WIDTH, calibrate, calibration_bytes, centre_of, fill, lattice_of
from recon.operators import nufft_sense
from recon.solve import cg

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
COILS = 8


@dataclass(frozen=True)
class Work:
    """A piece of work: `run` with inputs that are there, and the bytes that it needs at least, with its result."""

    run: Callable[[], object]
    least_bytes: int


def nufft(points: Real, shape: tuple[int, ...]) -> Work:
    """A plan, forward and adjoint of 8 coils."""
    x = noise(np.random.default_rng(0), COILS, *shape)

    def run() -> object:
        plan = kernels.on("cpu").nufft(points, shape)
        return plan.adjoint(plan.forward(x))

    return Work(run, plan_bytes(len(points), shape) + 8 * COILS * len(points) + x.nbytes)


def sense(points: Real, shape: tuple[int, ...]) -> Work:
    """CG-SENSE, ten iterations: the plan, the response of its normal operator, and the solver's four images."""
    rng = np.random.default_rng(0)
    maps, kspace = noise(rng, COILS, *shape), noise(rng, COILS, len(points))

    def run() -> object:
        device = kernels.on("cpu")
        operator = nufft_sense(device, device.nufft(points, shape), maps)
        return cg(operator.normal, operator.adjoint(kspace), iterations=10)

    return Work(run, plan_bytes(len(points), shape) + max(response_bytes(len(points), shape), maps.nbytes))


def maps(size: int) -> Work:
    """ESPIRiT of 24² samples."""
    y, x = np.mgrid[-12:12, -12:12] / 24
    coil = np.arange(COILS)[:, np.newaxis, np.newaxis]
    centre = np.exp(-8 * (y**2 + x**2) + 2j * (np.sin(coil) * y + np.cos(coil) * x)).astype(np.complex64)
    grid = (1, size, size)
    return Work(lambda: espirit(centre[:, np.newaxis], grid), espirit_bytes(COILS, grid))


def grappa(coils: int) -> Work:
    """Calibration and filling of a slice of 256², every third line and 24 more."""
    sampled = np.zeros((1, 256), bool)
    sampled[:, 1::3] = sampled[:, 116:140] = True
    rng = np.random.default_rng(0)
    lines, known = noise(rng, coils, 256, 1, 256), noise(rng, coils, 1, 24, 256)
    lines *= sampled
    lattice = lattice_of(sampled, centre_of(sampled))
    assert lattice is not None

    def run() -> object:
        weights = calibrate(known, lattice)
        fill(lines, sampled, lattice, weights)
        return weights

    sources = SOURCES[0]
    weights = 8 * (lattice.acceleration - 1) * coils * coils * WIDTH * sources
    return Work(run, weights + max(calibration_bytes(coils, sources), 2 * SLAB_BYTES))


WORKS: dict[str, tuple[Callable[[], Work], Callable[[], Work]]] = {  # a small one, and the one that is measured
    "nufft radial 256² × 8": (lambda: nufft(radial(8, 32), (16, 16)), lambda: nufft(radial(64, 512), (256, 256))),
    "nufft koosh-ball 64³ × 8": (
        lambda: nufft(koosh_ball(20, 16), (8, 8, 8)),
        lambda: nufft(koosh_ball(2000, 128), (64, 64, 64)),
    ),
    "cg-sense radial 256² × 8": (lambda: sense(radial(8, 32), (16, 16)), lambda: sense(radial(64, 512), (256, 256))),
    "espirit 256² × 8": (lambda: maps(32), lambda: maps(256)),
    "grappa 256² × 32, R = 3": (lambda: grappa(2), lambda: grappa(32)),
}


def measure() -> list[Row]:
    """A row for each: its peak beside the arithmetic minimum, whose ratio is the median's."""
    rows = []
    for name in WORKS:
        command = [sys.executable, "-m", "bench.peak", name]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        peak, least = map(float, ended.stdout.split())
        rows.append(row(f"{name}: peak", [peak], "MB", [least]))
    return rows


def peak_of(work: Work) -> float:
    """The most bytes of this process's pages while it runs, above those before."""
    ctypes.CDLL(None).malloc_trim(0)
    FORGET.write_text("5", encoding="ascii")
    before = counted("VmHWM")
    work.run()
    return counted("VmHWM") - before


def counted(name: str) -> float:
    """Bytes that the system counts for this process."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return float(line.split()[1]) * 1024


if __name__ == "__main__":
    small, real = WORKS[sys.argv[1]]
    small().run()
    work = real()
    print(peak_of(work) / 1e6, work.least_bytes / 1e6)

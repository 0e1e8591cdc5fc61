"""ESPIRiT beside `bart ecalib`, and GRAPPA from readouts to image: time and error against exact truth.

`python -m bench.calibration` shows them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import kernels
from bench import report
from bench.cg_sense import compiled
from bench.espirit_process import CENTRE, middle_of, write_cfl
from kernels.contract import Complex, Kernels
from recon.cache import Cache
from recon.espirit import espirit
from recon.gather import gather, select
from recon.pipeline import frames_of, reconstruct_frame
from recon.recipe import Recipe
from recon.scan import Image, Readouts, Scan
from recon.simulate import SimulatedScan, nrmse, simulate

MATRIX = 256
ESPIRIT_COILS, GRAPPA_COILS, ACCELERATION = 8, 32, 3
SLICE = 2  # the one through the middle of the head
BART = ("ecalib", "-m1", f"-r{CENTRE}")


def measure(*, rounds: int) -> list[report.Row]:
    """All rows; those beside BART are left out where it is not installed."""
    return [*espirit_rows(rounds), *grappa_rows(rounds)]


# --- ESPIRiT ---------------------------------------------------------------------------------------------------------


def espirit_rows(rounds: int) -> list[report.Row]:
    """Maps of 256² voxels for 8 coils from 24 × 24 samples, each way in turn."""
    kspace = full_kspace(kernels.on("cpu"))
    centre = middle_of(kspace)
    grid = (1, MATRIX, MATRIX)
    ways: dict[str, Callable[[], object]] = {"espirit.256-8c": lambda: espirit(centre, grid)}
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "kspace"), Path(folder, "maps")
        write_cfl(source, kspace)
        bart = shutil.which("bart")
        own = [sys.executable, "-m", "bench.espirit_process", str(source), str(target)]
        environment = compiled(Path(folder)) | {"OPENBLAS_NUM_THREADS": "1"}  # as `recon-cluster` sets it
        ways["espirit.256-8c.process"] = lambda: command(own, environment)
        if bart is not None:
            ways["bart"] = lambda: command([bart, *BART, str(source), str(target)], environment)
        samples = timed(ways, rounds)
    judge = samples.pop("bart", ())
    return [report.row(name, values, "ms", judge) for name, values in samples.items()]


def full_kspace(device: Kernels) -> Complex:
    """K-space [coil, 1, ky, kx] of a head without readout oversampling."""
    frame = frame_of(simulated(ESPIRIT_COILS))
    image = device.ifft(frame, axes=1, crop=(MATRIX,))
    return device.fft(image, axes=1)


def command(arguments: list[str], environment: dict[str, str]) -> None:
    """Run a whole process."""
    subprocess.run(arguments, check=True, capture_output=True, timeout=100, env=environment)


# --- GRAPPA ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Readouts of one undersampled slice, and its noise scan."""

    simulated: SimulatedScan
    scan: Scan
    readouts: list[Readouts]
    noise: list[Readouts]

    def run(self, method: str, cache: Cache) -> Image:
        """From readouts to the image; only the noise scan's whitening is remembered."""
        (image,) = reconstruct_frame(
            self.scan.header, self.readouts, self.noise, Recipe(method), kernels.on("cpu"), cache
        )
        return image

    def error(self, method: str) -> float:
        """NRMSE of the image against the truth without noise."""
        image = self.run(method, Cache())
        (truth,) = (each for each in self.simulated.truth if each.counters == image.counters)
        return nrmse(image.pixels[0], truth)


def grappa_rows(rounds: int) -> list[report.Row]:
    """A slice of 256 lines of 512 samples, 32 coils, every third line and 24 more: whitened, calibrated, filled."""
    job, cache, name = undersampled(simulated(GRAPPA_COILS)), Cache(), f"grappa.256-32c-r{ACCELERATION}"
    samples = timed({name: lambda: job.run("grappa", cache)}, rounds)
    return [
        report.row(name, samples[name], "ms"),
        report.row(f"{name}.nrmse", [job.error("grappa")], "1", [job.error("fft")]),
    ]


def undersampled(full: SimulatedScan) -> Job:
    """One slice with every third line and the centre."""
    noise_run, lines = full.scan.readouts
    place = lines.head["kspace_encode_step_1"].astype(int) - MATRIX // 2
    kept = ((place % ACCELERATION == 0) | (abs(place) <= CENTRE // 2)) & (lines.head["slice"] == SLICE)
    (encoding,) = full.scan.header.encodings
    header = replace(full.scan.header, encodings=(replace(encoding, acceleration=(ACCELERATION, 1)),))
    readouts = [Readouts(lines.head[kept], lines.samples[kept])]
    return Job(full, Scan(header, (noise_run, *readouts)), readouts, [noise_run])


# --- both ------------------------------------------------------------------------------------------------------------


def simulated(coils: int) -> SimulatedScan:
    """A head with its noise, the same every time."""
    return simulate("brain-se", seed=1, coils=coils, matrix=MATRIX)


def frame_of(full: SimulatedScan) -> Complex:
    """K-space [coil, 1, ky, kx] of the middle slice."""
    indices, _ = frames_of(full.scan)
    (index,) = (each for each in indices if each.counters.slice == SLICE)
    return gather(full.scan.header, select(full.scan.readouts, index.rows)).kspace


def timed(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way, run in alternation after one run that does not count."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for counted in range(-1, rounds):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if counted >= 0:
                samples[name].append(1e3 * (time.perf_counter() - start))
    return samples


if __name__ == "__main__":
    report.show(measure(rounds=10), title=f"calibration (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')})")

"""From k-space to image, coil maps included: our methods beside BART's, SigPy's and MRpro's, at equal error.

Every side gets the same whitened k-space and as few iterations as bring it to our error, or to its own best.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import kernels
from bench import cg_sense
from bench.espirit_process import CENTRE, read_cfl, write_cfl
from bench.report import Row, row
from bench.speed_sides import SIDES
from kernels.contract import Complex, Kernels, Real
from recon.cache import Cache
from recon.gather import gather, select
from recon.methods import METHODS, Workbench
from recon.pipeline import frames_of
from recon.prepare import whitening
from recon.recipe import Recipe
from recon.scan import Calibration, Counters, Encoding, Frame, Geometry, Space, Trajectory
from recon.simulate import simulate

SIZE, COILS, ACCELERATION, SLICE = 256, 8, 4, 2
METHODS_MEASURED = ("cg-sense", "l1-wavelet")
ITERATIONS = (5, 10, 20, 30)  # that a rival may take
STRENGTH = 0.5  # of the wavelets' prior, in σ of the noise, which is 1
EQUAL = 1.02
Solve = Callable[[], Complex]
Run = tuple[int, float, list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """White k-space [coil, ky, kx] of a lattice with a centre, or [coil, shot, sample] at `points`, and its truth."""

    name: str
    frame: Frame
    truth: Real
    mask: Real

    def error(self, image: Complex) -> float:
        """NRMSE inside the object, after the one factor that a side may scale its images by."""
        size, truth = np.abs(image.reshape(self.truth.shape))[self.mask > 0], self.truth[self.mask > 0]
        size = size * (np.vdot(size, truth) / np.vdot(size, size))
        return float(np.linalg.norm(size - truth) / np.linalg.norm(truth))


def cartesian(device: Kernels, size: int = SIZE) -> Task:
    """A slice of the head, every fourth line and a centre."""
    simulated = simulate("brain-se", seed=1, matrix=size, coils=COILS)
    frames, noise = frames_of(simulated.scan)
    (index,) = (each for each in frames if each.counters.slice == SLICE)
    frame = gather(simulated.scan.header, select(simulated.scan.readouts, index.rows))
    matrix = whitening(noise, header=simulated.scan.header, sample_time_us=frame.sample_time_us).whitening
    assert matrix is not None
    white = np.tensordot(matrix, frame.kspace, axes=1).astype(np.complex64)
    white = device.fft(device.ifft(white, axes=1, crop=(size,)), axes=1)
    line = np.arange(size) - size // 2
    sampled = ((line % ACCELERATION == 0) | (np.abs(line + 0.25) <= CENTRE / 2))[None]
    (truth,) = (each for each in simulated.truth if each.counters == index.counters)
    space = Space((1, size, size), (5.0, float(size), float(size)))
    kept = (white * sampled[None, :, :, None]).astype(np.complex64)
    made = Frame(kept, Encoding(space, space, {}, Trajectory.CARTESIAN), index.counters, Geometry(), sampled=sampled)
    return Task(f"cartesian-r{ACCELERATION}", made, truth.pixels[0], truth.mask[0].astype(np.float32))


def radial(size: int = SIZE, spokes: int = cg_sense.SPOKES) -> Task:
    """Ellipses on spokes of twice the samples."""
    samples = 2 * size
    made = cg_sense.make_frame(size=size, spokes=spokes, samples=samples)
    scale = np.float32(1 / (0.01 * np.abs(made.kspace).mean()))
    space = Space((1, size, size), (5.0, float(size), float(size)))
    frame = Frame(
        (made.kspace * scale).reshape(COILS, spokes, samples),
        Encoding(space, space, {}, Trajectory.RADIAL),
        Counters(),
        Geometry(),
        trajectory=made.problem.points.reshape(spokes, samples, 2),
    )
    truth = np.abs(made.truth) * scale
    return Task("radial", frame, truth, (truth > 0).astype(np.float32))


def ours(task: Task, method: str, device: Kernels) -> Complex:
    """Our image: maps, plan, density and solver, nothing kept from the last time."""
    recipe = Recipe(method, {"output": "complex"})
    known = Calibration(whitening=np.eye(COILS, dtype=np.complex64))
    (image,) = METHODS[method].run(task.frame, known, recipe, Workbench(device, Cache()))
    return np.asarray(image.pixels[0, 0], np.complex64)


def bart(task: Task, method: str, iterations: int, folder: Path) -> Complex:
    """BART's image, by its commands on the files of `write`."""
    place = {name: str(folder / name) for name in ("kspace", "points", "coarse", "small", "centre", "maps", "image")}
    size = task.truth.shape[0]
    known, along = "kspace", []
    commands = []
    if task.frame.trajectory is not None:
        known, along = "centre", ["-t", place["points"]]
        small = f"{CENTRE}:{CENTRE}:1"
        commands.append(["nufft", "-i", "-d", small, place["points"], place["kspace"], place["coarse"]])
        commands.append(["fft", "-u", "7", place["coarse"], place["small"]])
        commands.append(["resize", "-c", "0", str(size), "1", str(size), place["small"], place["centre"]])
    commands.append(["ecalib", "-m1", f"-r{CENTRE}", "-c0", place[known], place["maps"]])
    prior = [] if method == "cg-sense" else ["-R", f"W:3:0:{STRENGTH}", *(["-e"] if along else [])]
    pics = ["pics", "-w1", "-d0", f"-i{iterations}", *prior, *along]
    commands.append([*pics, place["kspace"], place["maps"], place["image"]])
    for command in commands:
        subprocess.run(["bart", *command], check=True, capture_output=True)
    return read_cfl(folder / "image").reshape(task.truth.shape)


def write(task: Task, folder: Path) -> None:
    """The task as BART's files and as NumPy's."""
    kspace, points = task.frame.kspace, task.frame.trajectory
    arrays: dict[str, Any] = {
        "kspace": kspace.reshape(COILS, *kspace.shape[-2:]),
        "truth": task.truth,
        "mask": task.mask,
    }
    if points is None:
        write_cfl(folder / "kspace", kspace)
    else:
        cycles = np.zeros((*points.shape[:2], 3), np.complex64)
        cycles[..., :2] = points[..., ::-1] * np.float32(task.truth.shape[0] / (2 * np.pi))
        write_cfl(folder / "points", cycles)
        write_cfl(folder / "kspace", kspace[..., np.newaxis])
        arrays["points"] = points
    np.savez(folder / "task.npz", **arrays)


def seconds(work: Solve) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(pythons: Mapping[str, str], *, rounds: int, size: int = SIZE) -> list[Row]:
    """For each task, method and rival: seconds beside the rival's, and our error beside its."""
    device = kernels.on("cpu", threads=int(os.environ.get("OMP_NUM_THREADS", "1")))
    rows = []
    for task in (cartesian(device, size), radial(size)):
        with TemporaryDirectory() as name:
            write(task, Path(name))
            for method in METHODS_MEASURED:
                rows += _rows(task, method, device, Path(name), pythons, rounds)
    return rows


def _rows(task: Task, method: str, device: Kernels, folder: Path, pythons: Mapping[str, str], rounds: int) -> list[Row]:
    mine = partial(ours, task, method, device)
    wanted = EQUAL * task.error(mine())
    rows = []
    if shutil.which("bart") is not None:
        count = fewest(lambda n: task.error(bart(task, method, n, folder)), wanted)
        theirs = partial(bart, task, method, count, folder)
        pairs = [(seconds(mine), seconds(theirs)) for _ in range(rounds)]
        rows += _pair(f"{task.name}.{method} vs bart -i{count}", pairs, wanted / EQUAL, task.error(theirs()))
    for package in sorted(SIDES.keys() & pythons.keys()):
        count, error, times = side(
            package, pythons[package], folder / "task.npz", method=method, wanted=wanted, rounds=rounds
        )
        name = f"{task.name}.{method} vs {package} {count}"
        rows += _pair(name, [(seconds(mine), each) for each in times], wanted / EQUAL, error)
    return rows


def _pair(name: str, pairs: Sequence[tuple[float, float]], own: float, other: float) -> list[Row]:
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    return [row(f"speed.{name}", mine, "s", theirs), row(f"speed.{name} nrmse", [own], "1", [other])]


def fewest(error: Callable[[int], float], wanted: float) -> int:
    """The fewest iterations with an error of at most `wanted`, or those with the least."""
    found: list[tuple[float, int]] = []
    for count in ITERATIONS:
        found.append((error(count), count))
        if found[-1][0] <= wanted:
            return count
    return min(found)[1]


def side(package: str, python: str, task: Path, *, method: str, wanted: float, rounds: int) -> Run:
    """Iterations, error and seconds of `package`, in a process of its own Python that times what it computes."""
    script = str(Path(__file__).with_name("speed_sides.py"))
    numbers = [str(number) for number in (wanted, STRENGTH, rounds, CENTRE, *ITERATIONS)]
    command = [python, "-W", "ignore", script, package, str(task), method, *numbers]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    count, error, *times = ended.stdout.split()
    return int(count), float(error), [float(each) for each in times]

"""CG-SENSE of one radial frame: our solver beside others, and as a whole process beside `bart pics`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import kernels
from bench import nufft_sides
from bench.nufft_sides import Clock, Problem, Side, needed, radial
from bench.report import Row, row
from kernels.contract import Complex
from recon.operators import nufft_sense
from recon.solve import cg

SIZE, COILS, SPOKES, SAMPLES, ITERATIONS = 256, 8, 64, 512, 10
Solve = Callable[[], Complex]


@dataclass(frozen=True)
class Frame:
    """A radial frame: `problem`, its coil `maps` [coil, y, x], k-space [coil, sample] and the object [y, x]."""

    problem: Problem
    maps: Complex
    kspace: Complex
    truth: Complex


@dataclass(frozen=True)
class Finished:
    """A process that has ended."""

    seconds: float
    peak_mb: float


def make_frame(*, size: int = SIZE, spokes: int = SPOKES, samples: int = SAMPLES) -> Frame:
    """Ellipses seen by coils round them, with noise of 1 % of the signal."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    truth = sum(
        (weight * (((y - b) / h) ** 2 + ((x - a) / w) ** 2 < 1) for weight, a, b, w, h in ELLIPSES),
        start=np.zeros((size, size)),
    ).astype(np.complex64)
    angle = 2 * np.pi * np.arange(COILS)[:, np.newaxis, np.newaxis] / COILS
    maps = np.exp(1j * angle - ((y - 1.3 * np.sin(angle)) ** 2 + (x - 1.3 * np.cos(angle)) ** 2) / 2)
    maps = (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)
    problem = Problem("cg-sense", radial(spokes, samples), (size, size), COILS)
    kspace = nufft_sides.exact(problem, maps * truth) / size
    kspace += 0.01 * np.abs(kspace).mean() * nufft_sides.noise(rng, *kspace.shape)
    return Frame(problem, maps, kspace.astype(np.complex64), truth)


ELLIPSES = (  # intensity, centre x and y, half axes x and y
    (1.0, 0.0, 0.0, 0.72, 0.92),
    (-0.6, 0.0, 0.0, 0.66, 0.86),
    (0.4, 0.25, 0.1, 0.14, 0.3),
    (0.5, -0.25, 0.0, 0.18, 0.4),
    (0.8, 0.0, -0.5, 0.1, 0.06),
)


def solve_ours(frame: Frame, threads: int) -> Solve:
    """Our solver, with plan, maps and the normal operator's response made."""
    device = kernels.on("cpu", threads=threads)
    plan = device.nufft(frame.problem.points, frame.problem.shape, eps=frame.problem.eps)
    operator = nufft_sense(device, plan, frame.maps)
    operator.normal(frame.truth)
    return lambda: cg(operator.normal, operator.adjoint(frame.kspace), iterations=ITERATIONS)


def solve_with(frame: Frame, side: Side) -> Solve:
    """The same iterations over another NUFFT's pair."""
    maps, scale = frame.maps, 1 / sqrt(frame.truth.size)

    def adjoint(y: Complex) -> Complex:
        combined: Complex = (maps.conj() * side.adjoint(y)).sum(axis=0) * scale
        return combined

    def normal(x: Complex) -> Complex:
        return adjoint(side.forward(maps * x) * scale)

    return lambda: cg(normal, adjoint(frame.kspace), iterations=ITERATIONS)


def solve_sigpy(frame: Frame) -> Solve:
    """SigPy's SenseRecon as its documentation calls it."""
    app = needed("sigpy.mri").app
    coordinates = frame.problem.points * np.float32(frame.problem.shape[0] / (2 * np.pi))

    def solve() -> Complex:
        recon = app.SenseRecon(frame.kspace, frame.maps, coord=coordinates, max_iter=ITERATIONS, show_pbar=False)
        image: Complex = recon.run()
        return image

    return solve


def solve_mrpro(frame: Frame) -> Solve:
    """MRpro's conjugate gradients over its Toeplitz operator, which is made before."""
    torch, optimizers = needed("torch"), needed("mrpro.algorithms.optimizers")
    data, operators = needed("mrpro.data"), needed("mrpro.operators")
    coils, samples = frame.kspace.shape
    n = frame.problem.shape[0]
    cycles = np.ascontiguousarray(frame.problem.points.T * np.float32(n / (2 * np.pi)))
    ky, kx = (torch.from_numpy(axis.reshape(1, 1, 1, 1, samples)) for axis in cycles)
    size = data.SpatialDimension(1, n, n)
    trajectory = data.KTrajectory(kz=torch.zeros(1, 1, 1, 1, 1), ky=ky, kx=kx)
    transform = operators.FourierOp(recon_matrix=size, encoding_matrix=size, traj=trajectory)
    whole = transform @ operators.SensitivityOp(torch.from_numpy(frame.maps)[None, :, None])
    normal, kspace = whole.gram, torch.from_numpy(frame.kspace).reshape(1, coils, 1, 1, samples)

    def solve() -> Complex:
        (x,) = optimizers.cg(normal, whole.adjoint(kspace)[0], max_iterations=ITERATIONS, tolerance=0.0)
        image: Complex = x.numpy().reshape(n, n)
        return image

    return solve


SOLVERS: dict[str, Callable[[Frame], Solve]] = {"sigpy": solve_sigpy, "mrpro": solve_mrpro}


def plain(frame: Frame, threads: int) -> tuple[str, Solve]:
    """Plain CG over FINUFFT's plans, at the setting that is fastest at our error."""
    x = frame.maps * frame.truth
    truth = nufft_sides.exact(frame.problem, x)
    error = nufft_sides.distance(nufft_sides.ours(frame.problem, threads).forward(x), truth)
    best = nufft_sides.finufft_best(frame.problem, threads, x=x, truth=truth, error=1.02 * error)
    return f"plain CG over {best.name}", solve_with(frame, best)


def solver_rows(frame: Frame, mine: Solve, name: str, solve: Solve, clock: Clock, rounds: int) -> list[Row]:
    """Error and time of another solver, ours beside it in alternation."""
    ours, theirs = nufft_sides.alternated(partial(nufft_sides.seconds, mine), clock, rounds)
    return [
        row(f"cg-sense.nrmse.{name}", [nufft_sides.distance(solve(), frame.truth)], "1"),
        row(f"cg-sense.solver vs {name}", ours, "ms", theirs),
    ]


def process_rows(frame: Frame, rounds: int, threads: int) -> list[Row]:
    """Wall time and peak memory of whole processes: start, read, plan, solve, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_frame(frame, folder)
        environment = compiled(folder) | {"OMP_NUM_THREADS": str(threads)}
        ours = [sys.executable, "-m", "bench.cg_sense_process", name, str(threads), str(ITERATIONS)]
        theirs = ["bart", "pics", "-S", "-d0", f"-i{ITERATIONS}", "-t"]
        theirs += [str(folder / part) for part in ("points", "kspace", "maps", "image")]
        runs: tuple[list[Finished], list[Finished]] = [], []
        finish(ours, environment)
        for _ in range(rounds):
            for command, finished in zip((ours, theirs), runs, strict=True):
                finished.append(finish(command, environment))
        images = np.load(folder / "image.npy"), read_cfl(folder / "image").reshape(frame.truth.shape)
    errors = [nufft_sides.distance(image, frame.truth) for image in images]
    seconds, peaks = ([[getattr(one, what) for one in side] for side in runs] for what in ("seconds", "peak_mb"))
    return [
        row("cg-sense.process vs bart pics", seconds[0], "s", seconds[1]),
        row("cg-sense.process peak vs bart pics", peaks[0], "MB", peaks[1]),
        row("cg-sense.process nrmse vs bart pics", errors[:1], "1", errors[1:]),
    ]


# Runs what it is given in a process of its own: the peak that the system counts for a child begins with its parent's.
RUNNER = """
import os, sys, time
start = time.perf_counter()
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss / 1e3)
"""


def compiled(folder: Path) -> dict[str, str]:
    """This environment, but Python keeps what it compiled in `folder`, as that of installed packages is kept."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def finish(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run `command` to its end; raises RuntimeError with what it said where it fails."""
    runner = [sys.executable, "-S", "-c", RUNNER, *command]
    ended = subprocess.run(runner, env=environment, capture_output=True, text=True, check=True)
    code, seconds, peak_mb = ended.stdout.split()[-3:]
    if int(code) != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: {ended.stderr[-500:]}")
    return Finished(float(seconds), float(peak_mb))


def write_frame(frame: Frame, folder: Path) -> None:
    """The frame as NumPy files for us and as BART's, which has axes x, y, z, coil and points in cycles."""
    np.save(folder / "points.npy", frame.problem.points)
    np.save(folder / "kspace.npy", frame.kspace)
    np.save(folder / "maps.npy", frame.maps)
    points = np.zeros((len(frame.problem.points), 3), np.complex64)
    points[:, :2] = frame.problem.points[:, ::-1] * (SIZE / (2 * np.pi))
    write_cfl(folder / "points", points.reshape(SPOKES, SAMPLES, 3))
    write_cfl(folder / "kspace", frame.kspace.reshape(COILS, SPOKES, SAMPLES, 1))
    write_cfl(folder / "maps", frame.maps.reshape(COILS, 1, SIZE, SIZE))


def write_cfl(path: Path, values: Complex) -> None:
    """`values` with BART's axes in reverse order, as header and data."""
    sizes = " ".join(map(str, values.shape[::-1]))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{sizes}\n", encoding="ascii")
    values.tofile(path.with_suffix(".cfl"))


def read_cfl(path: Path) -> Complex:
    """All values, in BART's order, which is Fortran's."""
    values: NDArray[np.complex64] = np.fromfile(path.with_suffix(".cfl"), np.complex64)
    return values

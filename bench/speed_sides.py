"""The side of SigPy or MRpro in `bench methods --speed`, in a Python that has it; needs nothing of this project.

Arguments: package, the task's file, method, wanted error, strength, rounds, centre lines, iterations…; prints what it
took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

Task = Mapping[str, Any]
Maps = Callable[[Task, int], Any]
Solver = Callable[[Task, Any, str, float, int], Any]


def main(package: str, path: str, method: str, *numbers: str) -> None:
    """Find the fewest iterations that suffice with maps made once; then time maps and solver together."""
    wanted, strength = (float(number) for number in numbers[:2])
    rounds, centre, *iterations = (int(number) for number in numbers[2:])
    maps_of, solve = SIDES[package]
    task = dict(np.load(path))
    maps = maps_of(task, centre)
    found = []
    for count in iterations:
        found.append((error(task, solve(task, maps, method, strength, count)), count))
        if found[-1][0] <= wanted:
            break
    best, count = found[-1] if found[-1][0] <= wanted else min(found)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        solve(task, maps_of(task, centre), method, strength, count)
        times.append(time.perf_counter() - start)
    print(count, best, *times)


def coordinates(task: Task) -> Any:
    """Cycles per field of view [shot, sample, axis]; None for Cartesian k-space."""
    return task["points"] * np.float32(len(task["truth"]) / (2 * np.pi)) if "points" in task else None


def sigpy_maps(task: Task, centre: int) -> Any:
    """ESPIRiT maps of the centre, which is gridded first where there is a trajectory."""
    sigpy = import_module("sigpy")
    kspace, coord = task["kspace"], coordinates(task)
    if coord is not None:
        density = np.linalg.norm(coord, axis=-1).astype(np.float32)
        kspace = sigpy.fft(
            sigpy.nufft_adjoint(kspace * density, coord, (len(kspace), *task["truth"].shape)), axes=(1, 2)
        )
    app = import_module("sigpy.mri").app
    return app.EspiritCalib(kspace, calib_width=centre, crop=0, show_pbar=False).run()


def sigpy_solve(task: Task, maps: Any, method: str, strength: float, count: int) -> Any:
    """The image after so many iterations."""
    app = import_module("sigpy.mri").app
    options = {"coord": coordinates(task), "max_iter": count, "show_pbar": False}
    if method == "cg-sense":
        return app.SenseRecon(task["kspace"], maps, **options).run()
    return app.L1WaveletRecon(task["kspace"], maps, strength, **options).run()


def mrpro_fourier(task: Task, weights: Any = None) -> tuple[Any, Any]:
    """MRpro's Fourier operator, and k-space [1, coil, 1, line, sample] where it is sampled; `weights` masks lines."""
    torch, data, operators = import_module("torch"), import_module("mrpro.data"), import_module("mrpro.operators")
    n = len(task["truth"])
    size, coord = data.SpatialDimension(1, n, n), coordinates(task)
    kspace = torch.from_numpy(task["kspace"])[None, :, None]
    if coord is None:
        lines = np.flatnonzero(np.abs(task["kspace"]).sum(axis=(0, 2)) if weights is None else weights)
        ky = torch.from_numpy((lines - n // 2).astype(np.float32)).reshape(1, 1, 1, -1, 1)
        kx = torch.arange(n, dtype=torch.float32).reshape(1, 1, 1, 1, -1) - n // 2
        kspace = kspace[..., lines, :]
    else:
        ky, kx = (torch.from_numpy(np.ascontiguousarray(coord[..., axis]))[None, None, None] for axis in (0, 1))
    trajectory = data.KTrajectory(kz=torch.zeros(1, 1, 1, 1, 1), ky=ky, kx=kx)
    return operators.FourierOp(recon_matrix=size, encoding_matrix=size, traj=trajectory), kspace


def mrpro_maps(task: Task, centre: int) -> Any:
    """Walsh maps, as its iterative reconstructions take by default, of the density-compensated or central image."""
    torch, csm = import_module("torch"), import_module("mrpro.algorithms.csm")
    n, weights = len(task["truth"]), None
    if "points" not in task:
        weights = np.zeros(n)
        weights[n // 2 - centre // 2 : n // 2 + centre // 2] = np.hanning(centre + 2)[1:-1]
    fourier, kspace = mrpro_fourier(task, weights)
    if weights is None:
        kspace = kspace * torch.from_numpy(np.linalg.norm(coordinates(task), axis=-1).astype(np.float32))
    else:
        kspace = kspace * torch.from_numpy(weights[weights > 0].astype(np.float32))[:, None]
    (images,) = fourier.adjoint(kspace)
    return csm.walsh(images[0], smoothing_width=5)[None]


def mrpro_solve(task: Task, maps: Any, method: str, strength: float, count: int) -> Any:
    """The image after so many iterations, of conjugate gradients or of accelerated proximal gradients."""
    operators, optimizers = import_module("mrpro.operators"), import_module("mrpro.algorithms.optimizers")
    functionals = import_module("mrpro.operators.functionals")
    fourier, kspace = mrpro_fourier(task)
    whole = fourier @ operators.SensitivityOp(maps)
    start = whole.adjoint(kspace)[0]
    if method == "cg-sense":
        return optimizers.cg(whole.gram, start, max_iterations=count, tolerance=0.0)[0].numpy().squeeze()
    wavelet = operators.WaveletOp(domain_shape=tuple(start.shape[-2:]), dim=(-2, -1))
    details = wavelet(start)[0]
    largest = float(whole.operator_norm(start, dim=None, max_iterations=10))
    near = 0.5 * functionals.L2NormSquared(target=kspace, divide_by_n=False) @ whole @ wavelet.H
    prior = strength * functionals.L1NormViewAsReal(divide_by_n=False)
    (found,) = optimizers.pgd(near, prior, details, stepsize=1 / largest**2, max_iterations=count)
    return wavelet.H(found)[0].numpy().squeeze()


SIDES: dict[str, tuple[Maps, Solver]] = {"sigpy": (sigpy_maps, sigpy_solve), "mrpro": (mrpro_maps, mrpro_solve)}


def error(task: Task, image: Any) -> float:
    """NRMSE inside the object, after the one factor that an image may be scaled by."""
    size, truth = np.abs(image)[task["mask"] > 0], task["truth"][task["mask"] > 0]
    size = size * (np.vdot(size, truth) / np.vdot(size, size))
    return float(np.linalg.norm(size - truth) / np.linalg.norm(truth))


if __name__ == "__main__":
    main(*sys.argv[1:])

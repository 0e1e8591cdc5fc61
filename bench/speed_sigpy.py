"""SigPy's side of `bench methods --speed`, in a Python that has SigPy; needs nothing of this project.

Arguments: the task's file, method, wanted error, strength, rounds, centre lines, iterations…; prints what it took.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any

import numpy as np


def main(path: str, method: str, *numbers: str) -> None:
    """Find the fewest iterations that suffice with maps made once; then time maps and solver together."""
    wanted, strength = (float(number) for number in numbers[:2])
    rounds, centre, *iterations = (int(number) for number in numbers[2:])
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


def coordinates(task: dict[str, Any]) -> Any:
    """Cycles per field of view [shot, sample, axis]; None for Cartesian k-space."""
    return task["points"] * np.float32(len(task["truth"]) / (2 * np.pi)) if "points" in task else None


def maps_of(task: dict[str, Any], centre: int) -> Any:
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


def solve(task: dict[str, Any], maps: Any, method: str, strength: float, count: int) -> Any:
    """The image after so many iterations."""
    app = import_module("sigpy.mri").app
    options = {"coord": coordinates(task), "max_iter": count, "show_pbar": False}
    if method == "cg-sense":
        return app.SenseRecon(task["kspace"], maps, **options).run()
    return app.L1WaveletRecon(task["kspace"], maps, strength, **options).run()


def error(task: dict[str, Any], image: Any) -> float:
    """NRMSE inside the object, after the one factor that an image may be scaled by."""
    size, truth = np.abs(image)[task["mask"] > 0], task["truth"][task["mask"] > 0]
    size = size * (np.vdot(size, truth) / np.vdot(size, size))
    return float(np.linalg.norm(size - truth) / np.linalg.norm(truth))


if __name__ == "__main__":
    main(*sys.argv[1:])

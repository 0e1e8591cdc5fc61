"""The tasks of `bench methods --speed`: all sides reconstruct the same object, and the fewest iterations are found."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import kernels
from bench import speed
from bench.speed import METHODS_MEASURED, Task, bart, cartesian, fewest, ours, radial, write
from tests.recon.judges import needs

CPU = kernels.on("cpu")
TASKS = {"cartesian": lambda: cartesian(CPU, 64), "radial": lambda: radial(64, spokes=48)}


@pytest.mark.parametrize("name", TASKS)
def test_errors_are_those_of_the_shape_inside_the_object(name: str) -> None:
    task = TASKS[name]()
    assert task.error((3 * task.truth).astype(np.complex64)) < 1e-6
    assert task.error(np.where(task.mask > 0, task.truth, 99).astype(np.complex64)) < 1e-6
    assert task.error(np.ones_like(task.truth, np.complex64)) > 0.1


@pytest.mark.parametrize("method", METHODS_MEASURED)
@pytest.mark.parametrize("name", TASKS)
def test_bart_reconstructs_the_same_object(name: str, method: str, tmp_path: Path) -> None:
    """Nearer to the truth than an even object is, by far: axes, units and calibration are the same."""
    needs("bart", "bart")
    task: Task = TASKS[name]()
    write(task, tmp_path)
    even = task.error(np.ones_like(task.truth, np.complex64))
    for image in (ours(task, method, CPU), bart(task, method, 20, tmp_path)):
        assert task.error(image) < 0.5 * even


def test_the_fewest_iterations_that_suffice_are_taken() -> None:
    assert fewest(lambda count: 1 / count, 0.06) == 20
    assert fewest(lambda count: abs(count - 10) + 1, 0.5) == 10


@pytest.mark.parametrize("package", ["sigpy", pytest.param("mrpro", marks=pytest.mark.long)])
def test_another_package_says_what_it_took(package: str, tmp_path: Path) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed in this Python: pip install {package}")
    task = cartesian(CPU, 64)
    write(task, tmp_path)
    file = tmp_path / "task.npz"
    count, error, times = speed.side(package, sys.executable, file, method="cg-sense", wanted=1.0, rounds=2)
    assert count == speed.ITERATIONS[0] and error < 1 and len(times) == 2

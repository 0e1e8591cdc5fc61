"""The CUDA benchmark: its floors are the design's, its document is what it prints, and it runs on the host shim."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import cuda
from kernels.cuda import CudaKernels
from tests.cuda.shim import ShimRuntime, all_names, find_compiler

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


@pytest.mark.parametrize(("name", "floor_us"), [("2d-256-8", 20.6), ("2d-320-16", 70), ("2d-256-32", 133)])
def test_floors_are_those_of_the_arithmetic(name: str, floor_us: float) -> None:
    case = next(case for case in cuda.CASES if case.name == name)
    assert cuda.predict(case, adjoint=False).floor * 1e6 == pytest.approx(floor_us, rel=0.1)


def test_nothing_is_predicted_to_beat_its_floor() -> None:
    for case in cuda.CASES:
        for adjoint in (False, True):
            found = cuda.predict(case, adjoint=adjoint)
            assert found.expected > found.floor
        floor, expected = cuda.predict_toeplitz(case)
        assert expected > floor


def test_the_document_shows_what_is_predicted() -> None:
    assert cuda.table() in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.skipif(find_compiler() is None, reason="g++ is not installed: no CUDA source is executed here")
def test_it_measures_what_it_says() -> None:
    runtime = ShimRuntime(all_names())

    def timer(work: Callable[[int], Any]) -> list[float]:
        begin = time.perf_counter()
        work(0)
        return [time.perf_counter() - begin]

    cases = (cuda.Case("flat", (12, 10), 3, 40), cuda.Case("solid", (5, 6, 7), 2, 30))
    rows = {row.id: row for row in cuda.measure(CudaKernels(runtime), runtime, cases, timer)}
    assert list(rows) == [
        "cuda.flat.forward",
        "cuda.flat.adjoint",
        "cuda.flat.toeplitz",
        "cuda.solid.forward",
        "cuda.solid.adjoint",
    ]
    assert rows["cuda.flat.forward"].baseline == cuda.predict(cases[0], adjoint=False).expected

"""Plans are shared by content, bounded in bytes, counted, and made once for threads that come one after another."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import kernels
from kernels.contract import BudgetError
from kernels.plans import Plans, Statistics, content_key
from tests.cases import noise, uniform


def test_equal_points_share_a_plan_wherever_they_lie(rng: np.random.Generator) -> None:
    cpu, points = kernels.on("cpu"), uniform(rng, 50, 2)
    plan = cpu.nufft(points, (8, 9))
    assert cpu.nufft(points.copy(), (8, 9)) is plan
    assert cpu.nufft(np.repeat(points, 2, axis=1)[:, ::2], (8, 9)) is plan
    assert cpu.nufft(points, (8, 9), eps=1e-3) is not plan
    assert cpu.nufft(points, (9, 8)) is not plan
    assert cpu.nufft(points.astype(np.float64), (8, 9)) is not plan
    assert cpu.nufft(points.reshape(5, 10, 2), (8, 9)) is not plan


def test_changing_the_points_afterwards_changes_no_plan(rng: np.random.Generator) -> None:
    cpu, points, x = kernels.on("cpu"), uniform(rng, 50, 2), noise(rng, 8, 9)
    plan = cpu.nufft(points, (8, 9))
    before = plan.forward(x)
    points[0] = 0
    assert np.array_equal(plan.forward(x), before)
    assert cpu.nufft(points, (8, 9)) is not plan


def test_the_oldest_plan_goes_when_the_budget_is_spent() -> None:
    plans = Plans(limit_bytes=100)
    for key in ("a", "b", "a", "c"):
        plans.get(key, object, size_bytes=50)
    assert plans.statistics() == Statistics(hits=1, misses=3, kept=2, bytes=100)
    kept = plans.get("a", object, size_bytes=50)
    assert plans.get("a", object, size_bytes=50) is kept
    assert plans.statistics().hits == 3


def test_a_plan_larger_than_the_budget_is_refused_before_it_is_made() -> None:
    def make() -> None:
        raise AssertionError

    with pytest.raises(BudgetError, match=r"the plan needs 3.0 MB, its budget is 2.0 MB: raise the budget or"):
        Plans(largest_bytes=2_000_000).get("a", make, size_bytes=3_000_000)


def test_a_plan_too_large_to_keep_is_made_all_the_same() -> None:
    plans = Plans(limit_bytes=100)
    plans.get("a", object, size_bytes=101)
    assert plans.statistics() == Statistics(hits=0, misses=1, kept=0, bytes=0)


def test_each_thread_of_a_team_counts_with_its_copy_of_the_points(rng: np.random.Generator) -> None:
    points = uniform(rng, 1000, 2)
    sizes = []
    for threads in (1, 3):
        device = kernels.on("cpu", threads=threads)
        device.nufft(points, (16, 16))
        sizes.append(device.plans.statistics().bytes)
    assert sizes[1] - sizes[0] == 2 * 1000 * (2 * 4 + 8)  # single precision and the order of FINUFFT's sorting


def test_the_cpu_refuses_a_plan_beyond_its_budget(rng: np.random.Generator) -> None:
    from kernels.cpu import CpuKernels

    with pytest.raises(BudgetError, match=r"the plan needs .* MB, its budget is 0.1 MB"):
        CpuKernels(plans=Plans(largest_bytes=100_000)).nufft(uniform(rng, 5000, 2), (64, 64))


def test_threads_get_equal_plans(rng: np.random.Generator) -> None:
    cpu, points, x = kernels.on("cpu"), uniform(rng, 500, 2), noise(rng, 16, 16)
    found: list[np.ndarray] = []
    workers = [threading.Thread(target=lambda: found.append(cpu.nufft(points, (16, 16)).forward(x))) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 6
    assert all(np.array_equal(y, found[0]) for y in found)


def test_a_key_is_the_content_type_and_shape() -> None:
    a = np.arange(6, dtype=np.float32)
    assert content_key(a) == content_key(a.copy())
    others = [a.astype(np.float64), a.reshape(2, 3), a + 1, a[::-1]]
    assert len({content_key(a), *(content_key(other) for other in others)}) == 5
    assert content_key(a, a) != content_key(a)

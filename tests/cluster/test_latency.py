"""The fitted time of a batch: exact for a line, sensible where sizes say too little, and forgetful."""

from __future__ import annotations

import pytest

from cluster.latency import Latency


def test_before_any_batch_the_declaration_counts() -> None:
    assert Latency().line("k", declared_s=0.3) == (0.3, 0.0)


def test_a_line_is_found_exactly() -> None:
    latency = Latency()
    for n in (1, 5, 2, 8):
        latency.learn("k", n, seconds=0.02 * n + 0.1)
    assert latency.line("k", declared_s=9.0) == pytest.approx((0.02, 0.1))


def test_batches_of_one_size_count_as_frames_alone() -> None:
    latency = Latency()
    for _ in range(20):
        latency.learn("k", 4, seconds=0.8)
    assert latency.line("k", declared_s=9.0) == pytest.approx((0.2, 0.0))


@pytest.mark.parametrize("times", [{1: 1.0, 8: 0.5}, {1: 0.1, 8: 8.0}])
def test_neither_part_is_ever_negative(times: dict[int, float]) -> None:
    latency = Latency()
    for n, seconds in times.items():
        latency.learn("k", n, seconds=seconds)
    assert min(latency.line("k", declared_s=9.0)) >= 0.0


def test_the_past_is_forgotten() -> None:
    """A hundred batches weigh 0.9^100 beside what came after."""
    latency = Latency()
    for seconds in [5.0] * 20 + [0.1] * 100:
        latency.learn("k", 1, seconds=seconds)
    assert latency.line("k", declared_s=9.0)[0] == pytest.approx(0.1, rel=50 * 0.9**100)


def test_the_number_of_keys_is_bounded() -> None:
    latency = Latency()
    for key in range(5000):
        latency.learn(key, 1, seconds=1.0)
    assert latency.line(0, declared_s=7.0) == (7.0, 0.0)
    assert latency.line(4999, declared_s=7.0) == (1.0, 0.0)

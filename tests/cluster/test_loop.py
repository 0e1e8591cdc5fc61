"""Stages: bounded, in order, and not stopped by one defect."""

from __future__ import annotations

import threading

import pytest

from cluster.events import Command, DeadlinePassed, Event
from cluster.loop import Loop, Stage
from cluster.scheduler import Rules, Scheduler
from recon.errors import RefusedError


def test_items_come_in_order_and_after_follows() -> None:
    seen: list[object] = []
    stage: Stage[int] = Stage("test", seen.append, after=lambda: seen.append("after"), capacity=100, tick_s=60.0)
    for number in range(10):
        stage.put(number)
    stage.start()
    stage.close()
    assert [item for item in seen if item != "after"] == list(range(10))
    assert seen[-1] == "after"


def test_after_comes_with_time_alone() -> None:
    ticked = threading.Event()
    stage: Stage[int] = Stage("test", lambda item: None, after=ticked.set, capacity=1, tick_s=0.01)
    stage.start()
    assert ticked.wait(5.0)
    stage.close()


def test_full_queue_makes_who_puts_wait() -> None:
    going, seen = threading.Event(), []

    def each(item: int) -> None:
        going.wait()
        seen.append(item)

    stage: Stage[int] = Stage("test", each, capacity=2, tick_s=60.0)
    stage.start()
    writer = threading.Thread(target=lambda: [stage.put(number) for number in range(600)])
    writer.start()
    writer.join(0.1)
    assert writer.is_alive()
    assert stage.waiting <= 2
    going.set()
    writer.join(10.0)
    stage.close()
    assert seen == list(range(600))


def test_a_defect_stops_neither_the_stage_nor_other_items(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def each(item: int) -> None:
        if item == 1:
            raise ValueError("a defect")
        seen.append(item)

    stage: Stage[int] = Stage("test", each, capacity=10, tick_s=60.0)
    for number in range(3):
        stage.put(number)
    stage.start()
    stage.close()
    assert (seen, stage.error) == ([0, 2], "ValueError: a defect")
    assert "the test stage met a defect" in caplog.text


@pytest.mark.parametrize("settles", [True, False])
def test_what_waits_for_an_item_is_ended_when_a_defect_meets_it(settles: bool) -> None:
    ended: list[tuple[int, str]] = []

    def each(item: int) -> None:
        raise ValueError(f"defect {item}")

    def settle(item: int, error: Exception) -> None:
        ended.append((item, str(error)))
        if not settles:
            raise KeyError("another")

    stage: Stage[int] = Stage("test", each, settle=settle, capacity=10, tick_s=60.0)
    for number in range(2):
        stage.put(number)
    stage.start()
    stage.close()
    assert ended == [(0, "defect 0"), (1, "defect 1")]
    assert (stage.error, stage.failure) == (("ValueError: defect 1", "") if settles else ("KeyError: 'another'",) * 2)


def test_a_defect_that_nothing_settles_is_a_failure() -> None:
    def fails(*_: object) -> None:
        raise ValueError("a defect")

    for stage in (
        Stage[int]("each", fails, capacity=10, tick_s=60.0),
        Stage[int]("after", lambda item: None, after=fails, capacity=10, tick_s=60.0),
    ):
        stage.put(1)
        stage.start()
        stage.close()
        assert stage.failure == "ValueError: a defect"


def test_closed_stage_refuses() -> None:
    stage: Stage[int] = Stage("test", lambda item: None, capacity=1, tick_s=60.0)
    stage.start()
    stage.close()
    with pytest.raises(RefusedError, match="the server has stopped: try again when it runs"):
        stage.put(1)


class Seen:
    """Effects that only keep what happened."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def do(self, command: Command) -> None: ...

    def observe(self, event: Event) -> None:
        self.events.append(event)


def test_the_scheduler_is_told_how_long_it_was_deaf() -> None:
    times, seen = iter([0.0, 1.5, 1.5, 100.0, 100.0]), Seen()
    loop = Loop(Scheduler(Rules()), seen, clock=lambda: next(times), capacity=10, tick_s=1.0)
    for _ in range(2):
        loop._tick()
    assert seen.events == [DeadlinePassed(), DeadlinePassed(late_s=96.5)]

"""`bench schedule` on short simulations: its rows, and the laws that they are there to show."""

from __future__ import annotations

import pytest

from bench import schedule
from bench.schedule import Scale
from cluster.simulate import Arrival, Bounds, Kind, Pool, Simulation

SMALL = Scale(seconds=100.0, seeds=(1,), workers=(1, 4), queued=400)


def test_rows_and_what_they_must_reach() -> None:
    rows = {entry.id: entry for entry in schedule.measure(SMALL)}
    for times in (5, 10):  # at once too much, so that the queue is full within the first tenth
        assert rows[f"schedule.overload.{times}.goodput"].value >= 0.95
        assert rows[f"schedule.overload.{times}.most_waiting"].ratio == 1.0
        assert rows[f"schedule.overload.{times}.scans_refused"].value > 0.2
    assert {rows[f"schedule.overload.{times}.frames_lost"].value for times in (1, 2, 5, 10)} == {0.0}
    assert rows["schedule.fairness.jain"].value >= 0.95
    assert rows["schedule.workers.4.efficiency"].value >= 0.9
    assert rows["schedule.decision.batch_done.p50"].unit == "µs"


def test_a_full_server_refuses_scans_and_holds_frames_back_but_loses_none() -> None:
    """Ten scans of ten frames at once, of which three may come in, with a queue of five frames and one worker."""
    simulation = Simulation(Pool(1), bounds=Bounds(scans=3, frames=5))
    served = simulation.run(Arrival(0.0, f"s{n}", Kind("k", 10, 1e-3, 1.0)) for n in range(10))
    assert simulation.refused == 7
    assert simulation.most_waiting == 5
    assert len(served) == 30


def test_measured_factors_are_the_service_times() -> None:
    kind = Kind("k", 50, 10.0, 2.0)
    served = Simulation(Pool(1, factors=(0.5, 1.5))).run([Arrival(0.0, "a", kind)])
    assert {round(frame.done_s - frame.start_s, 6) for frame in served} == {1.0, 3.0}


@pytest.mark.parametrize("load", [0.2, 0.5])
def test_the_flood_row_is_within_one_service(load: float) -> None:
    assert schedule.flood(load, Scale(seeds=(1,))).value <= 1.0

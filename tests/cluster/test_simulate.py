"""Laws of the scheduler under load, on a virtual clock: who waits for whom, and for how long."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Iterator
from heapq import merge

import pytest

from cluster.events import Priority
from cluster.scheduler import Rules
from cluster.simulate import Arrival, Kind, Pool, Served, Simulation

SERVICE_S = 0.2
FRAME = Kind("k", 1, 0.0, SERVICE_S)
ALONE = Rules(max_batch_frames=1, batches_per_worker=1)


def poisson(scanner: str, kind: Kind, *, per_s: float, until_s: float, seed: int) -> Iterator[Arrival]:
    draw, now = random.Random(seed), 0.0
    while (now := now + draw.expovariate(per_s)) < until_s:
        yield Arrival(now, scanner, kind)


def in_order(*streams: Iterable[Arrival]) -> Iterator[Arrival]:
    return merge(*streams, key=lambda arrival: arrival.time_s)


def waits(served: Iterable[Served]) -> list[float]:
    return sorted(frame.start_s - frame.ready_s for frame in served)


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def test_a_lone_frame_never_waits() -> None:
    arrivals = [Arrival(10.0 * number, "a", FRAME) for number in range(5)]
    served = Simulation(Pool(1)).run(arrivals)
    assert [frame.start_s for frame in served] == [frame.ready_s for frame in served]
    assert [frame.done_s - frame.start_s for frame in served] == pytest.approx([SERVICE_S] * 5)


def test_one_worker_and_random_arrivals_wait_as_queueing_theory_says() -> None:
    """M/D/1 at 80 % load: mean wait ρ/(2(1 − ρ)) services; its own standard error bounds the difference."""
    load, count = 0.8, 10_000
    arrivals = poisson("a", FRAME, per_s=load / SERVICE_S, until_s=count * SERVICE_S / load, seed=1)
    waited = waits(Simulation(Pool(1), rules=ALONE).run(arrivals))
    expected = load / (2 * (1 - load)) * SERVICE_S
    # Waits are correlated over about 1/(1 − ρ)² services, so that so many fewer of them are independent.
    error = statistics.pstdev(waited) / (len(waited) * (1 - load) ** 2) ** 0.5
    assert abs(statistics.mean(waited) - expected) < 4 * error


def test_backlogged_scanners_get_equal_time_whatever_their_frames_cost() -> None:
    """Jain's index of the served time of ten scanners whose frames cost from 1 to 10 units, all always waiting."""
    kinds = {f"s{n}": Kind(f"k{n}", 400, 1e-6, 0.01 * n) for n in range(1, 11)}
    simulation = Simulation(Pool(4), rules=ALONE)
    served = simulation.run(Arrival(0.0, scanner, kind) for scanner, kind in kinds.items())
    first_end = min(max(f.done_s for f in served if f.scanner == scanner) for scanner in kinds)
    got = dict.fromkeys(kinds, 0.0)
    for frame in served:
        if frame.done_s <= first_end:
            got[frame.scanner] += frame.done_s - frame.start_s
    times = list(got.values())
    assert sum(times) ** 2 / (len(times) * sum(t * t for t in times)) > 0.95


@pytest.mark.parametrize("load", [0.2, 0.5])
def test_a_flood_costs_others_at_most_one_service(load: float) -> None:
    """Ten quiet scanners that need `load` of four workers, beside one that sends far more than fits."""

    def quiet() -> list[Iterator[Arrival]]:
        rate = load * 4 / SERVICE_S / 10
        return [poisson(f"q{n}", FRAME, per_s=rate, until_s=200.0, seed=n) for n in range(10)]

    flood = [Arrival(0.0, "flood", Kind("k", 5000, 1e-4, SERVICE_S))]
    alone = waits(Simulation(Pool(4, spread=0.3), rules=ALONE).run(in_order(*quiet())))
    beside = Simulation(Pool(4, spread=0.3), rules=ALONE).run(in_order(flood, *quiet()))
    others = waits(frame for frame in beside if frame.scanner != "flood")
    assert len(others) == len(alone)
    assert percentile(others, 99) <= percentile(alone, 99) + SERVICE_S


def test_an_urgent_frame_waits_for_little_more_than_a_running_one() -> None:
    """95 % load, a tenth of it urgent, four workers, exponential-like service: at most 1.5 mean services at 99 %."""
    urgent = Kind("k", 1, 0.0, SERVICE_S, priority=Priority.STAT)
    rate = 0.95 * 4 / SERVICE_S
    # Of the same scanner: another one's would be early already because it sends little.
    arrivals = in_order(
        poisson("r", urgent, per_s=0.1 * rate, until_s=500.0, seed=1),
        poisson("r", FRAME, per_s=0.9 * rate, until_s=500.0, seed=2),
    )
    served = Simulation(Pool(4, spread=0.5), rules=ALONE, seed=3).run(arrivals)
    mean_s = statistics.mean(frame.done_s - frame.start_s for frame in served)
    assert percentile(waits(f for f in served if f.kind is urgent), 99) <= 1.5 * mean_s


def test_research_starts_once_it_is_overdue_however_much_routine_there_is() -> None:
    research = Kind("k", 1, 0.0, SERVICE_S, priority=Priority.RESEARCH, deadline_s=60.0)
    routine = [Arrival(0.0, f"r{n}", Kind("k", 2000, 1e-4, SERVICE_S)) for n in range(3)]
    served = Simulation(Pool(1), rules=ALONE).run(in_order([Arrival(1.0, "slow", research)], routine))
    (frame,) = [frame for frame in served if frame.kind is research]
    # Its turn comes after one frame of each other scanner, the running one, and the next look at the clock.
    assert 60.0 < frame.start_s - 1.0 <= 60.0 + 4 * SERVICE_S + 0.5


def test_lost_workers_cost_time_and_no_frame() -> None:
    arrivals = [Arrival(float(n), f"s{n % 5}", Kind("k", 20, 0.05, SERVICE_S)) for n in range(200)]
    simulation = Simulation(Pool(6, losses_per_hour=60.0, restart_s=2.0), rules=ALONE, seed=4)
    assert len(simulation.run(arrivals)) == 4000


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[Served]:
        arrivals = poisson("a", FRAME, per_s=10.0, until_s=60.0, seed=5)
        return Simulation(Pool(3, spread=0.3, losses_per_hour=100.0), seed=seed).run(arrivals)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_frames_of_equal_key_are_batched_where_that_saves_time() -> None:
    """A batch costs 40 ms and a frame 1 ms: what eight scanners send, 133 frames/s, fits only in batches of six."""
    kind = Kind("k", 400, 0.06, 0.001, batch_s=0.04)
    rules = Rules(batch_cost_s=0.1)
    served = Simulation(Pool(1), rules=rules).run(Arrival(0.0, f"s{n}", kind) for n in range(8))
    assert len(served) == 3200
    assert max(frame.done_s - frame.ready_s for frame in served) < 0.5

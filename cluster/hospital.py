"""Days of a hospital for the simulation: which scanner sends which scans when.

A scanner does 14 examinations a day between 7 and 19 o'clock, up to 1.8 an hour, one after another; an examination is a
list of scans. What a frame costs is what its method declares for a scan of that size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from heapq import merge
from typing import TypeVar

from cluster.events import Priority
from cluster.simulate import Arrival, Kind
from recon.methods import METHODS
from recon.recipe import Recipe
from recon.scan import Encoding, Limit, Space, Trajectory

T = TypeVar("T")
HOUR_S = 3600.0
OPENS = 7
PER_HOUR = (0.6, 1.0, 1.4, 1.8, 1.5, 0.9, 1.0, 1.4, 1.6, 1.3, 0.9, 0.6)  # examinations, from OPENS on: 14 a day
CLASSES = {Priority.STAT: 0.05, Priority.ROUTINE: 0.85, Priority.RESEARCH: 0.10}  # shares of examinations
DEADLINES_S = {Priority.STAT: 30.0, Priority.ROUTINE: 300.0, Priority.RESEARCH: 3600.0}
PREPARATION_S = 240.0  # before an examination's first scan
PAUSE_S = 20.0  # between scans


@dataclass(frozen=True, slots=True)
class Measurement:
    """One scan of an examination: `frames` of `matrix` (z, y, x) with so many coils, over `seconds`."""

    method: str
    matrix: tuple[int, int, int]
    coils: int
    acceleration: int
    frames: int
    seconds: float


_BRAIN = (
    Measurement("grappa", (1, 320, 320), 32, 2, 30, 150.0),  # T1, T2 and FLAIR
    Measurement("grappa", (1, 320, 320), 32, 2, 30, 150.0),
    Measurement("grappa", (1, 320, 320), 32, 2, 30, 180.0),
    Measurement("grappa", (1, 128, 128), 32, 2, 180, 120.0),  # diffusion
    Measurement("grappa", (160, 256, 256), 32, 4, 1, 240.0),
)
_HEART = (
    Measurement("cg-sense", (1, 128, 128), 16, 4, 400, 20.0),  # real-time cine
    *(Measurement("grappa", (1, 192, 192), 32, 2, 30, 12.0),) * 10,  # breath-hold cine, a slice each
    Measurement("cg-sense", (1, 192, 192), 32, 3, 180, 60.0),  # perfusion
    Measurement("grappa", (1, 256, 256), 32, 2, 12, 90.0),
)
_BODY = (
    Measurement("grappa", (1, 320, 320), 32, 2, 40, 120.0),
    Measurement("l1-wavelet", (1, 320, 320), 32, 4, 60, 60.0),
    Measurement("grappa", (80, 320, 320), 32, 4, 6, 120.0),  # contrast dynamics
    Measurement("grappa", (1, 128, 128), 32, 2, 160, 180.0),
)
_JOINT = tuple(Measurement("grappa", (1, 384, 384), 16, 2, 30, 160.0) for _ in range(5))
EXAMINATIONS: Mapping[str, tuple[float, tuple[Measurement, ...]]] = {
    "brain": (0.35, _BRAIN),
    "heart": (0.15, _HEART),
    "body": (0.2, _BODY),
    "joint": (0.3, _JOINT),
}


def arrivals(scanners: int, *, hours: float, seed: int, speed: float = 1.0) -> Iterator[Arrival]:
    """The scans of so many scanners, in order of time, from 7 o'clock on; workers are `speed` times a CPU core."""
    return merge(
        *(_scanner(f"scanner-{n}", hours=hours, seed=1_000_003 * seed + n, speed=speed) for n in range(scanners)),
        key=lambda arrival: arrival.time_s,
    )


def _scanner(name: str, *, hours: float, seed: int, speed: float) -> Iterator[Arrival]:
    """One scanner's scans: examinations come at random by the hour's rate, and wait until the one before has ended."""
    draw, free_s = random.Random(seed), 0.0
    for wanted_s in _requests(draw, hours * HOUR_S):
        now = max(wanted_s, free_s) + PREPARATION_S
        priority = _pick(draw, CLASSES)
        scans = EXAMINATIONS[_pick(draw, {name: share for name, (share, _) in EXAMINATIONS.items()})][1]
        for scan in scans:
            yield Arrival(now, name, replace(_kind(scan, speed), priority=priority, deadline_s=DEADLINES_S[priority]))
            now += scan.seconds + PAUSE_S
        free_s = now


def _requests(draw: random.Random, until_s: float) -> Iterator[float]:
    """Times of a Poisson process with the day's rates, by thinning."""
    now, most = 0.0, max(PER_HOUR)
    while (now := now + draw.expovariate(most / HOUR_S)) < until_s:
        hour = int(now // HOUR_S) % 24  # hours since opening: nobody comes at night
        if hour < len(PER_HOUR) and draw.random() < PER_HOUR[hour] / most:
            yield now


def _pick(draw: random.Random, shares: Mapping[T, float]) -> T:
    return draw.choices(list(shares), list(shares.values()))[0]


@cache
def _kind(scan: Measurement, speed: float) -> Kind:
    planes, lines, samples = scan.matrix
    encoded = Space((planes, lines, 2 * samples), (5.0 * planes, 300.0, 600.0))
    limits = {"kspace_encode_step_1": Limit(0, lines - 1, lines // 2)}
    if planes > 1:
        limits["kspace_encode_step_2"] = Limit(0, planes - 1, planes // 2)
    recon = Space(scan.matrix, (5.0 * planes, 300.0, 300.0))
    encoding = Encoding(encoded, recon, limits, Trajectory.CARTESIAN, (scan.acceleration, 1), "embedded")
    method, recipe = METHODS[scan.method], Recipe(scan.method)
    raw_bytes = 16 * planes * lines * samples * scan.coils // scan.acceleration
    _, cost_s = method.needs(encoding, scan.coils, recipe=recipe, raw_bytes=raw_bytes)
    key = method.key(encoding, scan.coils, recipe)
    return Kind(key, scan.frames, scan.seconds / scan.frames, cost_s / speed)

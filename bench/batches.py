"""Frames a second against the size of a batch, from k-space in memory to images: what running frames together gains."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from time import perf_counter

from bench.report import Row, row
from kernels.contract import Kernels
from recon.cache import Cache
from recon.gather import select
from recon.methods import METHODS
from recon.pipeline import frames_of, reconstruct_batch
from recon.recipe import Recipe
from recon.scan import Material, ScanHeader
from recon.simulate import simulate

PROTOCOLS = {"fft": "brain-se", "gridding": "heart-spiral", "cg-sense": "heart-spiral"}
SIZES = (1, 2, 4, 8, 16)
MATRIX, COILS = 128, 8
Member = tuple[ScanHeader, Material]


def measure(kernels: Kernels, *, rounds: int, matrix: int = MATRIX, sizes: tuple[int, ...] = SIZES) -> list[Row]:
    """Rows `batches.METHOD.N`: frames a second in batches of N, beside those one by one of the same round.

    The largest batch's frames are of two scanners that share a trajectory; plans are made before. Methods that run no
    frames together are not measured: theirs are the same runs.
    """
    assert {name for name, method in METHODS.items() if method.batch is not None} == set(PROTOCOLS)
    rows: list[Row] = []
    for name, protocol in PROTOCOLS.items():
        members = list(islice(cycle(_members(protocol, matrix)), sizes[-1]))
        seconds = _seconds(members, Recipe(name), kernels, sizes=sizes, rounds=rounds)
        rates = {size: [len(members) / taken for taken in seconds[size]] for size in sizes}
        rows += [row(f"batches.{name}.{size}", rates[size], "frames/s", rates[sizes[0]]) for size in sizes]
    return rows


def _seconds(
    members: list[Member], recipe: Recipe, kernels: Kernels, *, sizes: tuple[int, ...], rounds: int
) -> dict[int, list[float]]:
    """How long all `members` take in batches of each of `sizes`, in alternation."""
    cache = Cache()
    reconstruct_batch(members, recipe, kernels, cache)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(rounds):
        for size in sizes[number % len(sizes) :] + sizes[: number % len(sizes)]:  # none is always the first
            start = perf_counter()
            for first in range(0, len(members), size):
                for made in reconstruct_batch(members[first : first + size], recipe, kernels, cache):
                    if isinstance(made, Exception):
                        raise made
            seconds[size].append(perf_counter() - start)
    return seconds


def _members(protocol: str, matrix: int) -> list[Member]:
    return [member for seed in (1, 2) for member in _scan(protocol, matrix, seed)]


def _scan(protocol: str, matrix: int, seed: int) -> Iterator[Member]:
    scan = simulate(protocol, seed=seed, matrix=matrix, coils=COILS).scan
    indices, noise = frames_of(scan)
    for index in indices[:8]:
        yield scan.header, Material(select(scan.readouts, index.rows), noise, scan.waveforms, index.counters)

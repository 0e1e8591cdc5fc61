"""Frames of several scans made side by side are what each is alone, and one that is bad fails alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from kernels.contract import Kernels
from kernels.cpu.nufft import CpuNufft
from recon.batch import Made
from recon.cache import Cache
from recon.errors import CalibrationError, ScanError
from recon.gather import select
from recon.methods import METHODS
from recon.pipeline import frames_of, reconstruct_batch, reconstruct_material
from recon.recipe import Recipe
from recon.scan import Image, Material, Readouts, ScanHeader
from recon.simulate import simulate
from tests.cuda.shim import open_shim
from tests.foreign import ForeignKernels
from tests.recon.methods.phantoms import CPU

Member = tuple[ScanHeader, Material]
CASES = [
    ("brain-se", Recipe("fft")),
    ("brain-se", Recipe("fft", {"combine": "adaptive"})),
    ("brain-se", Recipe("fft", {"snr": 2})),
    ("heart-spiral", Recipe("gridding")),
    ("heart-radial", Recipe("gridding", {"delays": "off"})),
    ("heart-spiral", Recipe("cg-sense", {"iterations": 4})),
    ("brain-se", Recipe("cg-sense", {"iterations": 4})),
]
ALIKE = 1e-5  # of the maximum: what a batch of another composition may change


def named(value: object) -> str | None:
    return value.method if isinstance(value, Recipe) else None


@cache
def members(protocol: str) -> tuple[Member, ...]:
    """Two frames of each of two scanners, each with a noise scan of its own."""
    return tuple(_members(protocol, matrix=32, coils=4))


def _members(protocol: str, *, matrix: int, coils: int) -> Iterator[Member]:
    for seed in (1, 2):
        scan = simulate(protocol, seed=seed, matrix=matrix, coils=coils, repetitions=2).scan
        indices, noise = frames_of(scan)
        for index in indices[:2]:
            yield scan.header, Material(select(scan.readouts, index.rows), noise, scan.waveforms, index.counters)


def images_of(made: Made) -> list[Image]:
    assert isinstance(made, list), made
    return made


def assert_alike(made: list[Image], expected: list[Image], *, within: float) -> None:
    assert len(made) == len(expected) > 0
    for one, other in zip(made, expected, strict=True):
        assert (one.counters, one.comments, one.series) == (other.counters, other.comments, other.series)
        assert np.abs(one.pixels - other.pixels).max() <= within * np.abs(other.pixels).max()


@pytest.mark.parametrize(("protocol", "recipe"), CASES, ids=named)
def test_frames_of_a_batch_are_what_they_are_alone(protocol: str, recipe: Recipe) -> None:
    frames = members(protocol)
    alone = [reconstruct_material(*frame, recipe, CPU, Cache()) for frame in frames]
    store = Cache()
    first, again = (reconstruct_batch(frames, recipe, CPU, store) for _ in range(2))
    for number, expected in enumerate(alone):
        assert_alike(images_of(first[number]), expected, within=ALIKE)
        assert_alike(images_of(again[number]), images_of(first[number]), within=0.0)


@pytest.mark.parametrize(("protocol", "recipe"), [CASES[0], CASES[3]], ids=named)
@pytest.mark.parametrize("strange", [lambda: ForeignKernels(CPU), lambda: open_shim(seed=2)], ids=["strict", "CUDA"])
def test_a_batch_on_a_device_is_what_its_frames_are_alone(protocol: str, recipe: Recipe, strange: object) -> None:
    device: Kernels = strange()  # type: ignore[operator]
    store = Cache()
    for made, frame in zip(reconstruct_batch(members(protocol), recipe, device, store), members(protocol), strict=True):
        assert_alike(images_of(made), reconstruct_material(*frame, recipe, device, store), within=ALIKE)


def test_frames_that_share_a_trajectory_go_through_one_plan_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, adjoint = [], CpuNufft.adjoint

    def watched(plan: CpuNufft, y: np.ndarray) -> np.ndarray:
        seen.append(y.shape[:2])
        return adjoint(plan, y)

    recipe, store = Recipe("gridding"), Cache()
    reconstruct_batch(members("heart-spiral"), recipe, CPU, store)  # makes the plan and its weights
    monkeypatch.setattr(CpuNufft, "adjoint", watched)
    reconstruct_batch(members("heart-spiral"), recipe, CPU, store)
    assert seen == [(4, 4)]  # frame, coil


def spoilt(frame: Member) -> Member:
    """The frame with a sample that is not a number."""
    header, material = frame
    *others, run = material.readouts
    samples = run.samples.copy()
    samples[0, 1, 2] = np.nan
    return header, replace(material, readouts=[*others, Readouts(run.head, samples, run.trajectory)])


@pytest.mark.parametrize(("protocol", "recipe"), [CASES[0], CASES[3], CASES[5]], ids=named)
def test_a_bad_frame_fails_alone_and_says_which_it_is(protocol: str, recipe: Recipe) -> None:
    frames = list(members(protocol))
    frames[1] = spoilt(frames[1])
    good, bad, *rest = reconstruct_batch(frames, recipe, CPU, Cache())
    assert isinstance(bad, ScanError) and "holds" in str(bad) and "coil 1, sample 2" in str(bad)
    for number, made in ((0, good), (2, rest[0]), (3, rest[1])):
        assert_alike(images_of(made), reconstruct_material(*frames[number], recipe, CPU, Cache()), within=ALIKE)


def test_a_batch_that_its_method_cannot_do_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second frame's lines give no coil maps: it alone is refused, or falls back where the recipe allows it."""
    frames = list(members("brain-se"))
    header, material = frames[1]
    thin = [Readouts(run.head[::2], run.samples[::2]) for run in material.readouts]
    frames[1] = header, replace(material, readouts=thin)
    good, bad, *_ = reconstruct_batch(frames, Recipe("cg-sense", {"iterations": 2}), CPU, Cache())
    assert len(images_of(good)) == 1
    assert isinstance(bad, CalibrationError) and "lines are fully sampled at the centre" in str(bad)


@pytest.mark.parametrize(("protocol", "method"), [("brain-se", "fft"), ("heart-spiral", "gridding")])
def test_a_batch_needs_no_more_than_its_frames_declare(protocol: str, method: str) -> None:
    frames = list(_members(protocol, matrix=96, coils=8))
    recipe, store = Recipe(method), Cache()
    reconstruct_batch(frames[:1], recipe, CPU, store)  # plans and libraries are not the frames' own
    declared = METHODS[method].bytes_needed(frames[0][0].encodings[0], 8) - (64 << 20)
    tracemalloc.start()
    reconstruct_batch(frames, recipe, CPU, store)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= len(frames) * declared

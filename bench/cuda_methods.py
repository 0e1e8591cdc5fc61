"""Every method on a CUDA device beside its CPU twin: `python -m bench.cuda_methods`, on a GPU.

Small scans made with NumPy alone, since a GPU's machine may have nothing else. Where the CPU's libraries are missing
too, the slow twin in double precision stands in for the CPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from bench import report
from bench.traffic import FrameSize, frame_header, frame_readouts
from kernels.contract import Complex, Kernels
from kernels.reference import ReferenceKernels, direct
from recon.cache import Cache
from recon.gather import select
from recon.methods import METHODS
from recon.mrd.header import parse_header
from recon.pipeline import frames_of, reconstruct_material
from recon.recipe import METHOD_PARAMETERS, Recipe, Value
from recon.scan import TICK_S, Encoding, Flag, Image, Material, Readouts, Scan, ScanHeader, Space, Trajectory
from recon.simulate.physiology import ecg

SIZE = FrameSize(coils=5, lines=32, samples=64, acceleration=2, calibration=16)
SPOKES, ACROSS = 40, 24  # of a radial scan, and the size of its image
BEATS_S, HEART_FRAMES, LINE_S = 0.8, 16, 0.005
NOISE = 0.01
REPEATS = 10
# Of two images made in single precision by other transforms in another order; NUFFTs are asked for 1e-4.
ALIKE = 2e-3

# All other methods take "thinned".
SCANS: dict[str, str] = {"fft": "whole", "gridding": "radial", "grasp": "radial", "cine": "heart"}
ELSEWHERE = ("null", "slice-grappa")  # no image, and slices excited together, which no scan here has
# What a method is asked for: little work for the slow twin, and what its defaults leave out.
PARAMETERS: dict[str, dict[str, Value]] = {
    "fft": {"combine": "adaptive"},
    "grappa": {"combine": "adaptive", "gfactor": True},
    "sense": {"gfactor": True},
    "cg-sense": {"iterations": 5},
    "l1-wavelet": {"iterations": 5},
    "tv": {"iterations": 5},
    "grasp": {"window": 20, "iterations": 2},
    "llr": {"iterations": 5},
    "cine": {"phases": 3},
}


def coil_images(shape: tuple[int, int], coils: int) -> Complex:
    """Ellipses seen by `coils` coils round them: [coil, y, x]."""
    y, x = np.meshgrid(*((np.arange(n) - n // 2) * 2 / n for n in shape), indexing="ij")
    body = 1.0 * (y**2 + (x / 0.8) ** 2 < 0.6) + 0.7 * ((y - 0.2) ** 2 + (x + 0.1) ** 2 < 0.05)
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    maps = np.exp(1j * angle - ((y - np.sin(angle)) ** 2 + (x - np.cos(angle)) ** 2) / 2)
    seen: Complex = (maps * body).astype(np.complex64)
    return seen


def noise(rng: np.random.Generator, *shape: int) -> Complex:
    """Complex normal numbers."""
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def cartesian(size: FrameSize, *, repetitions: int = 1) -> Scan:
    """Lines of coil images, with readout oversampling and noise, once or over and over as time goes by."""
    rng, half = np.random.default_rng(3), size.samples // 4
    images = np.pad(coil_images((size.lines, size.samples // 2), size.coils), ((0, 0), (0, 0), (half, half)))
    kspace = direct.dft(images, images.shape[1:], sign=-1)[:, size.measured].astype(np.complex64)
    head = np.tile(frame_readouts(size, seed=0).head, repetitions)
    head["acquisition_time_stamp"] = np.rint(np.arange(len(head)) * LINE_S / TICK_S)
    samples = np.tile(kspace.swapaxes(0, 1), (repetitions, 1, 1))
    samples = samples + NOISE * noise(rng, *samples.shape)
    scan = Scan(parse_header(frame_header(size)), (noise_scan(size.coils), Readouts(head, samples)))
    return replace(scan, waveforms=heartbeats(len(head) * LINE_S)) if repetitions > 1 else scan


def heartbeats(seconds: float) -> Any:
    """The ECG of a regular heart."""
    waves = BEATS_S * np.arange(ceil(seconds / BEATS_S) + 1, dtype=np.float64)
    return ecg(waves, seconds=seconds, first_tick=0, measurement_uid=0)


def radial(coils: int) -> Scan:
    """Golden-angle spokes of coil images, with noise."""
    rng, samples = np.random.default_rng(4), 2 * ACROSS
    angle = np.arange(SPOKES) * np.pi * (np.sqrt(5) - 1) / 2
    radius = (np.arange(samples) - samples // 2) / samples  # cycles per voxel
    path = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]  # [spoke, sample, (x, y)]
    points = (2 * np.pi * path[..., ::-1]).astype(np.float32)
    kspace = direct.nufft_forward(points, coil_images((ACROSS, ACROSS), coils), (ACROSS, ACROSS)) / ACROSS
    measured = kspace.swapaxes(0, 1).astype(np.complex64) + NOISE * noise(rng, SPOKES, coils, samples)
    space = Space((1, ACROSS, ACROSS), (5.0, 240.0, 240.0))
    header = ScanHeader(b"", (Encoding(space, space, {}, Trajectory.RADIAL),), coils)
    head = np.resize(frame_readouts(replace(SIZE, coils=coils), seed=0).head, SPOKES)
    head["number_of_samples"], head["center_sample"] = samples, samples // 2
    head["kspace_encode_step_1"], head["trajectory_dimensions"], head["flags"] = np.arange(SPOKES), 2, 0
    return Scan(header, (noise_scan(coils), Readouts(head, measured, path.astype(np.float32))))


def noise_scan(coils: int) -> Readouts:
    """Readouts of noise alone."""
    size = FrameSize(coils=coils, lines=16, samples=256)
    run = frame_readouts(size, seed=5)
    run.head["flags"] = Flag.IS_NOISE_MEASUREMENT.mask
    return Readouts(run.head, NOISE * run.samples)


def scans() -> dict[str, Scan]:
    """The scans by name."""
    heart = replace(SIZE, acceleration=1)
    return {
        "whole": cartesian(heart),
        "thinned": cartesian(SIZE),
        "radial": radial(SIZE.coils),
        "heart": cartesian(heart, repetitions=HEART_FRAMES),
    }


def recipes() -> list[tuple[str, Recipe]]:
    """A scan's name and a recipe for every method, and for some on trajectories too."""
    names = [name for name in METHODS if name not in ELSEWHERE]
    every = [(SCANS.get(name, "thinned"), Recipe(name, wanted(name))) for name in names]
    return [*every, ("radial", Recipe("cg-sense", wanted("cg-sense"))), ("radial", Recipe("tv", wanted("tv")))]


def wanted(method: str) -> dict[str, Value]:
    """What of PARAMETERS the method has, by its name."""
    known = METHOD_PARAMETERS[method]
    return {name: value for name, value in PARAMETERS.get(method, {}).items() if name in known}


def images_of(scan: Scan, recipe: Recipe, device: Kernels, cache: Cache) -> list[Image]:
    """The images of the first frame."""
    indices, noise_readouts = frames_of(scan, recipe)
    rows = select(scan.readouts, indices[0].rows)
    material = Material(rows, noise_readouts, scan.waveforms, indices[0].counters)
    return reconstruct_material(scan.header, material, recipe, device, cache)


def twin() -> Kernels:
    """The CPU's kernels, or where its libraries are missing their slow twin."""
    for name in ("cpu", "cpu:scipy"):
        try:
            device = kernels.on(name)
            device.nufft(np.zeros((1, 1), np.float32), (4,))
        except (ImportError, kernels.DeviceError):
            continue
        return device
    return ReferenceKernels()


def distance(images: Sequence[Image], expected: Sequence[Image]) -> float:
    """The largest ‖image − expected‖ / ‖expected‖; infinite where there are not as many images."""
    if len(images) != len(expected) or not expected:
        return float("inf")
    pairs = zip(images, expected, strict=True)
    return max(norm(one.pixels - other.pixels) / norm(other.pixels) for one, other in pairs)


def norm(pixels: NDArray[Any]) -> float:
    """In double precision."""
    return float(np.linalg.norm(pixels.astype(np.complex128).ravel()))


def measure(device: Kernels, judge: Kernels, *, repeats: int = REPEATS) -> list[report.Row]:
    """Rows `methods.<method>.<scan>.distance` to the judge's images and `.seconds` beside the judge's for a frame."""
    rows, all_scans = [], scans()
    for name, recipe in recipes():
        scan, stores = all_scans[name], (Cache(), Cache())
        expected = images_of(scan, recipe, judge, stores[1])
        apart = [distance(images_of(scan, recipe, device, stores[0]), expected) for _ in range(2)]
        kind = f"methods.{recipe.method}.{name}"
        times = timed(partial(images_of, scan, recipe, device, stores[0]), repeats)
        beside = timed(partial(images_of, scan, recipe, judge, stores[1]), 1) * repeats
        rows += [report.row(f"{kind}.distance", apart, "1"), report.row(f"{kind}.seconds", times, "s", beside)]
    return rows


def timed(work: Any, repeats: int) -> list[float]:
    """Wall seconds of each run; pixels in NumPy, which `work` returns, are there when the device has finished."""
    samples = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        samples.append(time.perf_counter() - begin)
    return samples


def main(_: Sequence[str]) -> int:
    """Measure, print and store `bench/results/<date>-<device>-<commit>-cuda-methods.json`; 1 where images differ."""
    from bench.gpu import find_device, result_path

    device, judge = kernels.on("cuda"), twin()
    rows = measure(device, judge)
    for entry in rows:
        print(f"{entry.id:40} {entry.value:10.3g} {entry.unit}")
    name = find_device() or device.device
    about = report.environment() | {"device": name, "judge": judge.device}
    path = result_path(name, str(about["commit"]))
    report.write(rows, path.with_name(path.name.replace("-gpu.json", "-cuda-methods.json")), about=about)
    wrong = [entry.id for entry in rows if entry.id.endswith(".distance") and not max(entry.samples) < ALIKE]
    if wrong:
        print(f"images differ by {ALIKE:g} or more in {', '.join(wrong)}: the device is not to be trusted with them")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

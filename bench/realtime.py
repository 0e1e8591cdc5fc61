"""Real-time radial cine on one core: how long a frame takes from its readouts to its image."""

from __future__ import annotations

from time import perf_counter

from bench.report import Row, row
from kernels.contract import Kernels
from recon.cache import Cache
from recon.gather import select
from recon.pipeline import frames_of, reconstruct_material
from recon.recipe import Recipe
from recon.scan import Material
from recon.simulate import simulate

NAME = "methods.realtime.heart-radial"
MATRIX, MEASURED_COILS, COILS = 128, 16, 8
WINDOW, STRIDE = 34, 17  # of 3 ms each: a new frame each 51 ms
FRAME_MS = 50.0  # what a frame may take
WARM, FRAMES = 10, 40


def measure(kernels: Kernels, *, matrix: int = MATRIX, frames: int = FRAMES) -> Row:
    """Milliseconds a frame, one after the other, of new spokes each time: plan, weights and coils are made anew."""
    scan = simulate("heart-radial", seed=1, matrix=matrix, coils=MEASURED_COILS, repetitions=1).scan
    recipe = Recipe("gridding", {"window": WINDOW, "stride": STRIDE, "coils": COILS})
    indices, noise = frames_of(scan, recipe)
    cache, taken = Cache(), []
    for index in indices[: WARM + frames]:
        material = Material(select(scan.readouts, index.rows), noise, (), index.counters)
        start = perf_counter()
        reconstruct_material(scan.header, material, recipe, kernels, cache)
        taken.append(1000 * (perf_counter() - start))
    measured = taken[WARM:] or taken
    return row(NAME, measured, "ms/frame", [FRAME_MS] * len(measured))

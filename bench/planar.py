"""What is asked of echo-planar images beside their error: ghosts, leakage between slices, displacement. No noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from bench.report import Row
from kernels.contract import Kernels
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Image
from recon.simulate import SimulatedScan, Truth, simulate
from recon.simulate.epi import ECHO_PLANAR, SHOTS, SINGLE, Plan, gradient_for, measured
from recon.simulate.measurement import Choice, Measurement, Protocol

OFFSET_HZ = 50.0
# Slices excited together: 30 mm apart, four of them 24.
TOGETHER = {2: (-15.0, 15.0), 3: (-30.0, 0.0, 30.0), 4: (-36.0, -12.0, 12.0, 36.0)}


def measure(kernels: Kernels, *, matrix: int = 64, coils: int = 8) -> list[Row]:
    """Ghosts (beside those without navigators), displacement (beside the predicted), leakage (beside 3 %)."""
    made = Maker(kernels, matrix, coils)
    return [*made.ghosts(), made.displacement(), *(made.leakage(bands) for bands in TOGETHER)]


class Maker:
    """Scans of one size, and their images on one device."""

    def __init__(self, kernels: Kernels, matrix: int, coils: int) -> None:
        self._kernels, self._matrix, self._coils = kernels, matrix, coils

    def ghosts(self) -> Iterator[Row]:
        """Of single and several shots: the worst slice's, relative to the object."""
        for name, plan in (("head-epi", SINGLE), ("head-epi-shots", SHOTS)):
            levels, without = (self._ghost_levels(p) for p in (plan, replace(plan, navigators=False)))
            yield Row(f"methods.{name}.ghost", max(levels), "", max(without), max(levels) / max(without), levels)

    def displacement(self) -> Row:
        """In voxels, of the profile along the phase direction, by OFFSET_HZ."""
        plan = replace(SINGLE, slices_mm=(0.0,))
        places = []
        for offset_hz in (0.0, OFFSET_HZ):
            (image,) = self._images(self._scan(replace(plan, offset_hz=offset_hz))).values()
            places.append(np.average(np.arange(self._matrix), weights=image.pixels[0, 0].sum(axis=1) ** 2))
        value, predicted = places[1] - places[0], -OFFSET_HZ * gradient_for(self._matrix).total_us * 1e-6 * self._matrix
        return Row("methods.head-epi.displacement", float(value), "voxels", predicted, float(value / predicted))

    def leakage(self, bands: int) -> Row:
        """The most of a slice that shows in another, each slice alone giving signal, relative to what it shows."""
        plan = Plan(bands=bands, slices_mm=TOGETHER[bands])
        shares = tuple(self._share(plan, excited) for excited in range(bands))
        return Row(f"methods.head-epi-sms.mb{bands}.leakage", max(shares), "", 0.03, max(shares) / 0.03, shares)

    def _share(self, plan: Plan, excited: int) -> float:
        simulated = self._scan(replace(plan, excited=(excited,)))
        masks = {truth.counters.slice: truth.mask for truth in simulated.truth}
        sizes = {i: _rms(image, masks[i]) for i, image in self._images(simulated).items()}
        return max(size for i, size in sizes.items() if i != excited) / sizes[excited]

    def _ghost_levels(self, plan: Plan) -> tuple[float, ...]:
        simulated = self._scan(plan)
        found = self._images(simulated)
        return tuple(ghost_level(found[truth.counters.slice], truth) for truth in simulated.truth)

    def _scan(self, plan: Plan) -> SimulatedScan:
        def measurement(choice: Choice, _: Generator) -> Measurement:
            return measured("planar", choice, plan)

        choice = Choice(1, self._coils, self._matrix)
        return simulate(Protocol("planar", "", ECHO_PLANAR, choice, measurement), noise=0)

    def _images(self, simulated: SimulatedScan) -> dict[int, Image]:
        return {image.counters.slice: image for image in reconstruct(simulated.scan, Recipe(), self._kernels)}


def ghost_level(image: Image, truth: Truth) -> float:
    """Root mean square of what is wrong where only the ghost lies, relative to the object's mean.

    The ghost is the object half a field of view away, along y.
    """
    ghost = np.roll(truth.mask, truth.mask.shape[1] // 2, axis=1) & ~truth.mask
    wrong = (image.pixels[0] - truth.pixels)[ghost]
    return float(np.sqrt(np.mean(wrong**2)) / truth.pixels[truth.mask].mean())


def _rms(image: Image, mask: np.ndarray) -> float:
    return float(np.sqrt(np.mean(image.pixels[0][mask] ** 2)))

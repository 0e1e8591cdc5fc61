"""`python -m recon.networks.evaluate layer1|layer2`: measures trained weights; the figures go into their card."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kernels.contract import Kernels
from recon.device import open_device
from recon.errors import ReconError
from recon.networks import examples, metrics, sources, weights
from recon.networks.examples import VIEW_MM, Undersampled
from recon.networks.layer2 import STRENGTHS
from recon.networks.pictures import picture
from recon.networks.rivals import RIVALS, tuned
from recon.networks.sources import Library, Real
from recon.networks.tasks import Enhancing, Task, Unrolling
from recon.simulate.phantom import Shapes

ACCELERATIONS = (2, 4, 6, 8)
SIGNAL = 100.0  # of the brightest hundredth of an image, over the noise
COILS, CENTRE = 8, 0.32  # share of the measured lines that are the centre: 8 % of all at R = 4, 4 % at R = 8
CHOSEN = 12
REPLICAS = 24
DISC_MM, BRIGHT = 70.0, (1.0, 0.5, 0.25)
LAYER1_HOW = (
    f"k-space of {COILS} simulated coils with known maps, cropped from pictures of a higher resolution; noise"
    f" 1/{SIGNAL:g} of the brightest hundredth; even lines and the centre; rivals' settings chosen in-domain"
)
LAYER2_HOW = (
    f"discs with exact k-space, {REPLICAS} replicas with noise 1/{SIGNAL:g} of the brightest; edges, ringing and"
    " bias of the replicas' mean"
)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A trained network and what makes images with it."""

    network: Any
    task: Task

    def image(self, example: Any) -> Any:
        """The network's image of one example, on the host."""
        with torch.no_grad():
            return self.task.images(self.network, [example])[0].cpu().numpy()


def in_domain(library: Library, acceleration: int) -> list[Undersampled]:
    """Examples to choose by: pictures that were not trained on, of the kinds that were."""
    drawn = [picture(np.random.default_rng([7, i]), library, 256) for i in range(CHOSEN)]
    return [_measured(one, 128, acceleration, seed=i) for i, one in enumerate(drawn)]


def real(acceleration: int) -> Iterator[tuple[str, Undersampled]]:
    """Real images, never chosen by: what of each, and its data."""
    for i, (name, pixels, matrix) in enumerate(sources.real_pictures()):
        yield name, _measured(np.ascontiguousarray(pixels.T), matrix[0], acceleration, seed=100 + i)


def _measured(drawn: Real, count: int, acceleration: int, *, seed: int) -> Undersampled:
    rng = np.random.default_rng([11, seed])
    coils, kept = examples.random_coils(rng, COILS), round(count / acceleration)
    centre = round(CENTRE * kept)
    lines = examples.lines_of(rng, count, centre=centre, more=kept - centre, even=True)
    return examples.of_picture(rng, drawn, coils, lines=lines, signal=SIGNAL)


def layer1_metrics(judged: Judged, kernels: Kernels, library: Library) -> dict[str, Any]:
    """Errors by set of pictures, acceleration and method; the mean over real pictures, and each of them."""
    found: dict[str, Any] = {"how": LAYER1_HOW, "settings": {}, "in-domain": {}, "real": {}, "each real": {}}
    for acceleration in ACCELERATIONS:
        chosen = in_domain(library, acceleration)
        settings = {name: tuned(name, kernels, chosen) for name in RIVALS}
        key = f"R = {acceleration}"
        found["settings"][key] = {name: list(setting) for name, setting in settings.items() if setting}
        each = {name: compared(judged, kernels, example, settings) for name, example in real(acceleration)}
        inside = [compared(judged, kernels, example, settings) for example in chosen]
        found["in-domain"][key], found["real"][key] = averaged(inside), averaged(list(each.values()))
        found["each real"][key] = {name: {how: asdict(e) for how, e in row.items()} for name, row in each.items()}
    return found


def compared(
    judged: Judged, kernels: Kernels, example: Undersampled, settings: Mapping[str, Any]
) -> dict[str, metrics.Errors]:
    """The errors of every method on one example."""
    data = examples.measured(example, kernels)
    images = {name: kernels.to_host(RIVALS[name][0](kernels, data, setting)) for name, setting in settings.items()}
    images["layer1"] = judged.image(example)
    return {name: metrics.errors(image, example.truth) for name, image in images.items()}


def averaged(rows: Sequence[Mapping[str, metrics.Errors]]) -> dict[str, dict[str, float]]:
    """The mean over examples for each method."""
    return {name: metrics.mean_of([row[name] for row in rows]) for name in rows[0]}


def discs() -> Shapes:
    """Three discs apart from each other, each with its own brightness; their radius ends between pixels."""
    place = DISC_MM * 0.85 * np.exp(2j * np.pi * np.arange(3) / 3)
    centre = np.stack([place.real, place.imag], axis=1)
    return Shapes(centre, np.tile(np.eye(2) * DISC_MM * 0.45, (3, 1, 1)), np.array(BRIGHT, np.complex128))


def layer2_metrics(judged: Judged, *, size: int = 128) -> dict[str, Any]:
    """What each strength does to noise, edges, ringing and means of discs, of which it knows nothing."""
    shapes = discs()
    exact, truth = examples.truncated_shapes(shapes, size, size)
    ones, rng = np.ones((size, size), np.float32), np.random.default_rng(13)
    given = [examples.noised(rng, exact, truth, signal=SIGNAL, factor=ones, part=ones[:, :1]) for _ in range(REPLICAS)]
    before, best = np.stack([one.image for one in given]), np.stack([judged.image(one) for one in given])
    found: dict[str, Any] = {"how": LAYER2_HOW}
    for name, part in STRENGTHS.items():
        if part:
            after = before + np.float32(part) * (best - before)
            found[name] = disc_figures(shapes, before, after, given[0].truth)
    return found


def disc_figures(shapes: Shapes, before: Any, after: Any, truth: Any) -> dict[str, float]:
    """Gain of SNR, and the worst of all discs: edge widened to, bias; ringing left, of all discs together."""
    size = before.shape[-1]
    depths = [
        metrics.distances((size, size), (y * size / VIEW_MM, x * size / VIEW_MM), turn[0, 0] * size / VIEW_MM)
        for (x, y), turn in zip(shapes.center, shapes.semiaxes, strict=True)
    ]
    inner = [depth > metrics.PLATEAU[0] for depth in depths]
    old, new = before.mean(axis=0).real, after.mean(axis=0).real
    gains = [metrics.noise_in(before.real, region) / metrics.noise_in(after.real, region) for region in inner]
    widths = [metrics.edge_width(new, depth) / metrics.edge_width(old, depth) for depth in depths]
    rings = [sum(metrics.ringing(image, depth) for depth in depths) for image in (new, old)]
    biases = [metrics.bias(new, truth.real, region) for region in inner]
    return {
        "snr_gain": min(gains),
        "edge_width_ratio": max(widths),
        "ringing_ratio": rings[0] / rings[1],
        "bias": max(biases, key=abs),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m recon.networks.evaluate", description=__doc__)
    made.add_argument("network", choices=tuple(weights.NETWORKS))
    made.add_argument("--weights", type=Path, default=weights.STORED, help="folder of weights and card")
    made.add_argument("--name", help="of the weights; by default the network's")
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    made.add_argument("--threads", type=int, default=1)
    return made


def run(arguments: Sequence[str]) -> int:
    """Measure, print and store the figures; 2 with the reason on stderr where something is missing."""
    given = parser().parse_args(arguments)
    try:
        kernels = open_device(given.device, threads=given.threads)
        torch.set_num_threads(given.threads)
        network, card = weights.load(given.name or given.network, network=given.network, folder=given.weights)
        if given.network == "layer1":
            found = layer1_metrics(Judged(network, Unrolling(kernels)), kernels, sources.library("choose"))
        else:
            found = layer2_metrics(Judged(network, Enhancing(kernels)))
    except ReconError as error:
        print(error, file=sys.stderr)
        return 2
    weights.write_card(given.weights / f"{given.name or given.network}.json", replace(card, metrics=found))
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

"""What either layer learns: its examples, and how far its images are from the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from kernels.contract import Kernels
from recon.device import open_device
from recon.exchange import to_tensor
from recon.networks import examples
from recon.networks.consistency import Consistency
from recon.networks.layer1 import Unrolled
from recon.networks.layer2 import Enhance
from recon.networks.sources import Library

SHARE_OF_SPOKES = 1 / 7  # of layer 1's examples


class Task(Protocol):
    """One layer's examples and its images of them."""

    def example(self, rng: Generator, library: Library, size: int) -> Any:
        """One measurement and its truth, `size` pixels along each axis."""
        ...

    def images(self, network: Any, batch: Sequence[Any]) -> Tensor:
        """What the network makes of a batch, complex [batch, y, x]."""
        ...


@dataclass(frozen=True, slots=True)
class Unrolling:
    """Layer 1: undersampled k-space → image."""

    kernels: Kernels

    def example(self, rng: Generator, library: Library, size: int) -> examples.Undersampled | examples.Spokes:
        """Lines as `examples.undersampled`, or, one time in seven, spokes."""
        if rng.random() < SHARE_OF_SPOKES:
            return examples.spokes(rng, library, size, open_device("cpu"))
        return examples.undersampled(rng, library, size)

    def images(self, network: Unrolled, batch: Sequence[examples.Undersampled | examples.Spokes]) -> Tensor:
        """See `Task.images`."""
        measured = [examples.measured(example, self.kernels) for example in batch]
        data = Consistency(self.kernels, measured, network.design.iterations)
        inside = torch.ones(len(batch), 1, *batch[0].truth.shape, device=network.trust.device)
        images: Tensor = network(data, inside)
        return images


@dataclass(frozen=True, slots=True)
class Enhancing:
    """Layer 2: noisy, truncated image → image."""

    kernels: Kernels

    def example(self, rng: Generator, library: Library, size: int) -> examples.Noisy:
        """See `examples.noisy`."""
        return examples.noisy(rng, library, size)

    def images(self, network: Enhance, batch: Sequence[examples.Noisy]) -> Tensor:
        """See `Task.images`."""
        image = stacked([one.image for one in batch], self.kernels)
        noise = stacked([one.noise for one in batch], self.kernels)[:, None]
        images: Tensor = network(image, noise, torch.ones_like(noise))
        return images


TASKS: Mapping[str, Callable[[Kernels], Task]] = {"layer1": Unrolling, "layer2": Enhancing}


def errors_db(images: Tensor, batch: Sequence[Any], kernels: Kernels) -> Tensor:
    """‖image − truth‖² / ‖truth‖² of each [batch], in decibels: their mean is what a better PSNR lowers."""
    truth = stacked([one.truth for one in batch], kernels)
    error, power = ((difference.abs() ** 2).sum(dim=(-2, -1)) for difference in (images - truth, truth))
    return 10 * torch.log10((error + TINY) / (power + TINY))


TINY = 1e-12  # of a picture without anything in it


def stacked(arrays: Sequence[NDArray[Any]], kernels: Kernels) -> Tensor:
    """Arrays of the host as one tensor [batch, …] on the device of `kernels`."""
    return to_tensor(kernels.to_device(np.stack(arrays)))

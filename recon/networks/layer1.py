"""Layer 1, k-space → image: cascades of a small U-Net and the data themselves (doi:10.1109/TMI.2018.2865356)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recon.networks.blocks import UNet, channels_of, complex_of
from recon.networks.consistency import Consistency

CONDITIONS = 2  # channels beside the image's two: the noise, and how far undersampling has spread it
FEATURES = 3  # what a cascade's weight is made of: 1, log acceleration, log signal


@dataclass(frozen=True, slots=True)
class Design:
    """How large the network is: `cascades`, each of a U-Net of `width` and `levels` and the solver's `iterations`."""

    cascades: int = 5
    width: int = 16
    levels: int = 2
    iterations: int = 5


class Unrolled(nn.Module):
    """Data of a batch → images, complex [batch, y, x], in units of the noise that a fully sampled image would have."""

    name = "layer1"

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.denoise = nn.ModuleList(
            UNet(2 + CONDITIONS, width=design.width, levels=design.levels) for _ in range(design.cascades)
        )
        # One row more than cascades: the first image comes of the data alone, drawn towards zero.
        trust = torch.zeros(design.cascades + 1, FEATURES)
        trust[:, 0] = torch.log(torch.tensor([0.05] + [0.1] * design.cascades))
        self.trust = nn.Parameter(trust)

    def forward(self, data: Consistency, inside: Tensor) -> Tensor:
        """`inside` [batch, 1, y, x] is 1 in the image and 0 in the padding round it."""
        rhs = data.start()  # complex [batch, y, x]
        spread = rhs.new_tensor([one.acceleration for one in data.batch], dtype=torch.float32)  # [batch]
        weights = self._weights(rhs, spread, inside)  # [cascade + 1, batch]
        condition = _conditions(spread, inside)  # [batch, 2, y, x]
        x = data(torch.zeros_like(rhs), weights[0])
        for unet, weight in zip(self.denoise, weights[1:], strict=True):
            found = unet(torch.cat([channels_of(x), condition], dim=1), inside)  # [batch, 2, y, x]
            x = data(x - complex_of(found), weight)
        return x

    def _weights(self, rhs: Tensor, spread: Tensor, inside: Tensor) -> Tensor:
        """How much each cascade trusts the network over the data, by acceleration and by signal."""
        power = (rhs.abs() ** 2).sum(dim=(-2, -1)) / inside.sum(dim=(-3, -2, -1))
        log_signal = 0.5 * torch.log1p(power)
        features = torch.stack([torch.ones_like(spread), torch.log(spread), log_signal - 2])  # [feature, batch]
        return torch.exp(self.trust @ features)


def _conditions(spread: Tensor, inside: Tensor) -> Tensor:
    """The noise σ = 1, and σ times the logarithm of the acceleration, as channels [batch, 2, y, x]."""
    return torch.cat([inside, torch.log(spread)[:, None, None, None] * inside], dim=1)

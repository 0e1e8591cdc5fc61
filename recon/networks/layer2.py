"""Layer 2, image → image: less noise and less ringing, in units of the noise (doi:10.1002/mrm.28395)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from recon.networks.blocks import UNet, channels_of, complex_of

# The part of the network's correction that is applied: what a strength leaves of the noise is 1 − part.
STRENGTHS: Mapping[str, float] = MappingProxyType({"off": 0.0, "low": 0.5, "medium": 0.75, "high": 1.0})


@dataclass(frozen=True, slots=True)
class Design:
    """How large the network is: a U-Net of `width` and `levels`."""

    width: int = 24
    levels: int = 3


class Enhance(nn.Module):
    """Images, complex [batch, y, x] with noise σ = 1 where the geometry factor is 1 → the same without the noise.

    Scaling image and geometry factor by a > 0 scales the output by a.
    """

    name = "layer2"

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.unet = UNet(3, width=design.width, levels=design.levels)

    def forward(self, image: Tensor, noise: Tensor, inside: Tensor, *, strength: float = 1.0) -> Tensor:
        """`noise` [batch, 1, y, x] is σ in each pixel: the geometry factor, in units of the image's noise.

        `inside` [batch, 1, y, x] is 1 in the image and 0 in the padding round it; `strength` one of STRENGTHS' values.
        """
        found = self.unet(torch.cat([channels_of(image), noise], dim=1), inside)  # [batch, 2, y, x]
        return image - strength * complex_of(found)

"""A small U-Net without norms and biases, whose convolutions know which pixels are the image's.

Without biases, and with rectifiers alone between convolutions, scaling all input channels by a > 0 scales the output by
a: an image and its noise level together have no unit (doi:10.48550/arXiv.1906.05478). Norms over the image would make
a pixel depend on how far the image is padded, so there are none.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.1  # of the rectifier below zero: positively homogeneous as ReLU is, and no channel dies


class Convolutions(nn.Module):
    """Two 3 × 3 convolutions, each with a rectifier: [batch, channels, y, x] → [batch, width, y, x]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = _convolution(channels, width)
        self.second = _convolution(width, width)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """`inside` [batch, 1, y, x] is 1 in the image and 0 in the padding round it."""
        x = functional.leaky_relu(self.first(x), SLOPE) * inside
        return functional.leaky_relu(self.second(x), SLOPE) * inside


class UNet(nn.Module):
    """Channels [batch, channels, y, x] → real and imaginary part of a correction [batch, 2, y, x].

    Each of `levels` halves the grid and doubles the `width` (doi:10.1007/978-3-319-24574-4_28); features are added to
    what comes from below rather than stacked upon it, which halves the cost of the finest level. Any grid: it is padded
    to a multiple of 2^levels at its far ends and cropped again.
    """

    def __init__(self, channels: int, *, width: int, levels: int) -> None:
        super().__init__()
        widths = [width << level for level in range(levels + 1)]
        self.levels = levels
        self.enter = Convolutions(channels, width)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in _pairs(widths))
        self.deeper = nn.ModuleList(Convolutions(b, b) for _, b in _pairs(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in _pairs(widths))
        self.joined = nn.ModuleList(Convolutions(a, a) for a, _ in _pairs(widths))
        self.leave = _convolution(width, 2)
        # A correction of nothing to begin with: each layer starts as the image it was given.
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """`inside` [batch, 1, y, x] is 1 in the image and 0 in the padding round it, where `x` must be 0."""
        height, width = x.shape[-2:]
        masks = pyramid(inside, self.levels)
        x = self.enter(functional.pad(x, _margin(height, width, 1 << self.levels)), masks[0])  # [batch, width, Y, X]
        finer = []
        for level in range(self.levels):
            finer.append(x)
            # [batch, 2^(level+1) · width, Y / 2^(level+1), X / 2^(level+1)]
            x = self.deeper[level](self.down[level](x) * masks[level + 1], masks[level + 1])
        for level in reversed(range(self.levels)):
            x = self.joined[level](self.up[level](x) * masks[level] + finer[level], masks[level])
        return (self.leave(x) * masks[0])[..., :height, :width]


def pyramid(inside: Tensor, levels: int) -> list[Tensor]:
    """`inside` [batch, 1, y, x] padded to a multiple of 2^levels, then on coarser grids: a cell with any of it is."""
    height, width = inside.shape[-2:]
    masks = [functional.pad(inside, _margin(height, width, 1 << levels))]
    for _ in range(levels):
        masks.append(functional.max_pool2d(masks[-1], 2))
    return masks


def channels_of(image: Tensor) -> Tensor:
    """Complex [batch, y, x] → real and imaginary part [batch, 2, y, x]."""
    return torch.view_as_real(image).movedim(-1, 1)


def complex_of(channels: Tensor) -> Tensor:
    """Real and imaginary part [batch, 2, y, x] → complex [batch, y, x]."""
    return torch.view_as_complex(channels.movedim(1, -1).contiguous())


def _convolution(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, bias=False)


def _pairs(widths: list[int]) -> list[tuple[int, int]]:
    return list(pairwise(widths))


def _margin(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """How far the last two axes are padded, as torch has it: the last axis first."""
    return 0, -width % multiple, 0, -height % multiple

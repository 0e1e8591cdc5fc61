"""What was measured, as a layer of a network: an image is drawn to the data by recon's own operators and solver.

The layer solves (AᴴA + w) x = Aᴴy + w z for the image x that fits the data y and lies near z, by conjugate gradients
(doi:10.1109/TMI.2018.2865356). Any `Equations` will do, so Cartesian, radial and spiral data are one to it; arrays
and tensors share their memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.contract import Complex, Equations, Kernels
from recon.exchange import to_array, to_tensor
from recon.networks.measured import Measured


@dataclass(frozen=True, slots=True, eq=False)
class Consistency:
    """The data of a batch, all on one grid [y, x], and how exactly they are solved for."""

    kernels: Kernels
    batch: Sequence[Measured]
    iterations: int

    def __call__(self, image: Tensor, weight: Tensor) -> Tensor:
        """The solution [batch, y, x] for z = `image` complex [batch, y, x] and w = `weight` > 0 [batch]."""
        solved: Tensor = _Solution.apply(image, weight, self)
        return solved

    def start(self) -> Tensor:
        """Aᴴy [batch, y, x]."""
        return to_tensor(np.stack([one.rhs for one in self.batch]))

    def solve(self, rhs: Tensor, weight: Tensor) -> Tensor:
        """(AᴴA + w)⁻¹ rhs for each of the batch, from 0."""
        each = zip(self.batch, to_array(rhs), to_array(weight), strict=True)
        return to_tensor(np.stack([self._solved(one, right, w) for one, right, w in each]))

    def residual(self, image: Tensor) -> Tensor:
        """Aᴴ(y − A x) for each of the batch."""
        each = zip(self.batch, to_array(image), strict=True)
        return to_tensor(np.stack([one.rhs - one.equations.normal(x, *one.equations.operands) for one, x in each]))

    def _solved(self, one: Measured, rhs: Complex, weight: Any) -> Complex:
        return self.kernels.cg(damped(one.equations, weight), rhs, iterations=self.iterations)


def damped(equations: Equations, weight: Any) -> Equations:
    """normal(x) + weight · x; the weight, a scalar array, is an operand, so that a recorded form serves them all."""

    def normal(x: Complex, *operands: Any) -> Complex:
        out: Complex = equations.normal(x, *operands[:-1]) + operands[-1] * x
        return out

    return Equations(normal, (*equations.operands, weight), ("damped", equations.key))


class _Solution(torch.autograd.Function):
    """x(z, w), with the gradients of the exact solution: the same system once more for what comes back."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, data: Consistency) -> Tensor:
        # With x = z + d the system is (AᴴA + w) d = Aᴴ(y − A z): it starts where the network is.
        step = data.solve(data.residual(image), weight)
        ctx.save_for_backward(step, weight)
        ctx.data = data
        return image + step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        step, weight = ctx.saved_tensors
        back = ctx.data.solve(gradients[0], weight)
        # ∂x/∂w = (AᴴA + w)⁻¹(z − x), whose inner product with the gradient is that of `back` with −step.
        by_weight = -(back.conj() * step).real.sum(dim=(-2, -1))
        return weight[:, None, None] * back, by_weight, None

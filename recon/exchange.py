"""Arrays of any device ↔ torch's tensors on the same device by DLPack: one memory, no copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.contract import Array
from recon.errors import PackageError

if TYPE_CHECKING:
    from torch import Tensor


def to_tensor(array: Array) -> Tensor:
    """A tensor on `array`'s device that shares its memory; an array that may not be written to is copied first.

    Raises PackageError where torch is not installed.
    """
    torch = _torch()
    # NumPy hands out no memory that is read-only, and a view that runs backwards has no strides for torch.
    own = array if array.flags["C_CONTIGUOUS"] and _writable(array) else np.array(array, like=array, order="C")
    return torch.from_dlpack(own)


def to_array(tensor: Tensor) -> Any:
    """NumPy's or CuPy's array, by `tensor`'s device, that shares its memory; what is done to it has no gradient."""
    plain = tensor.detach().resolve_conj().contiguous()
    if plain.device.type == "cpu":
        return plain.numpy()
    import cupy

    return cupy.from_dlpack(plain)


def _writable(array: Array) -> bool:
    """CuPy's arrays have no such flag and always are."""
    return getattr(array.flags, "writeable", True)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise PackageError("networks need the package torch, which is not installed: pip install torch") from error
    return torch

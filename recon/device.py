"""Devices for those who may not import `kernels`: opened by name, refused in words."""

from __future__ import annotations

import kernels
from kernels.contract import Kernels
from recon.errors import DeviceError


def open_device(device: str, *, threads: int = 1) -> Kernels:
    """The kernels of `device`: "cpu", "cuda", "cuda:N", or "auto" for a GPU where there is one and the CPU elsewhere.

    Raises DeviceError with the reason where the device cannot be used.
    """
    try:
        return kernels.on("cuda" if device == "auto" else device, threads=threads)
    except kernels.DeviceError as error:
        if device == "auto":
            return open_device("cpu", threads=threads)
        raise DeviceError(str(error)) from error

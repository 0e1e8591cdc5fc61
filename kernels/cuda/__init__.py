"""Kernels for NVIDIA GPUs."""

from __future__ import annotations

import importlib.util

from kernels.contract import DeviceError, Kernels


def open_device(number: int) -> Kernels:
    """The kernels of CUDA device `number`; raises DeviceError with what is missing."""
    if importlib.util.find_spec("cupy") is None:
        raise DeviceError(
            f"device cuda:{number} needs the package cupy, which is not installed: install the extra [gpu] or use cpu"
        )
    devices = count_devices(number)
    if number >= devices:
        raise DeviceError(
            f"device cuda:{number} is not among this machine's {devices} CUDA devices: use a lower number or cpu"
        )
    raise DeviceError(f"device cuda:{number} is present, but this version has no CUDA kernels yet: use cpu")


def count_devices(number: int) -> int:
    """How many CUDA devices the driver shows; raises DeviceError naming `number` and the driver's own reason."""
    import cupy

    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"device cuda:{number} cannot be used, the driver says {error}: check the driver or use cpu"
        ) from error

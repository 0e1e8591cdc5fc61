"""Kernels for NVIDIA GPUs."""

from __future__ import annotations

from kernels.contract import DeviceError, Kernels


def open_device(number: int) -> Kernels:
    """The kernels of CUDA device `number`; raises DeviceError with what is missing."""
    devices = count_devices(number)
    if number >= devices:
        raise DeviceError(
            f"device cuda:{number} is not among this machine's {devices} CUDA devices: use another or cpu"
        )
    raise DeviceError(f"device cuda:{number} is present, but this version has no CUDA kernels yet: use cpu")


def count_devices(number: int) -> int:
    """How many CUDA devices the driver shows; raises DeviceError, naming `number`, with the reason where it cannot."""
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f"device cuda:{number} needs the package cupy, which is not installed: install the extra [gpu] or use cpu"
        ) from error
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"device cuda:{number} cannot be used, the driver says {error}: check the driver or use cpu"
        ) from error

"""Devices for those who may not import `kernels`: opened by name, refused in words; and the way of frames to them."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace

import kernels
from kernels.contract import Kernels
from recon.errors import DeviceError
from recon.scan import Frame, Image


def open_device(device: str, *, threads: int = 1, plan_bytes: int = 512 << 20) -> Kernels:
    """The kernels of `device`: "cpu", "cuda", "cuda:N", or "auto" for a GPU where there is one and the CPU elsewhere.

    Raises DeviceError with the reason where the device cannot be used.
    """
    if device == "auto" and not has_driver():
        return open_device("cpu", threads=threads, plan_bytes=plan_bytes)
    try:
        return kernels.on("cuda" if device == "auto" else device, threads=threads, plan_bytes=plan_bytes)
    except kernels.DeviceError as error:
        if device == "auto":
            return open_device("cpu", threads=threads)
        raise DeviceError(str(error)) from error


def has_driver(library: str = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1") -> bool:
    """Whether NVIDIA's driver is installed: asked before CuPy, which takes 0.1 s to import only to find none."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def on_device(frame: Frame, kernels: Kernels) -> Frame:
    """`frame` with its k-space, and that of its calibration, on the device; all else is for planning and stays."""
    reference = None if frame.reference is None else on_device(frame.reference, kernels)
    echoes = tuple(on_device(echo, kernels) for echo in frame.echoes)
    return replace(frame, kspace=kernels.to_device(frame.kspace), reference=reference, echoes=echoes)


def on_host(image: Image, kernels: Kernels) -> Image:
    """`image` with its pixels in NumPy."""
    return replace(image, pixels=kernels.to_host(image.pixels))

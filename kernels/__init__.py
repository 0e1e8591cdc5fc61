"""Numerical kernels, the same for every device: arrays in, arrays out; they know no scan, no file and no network."""

from __future__ import annotations

from kernels.contract import DeviceError, Kernels

__all__ = ["DeviceError", "on"]

DEVICES = "'cpu', 'cuda' or 'cuda:N'"


def on(device: str, *, threads: int = 1) -> Kernels:
    """The kernels of `device` ("cpu", "cuda", "cuda:N"), using at most `threads` CPU threads; the only CPU/GPU switch.

    Raises DeviceError with the reason where the device cannot be used: it never falls back to another one.
    """
    name, _, number = device.partition(":")
    if name == "cpu" and not number:
        from kernels.cpu import CpuKernels  # the CPU libraries are not installed beside every GPU

        return CpuKernels(threads)
    if name == "cuda" and (not number or number.isdecimal()):
        from kernels.cuda import open_device

        return open_device(int(number or 0))
    raise DeviceError(f"device is {device!r}, expected {DEVICES}: name one of them")

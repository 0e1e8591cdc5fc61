"""Numerical kernels, the same for every device: arrays in, arrays out; they know no scan, no file and no network."""

from __future__ import annotations

from kernels.contract import DeviceError, Kernels
from kernels.plans import Plans

__all__ = ["DeviceError", "on"]

DEVICES = "'cpu', 'cpu:scipy', 'cuda' or 'cuda:N'"


def on(device: str, *, threads: int = 1, plan_bytes: int = 512 << 20) -> Kernels:
    """The kernels of `device` using at most `threads` CPU threads; the project's only CPU/GPU switch.

    Those of the CPU keep at most `plan_bytes` of NUFFT plans.

    "cpu" transforms with FFTW, "cpu:scipy" with scipy.fft (docs/decisions/001-fft-library.md); "cuda" is "cuda:0".
    Raises DeviceError with the reason where the device cannot be used: it never falls back to another one.
    """
    name, _, detail = device.partition(":")
    if name == "cpu":
        from kernels.cpu import CpuKernels  # a GPU's machine need not have the CPU libraries

        return CpuKernels(threads=threads, engine=detail or "fftw", plans=Plans(plan_bytes))
    if name == "cuda" and (not detail or detail.isdecimal()):
        from kernels.cuda import open_device

        return open_device(int(detail or 0))
    raise DeviceError(f"device is {device!r}, expected {DEVICES}: name one of them")

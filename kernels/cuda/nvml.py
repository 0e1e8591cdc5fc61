"""How busy a GPU is, as NVML says; nothing where its Python package is not installed."""

from __future__ import annotations


def busy(bus: str) -> tuple[tuple[str, float], ...]:
    """The share of the last moment in which the GPU at PCI `bus` computed, as ("gpu", share); a MIG slice has none."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()  # counts who asked: all but the first return at once
        handle = pynvml.nvmlDeviceGetHandleByPciBusId(bus.encode())
        return (("gpu", pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),)
    except pynvml.NVMLError:
        return ()

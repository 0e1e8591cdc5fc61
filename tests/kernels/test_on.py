"""Opening devices: every refusal names its reason, and nothing falls back."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

import kernels
from kernels.contract import DeviceError
from kernels.cuda.nvml import busy


class NoDriverError(Exception):
    """Stands for cupy's CUDARuntimeError, which needs a driver to exist."""


def fake_cupy(devices: int | None) -> ModuleType:
    """cupy as seen by `kernels.cuda`, with so many devices, or without a driver: no test machine has all of these."""
    cupy = ModuleType("cupy")

    class Runtime:
        CUDARuntimeError = NoDriverError

        @staticmethod
        def getDeviceCount() -> int:
            if devices is None:
                raise NoDriverError("cudaErrorInsufficientDriver")
            return devices

    cupy.cuda = type("Cuda", (), {"runtime": Runtime})  # type: ignore[attr-defined]
    return cupy


def test_the_cpu_names_its_choice_of_library() -> None:
    assert kernels.on("cpu").device == "cpu"
    assert kernels.on("cpu:fftw").device == "cpu"
    assert kernels.on("cpu:scipy").device == "cpu:scipy"


@pytest.mark.parametrize("name", ["gpu", "auto", "", "cuda:x", "cuda:-1", "CPU"])
def test_unknown_devices_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device is '{name}', expected 'cpu', 'cpu:scipy', 'cuda' or 'cuda:N'"):
        kernels.on(name)


def test_an_unknown_library_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DeviceError, match="device cpu:mkl is not known, expected one of fftw, scipy after 'cpu:'"):
        kernels.on("cpu:mkl")


def test_no_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0, expected at least 1"):
        kernels.on("cpu", threads=0)


def test_a_missing_fft_library_is_named_with_the_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyfftw", None)
    with pytest.raises(DeviceError, match="needs the package pyfftw, which is not installed: install it or use cpu:sc"):
        kernels.on("cpu")
    assert kernels.on("cpu:scipy").device == "cpu:scipy"


def test_cuda_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=r"cuda:0 needs the package cupy, .* install the extra \[gpu\] or use cpu"):
        kernels.on("cuda")


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (None, "cuda:1 cannot be used, the driver says cudaErrorInsufficientDriver: check the driver or use cpu"),
        (1, "cuda:1 is not among this machine's 1 CUDA devices: use another or cpu"),
    ],
)
def test_cuda_without_what_it_needs(monkeypatch: pytest.MonkeyPatch, devices: int | None, message: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices))
    with pytest.raises(DeviceError, match=message):
        kernels.on("cuda:1")


def test_opening_a_gpu_compiles_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(2))
    assert kernels.on("cuda:1").device == "cuda:1"
    assert kernels.on("cuda").device == "cuda:0"


class NvmlError(Exception):
    """Stands for pynvml's NVMLError: no test machine has a driver."""


@pytest.mark.parametrize(("known", "expected"), [(37, (("gpu", 0.37),)), (None, ())])
def test_a_gpu_is_as_busy_as_nvml_says(
    monkeypatch: pytest.MonkeyPatch, known: int | None, expected: tuple[tuple[str, float], ...]
) -> None:
    """A MIG slice has no figure of its own: NVML raises."""
    asked: list[bytes] = []

    def rates(_: object) -> object:
        if known is None:
            raise NvmlError("Not Supported")
        return SimpleNamespace(gpu=known)

    module = ModuleType("pynvml")
    vars(module).update(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByPciBusId=asked.append,
        nvmlDeviceGetUtilizationRates=rates,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert busy("0000:01:00.0") == expected and asked == [b"0000:01:00.0"]
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert busy("0000:01:00.0") == ()

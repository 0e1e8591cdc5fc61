"""Devices by name: "auto" is the CPU where there is no driver, and then nothing of CuPy is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recon.device import has_driver, open_device
from recon.errors import DeviceError


def test_a_driver_is_a_library_that_loads() -> None:
    assert not has_driver("no-such-library.so.1")
    if sys.platform == "linux":
        assert has_driver("libc.so.6")


def test_auto_is_the_cpu_without_a_driver_and_loads_no_cupy() -> None:
    if has_driver():
        pytest.skip("this machine has an NVIDIA driver")
    code = "import sys; from recon.device import open_device; print(open_device('auto').device, 'cupy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "cpu False\n"


def test_a_device_that_cannot_be_used_is_refused_with_the_reason() -> None:
    with pytest.raises(DeviceError, match="device is 'gpu', expected 'cpu', 'cpu:scipy', 'cuda' or 'cuda:N'"):
        open_device("gpu")

"""The loader: headers pasted in with lines that point home, arrays of another device refused, little kept."""

from __future__ import annotations

import re
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from kernels.cuda._load import FOLDER, CudaRuntime, Recent, check_here, plain, read_source


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.cu")))
def test_every_line_of_the_source_says_where_it_is_from(file: str) -> None:
    lines = read_source(file).split("\n")
    for index, line in enumerate(lines):
        directive = re.fullmatch(r'#line (\d+) "kernels/cuda/(.+)"', line)
        if directive:
            home, number = (FOLDER / directive[2]).read_text(encoding="utf-8").split("\n"), int(directive[1])
            following = lines[index + 1] if index + 1 < len(lines) else ""
            assert following.startswith("#line") or following == home[number - 1]
    assert not any(line.startswith("#include") for line in lines)  # a GPU's machine may lack CUDA's headers


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> CudaRuntime:
    """A runtime of device 1 whose arrays are made up: none of it needs a driver."""

    class Array:
        def __init__(self, number: int) -> None:
            self.device = SimpleNamespace(id=number)

    class Device(SimpleNamespace):
        def __repr__(self) -> str:
            return f"<CUDA Device {self.id}>"

    Array.__module__, Array.__qualname__ = "cupy", "ndarray"
    cupy = ModuleType("cupy")
    cupy.ndarray = Array  # type: ignore[attr-defined]
    cupy.make = lambda number: setattr(array := Array(number), "device", Device(id=number)) or array  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "cupy", cupy)
    return CudaRuntime(1)


def test_arrays_of_another_device_are_refused(runtime: CudaRuntime) -> None:
    check_here(runtime, x=runtime.xp.make(1), maps=None)
    with pytest.raises(
        TypeError, match=r"x is a cupy.ndarray on <CUDA Device 0>, expected cupy.ndarray on cuda:1: move"
    ):
        check_here(runtime, x=runtime.xp.make(0))
    with pytest.raises(TypeError, match=r"x is a numpy.ndarray.*, expected cupy.ndarray on cuda:1: move it there"):
        check_here(runtime, x=np.zeros(3))


def test_the_calling_thread_works_on_its_device(runtime: CudaRuntime) -> None:
    used: list[int] = []
    runtime.xp.cuda = SimpleNamespace(Device=lambda number: SimpleNamespace(use=lambda: used.append(number)))
    runtime.use()
    assert used == [1]


def test_arguments_have_the_kernels_types() -> None:
    assert plain(3).dtype == np.int32
    assert plain(0.5).dtype == np.float32
    assert plain(None) == 0
    assert plain(None).dtype.itemsize == 8


def test_the_value_used_longest_ago_is_dropped() -> None:
    recent, made = Recent(2), []

    def make(key: str) -> str:
        made.append(key)
        return key

    for key in "abacab":
        assert recent.get(key, lambda key=key: make(key)) == key
    assert made == ["a", "b", "c", "b"]

"""A `Runtime` that executes the `.cu` files on this machine's CPU, compiled by g++ against `shim.h`."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.contract import Load
from kernels.cuda import CudaKernels, cg, coils, fft, grid, nufft_steps, prox, wavelet
from kernels.cuda._load import Argument, Recent, read_source
from kernels.cuda.graph import Work

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".pytest_cache" / "cuda-shim"
FLAGS = (
    "-std=c++20",
    "-O1",
    "-g1",
    "-fPIC",
    "-shared",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-fno-gnu-unique",
)
COUNT = (
    'extern "C" int shim_launch(int index, const unsigned* sizes, unsigned long long seed, void** arguments, char* m)'
)
LOCK = threading.Lock()  # the shim runs one kernel at a time


def find_compiler() -> str | None:
    """g++, or None where it is missing."""
    return shutil.which("g++")


class ShimRuntime:
    """Stands in for `CudaRuntime`; threads and blocks run in the order drawn from `seed` (0: as numbered).

    `names` are the kernels that may be launched, by file: those of one file are compiled together; those of
    passes.cu need not be named, they are compiled for each length that is met. With `sanitize` out-of-bounds accesses
    end the process, which must have been started with AddressSanitizer's library preloaded.
    """

    xp = np

    def __init__(self, names: dict[str, tuple[str, ...]], *, seed: int = 0, sanitize: bool = False) -> None:
        self.device = "cuda:shim"
        self.names = names
        self.seed = seed
        self.sanitize = sanitize
        self.choices = Recent(100)
        self._libraries: dict[tuple[str, ...], ctypes.CDLL] = {}

    def launch(
        self,
        kernel: tuple[str, str],
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """See `Runtime.launch`; waits."""
        file, name = kernel
        names = compiled_with(file, name, self.names)
        index = names.index(name)
        sizes = (ctypes.c_uint * 7)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3], shared_bytes)
        values = [as_c(argument) for argument in args]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        message = ctypes.create_string_buffer(256)
        with LOCK:
            library = self._library(file, names)
            wanted = library.shim_arguments(index)
            assert wanted == len(values), f"{name} takes {wanted} arguments, got {len(values)}"
            failed = library.shim_launch(index, sizes, ctypes.c_ulonglong(self.seed), pointers, message)
        if failed:
            raise RuntimeError(f"{name}: {message.value.decode()}")

    def _library(self, file: str, names: tuple[str, ...]) -> ctypes.CDLL:
        if names not in self._libraries:
            self._libraries[names] = ctypes.CDLL(str(build(file, names, sanitize=self.sanitize)))
        return self._libraries[names]

    def fft(self, source: Any, target: Any, *, axis: int, inverse: bool) -> None:
        """See `Runtime.fft`."""
        assert source.flags.c_contiguous
        assert target.flags.c_contiguous
        transform = np.fft.ifft if inverse else np.fft.fft
        target[...] = transform(source, axis=axis, norm="forward" if inverse else "backward")

    def record(self, work: Work) -> Work:
        """See `Runtime.record`: there are no graphs here, the work is done each time it is started."""
        return work

    def seconds(self, work: Work) -> float:
        """See `Runtime.seconds`."""
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    def load(self) -> Load:
        """See `Runtime.load`."""
        return Load()

    def owns(self, array: Any) -> bool:
        """See `Runtime.owns`."""
        return isinstance(array, np.ndarray)

    def use(self) -> None:
        """See `Runtime.use`."""

    def put(self, array: NDArray[Any]) -> Any:
        """See `Runtime.put`."""
        return np.array(array, order="C")

    def get(self, array: Any) -> NDArray[Any]:
        """See `Runtime.get`."""
        return np.asarray(array)


def open_shim(*, seed: int = 0, sanitize: bool = False) -> CudaKernels:
    """CUDA's kernels on the shim; skips the test where the compiler is missing."""
    if find_compiler() is None:
        pytest.skip("g++ is not installed: the CUDA kernels are not executed on the CPU")
    return CudaKernels(ShimRuntime(all_names(), seed=seed, sanitize=sanitize))


def all_names() -> dict[str, tuple[str, ...]]:
    """The kernels that may be launched, by file, for plans of the usual σ = 2 and full weights."""
    usual = nufft_steps.names(widths=range(2, 8), half_widths=range(0))
    return fft.NAMES | coils.NAMES | prox.NAMES | wavelet.NAMES | cg.NAMES | usual | grid.NAMES


def compiled_with(file: str, name: str, names: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The kernels of one library with `name`: all of its file, of passes.cu those for the same length of lines."""
    if file != "passes.cu":
        return names[file]
    found = re.search(r"\d+", name)
    assert found is not None
    return grid.names((int(found[0]),))[file]


def as_c(argument: Argument) -> Any:
    """A kernel argument as the C value that its address is taken of."""
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    if isinstance(argument, int):
        return ctypes.c_int(argument)
    assert argument.flags.c_contiguous, "kernels take contiguous arrays"
    return ctypes.c_void_p(argument.ctypes.data)


def build(file: str, names: tuple[str, ...], *, sanitize: bool) -> Path:
    """The shared library of `names` from `file`, compiled if it is not in the cache."""
    source = program(file, names)
    flags = (*FLAGS, *(("-fsanitize=address", "-fno-omit-frame-pointer") if sanitize else ()))
    digest = hashlib.sha256("\0".join((source, (HERE / "shim.h").read_text(encoding="utf-8"), *flags)).encode())
    library = CACHE / f"{Path(file).stem}-{digest.hexdigest()[:24]}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}.partial")
        compiler = find_compiler()
        assert compiler is not None
        command = [compiler, *flags, f"-I{HERE}", "-x", "c++", "-", "-o", str(partial)]
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"g++ refused {file}:\n{done.stderr}")
        partial.replace(library)  # whole or not at all: another process may be building the same
    return library


def program(file: str, names: tuple[str, ...]) -> str:
    """C++ that includes `file` and exports a launcher for each of `names`."""
    entries = ",\n".join(f"    shim::bind<&{name}>()" for name in names)
    return "\n".join(
        [
            '#include "shim.h"',
            read_source(file),
            '#line 1 "launcher"',
            f"static constexpr shim::Entry entries[] = {{\n{entries}}};",
            f"{COUNT} {{ return shim::launch(entries[index], sizes, seed, arguments, m); }}",
            'extern "C" int shim_arguments(int index) { return entries[index].arguments; }',
            "",
        ]
    )

"""The one loader of CUDA source, and all that the wrappers beside it ask of CuPy.

Wrappers see a `Runtime` only. A host shim in the tests offers the same one, so that the wrappers and the same `.cu`
files also run where no GPU is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.contract import DeviceError, Load
from kernels.cuda.graph import Work, record_graph, seconds_of
from kernels.cuda.nvml import busy

FOLDER = Path(__file__).parent
INCLUDE = '#include "'
OPTIONS = ("--std=c++17",)
STATIC_SHARED_BYTES = 48 * 1024  # more must be asked for, function by function
MOST_FFT_PLANS, MOST_CHOICES = 128, 1024
Argument = Any  # an array of the device, an int (int32 in the kernel), a float (float32) or None (a null pointer)


class Recent:
    """The `limit` values used last, made when first asked for; for one thread at a time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: dict[Any, Any] = {}

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """The value of `key`, by `make` if there is none."""
        value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        if len(self._values) > self.limit:
            del self._values[next(iter(self._values))]
        return value


class Runtime(Protocol):
    """One device: its arrays, its kernels and its FFT, all on the caller's current stream and memory pool."""

    device: str
    xp: Any  # the array module: cupy, or what stands in for it
    choices: Recent  # between ways of doing the same, by what they depend on, so that equal plans choose alike

    def launch(
        self,
        kernel: tuple[str, str],
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """Start `kernel` (file, name expression such as "spread<2, 5, 8, float>"); does not wait for it."""
        ...

    def fft(self, source: Any, target: Any, *, axis: int, inverse: bool) -> None:
        """Unscaled DFT, exp(−i) or with `inverse` exp(+i), of C-contiguous complex64 [row, column] along `axis`.

        `target` may be `source`; does not wait for it.
        """
        ...

    def record(self, work: Work) -> Work:
        """A function that queues at once all that `work` queues, and nothing else may `work` do; waits now only."""
        ...

    def seconds(self, work: Work) -> float:
        """How long the device takes for `work`; waits for it."""
        ...

    def load(self) -> Load:
        """See `Kernels.load`."""
        ...

    def owns(self, array: Any) -> bool:
        """Whether `array` is an array of this device."""
        ...

    def use(self) -> None:
        """Make this the device of the calling thread, where CuPy's functions make their arrays."""
        ...

    def put(self, array: NDArray[Any]) -> Any:
        """A contiguous copy of `array` on the device; waits for it, so that every stream may use it."""
        ...

    def get(self, array: Any) -> NDArray[Any]:
        """A copy of `array` in NumPy; waits for it. NumPy arrays are returned as they are."""
        ...


def check_here(runtime: Runtime, **arrays: Any) -> None:
    """Every array that is not None must be one of the runtime's own."""
    for name, array in arrays.items():
        if array is not None and not runtime.owns(array):
            found = f"{type(array).__module__}.{type(array).__qualname__}"
            wanted = f"{runtime.xp.__name__}.ndarray on {runtime.device}"
            raise TypeError(f"{name} is a {found}{place_of(array)}, expected {wanted}: move it there first")


def place_of(array: Any) -> str:
    """Where an array says that it is, after " on "; nothing for one that does not."""
    return f" on {array.device}" if hasattr(array, "device") else ""


def read_source(file: str) -> str:
    """The text of `file` with our own headers pasted in: the compiler's cache then sees a header change too."""
    lines = [f'#line 1 "kernels/cuda/{file}"']
    for number, line in enumerate((FOLDER / file).read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith(INCLUDE):
            lines += [read_source(line.removeprefix(INCLUDE).rstrip('"')), f'#line {number + 1} "kernels/cuda/{file}"']
        elif line != "#pragma once":
            lines.append(line)
    return "\n".join(lines)


class CudaRuntime:
    """Runtime of CUDA device `number` through CuPy; see `Runtime`. Kernels are compiled when first asked for."""

    def __init__(self, number: int) -> None:
        import cupy

        self.device = f"cuda:{number}"
        self.number = number
        self.xp = cupy
        self._functions: dict[tuple[str, str], Any] = {}
        self._plans = Recent(MOST_FFT_PLANS)
        self.choices = Recent(MOST_CHOICES)
        self._lock = threading.Lock()

    def launch(
        self,
        kernel: tuple[str, str],
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """See `Runtime.launch`."""
        with self.xp.cuda.Device(self.number):
            function = self._function(kernel, shared_bytes)
            function(grid, block, tuple(map(plain, args)), shared_mem=shared_bytes)

    def _function(self, kernel: tuple[str, str], shared_bytes: int) -> Any:
        with self._lock:
            function = self._functions.get(kernel)
            if function is None:
                function = self._functions[kernel] = self._compile(*kernel)
            if shared_bytes > max(STATIC_SHARED_BYTES, function.max_dynamic_shared_size_bytes):
                function.max_dynamic_shared_size_bytes = shared_bytes
        return function

    def _compile(self, file: str, name: str) -> Any:
        module = self.xp.RawModule(code=read_source(file), options=OPTIONS, name_expressions=(name,))
        return module.get_function(name)

    def fft(self, source: Any, target: Any, *, axis: int, inverse: bool) -> None:
        """See `Runtime.fft`."""
        cufft = self.xp.cuda.cufft
        with self.xp.cuda.Device(self.number), self._lock:
            plan = self._fft_plan(source.shape, axis)
            plan.fft(source, target, cufft.CUFFT_INVERSE if inverse else cufft.CUFFT_FORWARD)

    def _fft_plan(self, shape: tuple[int, int], axis: int) -> Any:
        # A plan owns its work area, which two streams must not share.
        key = (*shape, axis, self.xp.cuda.get_current_stream().ptr)
        return self._plans.get(key, lambda: self._make_fft_plan(shape, axis))

    def _make_fft_plan(self, shape: tuple[int, int], axis: int) -> Any:
        cufft = self.xp.cuda.cufft
        columns = shape[1]
        stride, distance = (1, columns) if axis == 1 else (columns, 1)
        size = (shape[axis],)
        layout = (size, stride, distance)
        return cufft.PlanNd(size, *layout, *layout, cufft.CUFFT_C2C, shape[1 - axis], "C", 0, None)

    def record(self, work: Work) -> Work:
        """See `Runtime.record`."""
        return record_graph(self, work)

    def seconds(self, work: Work) -> float:
        """See `Runtime.seconds`."""
        return seconds_of(self, work)

    def load(self) -> Load:
        """See `Runtime.load`."""
        cuda = self.xp.cuda
        with cuda.Device(self.number) as device:
            free, total = cuda.runtime.memGetInfo()
            held = self.xp.get_default_memory_pool().total_bytes()
            memory = (("device", total - free), ("device_total", total), ("pool", held))
            return Load(memory, busy(device.pci_bus_id))

    def owns(self, array: Any) -> bool:
        """See `Runtime.owns`."""
        return isinstance(array, self.xp.ndarray) and array.device.id == self.number

    def use(self) -> None:
        """See `Runtime.use`."""
        self.xp.cuda.Device(self.number).use()

    def put(self, array: NDArray[Any]) -> Any:
        """See `Runtime.put`."""
        with self.xp.cuda.Device(self.number):
            copy = self.xp.ascontiguousarray(self.xp.asarray(array))
            self.xp.cuda.get_current_stream().synchronize()
        return copy

    def get(self, array: Any) -> NDArray[Any]:
        """See `Runtime.get`."""
        return self.xp.asnumpy(array)  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return open_runtime, (self.number,)


def plain(argument: Argument) -> Argument:
    """A kernel argument as CuPy hands it on by value."""
    if argument is None:
        return np.uint64(0)
    if isinstance(argument, float):
        return np.float32(argument)
    return np.int32(argument) if isinstance(argument, int) else argument


def blocks_of(count: int, block: int) -> int:
    """How many blocks of `block` threads `count` elements take."""
    return -(-count // block)


def open_runtime(number: int) -> CudaRuntime:
    """The runtime of CUDA device `number`; raises DeviceError with what is missing."""
    devices = count_devices(number)
    if number >= devices:
        raise DeviceError(
            f"device cuda:{number} is not among this machine's {devices} CUDA devices: use another or cpu"
        )
    return CudaRuntime(number)


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

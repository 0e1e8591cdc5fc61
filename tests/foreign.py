"""A device that does not exist, whose arrays are as strict as CuPy's: code that runs on it has a chance on a GPU.

Its arrays know NumPy's functions through its two protocols, as CuPy's do, and of these only what CUPY and METHODS name,
with CuPy's parameters; `tests/recon/test_foreign_arrays.py` holds both to CuPy itself where that is installed. They
refuse to become NumPy's arrays or to meet one, and the device counts what comes and goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from kernels.contract import Equations
from kernels.cpu import CpuKernels
from kernels.cpu.nufft import CpuNufft
from kernels.solve import solve

# Functions that this project calls on arrays of a device, as `module.name`, with the parameters that CuPy 14 has.
CUPY: dict[str, tuple[str, ...]] = {
    "numpy.angle": ("z", "deg"),
    "numpy.arange": ("start", "stop", "step", "dtype"),
    "numpy.asarray": ("a", "dtype", "order", "copy", "blocking"),
    "numpy.ascontiguousarray": ("a", "dtype"),
    "numpy.broadcast_to": ("array", "shape"),
    "numpy.clip": ("a", "a_min", "a_max", "out"),
    "numpy.concatenate": ("tup", "axis", "out", "dtype", "casting"),
    "numpy.cumsum": ("a", "axis", "dtype", "out"),
    "numpy.diagonal": ("a", "offset", "axis1", "axis2"),
    "numpy.einsum": ("operands", "kwargs"),
    "numpy.empty": ("shape", "dtype", "order"),
    "numpy.iscomplexobj": ("x",),
    "numpy.median": ("a", "axis", "out", "overwrite_input", "keepdims"),
    "numpy.moveaxis": ("a", "source", "destination"),
    "numpy.pad": ("array", "pad_width", "mode", "kwargs"),
    "numpy.stack": ("tup", "axis", "out", "dtype", "casting"),
    "numpy.tensordot": ("a", "b", "axes"),
    "numpy.vdot": ("a", "b"),
    "numpy.where": ("condition", "x", "y"),
    "numpy.zeros": ("shape", "dtype", "order"),
    "numpy.zeros_like": ("a", "dtype", "order", "subok", "shape"),
    "numpy.linalg.eigh": ("a", "UPLO"),
    "numpy.linalg.inv": ("a",),
    "numpy.linalg.norm": ("x", "ord", "axis", "keepdims"),
    "numpy.linalg.solve": ("a", "b"),
    "numpy.linalg.svd": ("a", "full_matrices", "compute_uv"),
}
UFUNC_OPTIONS = ("out", "dtype", "casting")  # no `where`: CuPy's ufuncs refuse it
# Attributes of CuPy's arrays that this project uses; what says more about an array than its values is the host's.
METHODS = frozenset(
    [
        *("T", "all", "any", "argmax", "astype", "conj", "copy", "imag", "max", "mean", "min", "ravel", "real"),
        *("reshape", "squeeze", "sum", "swapaxes", "transpose", "view"),
    ]
)
ABOUT = frozenset(["dtype", "itemsize", "nbytes", "ndim", "shape", "size", "strides"])
HOST = "an array of the host was given to the device"


@dataclass(slots=True)
class Traffic:
    """What one device has been sent (`up`), has given back (`down`), and how many single numbers it was asked for."""

    up: list[int] = field(default_factory=list)  # bytes of each
    down: list[int] = field(default_factory=list)
    numbers: int = 0

    def send(self, array: NDArray[Any]) -> Foreign:
        """A copy of `array` on the device."""
        self.up.append(array.nbytes)
        return Foreign(np.array(array, order="C"), self)

    def fetch(self, array: Foreign) -> NDArray[Any]:
        """A copy of the device's `array`."""
        self.down.append(array.held.nbytes)
        return array.held.copy()

    def wrap(self, value: Any) -> Any:
        """Arrays and numbers of NumPy, alone or in sequences, as the device's: CuPy gives arrays without axes too."""
        if isinstance(value, list):
            return [self.wrap(part) for part in value]
        if isinstance(value, tuple):
            parts = [self.wrap(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        return Foreign(np.asarray(value), self) if isinstance(value, np.ndarray | np.generic) else value


class Foreign(NDArrayOperatorsMixin):
    """An array on an imaginary device; `held` is its content, `device` counts."""

    def __init__(self, held: NDArray[Any], device: Traffic | None = None) -> None:
        self.held = held
        self.device = Traffic() if device is None else device

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise TypeError("an array of the device was taken to the host")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        unknown = kwargs.keys() - set(UFUNC_OPTIONS)
        if method != "__call__" or unknown:
            raise TypeError(f"CuPy has no {ufunc.__name__}.{method} with {sorted(unknown)}")
        return self.device.wrap(ufunc(*unwrapped(inputs), **unwrapped(kwargs)))

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Any:
        name = f"{function.__module__}.{function.__name__}"
        unknown = kwargs.keys() - set(CUPY.get(name, ()))
        if name not in CUPY or (unknown and "kwargs" not in CUPY[name]):
            raise TypeError(f"the table of CuPy's functions has no {name} with {sorted(unknown)}: add what CuPy has")
        if function is np.asarray and not isinstance(args[0], Foreign):  # `like` was taken off
            return self.device.send(np.asarray(*args, **kwargs))
        return self.device.wrap(function(*unwrapped(args), **unwrapped(kwargs)))

    def __getattr__(self, name: str) -> Any:
        if name in ABOUT:
            return getattr(self.held, name)
        if name not in METHODS:  # NumPy would also find the memory by one of these
            raise AttributeError(f"an array of the device has no {name}")
        value = getattr(self.held, name)
        return self._called(value) if callable(value) else self.device.wrap(value)

    def _called(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.device.wrap(method(*unwrapped(args), **unwrapped(kwargs)))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("held", "device"):
            object.__setattr__(self, name, value)
        else:
            setattr(self.held, name, unwrapped(value))

    def __len__(self) -> int:
        return len(self.held)

    def __iter__(self) -> Any:
        return (self.device.wrap(part) for part in self.held)

    def _number(self) -> Any:
        self.device.numbers += 1
        return self.held.item()

    def __bool__(self) -> bool:
        return bool(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __getitem__(self, key: Any) -> Any:
        return self.device.wrap(self.held[unwrapped(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.held[unwrapped(key)] = unwrapped(value)


def unwrapped(value: Any) -> Any:
    """Arrays of the device as NumPy's; raises TypeError for one of the host among them."""
    if isinstance(value, Foreign):
        return value.held
    if isinstance(value, np.ndarray):
        raise TypeError(HOST)
    if isinstance(value, dict):
        return {name: unwrapped(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(unwrapped(part) for part in value)
    return value


class ForeignPlan:
    """A NUFFT plan of the imaginary device."""

    def __init__(self, plan: CpuNufft, traffic: Traffic) -> None:
        self.shape, self.samples = plan.shape, plan.samples
        self._plan, self._traffic = plan, traffic

    def operator(self, weights: Any = None) -> Callable[..., Any]:
        """See `NufftPlan.operator`."""
        return translated(self._plan.operator(unwrapped(weights)), self._traffic)

    def __getattr__(self, name: str) -> Any:
        return translated(getattr(self._plan, name), self._traffic)


class ForeignKernels:
    """The CPU's kernels for arrays of an imaginary device; `traffic` is what went to it and came from it."""

    device = "foreign"

    def __init__(self, kernels: CpuKernels) -> None:
        self.traffic = Traffic()
        self._kernels = kernels

    def to_device(self, array: Any) -> Any:
        """See `Kernels.to_device`."""
        return array if isinstance(array, Foreign) else self.traffic.send(array)

    def to_host(self, array: Any) -> Any:
        """See `Kernels.to_host`."""
        return self.traffic.fetch(array) if isinstance(array, Foreign) else array

    def nufft(self, points: NDArray[Any], shape: tuple[int, ...], *, eps: float = 1e-4) -> ForeignPlan:
        """See `Kernels.nufft`."""
        return ForeignPlan(self._kernels.nufft(points, shape, eps=eps), self.traffic)

    def cg(self, equations: Equations, rhs: Foreign, *, iterations: int, tolerance: float = 0.0) -> Any:
        """See `Kernels.cg`."""
        return solve(equations, rhs, iterations=iterations, tolerance=tolerance)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return translated(getattr(self._kernels, name), self.traffic)


def translated(method: Callable[..., Any], traffic: Traffic) -> Callable[..., Any]:
    """A method of NumPy's arrays as one of the device's."""
    return lambda *args, **kwargs: traffic.wrap(method(*unwrapped(args), **unwrapped(kwargs)))

"""Arrays of a device that does not exist: code that takes them without complaint will take CuPy's.

They know NumPy's functions through its two protocols, as CuPy's arrays do, and refuse to meet arrays of the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray


class Foreign(NDArrayOperatorsMixin):
    """An array on the imaginary device; `held` is its content."""

    def __init__(self, held: NDArray[Any]) -> None:
        self.held = held

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise TypeError("an array of the device was taken to the host")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return wrapped(getattr(ufunc, method)(*unwrapped(inputs), **unwrapped(kwargs)))

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Any:
        if function is np.asarray or function in CREATORS:  # `like` was taken off; what comes from the host is copied
            return Foreign(function(*args, **kwargs))
        return wrapped(function(*unwrapped(args), **unwrapped(kwargs)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # NumPy would find the memory by one of these
            raise AttributeError(name)
        value = getattr(self.held, name)
        return (
            (lambda *args, **kwargs: wrapped(value(*unwrapped(args), **unwrapped(kwargs))))
            if callable(value)
            else (wrapped(value))
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "held":
            object.__setattr__(self, name, value)
        else:
            setattr(self.held, name, unwrapped(value))

    def __len__(self) -> int:
        return len(self.held)

    def __iter__(self) -> Any:
        return (wrapped(part) for part in self.held)

    def __bool__(self) -> bool:
        return bool(self.held)

    def __getitem__(self, key: Any) -> Any:
        return wrapped(self.held[unwrapped(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.held[unwrapped(key)] = unwrapped(value)


CREATORS = (np.empty, np.zeros, np.ones, np.arange)


def wrapped(value: Any) -> Any:
    """Arrays, alone or in tuples, go to the device."""
    if isinstance(value, tuple):
        parts = [wrapped(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return Foreign(value) if isinstance(value, np.ndarray) else value


def unwrapped(value: Any) -> Any:
    """Arrays of the device as arrays; raises TypeError for one of the host among them."""
    if isinstance(value, Foreign):
        return value.held
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("an array of the host was given to the device")
    if isinstance(value, dict):
        return {name: unwrapped(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(unwrapped(part) for part in value)
    return value

"""The two FFT libraries the CPU kernels can use, and the bounded pool of plans and work buffers made with them.

Every plan transforms one axis of a small buffer that fits the cache, out of place: then FFTW's estimated plans are as
fast as its measured ones, cost well under a millisecond, and are the same in every process, so that every worker
computes the same bits (docs/decisions/001-fft-library.md has the figures).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from kernels.contract import Complex, DeviceError

Execute = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)
Work = TypeVar("Work")

TILE = 16384  # complex values in a work buffer (128 kB): source and target of a plan stay in the second-level cache
PAD = (
    8  # complex values between rows: a power-of-two pitch would map a whole column to a few cache sets (3 times slower)
)

# FFTW plans and destroys through one table per process. Re-entrant, because dropping a plan may run inside planning.
_PLANNER = threading.RLock()


class Engine(Protocol):
    """One FFT library."""

    name: str

    def plan(self, source: Complex, target: Complex, *, axis: int, forward: bool) -> Execute:
        """A function that transforms `source` into `target` along `axis`: exp(−i) if `forward`, else exp(+i); no 1/N.

        The two have the same shape and do not overlap.
        """
        ...


def load_fftw() -> Any:
    """pyFFTW's compiled module; raises ImportError where it is not installed.

    On Linux without its package, which imports much of SciPy for interfaces that are not used here: 0.35 s of CPU in
    every worker and command. Elsewhere the package is what makes FFTW's library known to the loader.
    """
    name = "pyfftw.pyfftw"
    package = find_spec("pyfftw")
    if sys.platform != "linux" or (package is not None and name in sys.modules):
        return import_module(name)
    spec = None if package is None else PathFinder.find_spec(name, package.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module  # the package, imported later by someone else, must find this one
    return module


class FftwEngine:
    """FFTW by pyFFTW; raises DeviceError where pyFFTW is not installed."""

    name = "fftw"

    def __init__(self) -> None:
        try:
            self._fftw: Any = load_fftw().FFTW
        except ImportError as error:
            raise DeviceError(
                "device cpu needs the package pyfftw, which is not installed: install it or use cpu:scipy"
            ) from error

    def plan(self, source: Complex, target: Complex, *, axis: int, forward: bool) -> Execute:
        """See `Engine.plan`."""
        direction = "FFTW_FORWARD" if forward else "FFTW_BACKWARD"
        with _PLANNER:
            plan = self._fftw(source, target, axes=(axis,), direction=direction, flags=("FFTW_ESTIMATE",))
        execute: Execute = plan.execute
        return execute


class ScipyEngine:
    """scipy.fft, for installations that cannot ship FFTW's licence."""

    name = "scipy"

    def __init__(self) -> None:
        import scipy.fft

        self._fft: Any = scipy.fft

    def plan(self, source: Complex, target: Complex, *, axis: int, forward: bool) -> Execute:
        """See `Engine.plan`."""
        if forward:
            return lambda: np.copyto(target, self._fft.fft(source, axis=axis))
        return lambda: np.copyto(target, self._fft.ifft(source, axis=axis, norm="forward"))


ENGINES: dict[str, Callable[[], Engine]] = {"fftw": FftwEngine, "scipy": ScipyEngine}


class Pool(Generic[Key, Work]):
    """Lends work buffers with their plans, each to one borrower at a time; keeps at most `idle` between calls."""

    def __init__(self, make: Callable[[Key], Work], *, idle: int) -> None:
        self._make = make
        self._limit = idle
        self._lock = threading.Lock()
        self._idle: list[tuple[Key, Work]] = []  # oldest first

    @contextmanager
    def borrow(self, key: Key) -> Iterator[Work]:
        """The work buffers for `key`, made where no idle ones are left."""
        work = self._take(key)
        try:
            yield work
        finally:
            self._give(key, work)

    def _take(self, key: Key) -> Work:
        with self._lock:
            for i in reversed(range(len(self._idle))):
                if self._idle[i][0] == key:
                    return self._idle.pop(i)[1]
        return self._make(key)

    def _give(self, key: Key, work: Work) -> None:
        with self._lock:
            self._idle.append((key, work))
            dropped = self._idle[: -self._limit]
            self._idle = self._idle[-self._limit :]
        with _PLANNER:  # the last reference to a plan goes here, and FFTW destroys it
            dropped.clear()

    def __len__(self) -> int:
        return len(self._idle)

    def __del__(self) -> None:
        if _PLANNER is not None:  # the interpreter takes module names away before it ends
            with _PLANNER:
                self._idle.clear()


def buffer(rows: int, columns: int) -> Complex:
    """Zeroed work buffer [rows, columns + PAD] on a 64-byte boundary, as SIMD loads like it."""
    size = rows * (columns + PAD) * 8
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.complex64).reshape(rows, columns + PAD)


def even_parts(length: int, longest: int) -> list[slice]:
    """`length` cut into the fewest parts of at most `longest`, as equal as they can be."""
    count = -(-length // longest)
    size = -(-length // count)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]

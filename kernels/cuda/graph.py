"""CUDA graphs and times of a device, for work that only queues work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Work = Callable[[], object]

REHEARSALS = 2  # before recording: the first compiles and plans, the second finds its memory where the third will
TIMED = 5  # runs, after one that compiles


@dataclass(frozen=True, slots=True)
class Recorded:
    """A CUDA graph, and its memory and stream, which must live as long."""

    graph: Any
    pool: Any
    stream: Any

    def start(self) -> None:
        """Queue the graph on the current stream."""
        self.graph.launch()


def record_graph(runtime: Any, work: Work) -> Work:
    """`work`, which may only queue work for the device, recorded as a CUDA graph: a function that starts it.

    CuPy records its own kernels and cuFFT but raises for cuBLAS, cuSOLVER and copies to the host (CuPy 14).
    Memory that `work` takes comes from a pool that belongs to the graph, so that nothing else is there when it is
    started again; the stream stays too, because the FFT's plans are kept by stream. The caller keeps the arrays that
    `work` closes over. Waits for the device.
    """
    cupy = runtime.xp
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.Device(runtime.number):
        cupy.cuda.get_current_stream().synchronize()
        stream = cupy.cuda.Stream(non_blocking=True)
        with cupy.cuda.using_allocator(pool.malloc), stream:
            for _ in range(REHEARSALS):
                work()
            stream.synchronize()
            stream.begin_capture()
            work()
            graph = stream.end_capture()
    return Recorded(graph, pool, stream).start


def seconds_of(runtime: Any, work: Work) -> float:
    """How long the device takes for `work`, the mean of TIMED runs; waits for it."""
    cuda = runtime.xp.cuda
    with cuda.Device(runtime.number):
        work()
        begin, end = cuda.Event(), cuda.Event()
        begin.record()
        for _ in range(TIMED):
            work()
        end.record()
        end.synchronize()
        return float(cuda.get_elapsed_time(begin, end)) * 1e-3 / TIMED

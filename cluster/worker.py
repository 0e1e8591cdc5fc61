"""The worker itself: frames by reference in, images out; keeps plans, calibrations and headers between batches.

Copies of a byte here: none on the way in (the spool is mapped read-only), then what the method makes.
"""

from __future__ import annotations

import mmap
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.events import Batch, BatchDone, FrameImages, FrameRef, Heartbeat, WorkerReady
from cluster.spool import map_extents, read_readouts, read_waveforms
from recon.cache import Cache
from recon.device import open_device
from recon.errors import ReconError
from recon.mrd.header import parse_header
from recon.mrd.wire import Decoder, HeaderXml, WireLimits
from recon.pipeline import reconstruct_batch
from recon.recipe import Recipe
from recon.scan import Image, Material, ScanHeader

_TRACE_CHARS = 8192  # of each end of a traceback


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What every worker of a server is given."""

    device: str = "cpu"
    threads: int = 1
    gpus: float = 1.0  # part of a GPU, where the device is one
    memory_bytes: int = 4 << 30  # what its frames may take
    plan_cache_bytes: int = 512 << 20
    header_cache_bytes: int = 64 << 20
    heartbeat_s: float = 1.0


class Worker:
    """One worker: `run` does one batch after the other, in one thread; `heartbeat` may be asked for by another."""

    def __init__(
        self,
        name: str,
        settings: WorkerSettings,
        *,
        clock: Callable[[], float] = time.perf_counter,
        processor: Callable[[], float] | None = None,
    ) -> None:
        """`processor` counts the seconds of the CPU that are this worker's. Raises DeviceError where the device cannot
        be used.
        """
        self.name = name
        self.settings = settings
        self._clock = clock
        self._processor = processor
        self._beaten = clock(), processor() if processor else 0.0
        self._kernels = open_device(settings.device, threads=settings.threads, plan_bytes=settings.plan_cache_bytes)
        self._cache = Cache(settings.plan_cache_bytes)
        self._headers = Cache(settings.header_cache_bytes)
        self._looked_up: dict[tuple[str, str], int] = {}

    def ready(self) -> WorkerReady:
        """What this worker is."""
        return WorkerReady(self.name, self._kernels.device, self.settings.memory_bytes)

    def run(self, batch: Batch) -> BatchDone:
        """Images of every frame, or the reason why there are none; never raises for what a frame holds."""
        start = self._clock()
        reads = [self._read(frame) for frame in batch.frames]
        mapped = self._clock()
        made = iter(self._reconstructed([read for read in reads if not isinstance(read, Exception)], batch.recipe))
        each_s = (self._clock() - mapped) / len(reads)  # they were made together
        results = tuple(
            self._result(frame, read if isinstance(read, Exception) else next(made), each_s)
            for frame, read in zip(batch.frames, reads, strict=True)
        )
        return BatchDone(self.name, batch.number, results, self._clock() - start, self._caches(), self._memory())

    def heartbeat(self) -> Heartbeat:
        """A sign of life, with what it takes of memory and of its device."""
        device = self._kernels.load()
        load = (*self._processor_load(), *device.busy)
        return Heartbeat(self.name, self._memory() + device.memory_bytes, load)

    def _processor_load(self) -> tuple[tuple[str, float], ...]:
        """Share of the threads' time that they computed since the last time."""
        if self._processor is None:
            return ()
        (then, used), now = self._beaten, (self._clock(), self._processor())
        self._beaten = now
        spent_s = max(now[0] - then, 1e-9) * self.settings.threads
        return (("cpu", min(1.0, (now[1] - used) / spent_s)),)

    def _read(self, frame: FrameRef) -> _Read | Exception:
        """What a frame is made of, by reference; a frame that cannot be read must not take the others along."""
        start = self._clock()
        try:
            material = Material(
                read_readouts(frame.spool, frame.readouts),
                read_readouts(frame.noise_spool or frame.spool, frame.noise),
                read_waveforms(frame.spool, frame.waveforms),
                frame.counters,
            )
            return _Read(self._header(frame), material, self._clock() - start)
        except Exception as error:  # told with the frame, as below
            return error

    def _reconstructed(self, reads: list[_Read], recipe: Recipe) -> list[_Made]:
        try:
            frames = [(read.header, read.material) for read in reads]
            made = reconstruct_batch(frames, recipe, self._kernels, self._cache)
        except Exception as error:  # a defect outside of any frame fails them all; the worker goes on
            made = [error] * len(reads)
        return [_Made(images, read.seconds) for images, read in zip(made, reads, strict=True)]

    def _result(self, frame: FrameRef, made: _Made | Exception, reconstruct_s: float) -> FrameImages:
        """The images of a frame, or why there are none.

        A defect met by one frame must not end the worker, which other scans use: it fails this frame alone. The server
        logs it: what a worker's process says may be on another machine, or nowhere (Ray).
        """
        found, stages = (made, ()) if isinstance(made, Exception) else (made.images, made.stages(reconstruct_s))
        if not isinstance(found, Exception):
            return FrameImages(frame, tuple(self._signed(image, frame) for image in found), "", stages)
        reason, trace = str(found), ""
        if not isinstance(found, ReconError):
            reason = f"internal error in frame {frame.number} ({type(found).__name__}): report it with the server's log"
            trace = _trace(found)
        _let_go(found)
        return FrameImages(frame, (), reason, stages, trace)

    def _signed(self, image: Image, frame: FrameRef) -> Image:
        comments = tuple(dict.fromkeys(frame.warnings + image.comments))
        return replace(image, comments=comments, provenance=replace(image.provenance, worker=self.name))

    def _header(self, frame: FrameRef) -> ScanHeader:
        key = (frame.spool, frame.header.offset)
        return self._headers.get(key, lambda: _read_header(frame), size=lambda _: frame.header.bytes)

    def _caches(self) -> tuple[tuple[str, str, int], ...]:
        """Look-ups since the last batch."""
        before, self._looked_up = self._looked_up, dict(self._look_ups())
        return tuple((*which, now - before.get(which, 0)) for which, now in self._looked_up.items())

    def _look_ups(self) -> Iterator[tuple[tuple[str, str], int]]:
        """Of each cache and with either result, since the start."""
        for name, cache in (("prepared", self._cache), ("headers", self._headers)):
            yield (name, "hit"), cache.hits
            yield (name, "miss"), cache.misses
        for name, hits, misses, _ in self._kernels.caches():
            yield (name, "hit"), hits
            yield (name, "miss"), misses

    def _memory(self) -> tuple[tuple[str, int], ...]:
        plans = ((name, size) for name, _, _, size in self._kernels.caches())
        held = (("cache", self._cache.bytes), ("headers", self._headers.bytes), *plans)
        try:
            return ("resident", resident_bytes()), *held
        except OSError:
            return held  # no file descriptor is left: the images are worth more than the figure


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A frame's material, and the seconds that it took to read it."""

    header: ScanHeader
    material: Material
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """What became of a frame that could be read."""

    images: list[Image] | Exception
    read_s: float

    def stages(self, reconstruct_s: float) -> tuple[tuple[str, float], ...]:
        return ("read", self.read_s), ("reconstruct", reconstruct_s)


def _let_go(error: BaseException | None) -> None:
    """Drop tracebacks: their calls hold `error`, and what the batch maps, until a collector comes by an idle worker."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _trace(error: Exception) -> str:
    """The traceback of `error`, without its middle where it is long: the ends say who asked and what broke."""
    text = "".join(traceback.format_exception(error)).rstrip()
    left_out = len(text) - 2 * _TRACE_CHARS
    return text if left_out <= 0 else f"{text[:_TRACE_CHARS]}\n... {left_out} characters ...\n{text[-_TRACE_CHARS:]}"


def _read_header(frame: FrameRef) -> ScanHeader:
    (data,) = map_extents(frame.spool, (frame.header,))
    # Who received it has checked it against the limits in force; here only its own size limits.
    message = next(iter(Decoder(WireLimits(header_bytes=len(data))).feed(data)))
    assert isinstance(message, HeaderXml)
    return parse_header(message.xml)


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE

"""From a scan's bytes to frames by reference: decodes messages, looks at heads only, never at samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.config import ClusterConfig
from cluster.events import Extent, FrameReady, FrameRef
from cluster.noise import NoiseRef, NoiseStore
from cluster.runs import RunTable
from recon.assemble import Assembler, FrameIndex
from recon.dependency import missing
from recon.errors import LimitError, ReconError
from recon.interpreter import Interpreter
from recon.methods import METHODS, choose, decide, grouping_of, settle, unfit
from recon.mrd.wire import AcquisitionRun, Close, Decoder, HeaderXml, Message, Query, WaveformMessage, WireLimits
from recon.recipe import AUTO, CINE, Recipe, breathes
from recon.scan import ScanHeader


def wire_limits(config: ClusterConfig) -> WireLimits:
    """The part of the configuration that the decoder checks."""
    return WireLimits(
        header_bytes=config.header_bytes,
        text_bytes=config.text_bytes,
        acquisition_bytes=config.acquisition_bytes,
        waveform_bytes=config.waveform_bytes,
        image_bytes=config.image_bytes,
        attribute_bytes=config.attribute_bytes,
    )


@dataclass(slots=True)
class Step:
    """What some more bytes brought: frames that are complete now, and messages that are not readouts."""

    frames: list[FrameReady] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # for the log alone
    error: ReconError | None = None  # what stopped the stream; the rest of the step came before it


class ScanStream:
    """One scan's stream: bytes in, frames out. `method` is as asked for, "auto" leaves it to the stream.

    Noise scans are kept in `store` and found there.
    """

    def __init__(
        self, scan: str, spool: Path, *, config: ClusterConfig, method: str, store: NoiseStore | None = None
    ) -> None:
        self.silent = True  # nothing but queries came
        self.frames = 0
        self._meaning = Interpreter(method)
        self._scan = scan
        self._spool = spool
        self._config = config
        self._decoder = Decoder(wire_limits(config), buffer_bytes=config.receive_buffer_bytes)
        self._runs = RunTable()
        self._assembler: Assembler | None = None
        self._settled: Recipe | None = None
        self._reason = ""  # why the header alone decided
        self._unfit = ""  # why the recipe can make no image
        self._header_extent = Extent(0, 0, 0)
        self._noise_found: tuple[int, NoiseRef, tuple[str, ...]] | None = None  # of so many noise readouts of its own
        self._store = store
        self._waveforms: list[Extent] = []
        self._coils = 0
        self._reasons: set[str] = set()

    @property
    def header(self) -> ScanHeader | None:
        """The scan's header once it came."""
        return self._meaning.header

    @property
    def recipe(self) -> Recipe:
        """What is asked for so far, or what the header makes of "auto" once readouts come."""
        return self._meaning.recipe if self._settled is None else self._settled

    @property
    def closed(self) -> bool:
        """Whether the stream's last message came."""
        return self._meaning.closed

    @property
    def readouts(self) -> int:
        """Readouts so far."""
        return self._runs.readouts

    @property
    def unfit(self) -> str:
        """Why no frame is made of imaging readouts that came, or "": by this header the recipe can make no image."""
        return self._unfit if self._assembler is not None and self._assembler.imaging else ""

    @property
    def position(self) -> int:
        """Bytes consumed as whole messages."""
        return self._decoder.position

    @property
    def lasting_bytes(self) -> int:
        """Where all has come that is needed when the scan has ended: its header, and noise that serves later scans."""
        noise = self._noise_found[1] if self._noise_found else None
        own = noise.extents if noise and noise.spool == self._spool else ()
        return max(extent.offset + extent.bytes for extent in (self._header_extent, *own))

    @property
    def lender(self) -> str:
        """The scan whose noise readouts this one uses; "" where it has its own, or none."""
        noise = self._noise_found[1] if self._noise_found else None
        return noise.spool.stem if noise and noise.spool != self._spool else ""

    def get_buffer(self) -> memoryview:
        """Where the next bytes go."""
        return self._decoder.get_buffer()

    def received(self, count: int) -> Step:
        """Take in the `count` bytes just written to the buffer."""
        return self._take(self._decoder.received(count))

    def feed(self, data: memoryview) -> Step:
        """Take in bytes that the caller holds."""
        return self._take(self._decoder.feed(data))

    def read(self, data: memoryview) -> Step:
        """Take in the whole messages at the start of `data`, which begins at byte `position` of the stream."""
        return self._take(self._decoder.read(data))

    def finish(self) -> Step:
        """The stream came to its end: frames that nothing announced as complete."""
        step = Step()
        try:
            self._decoder.finish()
            if self.header is not None:
                assembler = self._sorting(self.header)
                if not self._only_noise(assembler, step):
                    self._add(assembler.finish(), step)
        except ReconError as error:
            step.error = error
        return step

    def _take(self, messages: Iterable[Message]) -> Step:
        step = Step()
        try:
            for message in messages:
                self.silent = self.silent and isinstance(message, Query | Close)
                self._meaning.take(message)
                step.remarks += self._meaning.remarks
                self._meaning.remarks.clear()
                if isinstance(message, AcquisitionRun):
                    self._readouts(message, step)
                    continue
                if isinstance(message, HeaderXml):
                    self._header_extent = self._extent(message)
                elif isinstance(message, WaveformMessage):
                    self._note(message)
                step.messages.append(message)
                if self.closed:
                    break
        except ReconError as error:
            step.error = error
        return step

    def _extent(self, message: HeaderXml | WaveformMessage) -> Extent:
        """Where the message just decoded stands."""
        return Extent(message.offset, self._decoder.position - message.offset, 1)

    def _note(self, message: WaveformMessage) -> None:
        most = self._config.scan_readouts
        if len(self._waveforms) >= most:
            raise LimitError(f"the scan has more than {most} waveforms, the limit here: send longer ones")
        self._waveforms.append(self._extent(message))

    def _sorting(self, header: ScanHeader) -> Assembler:
        """The assembler: made when the recipe can change no more."""
        if self._assembler is None:
            self._settled, self._reason = settle(self._meaning.recipe, header)
            self._unfit = unfit(self._settled, header)
            self._assembler = Assembler(header, grouping_of(self.recipe))
        return self._assembler

    def _readouts(self, message: AcquisitionRun, step: Step) -> None:
        assert self.header is not None
        most = self._config.scan_readouts
        head = message.readouts.head[: most - self._runs.readouts]
        self._runs.add(message.offset, stride=message.stride, count=len(head))
        self._coils = message.readouts.samples.shape[1]
        self._add(self._sorting(self.header).add(head), step)
        if len(head) < len(message.readouts.head):
            raise LimitError(f"the scan has more than {most} readouts, the limit here: split it")

    def _add(self, indices: Iterable[FrameIndex], step: Step) -> None:
        for index in indices:  # also where no frame is made: readouts that contradict the header are found
            if not self._unfit:
                self._explain(index, step)
                step.frames.append(self._frame(index))
                step.warnings += index.warnings
        if self.unfit and self.unfit not in self._reasons:
            self._reasons.add(self.unfit)
            step.warnings.append(self.unfit)

    def _explain(self, index: FrameIndex, step: Step) -> None:
        """Why `auto` takes the method it takes, once for each reason."""
        reason = self._reason
        if self.recipe.method == AUTO and self.header is not None:
            _, reason = decide(self.header.encodings[index.counters.encoding], calibrated=index.calibrated)
        if reason and reason not in self._reasons:
            self._reasons.add(reason)
            step.remarks.append(reason)

    def _frame(self, index: FrameIndex) -> FrameReady:
        assert self.header is not None and self._assembler is not None
        if self.frames >= self._config.scan_frames:
            raise LimitError(f"the scan has more than {self._config.scan_frames} frames, the limit here: split it")
        encoding = self.header.encodings[index.counters.encoding]
        recipe = choose(self.recipe, encoding, calibrated=index.calibrated)
        method = METHODS[recipe.method]
        noise, unwhitened = self._noise(self._assembler)
        reference = FrameRef(
            self._scan,
            self.frames,
            self._spool,
            self._header_extent,
            self._runs.extents(index.rows),
            noise.extents,
            index.warnings + (unwhitened if recipe.parameters.get("whiten") else ()),
            tuple(self._waveforms) if method.name == CINE or breathes(recipe) else (),
            index.counters,
            noise.spool,
        )
        self.frames += 1
        memory, seconds = method.needs(encoding, self._coils, recipe=recipe, raw_bytes=reference.bytes)
        return FrameReady(reference, recipe, method.key(encoding, self._coils, recipe), memory, seconds)

    def _only_noise(self, assembler: Assembler, step: Step) -> bool:
        """Whether the scan is a noise scan that others depend on: it has no images, and is kept for them."""
        rows = assembler.noise_rows
        if assembler.imaging or not len(rows):
            return False
        self._noise(assembler)
        step.remarks.append(f"a noise scan of {len(rows)} readouts and {self._coils} coils, kept for later scans")
        return True

    def _noise(self, assembler: Assembler) -> tuple[NoiseRef, tuple[str, ...]]:
        """The scan's own noise readouts so far, or those of another; a warning where there should be some."""
        rows = assembler.noise_rows
        if self._noise_found is None or len(rows) != self._noise_found[0]:
            self._noise_found = len(rows), *self._look_up(rows)
        return self._noise_found[1:]

    def _look_up(self, rows: NDArray[np.int64]) -> tuple[NoiseRef, tuple[str, ...]]:
        assert self.header is not None
        own = NoiseRef(self._spool, self._runs.extents(rows), self._coils)
        if own.extents:
            if self._store is not None:
                self._store.keep(self.header, own)
            return own, ()
        if self._store is None:
            return own, missing(self.header)
        found = self._store.find(self.header, self._coils)
        return (found, ()) if found else (own, self._store.missing(self.header))

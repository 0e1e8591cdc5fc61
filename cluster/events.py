"""What happened (past tense) and what to do (imperative): frozen values between gateways, scheduler and workers.

Arrays travel only by reference: a `FrameRef` names bytes in a spool file, a `BatchDone` carries images.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path

from recon.recipe import Recipe
from recon.scan import Counters, Image


class Priority(IntEnum):
    """Classes of urgency; smaller is more urgent."""

    STAT = 0
    ROUTINE = 1
    RESEARCH = 2


class State(StrEnum):
    """States of a scan; the last five end it."""

    RECEIVING = "receiving"
    ACCEPTED = "accepted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """Whether the scan has ended."""
        return self in (State.DONE, State.FAILED, State.CANCELLED, State.INCOMPLETE, State.DEAD)


class Refused(StrEnum):
    """Why a scan was not taken, in one word: the label of the metric."""

    FULL = "full"  # as many scans, connections or uploads as may be
    DRAINING = "draining"
    DISK = "disk"
    LIMITS = "limits"
    RECIPE = "recipe"
    HEADER = "header"
    WIRE = "wire"
    FILE = "file"
    LEFT = "left"  # the sender went, or was too slow, before the header was complete
    FAULT = "fault"  # ours


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of `count` equal-sized messages in a spool file: first byte `offset`, one every `stride` bytes."""

    offset: int
    stride: int
    count: int

    @property
    def bytes(self) -> int:
        """Length of the run in bytes."""
        return self.stride * self.count


@dataclass(frozen=True, slots=True)
class FrameRef:
    """One frame by reference: where its readouts, its noise readouts and the scan's header lie in the spool."""

    scan: str
    number: int  # counts the frames of a scan from 0
    spool: Path
    header: Extent  # the header message
    readouts: tuple[Extent, ...]
    noise: tuple[Extent, ...] = ()
    warnings: tuple[str, ...] = ()  # what assembly noticed, for the image's comments
    waveforms: tuple[Extent, ...] = ()  # the scan's physiology, for methods that gate
    counters: Counters | None = None  # the frame's name
    noise_spool: Path | None = None  # where `noise` lies, if not in `spool`

    @property
    def bytes(self) -> int:
        """Raw bytes of the frame's readouts."""
        return sum(extent.bytes for extent in self.readouts)


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames of equal key that one worker executes together, under one lease."""

    number: int
    key: Hashable
    recipe: Recipe
    frames: tuple[FrameRef, ...]


# --- events: they happened -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScanOpened:
    """A scan's header was accepted."""

    scan: str
    priority: Priority
    method: str
    transport: str  # "tcp" or "http"
    deadline_s: float  # seconds after opening by which its images are wanted
    begun_s: float  # when its first byte came, by the clock that counts
    scanner: str = ""  # whose share of the workers it takes; scans of nobody's are each their own


@dataclass(frozen=True, slots=True)
class BytesReceived:
    """Raw bytes of a scan were spooled."""

    scan: str
    transport: str
    bytes: int
    readouts: int


@dataclass(frozen=True, slots=True)
class FrameReady:
    """All readouts of a frame are in the spool; `bytes_needed` and `cost_s` are the method's declaration."""

    frame: FrameRef
    recipe: Recipe
    key: Hashable
    bytes_needed: int
    cost_s: float


@dataclass(frozen=True, slots=True)
class ScanReceived:
    """A scan's last byte is in: `complete` after CLOSE, otherwise the sender left; `reason` says why it ends."""

    scan: str
    complete: bool
    frames: int
    reason: str = ""
    failed: bool = False  # the input is bad: nothing more can be reconstructed


@dataclass(frozen=True, slots=True)
class ScanCancelled:
    """A scan is to stop: somebody asked for it, or something of it cannot be kept."""

    scan: str
    state: State = State.CANCELLED
    reason: str = "cancelled on request"


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker started and can take batches."""

    worker: str
    device: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life: a worker's process runs and answers, whatever its batch does."""

    worker: str
    memory_bytes: tuple[tuple[str, int], ...] = ()  # (kind, bytes)
    load: tuple[tuple[str, float], ...] = ()  # (what, share of the time since the last): "cpu" of its threads, "gpu"


@dataclass(frozen=True, slots=True)
class FrameImages:
    """What one frame of a batch became: images, or the one-sentence reason why not."""

    frame: FrameRef
    images: tuple[Image, ...]
    error: str = ""
    stages_s: tuple[tuple[str, float], ...] = ()  # (stage, seconds)
    trace: str = ""  # where a defect of ours was met, for the server's log


@dataclass(frozen=True, slots=True, eq=False)
class BatchDone:
    """A worker finished a batch; `seconds` is its service time."""

    worker: str
    batch: int
    results: tuple[FrameImages, ...]
    seconds: float
    caches: tuple[tuple[str, str, int], ...] = ()  # (cache, "hit" or "miss", look-ups): prepared, plans, headers
    memory_bytes: tuple[tuple[str, int], ...] = ()  # (kind, bytes)


@dataclass(frozen=True, slots=True)
class ImagesStored:
    """`images` of a frame were stored: whoever reads the scan from now on gets them."""

    scan: str
    frame: int
    method: str
    images: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died or hung; what it held has to be done again."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class ScanRefused:
    """A scan was not taken."""

    reason: Refused


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Time went by: look at deadlines and leases again."""

    late_s: float = 0.0  # how long nobody looked: in that time no worker could be heard


Event = (
    ScanOpened
    | BytesReceived
    | FrameReady
    | ScanReceived
    | ScanCancelled
    | WorkerReady
    | Heartbeat
    | BatchDone
    | ImagesStored
    | WorkerLost
    | ScanRefused
    | DeadlinePassed
)


# --- commands: do it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartBatch:
    """Give a batch to a worker."""

    worker: str
    batch: Batch


@dataclass(frozen=True, slots=True)
class ReplaceWorker:
    """Stop a worker and start another in its place."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class StoreImages:
    """Keep a frame's images and pass them to whoever follows the scan."""

    scan: str
    frame: int
    method: str
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class MarkRunning:
    """Write down that the first frame of a scan has started."""

    scan: str


@dataclass(frozen=True, slots=True)
class FinishScan:
    """Write down a scan's end and its reason, and tell its followers."""

    scan: str
    state: State
    reason: str = ""


Command = StartBatch | ReplaceWorker | StoreImages | MarkRunning | FinishScan

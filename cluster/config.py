"""Every limit of a server by name, with its unit and its bounds; read from a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cluster.placement import VISIBLE, PlacementError, named, placed
from recon.errors import ReconError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


class ConfigError(ReconError):
    """The configuration file or one of its values cannot be used."""


def _limit(default: float, low: float, high: float, meaning: str) -> Any:
    # Positional, unlike elsewhere: its calls are the columns of a table.
    return field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


def _text(default: str, meaning: str, *choices: str) -> Any:
    return field(default=default, metadata={"choices": choices, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """All settings of one server; every number is checked against its bounds."""

    data: Path = field(default=Path("recon-data"), metadata={"meaning": "folder of spool, results and ledger"})
    mrd: str = _text("127.0.0.1:9002", "HOST:PORT of the MRD gateway; port 0 takes a free one")
    http: str = _text("127.0.0.1:8080", "HOST:PORT of the HTTP gateway; port 0 takes a free one")
    exposure: str = _text("loopback", "open: serve any address without TLS and tokens", "loopback", "open")

    ledger: str = _text("", "URL of a PostgreSQL database for the ledger; none: a SQLite file in the data folder")

    device: str = _text("auto", "where reconstructions run", "auto", "cpu", "cpu:scipy", "cuda")
    ray: str = _text("local", "local (embedded), auto, an address, off (plain processes)")
    noise_reuse: str = _text(
        "named",
        "scans without a noise scan take the one that their header names; or, if it names none, the last of the same"
        " scanner and coils",
        "named",
        "configuration",
    )
    gpus: str = _text("", "GPUs to use, by number or UUID (GPU-…, MIG-…), with commas between; none named: all")
    gpus_per_worker: float = _limit(1.0, 0.01, 1.0, "part of a GPU that one worker takes; several share one below 1")
    workers: int = _limit(0, 0, 1024, "number of workers; 0 is one per GPU, or one per CPU core")
    threads_per_worker: int = _limit(1, 1, 256, "CPU threads of one worker")
    batches_per_worker: int = _limit(2, 1, 8, "batches handed to a worker: one runs, the others wait in its pipe")
    worker_memory_bytes: int = _limit(0, 0, 1 << 44, "memory a worker may plan with; 0 is its share of what is free")
    worker_start_timeout_s: float = _limit(120.0, 1.0, 3600.0, "time a new worker has to become ready")
    heartbeat_s: float = _limit(1.0, 0.01, 60.0, "a worker gives a sign of life so often")
    heartbeat_timeout_s: float = _limit(8.0, 0.05, 3600.0, "a worker that is silent for longer counts as hung")
    batch_grace_s: float = _limit(8.0, 0.05, 3600.0, "a batch never counts as hung before, however short it should be")
    batch_timeout_s: float = _limit(600.0, 1.0, 86400.0, "a batch that takes longer counts as hung, however long it is")
    attempts: int = _limit(3, 1, 100, "lost workers after which a frame is given up and its scan is dead")
    max_batch_frames: int = _limit(8, 1, 1024, "frames of equal key that one batch takes")
    batch_cost_s: float = _limit(0.05, 0.0, 3600.0, "a batch takes more frames while their estimated time is below")
    ahead_cost_s: float = _limit(0.1, 0.0, 3600.0, "a busy worker gets a further batch while its work is below")
    plan_cache_bytes: int = _limit(512 * MIB, 0, 1 << 42, "calibrations and plans that a worker keeps, each")
    header_cache_bytes: int = _limit(64 * MIB, 0, 1 << 40, "scan headers that a worker keeps")

    max_connections: int = _limit(256, 1, 65536, "open MRD connections")
    max_http_connections: int = _limit(512, 1, 65536, "open HTTP connections")
    max_uploads: int = _limit(32, 1, 4096, "scans that come in over HTTP at once")
    max_followers: int = _limit(128, 1, 4096, "HTTP clients that wait for images or events at once")
    max_scans_in_flight: int = _limit(256, 1, 65536, "scans that are not final")
    max_frames_queued: int = _limit(100_000, 1, 10_000_000, "frames waiting; when full, receiving waits")
    event_queue_events: int = _limit(4096, 16, 1_000_000, "events between gateways, workers and scheduler")
    store_queue_commands: int = _limit(256, 1, 100_000, "images and states waiting to be written")
    subscription_events: int = _limit(1024, 1, 1_000_000, "events kept for a follower that is slow or comes back")
    log_lines_per_scan: int = _limit(1000, 1, 1_000_000, "log lines kept of one scan")
    log_line_chars: int = _limit(500, 20, 100_000, "characters kept of one log line or reason")

    stat_deadline_s: float = _limit(30.0, 0.001, 86400.0, "images of a stat scan are wanted this long after its start")
    routine_deadline_s: float = _limit(300.0, 0.001, 864000.0, "the same for routine")
    research_deadline_s: float = _limit(3600.0, 0.001, 8640000.0, "the same for research")

    header_timeout_s: float = _limit(30.0, 0.05, 3600.0, "from connecting to a complete header")
    idle_timeout_s: float = _limit(120.0, 0.05, 86400.0, "silence inside a scan")
    total_timeout_s: float = _limit(14400.0, 0.1, 604800.0, "a whole scan, from its first byte to its last")
    send_timeout_s: float = _limit(60.0, 0.05, 3600.0, "a client that takes no image bytes")
    linger_timeout_s: float = _limit(5.0, 0.0, 600.0, "after our last word: a client may take this long to close")
    linger_bytes: int = _limit(256 * MIB, 0, 1 << 40, "after our last word: bytes of a client that are dropped")
    keep_alive_s: float = _limit(15.0, 0.05, 3600.0, "a sign of life to HTTP clients that wait")
    drain_timeout_s: float = _limit(60.0, 0.0, 86400.0, "scans in flight may finish this long after SIGTERM")
    tick_s: float = _limit(0.5, 0.01, 60.0, "how often time is looked at when nothing happens")

    receive_niceness: int = _limit(10, 0, 19, "how far receiving MRD gives way to workers on the same cores (nice)")
    receive_buffer_bytes: int = _limit(4 * MIB, 64 * KIB, GIB, "receive buffer of one scan")
    header_bytes: int = _limit(8 * MIB, KIB, 256 * MIB, "longest header message")
    text_bytes: int = _limit(MIB, KIB, 256 * MIB, "longest text message")
    acquisition_bytes: int = _limit(64 * MIB, KIB, 4 * GIB, "largest acquisition message")
    waveform_bytes: int = _limit(16 * MIB, KIB, GIB, "largest waveform message")
    image_bytes: int = _limit(GIB, KIB, 16 * GIB, "largest image message")
    attribute_bytes: int = _limit(MIB, 0, GIB, "longest attributes of an image message")
    scan_bytes: int = _limit(256 * GIB, KIB, 1 << 46, "raw bytes of one scan")
    scan_readouts: int = _limit(50_000_000, 1, 1 << 40, "readouts of one scan")
    scan_frames: int = _limit(1_000_000, 1, 1 << 30, "frames of one scan")

    spool_sync_bytes: int = _limit(16 * MIB, MIB, 16 * GIB, "bytes of a scan after which they are sent to the disk")
    spool_unsynced_bytes: int = _limit(256 * MIB, MIB, 64 * GIB, "bytes of a scan that may not yet be on the disk")
    spool_free_bytes: int = _limit(GIB, 0, 1 << 46, "free disk space below which no new scan is taken")
    keep_s: float = _limit(0.0, 0.0, 1e10, "raw data and images go so long after their scan has ended; 0: never")
    keep_bytes: int = _limit(0, 0, 1 << 50, "beyond so many bytes those of the scans that ended first go; 0: never")
    retention_tick_s: float = _limit(60.0, 0.01, 86400.0, "how often it is looked what is to go")
    upload_memory_bytes: int = _limit(4 * GIB, 256 * MIB, 1 << 42, "memory of the process that reads an HDF5 upload")
    upload_timeout_s: float = _limit(3600.0, 1.0, 86400.0, "time that reading an HDF5 upload may take")

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item.name, getattr(self, item.name), metadata=item.metadata)
        if self.heartbeat_timeout_s < 3 * self.heartbeat_s:
            raise ConfigError(
                f"heartbeat_timeout_s is {self.heartbeat_timeout_s:g}, less than three times heartbeat_s"
                f" {self.heartbeat_s:g}: raise it, or a worker that is only late would be killed"
            )
        self._check_gpus()
        if self.ledger and not self.ledger.startswith(("postgresql://", "postgres://")):
            raise ConfigError(
                "ledger is no URL of a PostgreSQL database, expected postgresql://USER@HOST/NAME: correct it"
            )
        if self.spool_unsynced_bytes < self.spool_sync_bytes:
            raise ConfigError(
                f"spool_unsynced_bytes is {self.spool_unsynced_bytes}, less than spool_sync_bytes"
                f" {self.spool_sync_bytes}: raise it, or nothing could be received while the disk writes"
            )

    def _check_gpus(self) -> None:
        try:
            names = named(self.gpus)
            if names and self.workers:
                placed([str(number) for number in range(self.workers)], names, self.gpus_per_worker)
        except PlacementError as error:
            raise ConfigError(str(error)) from error
        if self.device.startswith("cpu") and (names or self.gpus_per_worker != 1):
            key = f"gpus is {self.gpus!r}" if names else f"gpus_per_worker is {self.gpus_per_worker:g}"
            raise ConfigError(f"{key}, but device is {self.device}: leave one of them out")
        if names and self.ray not in ("local", "off"):
            raise ConfigError(
                f"gpus is {self.gpus!r}, but ray is {self.ray!r}, which gives out the GPUs of its own nodes: set"
                f" {VISIBLE} where these are started"
            )

    @property
    def spool_folder(self) -> Path:
        """Raw bytes of scans."""
        return self.data / "spool"

    @property
    def results_folder(self) -> Path:
        """Images of scans."""
        return self.data / "results"

    @property
    def noise_folder(self) -> Path:
        """Where the noise scans of each scanner and its coils are."""
        return self.data / "noise"

    @property
    def ledger_path(self) -> Path:
        """The ledger's SQLite file."""
        return self.data / "ledger.sqlite"


def _check(name: str, value: object, *, metadata: Mapping[str, Any]) -> None:
    if "low" in metadata and not (isinstance(value, int | float) and metadata["low"] <= value <= metadata["high"]):
        raise ConfigError(
            f"{name} is {value}, expected a number from {metadata['low']} to {metadata['high']}"
            f" ({metadata['meaning']}): correct it"
        )
    if metadata.get("choices") and value not in metadata["choices"]:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(metadata['choices'])}: correct it")


def configure(base: ClusterConfig, values: Mapping[str, object]) -> ClusterConfig:
    """`base` with `values` by key; raises ConfigError on an unknown key, a wrong type or a value out of bounds."""
    defaults: dict[str, Any] = {item.name: getattr(base, item.name) for item in fields(base)}
    changes: dict[str, Any] = {key: _converted(key, value, defaults=defaults) for key, value in values.items()}
    return replace(base, **changes)


def _converted(key: str, value: Any, *, defaults: Mapping[str, Any]) -> object:
    if key not in defaults:
        near = difflib.get_close_matches(key, defaults, n=1, cutoff=0.0)
        raise ConfigError(f"unknown key {key!r} in the configuration, the nearest known one is {near[0]!r}: correct it")
    wanted: type[Any] = Path if key == "data" else type(defaults[key])
    if isinstance(value, bool) or not isinstance(value, str if wanted not in (int, float) else (int, float)):
        kind = "a number" if wanted in (int, float) else "a text"
        raise ConfigError(f"{key} is {value!r}, expected {kind}: correct it")
    if wanted is int and value != int(value):
        raise ConfigError(f"{key} is {value!r}, expected a whole number: correct it")
    return wanted(value)


def read_config(path: Path, base: ClusterConfig | None = None) -> ClusterConfig:
    """Configuration from the TOML file at `path`; raises ConfigError with the file's name."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the configuration {path} cannot be read ({error}): give a TOML file") from error
    try:
        return configure(base or ClusterConfig(), values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error

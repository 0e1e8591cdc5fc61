"""One server: configuration in, gateways, service and workers joined and running."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig
from cluster.gateway import sockets
from cluster.gateway.http.server import HttpGateway
from cluster.gateway.limits import check_exposure, parse_address
from cluster.gateway.tcp import MrdGateway
from cluster.placement import VISIBLE, named, per_gpu, placed
from cluster.service import Service
from cluster.worker import WorkerSettings
from cluster.workers import ProcessWorkers, Workers
from recon.device import open_device
from recon.errors import DeviceError

_log = logging.getLogger(__name__)
_PART_OF_MEMORY = 0.5  # of what is free at the start: the rest is for caches, receive buffers and the page cache
_PARTING_S = 5.0  # for answers under way when the server ends


class Server:
    """A server that listens once `start` returns; `drain` and `close` end it."""

    def __init__(self, config: ClusterConfig, workers: Workers | None = None) -> None:
        """Binds both addresses and opens the data folder; raises ConfigError, DeviceError."""
        for warning in _warnings(config):
            _log.warning("%s", warning)
        self.config = config
        listeners = [sockets.bind(*parse_address(text)) for text in (config.mrd, config.http)]
        self.mrd, self.http = (sockets.address(listener) for listener in listeners)
        try:
            self.service = Service(config, workers or make_workers(config))
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        self._gateways = MrdGateway(self.service, listeners[0]), HttpGateway(self.service, listeners[1])

    def start(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Return when scans are taken and a worker is ready, or `stopped`; raises DeviceError when none gets ready."""
        self.service.start()
        for gateway in self._gateways:
            gateway.start()
        end = time.monotonic() + self.config.worker_start_timeout_s
        while not (self.service.ready or stopped()):
            if time.monotonic() > end:
                limit = self.config.worker_start_timeout_s
                raise DeviceError(
                    f"no worker was ready within {limit:g} s: raise worker_start_timeout_s, or see the log"
                )
            time.sleep(0.02)

    def about(self) -> dict[str, Any]:
        """The ready line."""
        workers = self.service.cluster()["workers"]
        device = workers[0]["device"] if workers else self.config.device
        known = {"mrd": self.mrd, "http": f"http://{self.http}", "device": device, "workers": worker_count(self.config)}
        return {"ready": self.service.ready, **known}

    def drain(self, *, hurried: Callable[[], bool] = lambda: False) -> bool:
        """Take no new scan and wait for those in flight, unless `hurried`; whether all ended in time."""
        end = time.monotonic() + self.config.drain_timeout_s
        while not (drained := self.service.drain(0.1)) and time.monotonic() < end and not hurried():
            pass
        return drained

    def close(self, *, timeout_s: float = _PARTING_S) -> None:
        """End connections, gateways, workers. What is not done is taken up by the next server with the same data."""
        for gateway in self._gateways:
            gateway.stop(timeout_s=timeout_s)
        self.service.close()


def _warnings(config: ClusterConfig) -> Iterator[str]:
    for text in (config.mrd, config.http):
        if warning := check_exposure(parse_address(text)[0], allowed=config.exposure == "open"):
            yield warning


def make_workers(config: ClusterConfig) -> Workers:
    """The workers that `config` asks for; raises DeviceError where the device cannot be used."""
    names = [f"w{number}" for number in range(worker_count(config))]
    settings = WorkerSettings(
        device=device_of(config),
        threads=config.threads_per_worker,
        gpus=config.gpus_per_worker,
        memory_bytes=config.worker_memory_bytes or int(_PART_OF_MEMORY * _free_bytes() / len(names)),
        plan_cache_bytes=config.plan_cache_bytes,
        header_cache_bytes=config.header_cache_bytes,
        heartbeat_s=config.heartbeat_s,
    )
    gpus = gpus_of(config) if config.ray in ("local", "off") else ()
    own = placed(names, gpus, config.gpus_per_worker) if gpus else {}
    if config.ray == "off":
        return ProcessWorkers(names, settings, gpus=own, start_timeout_s=config.worker_start_timeout_s)
    from cluster.ray_workers import RayWorkers  # not needed, and perhaps not installed, with plain processes

    return RayWorkers(
        names,
        settings,
        address=config.ray,
        gpus=named(config.gpus),
        start_timeout_s=config.worker_start_timeout_s,
    )


def gpus_of(config: ClusterConfig) -> tuple[str, ...]:
    """The GPUs that workers on this machine use: those that are named, or all that this process sees.

    None on the CPU; raises DeviceError where GPUs are named and none can be used.
    """
    names = named(config.gpus)
    if device_of(config) != "cuda":
        if names:
            raise DeviceError(f"gpus is {config.gpus!r}, but no GPU can be used here: check the driver or leave it out")
        return ()
    seen = tuple(filter(None, os.environ.get(VISIBLE, "").split(",")))
    count_here = sum(1 for _ in takewhile(_is_device, (f"cuda:{number}" for number in count())))
    return names or seen[:count_here] or tuple(map(str, range(count_here)))


def device_of(config: ClusterConfig) -> str:
    """What each worker opens: cpu, cpu:scipy, or cuda (Ray shows each one its own GPU); raises DeviceError."""
    device = open_device(config.device).device
    return "cuda" if device.startswith("cuda") else device


def worker_count(config: ClusterConfig) -> int:
    """As configured, else one per GPU, or one per share of the CPUs."""
    if config.workers:
        return config.workers
    if device_of(config) == "cuda":
        return len(gpus_of(config)) * per_gpu(config.gpus_per_worker)
    return max(1, len(os.sched_getaffinity(0)) // config.threads_per_worker)


def _is_device(name: str) -> bool:
    try:
        open_device(name)
    except DeviceError:
        return False
    return True


def _free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return kilobytes << 10

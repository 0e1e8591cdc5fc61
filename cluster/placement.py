"""Which GPU each worker sees: one of its own, one that several share, or a slice of one (MIG)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil

from recon.errors import DeviceError

VISIBLE = "CUDA_VISIBLE_DEVICES"  # CUDA reads it once: what it names is all that a process sees, numbered from 0
_NAME = re.compile(r"\d+|(GPU|MIG)-[0-9a-zA-Z/-]+")


class PlacementError(DeviceError):
    """The GPUs that are asked for contradict one another or the workers."""


def named(text: str) -> tuple[str, ...]:
    """The GPUs in a text like "0,1" or "MIG-…,MIG-…"; raises PlacementError for what CUDA would not read."""
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    for name in names:
        if not _NAME.fullmatch(name):
            raise PlacementError(f"gpus names {name!r}, expected a number or a UUID like GPU-… or MIG-…: correct it")
        if names.count(name) > 1:
            raise PlacementError(f"gpus names {name} twice: name it once, and share it by gpus_per_worker")
    return names


def per_gpu(share: float) -> int:
    """How many workers of this `share` of a GPU fit on one."""
    return int(1 / share + 1e-9)


def gpus_for(workers: int, share: float) -> int:
    """How many GPUs so many workers take."""
    return ceil(workers / per_gpu(share))


def placed(workers: Sequence[str], gpus: Sequence[str], share: float) -> dict[str, str]:
    """The GPU of each worker, filled one after the other; raises PlacementError where they are too few."""
    wanted = gpus_for(len(workers), share)
    if wanted > len(gpus):
        raise PlacementError(
            f"{len(workers)} workers of {share:g} GPUs each need {wanted} GPUs, there are {len(gpus)}"
            f" ({', '.join(gpus)}): ask for fewer workers or smaller shares"
        )
    return {worker: gpus[number // per_gpu(share)] for number, worker in enumerate(workers)}

"""A server ends behind every single write, sync, rename and commit of a scan; the next one has what was acknowledged.

Once with the machine going on, where all that was written is there, and once as after a loss of power, where only what
was synced is. SQLite's own file is as the killed process left it in both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cluster.events import State
from tests.chaos.crashing import DATA, FRAMES, Fate, lose_power
from tests.cluster import scans
from tests.cluster.test_service import wait_until


def fates(folder: Path, word: str) -> list[Fate]:
    """How the servers ended, one behind each point."""
    program = "from tests.chaos import crashing; crashing.main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(folder), word]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [
        Fate(**{**said, "synced": {int(inode): size for inode, size in said["synced"].items()}})
        for said in map(json.loads, done.stdout.splitlines())
    ]


def faults(data: Path, fate: Fate) -> list[str]:
    """What the next server does not have and should, or has and should not."""
    with scans.serving(data) as service:
        wait_until(lambda: not service.cluster()["scans_in_flight"])
        records = service.scans()
        found = [f"{record.id} is {record.state}" for record in records if not record.state.final]
        found += [f"{record.id} was never sent" for record in records if record.id != fate.scan]
        for record in records:
            raw = service.raw_path(record.id)
            if raw.exists() and not DATA.startswith(raw.read_bytes()):
                found.append("the raw data are others")
            images = Counter(image.counters.repetition for image in service.images(record.id))
            if max(images.values(), default=1) > 1 or record.images != images.total():
                found.append(f"images {images}, counted {record.images}")
        if fate.acknowledged:
            whole = [r for r in records if r.state is State.DONE and r.complete and r.images == len(FRAMES)]
            if not whole:
                found.append(f"acknowledged, and now {records}")
            raw = service.raw_path(fate.scan)
            if not raw.exists() or raw.read_bytes() != DATA:
                found.append("acknowledged, and the raw data are not whole")
        return found


@pytest.mark.parametrize("power", ["stays", "goes"])
def test_every_crash_point_of_a_scan(tmp_path: Path, power: str) -> None:
    ended = fates(tmp_path, "honest")
    wrong = []
    for point, fate in enumerate(ended):
        if power == "goes":
            lose_power(tmp_path / str(point), fate)
        wrong += [f"behind {fate.aim}: {fault}" for fault in faults(tmp_path / str(point), fate)]
    assert not wrong
    # How many notes share a commit, and how many images a sync, is chance: a run may have one less than the first.
    missed = {fate.aim for fate in ended[1:] if fate.ended}
    assert all(aim.startswith(("commit", "fdatasync results", "fsync results")) for aim in missed)
    aims = {fate.aim for fate in ended} - missed
    writes = {
        f"{half}pwrite {place} {n}" for half in ("", "half a ") for place in ("spool", "results") for n in (1, 2, 3)
    }
    assert writes | {"fdatasync spool 1", "fsync spool 1", "commit 1", "acknowledge 1"} <= aims


def test_a_server_that_does_not_wait_for_its_disk_is_found_out(tmp_path: Path) -> None:
    """The enumeration can fail: without the sync before it, what was acknowledged is lost."""
    ended = fates(tmp_path, "lies")
    for point, fate in enumerate(ended):
        if not fate.acknowledged:
            continue
        lose_power(tmp_path / str(point), fate)
        if any(fault.startswith("acknowledged") for fault in faults(tmp_path / str(point), fate)):
            return
    pytest.fail("no acknowledged scan was lost")

"""Ray actors as workers: real ones, few, on the loopback interface only."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.ray_workers import RayWorkers
from tests.cluster import deaths, scans


@pytest.mark.timeout(110)
def test_killed_actor_is_replaced_and_its_work_done_once(tmp_path: Path) -> None:
    deaths.killed_in_a_batch(RayWorkers(["w0"], scans.settings(), store_bytes=100 << 20), tmp_path)

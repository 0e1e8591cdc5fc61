"""Workers in processes and threads."""

from __future__ import annotations

from pathlib import Path

from cluster.workers import ProcessWorkers
from tests.cluster import deaths, scans


def test_killed_process_is_replaced_and_its_work_done_once(tmp_path: Path) -> None:
    deaths.killed_in_a_batch(ProcessWorkers(["w0"], scans.settings()), tmp_path)

"""Raw data and images go when they are old or too many: those of the scans that ended first, never others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.events import State
from cluster.job import ScanRecord, ScanRequest
from cluster.retention import GONE, due
from cluster.service import Clocks, Service
from cluster.workers import ThreadWorkers
from recon.errors import FileError
from tests.cluster import scans
from tests.cluster.test_service import NoWorkers, log_of, wait_until

DATA = scans.stream(scans.frames(1))
SCANS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(st.integers(0, 9), st.integers(0, 9)))


@given(scans=SCANS, unfinished=st.integers(0, 20), keep_s=st.integers(0, 9), keep_bytes=st.integers(0, 40))
def test_what_is_due(scans: dict[str, tuple[int, int]], unfinished: int, keep_s: int, keep_bytes: int) -> None:
    ended = sorted(((name, float(when)) for name, (when, _) in scans.items()), key=lambda scan: scan[1])
    sizes = {name: size for name, (_, size) in scans.items()} | {"unfinished": unfinished}
    gone = list(due(ended, sizes, now=10.0, keep_s=keep_s, keep_bytes=keep_bytes))
    left = [name for name, _ in ended if name not in gone]
    assert [name for name, _ in ended][: len(gone)] == gone  # the first to end go first
    assert not keep_s or all(scans[name][0] + keep_s > 10 for name in left)
    total = sum(sizes[name] for name in (*left, "unfinished"))
    assert not keep_bytes or total <= keep_bytes or not left
    if gone:  # and not one more than that
        last = gone[-1]
        late = keep_s and scans[last][0] + keep_s <= 10
        assert late or (keep_bytes and total + sizes[last] > keep_bytes)


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1.7e9

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def keeping(data: Path, clock: Clock, **changes: object) -> Iterator[Service]:
    """A server that looks often what is to go."""
    workers = ThreadWorkers(["w0"], scans.settings())
    service = Service(scans.config(data, retention_tick_s=0.02, **changes), workers, clocks=Clocks(wall_s=clock))
    service.start()
    try:
        yield service
    finally:
        service.close()


def files(service: Service, scan: str) -> list[str]:
    """The folders in which something of the scan is."""
    data = service.config.data
    return [folder for folder in ("spool", "results") if any((data / folder).glob(f"{scan}.*"))]


def check_gone(service: Service, scan: str) -> None:
    """Nothing of it is left but its record and log, which say so."""
    wait_until(lambda: not files(service, scan))
    record = service.scan(scan)
    assert (record.state, record.images, record.warnings) == (State.DONE, 0, (GONE,))
    assert log_of(service, scan)[-1] == GONE
    assert list(service.images(scan)) == []
    with pytest.raises(FileError, match=f"the raw data of scan {scan} are gone: send it again"):
        service.requeue(scan)


def test_old_scans_go_and_unfinished_ones_stay(tmp_path: Path) -> None:
    clock = Clock()
    with keeping(tmp_path, clock, keep_s=3600.0) as service:
        old = scans.run(service, DATA)
        coming = service.open_scan(ScanRequest("tcp"))
        coming.feed(DATA[:-100])
        clock.now_s += 3000
        young = scans.run(service, DATA)
        clock.now_s += 1000
        check_gone(service, old.id)
        assert files(service, young.id) == files(service, coming.scan_id) == ["spool", "results"]
        spooled = sum(path.stat().st_size for path in (tmp_path / "spool").iterdir())
        assert service._spool.used_bytes() == spooled
        coming.feed(DATA[-100:])
        coming.finish()
        assert service.wait(coming.scan_id, 30.0).state is State.DONE
        clock.now_s += 10_000
        check_gone(service, young.id)
        check_gone(service, coming.scan_id)


def test_beyond_the_bytes_those_that_ended_first_go(tmp_path: Path) -> None:
    clock = Clock()
    with keeping(tmp_path, clock) as service:
        made = [scans.run(service, DATA) for clock.now_s in (2e9, 2e9 + 1, 2e9 + 2)]
    size = sum(path.stat().st_size for folder in ("spool", "results") for path in (tmp_path / folder).iterdir())
    with keeping(tmp_path, clock, keep_bytes=2 * size // 3) as service:
        check_gone(service, made[0].id)
        assert all(files(service, scan.id) == ["spool", "results"] for scan in made[1:])
        assert service.scans() == [*reversed(made[1:]), service.scan(made[0].id)]


def test_files_that_a_stop_left_behind_the_words_go_too(tmp_path: Path) -> None:
    with scans.serving(tmp_path) as service:
        record: ScanRecord = scans.run(service, DATA)
        service._ledger.commit([replace(record, images=0, warnings=(GONE,))])
    clock = Clock()
    clock.now_s = record.finished_s + 100.0
    with keeping(tmp_path, clock, keep_s=50.0) as service:
        wait_until(lambda: not files(service, record.id))
        assert GONE not in log_of(service, record.id)  # it was said with the record


def test_noise_that_another_scan_is_whitened_with_stays(tmp_path: Path) -> None:
    """A scan in flight has frames that wait, and they will read it."""
    clock = Clock()
    header = scans.header()
    noisy = scans.stream([scans.noise(), *scans.frames(1)], header)
    with scans.serving(tmp_path, noise_reuse="configuration") as service:
        lender = scans.run(service, noisy)
    clock.now_s = lender.finished_s + 100.0
    service = Service(
        scans.config(tmp_path, retention_tick_s=0.02, keep_s=50.0, noise_reuse="configuration"),
        NoWorkers(),
        clocks=Clocks(wall_s=clock),
    )
    intake = service.open_scan(ScanRequest("tcp"))  # before anything is looked for
    service._loop.stage.start()
    service._recorder.stage.start()
    intake.feed(scans.stream(scans.frames(1), header, close=False))
    assert service._lives[intake.scan_id].lender == lender.id
    service._retention._look()
    assert files(service, lender.id) == ["spool", "results"]
    service._lives.clear()
    service._retention._look()
    assert files(service, lender.id) == []
    service.close()

"""A server whose ledger is in a real PostgreSQL, which goes away and comes back while scans come in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cluster.config import ConfigError
from cluster.events import State
from cluster.folder import DataFolder
from cluster.job import ScanRequest
from cluster.service import Service
from recon.errors import RefusedError
from tests.cluster import scans
from tests.cluster.conftest import Postgres
from tests.cluster.test_metrics import law_holds
from tests.cluster.test_service import NoWorkers, log_of, wait_until
from tests.end_to_end.running import running

STREAM = scans.stream(scans.frames(1))


def submitter(service: Service, end: threading.Event, taken: list[str], told: list[str]) -> Callable[[], None]:
    """Sends scan after scan until `end`; those `taken` were acknowledged, of the others somebody was `told`."""

    def submit() -> None:
        while not end.is_set():
            try:
                intake = service.open_scan(ScanRequest("tcp"))
                scans.send(intake, STREAM)
                intake.finish()
                taken.append(intake.scan_id)
            except RefusedError as error:
                told.append(str(error))

    return submit


def test_restarted_under_load_nothing_acknowledged_is_lost(tmp_path: Path, postgres: Postgres) -> None:
    url, end = postgres.database(), threading.Event()
    taken: list[str] = []
    told: list[str] = []
    with scans.serving(tmp_path, ledger=url) as service:
        threads = [threading.Thread(target=submitter(service, end, taken, told)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            before = len(taken)
            wait_until(lambda before=before: len(taken) > before + 2)
            postgres.stop()
            time.sleep(0.1)
            postgres.start()
        after = len(taken)
        wait_until(lambda: len(taken) > after + 2)
        end.set()
        for thread in threads:
            thread.join()
        wait_until(lambda: not service.cluster()["scans_in_flight"])
        assert service.ready
        assert told
        assert all("the ledger's database does not answer" in words for words in told)
        records = {record.id: record for record in service.scans(limit=10_000)}
        assert {records[scan].state for scan in taken} == {State.DONE}
        assert all(record.state.final for record in records.values())
        assert {records[scan].images for scan in taken} == {1}
        assert law_holds(service.metrics_text())
    with scans.serving(tmp_path, NoWorkers(), ledger=url) as service:
        assert {record.id: record for record in service.scans(limit=10_000)} == records


def test_without_its_database_a_server_says_so_and_goes_on_when_it_is_back(tmp_path: Path, postgres: Postgres) -> None:
    with running(tmp_path, ledger=postgres.database()) as server:
        wait_until(lambda: server.service.ready)
        url = f"{server.http}/v1/scans"
        postgres.stop()
        try:
            listed = httpx.get(url, timeout=30.0)
            sent = httpx.post(url, content=STREAM, headers={"content-type": "application/x-mrd"}, timeout=30.0)
            ready = httpx.get(f"{server.http}/readyz")
        finally:
            postgres.start()
        for answer in (listed, sent):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json()["type"] == "urn:recon-cluster:problem:ledger"
            assert answer.json()["detail"].startswith("the ledger's database does not answer (")
        assert ready.status_code == 503
        assert ready.text.startswith("not ready: the ledger's database does not answer (")
        wait_until(lambda: server.service.ready)
        scan = sent.json()["scan"]
        wait_until(lambda: server.service.scan(scan).state.final)  # written down once that could be
        assert server.service.scan(scan).state is State.FAILED
        assert server.service.raw_path(scan).read_bytes() == STREAM
        server.service.requeue(scan)
        assert server.service.wait(scan, 30.0).state is State.DONE
        assert log_of(server.service, scan)[-1] == "done"


def test_two_servers_never_share_a_database(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.database()
    first = DataFolder(scans.config(tmp_path / "first", ledger=url))
    with pytest.raises(ConfigError, match="another server uses the ledger's database"):
        DataFolder(scans.config(tmp_path / "second", ledger=url))
    first.close()
    DataFolder(scans.config(tmp_path / "second", ledger=url)).close()


def test_a_database_that_does_not_answer_keeps_a_server_from_starting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the ledger's database does not answer"):
        DataFolder(scans.config(tmp_path / "data", ledger=f"postgresql://recon@/none?host={tmp_path}"))
    with pytest.raises(ConfigError, match="ledger is no URL of a PostgreSQL database, expected postgresql://USER@HOST"):
        scans.config(tmp_path, ledger="mysql://")
    DataFolder(scans.config(tmp_path / "data")).close()  # the failure held nothing

"""The metrics: the agreed names, right values, and a law that holds at every scrape."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.events import (
    Batch,
    BatchDone,
    BytesReceived,
    Command,
    Event,
    Extent,
    FinishScan,
    FrameImages,
    FrameReady,
    FrameRef,
    Heartbeat,
    ImagesStored,
    Priority,
    Refused,
    ReplaceWorker,
    ScanOpened,
    ScanRefused,
    StartBatch,
    State,
    WorkerLost,
    WorkerReady,
)
from cluster.job import ScanRequest
from cluster.metrics import TABLE, Metrics
from cluster.results import ResultFile
from cluster.service import Clocks, Service
from cluster.workers import ThreadWorkers
from recon.recipe import Recipe
from recon.scan import Image
from tests.cluster import scans
from tests.cluster.test_results import image
from tests.cluster.test_service import NoWorkers

PROMISED = {
    "recon_scans_accepted_total": (),
    "recon_scans_in_flight": (),
    "recon_scans_total": ("outcome",),
    "recon_frames_total": ("method", "outcome"),
    "recon_images_total": ("method",),
    "recon_ingest_bytes_total": ("transport",),
    "recon_readouts_total": (),
    "recon_queue_frames": ("priority",),
    "recon_queue_wait_seconds": ("priority",),
    "recon_time_to_first_image_seconds": (),
    "recon_last_readout_to_image_seconds": (),
    "recon_stage_seconds": ("stage",),
    "recon_batch_frames": ("method",),
    "recon_worker_busy_ratio": ("worker",),
    "recon_worker_memory_bytes": ("worker", "kind"),
    "recon_worker_load_ratio": ("worker", "kind"),
    "recon_worker_silence_seconds": ("worker",),
    "recon_worker_restarts_total": ("reason",),
    "recon_late_batches_total": (),
    "recon_plan_cache_total": ("result",),
    "recon_cache_lookups_total": ("cache", "result"),
    "recon_spool_bytes": (),
    "recon_refused_total": ("reason",),
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def values(text: bytes) -> dict[str, float]:
    """Samples by name and labels, as they are scraped."""
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def outcomes(seen: dict[str, float]) -> float:
    return sum(value for name, value in seen.items() if name.startswith("recon_scans_total"))


def law_holds(text: bytes) -> bool:
    seen = values(text)
    return seen["recon_scans_accepted_total"] == outcomes(seen) + seen["recon_scans_in_flight"]


def frame(number: int, scan: str = "a") -> FrameRef:
    return FrameRef(scan, number, Path("x"), Extent(0, 1, 1), ())


RECIPE = Recipe("fft")


def history() -> Iterator[tuple[float, Event | Command]]:
    """What happens to one scan, and when."""
    yield 0.0, WorkerReady("w0", "cpu", 1000)
    yield 0.0, ScanOpened("a", Priority.STAT, "fft", "tcp", 30.0, begun_s=99.5)
    yield 0.1, BytesReceived("a", "tcp", 5000, 12)
    yield 1.0, FrameReady(frame(0), RECIPE, "k", 1, 0.1)
    yield 1.0, FrameReady(frame(1), RECIPE, "k", 1, 0.1)
    yield 1.5, StartBatch("w0", Batch(1, "k", RECIPE, (frame(0), frame(1))))
    results = (FrameImages(frame(0), (image(0),), "", (("read", 0.3),)), FrameImages(frame(1), (), "bad"))
    yield (
        4.0,
        BatchDone(
            "w0",
            1,
            results,
            2.0,
            (("prepared", "hit", 3), ("prepared", "miss", 1), ("plans", "miss", 2)),
            (("resident", 77),),
        ),
    )
    yield 4.5, ImagesStored("a", 0, "fft", 1)
    yield 4.5, BatchDone("w0", 9, results, 2.0)  # of a lease that is no longer its own
    yield 5.0, FinishScan("a", State.FAILED, "x")
    yield 5.0, FinishScan("a", State.FAILED, "x")
    yield 5.0, ScanRefused(Refused.FULL)
    yield 6.0, StartBatch("w0", Batch(2, "k", RECIPE, (frame(0, "b"),)))
    yield 8.0, WorkerLost("w0", "died: status 9")
    yield 8.0, ReplaceWorker("w0", "died: status 9")
    yield 10.0, WorkerReady("w0", "cpu", 1000)
    yield 10.0, Heartbeat("w0", (("device", 55),), (("gpu", 0.5),))


def test_names_and_labels_are_those_promised() -> None:
    assert {row.name: row.labels for row in TABLE} == PROMISED


def test_counts_one_history() -> None:
    clock = Clock()
    metrics = Metrics(clock, spool_bytes=lambda: 123, queue=lambda: {"stat": 4})
    for after, what in history():
        clock.now = 100.0 + after
        metrics.observe(what)
    seen = values(metrics.text())
    expected = {
        "recon_scans_accepted_total": 1,
        "recon_scans_in_flight": 0,
        "recon_scans_total{outcome=failed}": 1,
        "recon_scans_total{outcome=done}": 0,
        "recon_frames_total{method=fft}{outcome=done}": 1,
        "recon_frames_total{method=fft}{outcome=failed}": 1,
        "recon_images_total{method=fft}": 1,
        "recon_ingest_bytes_total{transport=tcp}": 5000,
        "recon_readouts_total": 12,
        "recon_queue_frames{priority=stat}": 4,
        "recon_queue_wait_seconds_sum{priority=stat}": 1.0,
        "recon_queue_wait_seconds_count{priority=stat}": 2,
        "recon_time_to_first_image_seconds_sum": 5.0,
        "recon_last_readout_to_image_seconds_sum": 3.5,
        "recon_last_readout_to_image_seconds_count": 1,
        "recon_stage_seconds_sum{stage=read}": 0.3,
        "recon_batch_frames_sum{method=fft}": 3,
        "recon_worker_busy_ratio{worker=w0}": (2.5 + 2.0) / 10.0,
        "recon_worker_memory_bytes{kind=resident}{worker=w0}": 77,
        "recon_worker_memory_bytes{kind=budget}{worker=w0}": 1000,
        "recon_worker_memory_bytes{kind=device}{worker=w0}": 55,
        "recon_worker_load_ratio{kind=gpu}{worker=w0}": 0.5,
        "recon_worker_silence_seconds{worker=w0}": 0,
        "recon_late_batches_total": 1,
        "recon_worker_restarts_total{reason=died}": 1,
        "recon_plan_cache_total{result=hit}": 3,
        "recon_plan_cache_total{result=miss}": 1,
        "recon_cache_lookups_total{cache=prepared}{result=hit}": 3,
        "recon_cache_lookups_total{cache=plans}{result=miss}": 2,
        "recon_spool_bytes": 123,
        "recon_refused_total{reason=full}": 1,
    }
    assert {name: seen.get(name) for name in expected} == pytest.approx(expected)
    clock.now += 3.0
    assert values(metrics.text())["recon_worker_silence_seconds{worker=w0}"] == 3.0


def test_two_servers_in_one_process_count_apart() -> None:
    first, second = (Metrics(Clock(), spool_bytes=lambda: 0, queue=dict) for _ in range(2))
    first.observe(ScanOpened("a", Priority.STAT, "fft", "tcp", 30.0, begun_s=99.5))
    assert values(second.text())["recon_scans_accepted_total"] == 0


def test_the_law_holds_at_every_scrape_while_scans_come_and_go(tmp_path: Path) -> None:
    good = scans.stream(scans.frames(2))
    bad = scans.stream(scans.frames(2), close=False) + b"\x4d\x00"
    left = scans.stream(scans.frames(2), close=False)
    refused = scans.stream(scans.frames(1), config="nonsense")
    rounds, scrapes = 12, []

    with scans.serving(tmp_path) as service:
        going = threading.Event()

        def scrape() -> None:
            while not going.is_set():
                scrapes.append(law_holds(service.metrics_text()))

        senders = [threading.Thread(target=_send, args=(service, data, rounds)) for data in (good, bad, left, refused)]
        scraper = threading.Thread(target=scrape)
        for thread in (scraper, *senders):
            thread.start()
        for thread in senders:
            thread.join(60.0)
        for record in service.scans(limit=1000):
            service.wait(record.id, 30.0)
        going.set()
        scraper.join()
        seen = values(service.metrics_text())
    assert len(scrapes) > 10
    assert all(scrapes)
    assert seen["recon_scans_accepted_total"] == 3 * rounds
    assert seen["recon_scans_in_flight"] == 0
    assert {name: seen[f"recon_scans_total{{outcome={name}}}"] for name in ("done", "failed", "incomplete")} == {
        "done": rounds,
        "failed": rounds,
        "incomplete": rounds,
    }
    assert seen["recon_refused_total{reason=recipe}"] == rounds


def _send(service: Service, data: bytes, rounds: int) -> None:
    for _ in range(rounds):
        scans.try_run(service, data)


def readable(service: Service) -> int:
    """Images that a client can read now, of all scans."""
    return sum(1 for record in service.scans(limit=1000) for _ in service.follow(record.id, timeout_s=0.0))


def test_no_scrape_counts_an_image_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk so slow that a count that comes first is seen."""
    write = ResultFile.append

    def slow(file: ResultFile, images: Iterable[Image]) -> int:
        time.sleep(0.02)
        return write(file, images)

    monkeypatch.setattr(ResultFile, "append", slow)
    data, rounds, beyond, scrapes = scans.stream(scans.frames(6)), 4, [], 0
    with scans.serving(tmp_path) as service:
        senders = [threading.Thread(target=_send, args=(service, data, rounds)) for _ in range(2)]
        for thread in senders:
            thread.start()
        while any(thread.is_alive() for thread in senders):
            counted = values(service.metrics_text()).get("recon_images_total{method=fft}", 0)
            scrapes += 1
            if counted > (there := readable(service)):  # read after the scrape: there may be more
                beyond.append((counted, there))
        assert values(service.metrics_text())["recon_images_total{method=fft}"] == readable(service) == 12 * rounds
    assert not beyond
    assert scrapes > 5


def test_an_image_counts_when_it_is_stored_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = threading.Event(), threading.Event()
    write = ResultFile.append

    def slow(file: ResultFile, images: Iterable[Image]) -> int:
        reached.set()
        assert go_on.wait(30.0)
        return write(file, images)

    monkeypatch.setattr(ResultFile, "append", slow)
    with scans.serving(tmp_path) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        intake.feed(scans.stream(scans.frames(1)))
        assert reached.wait(30.0)
        before = values(service.metrics_text())
        go_on.set()
        intake.finish()
        service.wait(intake.scan_id, 30.0)
        after = values(service.metrics_text())
    names = ("recon_images_total{method=fft}", "recon_last_readout_to_image_seconds_count")
    assert [before.get(name, 0) for name in names] == [0, 0]
    assert [after[name] for name in names] == [1, 1]


@pytest.mark.parametrize("transport", ["tcp", "http"])
def test_the_first_image_is_timed_from_the_first_byte(tmp_path: Path, transport: str) -> None:
    """A header that comes in two parts: the wait between them counts, and so does the wait after them."""
    data, clock = scans.stream(scans.frames(1)), Clock()
    config = scans.config(tmp_path)
    service = Service(config, ThreadWorkers(["w0"], scans.settings()), clocks=Clocks(steady_s=clock))
    service.start()
    try:
        intake = service.open_scan(ScanRequest(transport))
        clock.now += 100.0  # the connection is open, nothing has come
        intake.feed(data[:1500])
        assert not intake.has_header
        clock.now += 7.0
        intake.feed(data[1500:-5000])
        clock.now += 2.0
        intake.feed(data[-5000:])
        intake.finish()
        service.wait(intake.scan_id, 30.0)
        seen = values(service.metrics_text())
    finally:
        service.close()
    assert seen["recon_time_to_first_image_seconds_sum"] == pytest.approx(9.0)
    assert seen["recon_last_readout_to_image_seconds_sum"] == pytest.approx(0.0)


def test_images_kept_from_before_a_restart_are_not_counted_again(tmp_path: Path) -> None:
    with scans.serving(tmp_path, NoWorkers()) as service:
        intake = service.open_scan(ScanRequest("tcp"))
        intake.feed(scans.stream(scans.frames(3)))
        intake.finish()
        service._lives[intake.scan_id].results.append([next(_made(tmp_path))])
    with scans.serving(tmp_path) as service:
        assert service.wait(intake.scan_id, 30.0).images == 3
        assert values(service.metrics_text())["recon_images_total{method=fft}"] == 2


def _made(folder: Path) -> Iterator[Image]:
    """The images that another server makes of the same frames."""
    with scans.serving(folder / "other") as service:
        yield from service.images(scans.run(service, scans.stream(scans.frames(3))).id)

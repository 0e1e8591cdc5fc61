"""The scheduler by tables of events, and by random histories that must keep its laws."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Hashable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.events import (
    BatchDone,
    Command,
    DeadlinePassed,
    Event,
    Extent,
    FinishScan,
    FrameImages,
    FrameReady,
    FrameRef,
    Heartbeat,
    MarkRunning,
    Priority,
    ReplaceWorker,
    ScanCancelled,
    ScanOpened,
    ScanReceived,
    StartBatch,
    State,
    StoreImages,
    WorkerLost,
    WorkerReady,
)
from cluster.scheduler import Rules, Scheduler
from recon.recipe import Recipe

RULES = Rules(batch_cost_s=1.0, ahead_cost_s=1.0, batches_per_worker=1)
GIB = 1 << 30


def opened(scan: str, priority: Priority = Priority.ROUTINE, deadline_s: float = 300.0) -> ScanOpened:
    return ScanOpened(scan, priority, "fft", "tcp", deadline_s, begun_s=0.0)


def ready(scan: str, number: int = 0, *, key: Hashable = "k", size: int = 1000, cost_s: float = 0.01) -> FrameReady:
    reference = FrameRef(scan, number, Path("spool"), Extent(0, 10, 1), (Extent(10, 10, 4),))
    return FrameReady(reference, Recipe("fft"), key, size, cost_s)


def received(scan: str, frames: int, **changes: object) -> ScanReceived:
    return replace(ScanReceived(scan, True, frames), **changes)  # type: ignore[arg-type]


def worker(name: str = "w0", memory_bytes: int = GIB) -> WorkerReady:
    return WorkerReady(name, "cpu", memory_bytes)


def done(start: StartBatch, *errors: str) -> BatchDone:
    texts = [*errors, *[""] * (len(start.batch.frames) - len(errors))]
    results = tuple(FrameImages(frame, (), text) for frame, text in zip(start.batch.frames, texts, strict=True))
    return BatchDone(start.worker, start.batch.number, results, 0.01)


class Desk:
    """A scheduler with a clock of its own; every event one second after the last."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.scheduler = Scheduler(rules)
        self.now = 0.0

    def tell(self, *events: Event) -> list[Command]:
        commands: list[Command] = []
        for event in events:
            self.now += 1.0
            commands += self.scheduler.handle(event, self.now)
        return commands


def starts(commands: Iterable[Command]) -> list[StartBatch]:
    return [command for command in commands if isinstance(command, StartBatch)]


def frames_of(start: StartBatch) -> list[tuple[str, int]]:
    return [(frame.scan, frame.number) for frame in start.batch.frames]


def only(commands: Iterable[Command]) -> StartBatch:
    (start,) = starts(commands)
    return start


def finishes(commands: Iterable[Command]) -> list[tuple[str, State]]:
    return [(command.scan, command.state) for command in commands if isinstance(command, FinishScan)]


# --- order ---


def test_lone_frame_on_an_idle_worker_starts_at_once() -> None:
    desk = Desk()
    desk.tell(worker(), opened("a"))
    assert frames_of(only(desk.tell(ready("a")))) == [("a", 0)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (opened("a", Priority.RESEARCH), opened("b", Priority.ROUTINE), "b"),
        (opened("a", Priority.ROUTINE), opened("b", Priority.STAT, 9999.0), "b"),
        (opened("a", Priority.ROUTINE, 500.0), opened("b", Priority.ROUTINE, 100.0), "b"),
        (opened("a", Priority.ROUTINE, 100.0), opened("b", Priority.ROUTINE, 100.0), "a"),  # opened earlier
    ],
)
def test_class_first_then_deadline(first: ScanOpened, second: ScanOpened, expected: str) -> None:
    desk = Desk()
    desk.tell(first, second, ready("a", key="x"), ready("b", key="y"))
    assert frames_of(only(desk.tell(worker())))[0][0] == expected


def test_frames_of_equal_key_share_a_batch_whatever_their_scan() -> None:
    desk = Desk()
    desk.tell(opened("a"), opened("b"), ready("a"), ready("b"), ready("a", 1, key="other"), ready("b", 1))
    assert frames_of(only(desk.tell(worker()))) == [("a", 0), ("b", 0), ("b", 1)]


def test_batch_is_bounded_by_count_time_and_memory() -> None:
    many = [ready("a", number, cost_s=0.1, size=100) for number in range(20)]
    for rules, memory, expected in [
        (replace(RULES, max_batch_frames=4), GIB, 4),
        (replace(RULES, max_batch_frames=99, batch_cost_s=0.55), GIB, 5),
        (replace(RULES, max_batch_frames=99, batch_cost_s=99.0), 799, 7),
    ]:
        desk = Desk(rules)
        desk.tell(opened("a"), *many)
        assert len(only(desk.tell(worker(memory_bytes=memory))).batch.frames) == expected


def test_a_frame_longer_than_a_batch_may_be_runs_alone() -> None:
    desk = Desk()
    desk.tell(opened("a"), ready("a", 0, cost_s=50.0), ready("a", 1, cost_s=50.0))
    assert frames_of(only(desk.tell(worker()))) == [("a", 0)]


def test_waiting_frames_are_shared_among_idle_workers() -> None:
    desk = Desk()
    desk.tell(worker("w0"), worker("w1"), opened("a"))
    running = starts(desk.tell(ready("a", 0), ready("a", 1)))
    desk.tell(*(ready("a", number) for number in range(2, 10)))
    freed = desk.tell(WorkerReady("w2", "cpu", GIB))
    assert [len(start.batch.frames) for start in [*running, *starts(freed)]] == [1, 1, 8]


def test_worker_gets_work_ahead_only_while_it_is_short() -> None:
    rules = replace(RULES, batches_per_worker=2, ahead_cost_s=0.1)
    desk = Desk(rules)
    desk.tell(worker(), opened("a"))
    assert len(starts(desk.tell(*(ready("a", number, cost_s=0.02) for number in range(4))))) == 2
    desk = Desk(rules)
    desk.tell(worker(), opened("a"))
    assert len(starts(desk.tell(*(ready("a", number, cost_s=5.0) for number in range(4))))) == 1


def test_idle_worker_is_taken_before_a_busy_one() -> None:
    desk = Desk(replace(RULES, batches_per_worker=2))
    desk.tell(worker("w0"), worker("w1"), opened("a"))
    assert [start.worker for start in starts(desk.tell(ready("a", 0), ready("a", 1)))] == ["w0", "w1"]


# --- memory ---


def test_frame_goes_to_a_worker_that_holds_it() -> None:
    desk = Desk()
    desk.tell(worker("small", 100), worker("large", 10_000), opened("a"))
    assert only(desk.tell(ready("a", size=5000))).worker == "large"


def test_frame_too_large_for_every_worker_fails_its_scan_with_the_numbers() -> None:
    desk = Desk()
    desk.tell(worker("w0", 100), worker("w1", 300), opened("a"))
    (command,) = desk.tell(ready("a", size=5000))
    assert command == FinishScan(
        "a",
        State.FAILED,
        "a frame needs 5000 bytes of memory, the largest worker has 300:"
        " choose another method or a worker with more memory",
    )
    assert desk.tell(ready("a", 1), received("a", 2)) == []


def test_frame_found_too_large_when_the_first_worker_comes() -> None:
    desk = Desk()
    desk.tell(opened("a"), opened("b"), ready("a", size=5000), ready("b"))
    commands = desk.tell(worker(memory_bytes=2000))
    assert finishes(commands) == [("a", State.FAILED)]
    assert frames_of(only(commands)) == [("b", 0)]


def test_a_large_worker_that_restarts_still_counts() -> None:
    desk = Desk()
    desk.tell(worker("w0", 100), worker("large", 9000), WorkerLost("large", "died: x"), opened("a"))
    assert desk.tell(ready("a", size=5000)) == []
    assert only(desk.tell(worker("large", 9000))).worker == "large"


# --- losses ---


def test_frames_of_a_lost_worker_run_again_alone() -> None:
    desk = Desk()
    desk.tell(opened("a"), ready("a", 0), ready("a", 1), received("a", 2))
    first = only(desk.tell(worker()))
    assert len(first.batch.frames) == 2
    assert desk.tell(WorkerLost("w0", "died: killed")) == [ReplaceWorker("w0", "died: killed")]
    again = only(desk.tell(worker()))
    assert frames_of(again) == [("a", 0)]
    assert desk.tell(done(first)) == []  # the lost worker's late word
    commands = desk.tell(done(again))
    assert frames_of(only(commands)) == [("a", 1)]
    assert finishes(desk.tell(done(only(commands)))) == [("a", State.DONE)]


def test_three_losses_make_a_scan_dead_and_spare_the_others() -> None:
    desk = Desk()
    desk.tell(opened("a"), opened("b"), ready("a"), ready("b"), received("a", 1), received("b", 1))
    desk.tell(worker())
    history: list[Command] = []
    for _ in range(6):
        history += desk.tell(WorkerLost("w0", "died: bad frame"))
        start = starts(desk.tell(worker()))
        if start and frames_of(start[0]) == [("b", 0)]:
            history += desk.tell(done(start[0]))
    assert finishes(history) == [("a", State.DEAD), ("b", State.DONE)]
    reason = next(command.reason for command in history if isinstance(command, FinishScan))
    assert reason == "frame 0 lost 3 workers: w0 was lost (died: bad frame)"


def test_work_that_had_not_begun_is_not_blamed() -> None:
    desk = Desk(replace(RULES, batches_per_worker=2, attempts=1, max_batch_frames=1))
    desk.tell(worker(), opened("a"), opened("b"), ready("a"), ready("b"))
    commands = desk.tell(WorkerLost("w0", "died: x"))
    assert finishes(commands) == [("a", State.DEAD)]
    assert frames_of(only(desk.tell(worker()))) == [("b", 0)]


def test_a_hung_worker_is_replaced_and_its_late_word_ignored() -> None:
    desk = Desk(replace(RULES, batch_grace_s=99.0, batch_timeout_s=10.0))
    desk.tell(worker(), opened("a"), received("a", 1))
    desk.tell(opened("c"))
    start = only(desk.tell(ready("c")))
    assert desk.tell(DeadlinePassed()) == []
    desk.now += 10.0
    assert desk.tell(DeadlinePassed()) == [ReplaceWorker("w0", "hung: a batch took longer than 10 s")]
    assert desk.tell(DeadlinePassed(), done(start), WorkerLost("w0", "died: killed")) == []
    assert frames_of(only(desk.tell(worker()))) == [("c", 0)]


def hung_after(desk: Desk, *, most_s: int = 10_000) -> tuple[float, str]:
    """How long after the last event the first worker is replaced, and why."""
    begin = desk.now
    while desk.now < begin + most_s:
        commands = desk.tell(DeadlinePassed())
        if replaced := [command for command in commands if isinstance(command, ReplaceWorker)]:
            return desk.now - begin, replaced[0].reason
    raise AssertionError("no worker was replaced")


@pytest.mark.parametrize(
    ("cost_s", "device", "warm", "limit_s"),
    [
        (0.01, "cpu", True, 8),
        (0.01, "cpu", False, 8),
        (1.0, "cpu", True, 20),  # warm: twenty times what it should take
        (1.0, "cpu", False, 100),  # the first of a kind makes plans
        (0.01, "cuda:0", False, 68),  # and compiles kernels
        (0.01, "cuda:0", True, 8),
        (50.0, "cpu", True, 600),  # the most that any batch may take
    ],
)
def test_a_batch_is_given_time_by_what_it_should_take(cost_s: float, device: str, warm: bool, limit_s: int) -> None:
    desk = Desk(replace(RULES, batch_cost_s=0.0))
    desk.tell(replace(worker(), device=device), opened("a"))
    if warm:  # of two batches the first makes the kind known, and the second its time
        for number in range(2):
            start = only(desk.tell(ready("a", number, cost_s=cost_s)))
            desk.tell(replace(done(start), seconds=cost_s))
    only(desk.tell(ready("a", 2, cost_s=cost_s)))
    assert hung_after(desk) == (limit_s + 1, f"hung: a batch took longer than {limit_s} s")


def test_work_that_was_taken_for_hung_is_given_longer() -> None:
    desk = Desk()
    desk.tell(worker(), opened("a"), ready("a"))
    assert hung_after(desk)[0] == 9
    only(desk.tell(worker()))
    assert hung_after(desk)[0] == 33
    start = only(desk.tell(worker()))
    desk.now += 100.0
    assert finishes(desk.tell(received("a", 1), done(start))) == [("a", State.DONE)]


def test_a_silent_worker_is_replaced_whether_it_has_work_or_not() -> None:
    desk = Desk(replace(RULES, heartbeat_timeout_s=5.0, batch_grace_s=99.0))
    desk.tell(worker("w0"), worker("w1"), opened("a"), ready("a"))
    for _ in range(10):
        assert desk.tell(Heartbeat("w0"), Heartbeat("w1"), DeadlinePassed()) == []
    commands = desk.tell(*[Heartbeat("w1"), DeadlinePassed()] * 3)
    assert commands[0] == ReplaceWorker("w0", "hung: no sign of life for 5 s")
    assert only(commands).worker == "w1"  # what it had is done by the other
    desk.tell(Heartbeat("w0"))  # the last word of one that was given up
    assert [seen["worker"] for seen in desk.scheduler.look(desk.now)["workers"]] == ["w1"]


def test_nobody_hangs_while_the_server_itself_stands_still() -> None:
    desk = Desk(replace(RULES, heartbeat_timeout_s=5.0))
    desk.tell(worker(), opened("a"), ready("a"))
    desk.now += 3600.0  # it was stopped, as a laptop that sleeps
    assert desk.tell(DeadlinePassed(late_s=3600.0)) == []
    assert hung_after(desk)[1] == "hung: no sign of life for 5 s"


# --- ends ---


def test_done_when_received_and_every_frame_is_done() -> None:
    desk = Desk()
    desk.tell(worker(), opened("a"))
    start = only(desk.tell(ready("a")))
    assert [type(command) for command in desk.tell(done(start))] == [StoreImages]
    assert desk.tell(received("a", 1)) == [MarkRunning("a"), FinishScan("a", State.DONE)]


def test_running_is_marked_when_all_is_in_and_the_first_frame_starts() -> None:
    desk = Desk()
    desk.tell(opened("a"), ready("a"))
    assert desk.tell(received("a", 1)) == []
    assert MarkRunning("a") in desk.tell(worker())


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [
        (received("a", 2), State.FAILED, "1 of 2 frames failed: NaN in coil 1"),
        (
            received("a", 2, complete=False, reason="the sender left"),
            State.INCOMPLETE,
            "the sender left; 1 of 2 frames failed: NaN in coil 1",
        ),
        (received("a", 2, complete=False, failed=True, reason="unknown id 77"), State.FAILED, "unknown id 77"),
    ],
)
def test_other_frames_are_kept_when_one_fails(end: ScanReceived, state: State, reason: str) -> None:
    desk = Desk()
    desk.tell(opened("a"), ready("a", 0), ready("a", 1), end)
    commands = desk.tell(done(only(desk.tell(worker())), "NaN in coil 1"))
    assert isinstance(commands[0], StoreImages)
    assert commands[1:] == [FinishScan("a", state, reason)]


def test_scan_without_a_frame_fails_with_a_reason() -> None:
    desk = Desk()
    desk.tell(opened("a"))
    (command,) = desk.tell(received("a", 0))
    reason = "the scan ended without one complete frame: send all of its readouts"
    assert command == FinishScan("a", State.FAILED, reason)


def test_cancel_drops_what_waits_and_what_runs() -> None:
    desk = Desk()
    desk.tell(worker(), opened("a"), opened("b"))
    start = only(desk.tell(ready("a", 0)))
    desk.tell(ready("a", 1), ready("b", 0))
    assert desk.tell(ScanCancelled("a")) == [FinishScan("a", State.CANCELLED, "cancelled on request")]
    commands = desk.tell(done(start))
    assert [type(command) for command in commands] == [StartBatch]
    assert frames_of(only(commands)) == [("b", 0)]
    assert desk.tell(ScanCancelled("a"), received("a", 2), ready("a", 2)) == []


def test_results_of_an_earlier_run_of_a_scan_do_not_count() -> None:
    desk = Desk()
    desk.tell(worker(), opened("a"))
    old = only(desk.tell(ready("a")))
    desk.tell(ScanCancelled("a"), opened("a"), ready("a"), received("a", 1))
    commands = desk.tell(done(old))
    assert not [command for command in commands if isinstance(command, StoreImages | FinishScan)]
    assert finishes(desk.tell(done(only(commands)))) == [("a", State.DONE)]


def test_look_says_what_waits_and_runs() -> None:
    desk = Desk()
    desk.tell(worker(), opened("a", Priority.STAT), ready("a", 0), ready("a", 1, key="x"), ready("a", 2, key="y"))
    desk.tell(Heartbeat("w0", (("resident", 7),), (("cpu", 0.5),)))
    seen = desk.scheduler.look(desk.now + 4.0)
    assert seen["queue"] == {"stat": 2, "routine": 0, "research": 0}
    assert seen["workers"] == [
        {
            "worker": "w0",
            "device": "cpu",
            "memory_bytes": GIB,
            "batches": 1,
            "frames": 1,
            "running_s": 7.0,
            "silent_s": 4.0,
            "memory": {"resident": 7},
            "load": {"cpu": 0.5},
        }
    ]


# --- laws ---

WORKERS = ("w0", "w1", "w2")


class History:
    """Plays a random history and checks the laws after every event."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(replace(RULES, batches_per_worker=2, max_batch_frames=3, attempts=3))
        self.now = 0.0
        self.alive: dict[str, list[StartBatch]] = {}
        self.lost_batches: list[StartBatch] = []
        self.announced: Counter[str] = Counter()  # frames made ready, by scan
        self.open: dict[str, bool] = {}  # scan -> received
        self.finished: dict[str, State] = {}
        self.stored: Counter[str] = Counter()
        self.scans = 0

    def tell(self, event: Event) -> None:
        self.now += 0.1
        for command in self.scheduler.handle(event, self.now):
            self.check(command)
        self.check_conservation()

    def check(self, command: Command) -> None:
        match command:
            case StartBatch(worker=name):
                running = {frame for starts in self.alive.values() for start in starts for frame in start.batch.frames}
                assert not running & set(command.batch.frames), "a frame runs twice"
                assert all(frame.scan not in self.finished for frame in command.batch.frames)
                self.alive[name].append(command)
                assert len(self.alive[name]) <= 2
            case StoreImages(scan=scan):
                assert scan not in self.finished
                self.stored[scan] += 1
                assert self.stored[scan] <= self.announced[scan], "an image was stored twice"
            case FinishScan(scan=scan, state=state):
                assert scan not in self.finished, "a scan ended twice"
                self.finished[scan] = state
                if state is State.DONE:
                    assert self.stored[scan] == self.announced[scan]
            case ReplaceWorker(worker=name):
                self.alive.pop(name, None)

    def check_conservation(self) -> None:
        """Every frame of a scan that goes on waits, runs, or is settled: none is lost."""
        running = Counter(
            frame.scan for starts in self.alive.values() for start in starts for frame in start.batch.frames
        )
        going = [scan for scan in self.open if scan not in self.finished]
        known = self.scheduler.waiting + sum(running[scan] + self.stored[scan] for scan in going)
        assert known == sum(self.announced[scan] for scan in going)

    def step(self, choice: int, pick: int) -> None:
        going = sorted(scan for scan, ended in self.open.items() if not ended and scan not in self.finished)
        busy = sorted(name for name, held in self.alive.items() if held)
        match choice:
            case 0:
                self.scans += 1
                name = f"s{self.scans}"
                self.open[name] = False
                self.tell(opened(name, Priority(pick % 3), float(pick)))
            case 1 | 2 | 3 if going:
                scan = going[pick % len(going)]
                number = self.announced[scan]
                self.announced[scan] += 1
                self.tell(ready(scan, number, key=pick % 2, cost_s=0.01 * (pick % 7)))
            case 4 if going:
                scan = going[pick % len(going)]
                self.open[scan] = True
                self.tell(received(scan, self.announced[scan], complete=pick % 3 > 0))
            case 5:
                missing = [name for name in WORKERS if name not in self.alive]
                if missing:
                    self.alive[missing[0]] = []
                    self.tell(worker(missing[0]))
            case 6 | 7 | 8 if busy:
                name = busy[pick % len(busy)]
                self.tell(done(self.alive[name].pop(0)))
            case 9 if self.alive:
                name = sorted(self.alive)[pick % len(self.alive)]
                self.lost_batches += self.alive.pop(name)
                self.tell(WorkerLost(name, "died: x"))
            case 10 if self.lost_batches:
                self.tell(done(self.lost_batches[pick % len(self.lost_batches)]))
            case 11 if going:
                self.tell(ScanCancelled(going[pick % len(going)]))
            case _:
                self.tell(DeadlinePassed())

    def end(self) -> None:
        """With workers that live, every scan that was received ends."""
        for scan, ended in self.open.items():
            if not ended and scan not in self.finished:
                self.open[scan] = True
                self.tell(received(scan, self.announced[scan]))
        for name in WORKERS:
            if name not in self.alive:
                self.alive[name] = []
                self.tell(worker(name))
        while busy := [name for name, held in self.alive.items() if held]:
            self.tell(done(self.alive[busy[0]].pop(0)))
        assert set(self.finished) == set(self.open)
        assert self.scheduler.waiting == 0
        assert self.scheduler.look(self.now)["scans"] == 0


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1000)), max_size=80))
def test_no_frame_is_lost_or_run_twice_and_every_scan_ends_once(steps: list[tuple[int, int]]) -> None:
    history = History()
    for choice, pick in steps:
        history.step(choice, pick)
    history.end()


def test_ten_thousand_waiting_frames_cost_little_per_decision() -> None:
    """200 scanners with 50 frames each, 4 workers, all work done: mean time of a decision."""
    desk = Desk(Rules())
    events: list[Event] = [opened(f"s{scan}", Priority(scan % 3), 100.0 + scan) for scan in range(200)]
    events += [ready(f"s{scan}", number, key=scan % 20) for number in range(50) for scan in range(200)]
    events += [worker(f"w{number}") for number in range(4)]
    begin = time.process_time()
    pending = deque(starts(desk.tell(*events)))
    decisions, frames = len(events), 0
    while pending:
        start = pending.popleft()
        frames += len(start.batch.frames)
        pending += starts(desk.tell(done(start)))
        decisions += 1
    spent_s = time.process_time() - begin
    assert frames == 10_000
    assert spent_s / decisions < 1e-3

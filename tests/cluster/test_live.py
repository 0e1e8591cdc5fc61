"""The feed of events: who comes back goes on where it was, or hears that something is missing."""

from __future__ import annotations

import threading

import pytest

from cluster.events import State
from cluster.job import ScanRecord
from cluster.live import Feed, Subscription, Told

RECORDS = {name: ScanRecord(name, State.RUNNING, "http") for name in ("a", "b")}


def publish(feed: Feed, scans: str) -> None:
    """An event for each letter, numbered in `images`."""
    for number, scan in enumerate(scans, start=1):
        feed.publish("image", RECORDS[scan], number=number)


def heard(subscription: Subscription) -> list[Told]:
    """All events until now."""
    subscription.close()
    return list(subscription)


def test_ids_count_the_events_of_a_run() -> None:
    feed = Feed(10, run="x")
    subscription = feed.subscribe()
    assert subscription.start == "x-0"
    publish(feed, "aba")
    assert [(told.id, told.values["scan"]) for told in heard(subscription)] == [
        ("x-1", "a"),
        ("x-2", "b"),
        ("x-3", "a"),
    ]
    assert feed.subscribe().start == "x-3"


@pytest.mark.parametrize(("scan", "expected"), [(None, [3, 4, 5]), ("a", [3, 5]), ("b", [4])])
def test_who_comes_back_goes_on_behind_what_it_heard(scan: str | None, expected: list[int]) -> None:
    feed = Feed(10, run="x")
    publish(feed, "abab")
    subscription = feed.subscribe(scan, after="x-2")
    feed.publish("image", RECORDS["a"], number=5)
    assert subscription.whole
    assert [told.values["number"] for told in heard(subscription)] == expected


@pytest.mark.parametrize("after", ["x-1", "x-7", "y-5", "5", "x-", "x-١", "x-" + "9" * 50, "nonsense"])
def test_what_is_not_known_any_more_is_not_made_up(after: str) -> None:
    feed = Feed(4, run="x")
    publish(feed, "aaaaaa")  # 3 to 6 are kept
    subscription = feed.subscribe(after=after)
    assert not subscription.whole
    assert heard(subscription) == []


@pytest.mark.parametrize(("after", "expected"), [("x-2", [3, 4, 5, 6]), ("x-6", [])])
def test_the_edges_of_what_is_kept_are_known(after: str, expected: list[int]) -> None:
    feed = Feed(4, run="x")
    publish(feed, "aaaaaa")
    subscription = feed.subscribe(after=after)
    assert subscription.whole
    assert [told.values["number"] for told in heard(subscription)] == expected


def test_nothing_is_missed_or_heard_twice_while_others_publish() -> None:
    feed = Feed(10_000, run="x")
    publisher = threading.Thread(target=publish, args=(feed, "a" * 3000))
    publisher.start()
    numbers: list[int] = []
    last = "x-0"
    while len(numbers) < 3000:
        subscription = feed.subscribe(after=last)
        assert subscription.whole
        for _ in range(7):  # then it goes, and comes back
            if (told := subscription.get(10.0 if len(numbers) < 3000 else 0.0)) is not None:
                numbers.append(told.values["number"])
                last = told.id
        subscription.close()
    publisher.join()
    assert numbers == [*range(1, 3001)]

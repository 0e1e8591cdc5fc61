"""Images on disk: in order, whole, for any number of readers at any pace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.results import ResultStore
from recon.mrd.wire import Decoder, WireLimits, encode_image
from recon.scan import Counters, Geometry, Image


def image(number: int) -> Image:
    pixels = np.full((1, 1, 4, 5), number, np.float32)
    return Image(pixels, (1.0, 1.0, 1.0), Geometry(), Counters(repetition=number), index=number + 1)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results", WireLimits())


def numbers(messages: Iterator[bytes]) -> list[int]:
    decoder = Decoder()
    return [int(found.image.pixels[0, 0, 0, 0]) for message in messages for found in decoder.feed(message)]


def test_reads_back_what_was_stored(store: ResultStore) -> None:
    file = store.create("a")
    file.append([image(0), image(1)])
    file.append([image(2)])
    file.sync()
    file.close()
    assert [found.counters.repetition for found in store.images("a")] == [0, 1, 2]
    assert list(store.encoded("a")) == [encode_image(image(number)) for number in range(3)]
    assert numbers(store.encoded("a", start=2)) == [2]
    assert list(store.encoded("a", start=5)) == []
    assert list(store.images("unknown")) == list(store.encoded("unknown")) == []


def test_goes_on_with_what_a_server_left(store: ResultStore) -> None:
    left = store.create("a")
    left.append([image(2), image(0)])
    with store.path("a").open("ab") as file:
        file.write(encode_image(image(1))[:-7])  # it was being written
    again = store.resume("a")
    assert again.count == 2
    for number in (0, 1, 2, 3):  # made again in another order
        again.append([image(number)])
    again.sync()
    again.close()
    assert numbers(store.encoded("a")) == [2, 0, 1, 3]
    assert store.path("a").read_bytes() == b"".join(encode_image(image(number)) for number in (2, 0, 1, 3))


def test_images_that_repeat_counters_are_told_apart(store: ResultStore) -> None:
    second = replace(image(0), comments=("this is image 2 of slice 0, repetition 0",), pixels=image(9).pixels)
    store.create("a").append([second])
    again = store.resume("a")
    again.append([image(0)])
    again.append([second])
    again.append([second])  # in one run there may be two alike: both count
    again.close()
    assert numbers(store.encoded("a")) == [9, 0, 9]


def test_goes_on_without_a_file(store: ResultStore) -> None:
    file = store.resume("a")
    file.append([image(0)])
    file.close()
    assert numbers(store.encoded("a")) == [0]


def test_followers_get_every_image_once_at_their_own_pace(store: ResultStore) -> None:
    file = store.create("a")
    got: list[list[int]] = [[] for _ in range(4)]

    def follow(number: int) -> None:
        got[number] = numbers(file.follow(start=number))

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(4)]
    file.append([image(0)])
    for thread in threads:
        thread.start()
    for number in range(1, 30):
        file.append([image(number)])
    file.close()
    for thread in threads:
        thread.join(10.0)
    assert got == [list(range(start, 30)) for start in range(4)]


def test_follower_gives_up_after_its_time(store: ResultStore) -> None:
    file = store.create("a")
    file.append([image(0)])
    assert numbers(file.follow(timeout_s=0.01)) == [0]
    file.close()


def test_follower_that_comes_late_gets_all(store: ResultStore) -> None:
    file = store.create("a")
    file.append([image(0)])
    file.close()
    assert numbers(file.follow()) == [0]


def test_a_file_that_cannot_be_replaced_stays(store: ResultStore) -> None:
    old = store.create("a")
    old.append([image(7)])
    old.close()
    (store.folder / "a.part").mkdir()
    with pytest.raises(IsADirectoryError):
        store.replace("a", earlier=1)
    assert numbers(store.encoded("a")) == [7]


def test_new_run_leaves_readers_of_the_old_one_alone(store: ResultStore) -> None:
    old = store.create("a")
    old.append([image(7), image(6)])
    old.close()
    reader = store.encoded("a")
    first = next(reader)
    new = store.replace("a", earlier=2)
    new.append([image(8)])
    assert (new.made, new.count, new.synced, new.hidden) == (1, 2, 2, True)
    assert list(new.follow(timeout_s=0.01)) == []
    assert numbers(store.encoded("a")) == [7, 6]
    assert [found.counters.repetition for found in store.images("a")] == [7, 6]
    new.place()
    new.close()
    assert (new.made, new.count, new.synced, new.hidden) == (1, 1, 1, False)
    assert numbers(iter([first, *reader])) == [7, 6]  # what it had begun to read
    assert numbers(store.encoded("a")) == numbers(new.follow()) == [8]
    assert not store.replacing("a")


def test_images_that_took_the_place_of_others_can_be_read_before_the_scan_has_ended(store: ResultStore) -> None:
    old = store.create("a")
    old.append([image(0)])
    old.close()
    new = store.replace("a", earlier=1)
    new.append([image(7), image(8)])
    new.place()
    assert (new.count, new.hidden) == (2, False)
    assert numbers(new.follow(timeout_s=0.0)) == [7, 8]
    assert numbers(new.follow(start=1, timeout_s=0.0)) == [8]
    new.close()


def test_a_run_that_is_dropped_leaves_the_old_images(store: ResultStore) -> None:
    old = store.create("a")
    old.append([image(7)])
    old.close()
    new = store.replace("a", earlier=1)
    new.append([image(8)])
    new.drop()
    new.close()
    assert (new.count, new.hidden, store.replacing("a")) == (1, True, False)
    assert list(new.follow()) == []
    assert numbers(store.encoded("a")) == [7]


def test_what_never_replaced_anything_is_swept_away(store: ResultStore) -> None:
    for scan in ("a", "b"):
        store.replace(scan, earlier=0)
    assert store.sweep({"b"}) == ["a"]
    assert (store.replacing("a"), store.replacing("b")) == (False, True)

"""The cache: bounded in bytes, the same value for a key, usable from many threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from recon.cache import Cache


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12))))
def test_it_never_holds_more_than_its_limit(requests: list[tuple[int, int]]) -> None:
    cache = Cache(limit_bytes=20)
    for key, size in requests:
        assert cache.get(key, lambda: key, size=lambda _: size) == key  # noqa: B023  called at once
        assert cache.bytes <= 20
    assert cache.hits + cache.misses == len(requests)


def test_what_was_used_last_stays() -> None:
    cache = Cache(limit_bytes=2)
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key

    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache.get(key, partial(make, key), size=lambda _: 1) == key
    assert made == ["a", "b", "c", "b"]
    assert (cache.hits, cache.misses, len(cache)) == (2, 4, 2)


def test_a_value_larger_than_the_limit_is_not_kept() -> None:
    cache = Cache(limit_bytes=2)
    assert cache.get("a", lambda: 1, size=lambda _: 3) == 1
    assert len(cache) == 0 and cache.bytes == 0


def test_threads_agree() -> None:
    cache = Cache(limit_bytes=8)
    with ThreadPoolExecutor(8) as pool:
        keys = [i % 12 for i in range(400)]
        values = list(pool.map(lambda key: cache.get(key, lambda: key, size=lambda _: 1), keys))
    assert values == keys and cache.bytes == len(cache) <= 8

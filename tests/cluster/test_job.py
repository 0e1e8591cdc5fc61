"""Scan ids: sortable by time, unguessable, safe as a file's name."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from cluster.job import new_scan_id

TIMES = st.floats(0, 2**48 / 1000 - 1)
NOISE = st.binary(min_size=10, max_size=10)


@given(TIMES, NOISE)
def test_is_a_file_name(now_s: float, noise: bytes) -> None:
    assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", new_scan_id(now_s, noise))


@given(TIMES, NOISE, NOISE)
def test_sorts_by_time(now_s: float, first: bytes, second: bytes) -> None:
    assert new_scan_id(now_s, first) < new_scan_id(now_s + 0.002, second)


@given(TIMES, NOISE, NOISE)
def test_carries_all_of_the_noise(now_s: float, first: bytes, second: bytes) -> None:
    assert (new_scan_id(now_s, first) == new_scan_id(now_s, second)) == (first == second)

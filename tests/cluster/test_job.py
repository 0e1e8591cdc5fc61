"""Scan ids are sortable by time, unguessable and safe as a file's name; an outcome is said once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.events import State
from cluster.job import ScanRecord, new_scan_id, outcome

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


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (State.CANCELLED, "cancelled on request", "cancelled on request"),
        (State.FAILED, "no lines", "failed: no lines"),
        (State.DONE, "", "done"),
    ],
)
def test_an_outcome_says_state_and_reason_once(state: State, reason: str, words: str) -> None:
    assert outcome(ScanRecord("A", state, "tcp", reason=reason)) == words

"""Whether a scan or a frame may come in: arithmetic on numbers, nothing is done here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.events import Refused


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a scan is not taken: a `word` for the metric, the `sentence` for the client, seconds until asking again."""

    word: Refused
    sentence: str
    retry_after_s: float | None = None


def refusal(*, draining: bool, in_flight: int, most_in_flight: int) -> Refusal | None:
    """Why no new scan may come in now, or None."""
    if draining:
        return Refusal(Refused.DRAINING, "the server is shutting down and takes no new scan: send it to another", 30.0)
    if in_flight >= most_in_flight:
        sentence = f"{in_flight} scans are in flight, the server takes {most_in_flight} at once: send it again later"
        return Refusal(Refused.FULL, sentence, 5.0)
    return None


def oversize(bytes_needed: int, budgets: Iterable[int]) -> str:
    """Why a frame that needs `bytes_needed` can run on no worker with these memory `budgets`; "" if it can."""
    largest = max(budgets, default=bytes_needed)
    if bytes_needed <= largest:
        return ""
    return (
        f"a frame needs {bytes_needed} bytes of memory, the largest worker has {largest}:"
        " choose another method or a worker with more memory"
    )

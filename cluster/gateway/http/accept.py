"""Which media type a client wants most."""

from __future__ import annotations

from contextlib import suppress

from cluster.job import AcceptError


def choose(accept: str, offered: tuple[str, ...]) -> str:
    """The media type of `offered` that an Accept header wants most; raises AcceptError."""
    best, chosen = 0.0, ""
    for entry in accept.split(","):
        wanted, *parameters = (part.strip().lower() for part in entry.split(";"))
        match = next((kind for kind in offered if wanted in (kind, "*/*", kind.partition("/")[0] + "/*")), "")
        if match and (quality := _quality(parameters)) > best:
            best, chosen = quality, match
    if not chosen:
        known = ", ".join(offered)
        raise AcceptError(f"Accept is {accept[:200]!r}, expected one of {known}: accept one of them")
    return chosen


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            with suppress(ValueError):  # not a number: as if it were not there
                return float(parameter[2:])
    return 1.0

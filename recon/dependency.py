"""What a scan depends on and where it comes from, by what its header says: its noise scan, its scanner."""

from __future__ import annotations

from recon.scan import ScanHeader

NOISE = "noise"  # as `dependencyType` has it, in any case of letters


def noise_of(header: ScanHeader) -> str:
    """The measurementID of the noise scan that `header` names; "" where it names none."""
    return next((identity for kind, identity in header.dependencies if kind.lower() == NOISE), "")


def missing(header: ScanHeader) -> tuple[str, ...]:
    """What a reader of images must know where `header` names a noise scan that is not there."""
    named = noise_of(header)
    if not named:
        return ()
    return (f"the noise scan {named[:64]!r} that the header names is not there: the image is not whitened",)


def scanner_of(header: ScanHeader) -> str:
    """Which scanner made the scan, as far as `header` says; "" where it names no station."""
    parts = (header.institution, header.manufacturer, header.model, header.station)
    return "/".join(parts) if header.station else ""

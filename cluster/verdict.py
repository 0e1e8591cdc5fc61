"""Images that came back to simulated scanners, held against what they should be, and the figures of a whole run."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.scanner import SimulatedScanner
from recon.lines import is_cartesian
from recon.scan import Image
from recon.simulate import SimulatedScan, Truth, nrmse

# Noise alone explains the error of a Cartesian image; gridding adds what its sampling density leaves.
CARTESIAN_FACTOR, GRIDDED_NRMSE = 1.2, 0.08


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """One image that should have come: `image` is None when it did not."""

    scanner: str
    truth: Truth
    image: NDArray[np.float32] | None
    nrmse: float
    allowed: float
    spacing_mm: tuple[float, float]

    @property
    def passed(self) -> bool:
        """Whether the image came and is near its truth."""
        return self.image is not None and self.nrmse <= self.allowed

    @property
    def words(self) -> str:
        """How it stands, for people."""
        if self.image is None:
            return "no image of the right size came"
        return f"NRMSE {self.nrmse:.2%}, allowed {self.allowed:.2%}"


def judge(scanners: Sequence[SimulatedScanner]) -> list[Verdict]:
    """A verdict for every image that the scans should give."""
    return [verdict for scanner in scanners for verdict in _verdicts(scanner)]


def surplus(scanners: Sequence[SimulatedScanner]) -> list[str]:
    """A sentence for every image that came and should not have, be it unknown or the second of its kind."""
    return [sentence for scanner in scanners for sentence in _surplus(scanner)]


def _surplus(scanner: SimulatedScanner) -> list[str]:
    came = Counter(image.counters for image in scanner.images)
    expected = Counter(truth.counters for truth in scanner.simulated.truth)
    return [
        f"{scanner.name}, {counters}: came {came[counters]} times, expected {expected[counters]}"
        for counters in came - expected
    ]


def _verdicts(scanner: SimulatedScanner) -> list[Verdict]:
    came = {image.counters: image for image in scanner.images}
    return [_verdict(scanner, truth, came.get(truth.counters)) for truth in scanner.simulated.truth]


def _verdict(scanner: SimulatedScanner, truth: Truth, image: Image | None) -> Verdict:
    allowed = allowed_nrmse(scanner.simulated, truth)
    if image is None or image.pixels.shape[1:] != truth.pixels.shape:
        return Verdict(scanner.name, truth, None, float("inf"), allowed, (1.0, 1.0))
    pixels = np.abs(image.pixels[0]).astype(np.float32)
    return Verdict(scanner.name, truth, pixels, nrmse(pixels, truth), allowed, image.spacing_mm[1:])


def allowed_nrmse(simulated: SimulatedScan, truth: Truth) -> float:
    """The largest error of an image that counts as right."""
    cartesian = is_cartesian(simulated.scan.header.encodings[truth.counters.encoding])
    return CARTESIAN_FACTOR * truth.predicted_nrmse if cartesian else GRIDDED_NRMSE


def summary(scanners: Sequence[SimulatedScanner], verdicts: Sequence[Verdict], *, speed: float) -> dict[str, Any]:
    """The figures of the whole run, of each scanner and of each image, as JSON values."""
    statuses = [scanner.status() for scanner in scanners]
    latencies = sorted(latency for scanner in scanners for latency in scanner.latencies_s)
    seconds = max(status.sending_s for status in statuses)
    more = surplus(scanners)
    sent = sum(status.sent_bytes for status in statuses) / 1e6
    return {
        "speed": speed,
        "passed": all(verdict.passed for verdict in verdicts) and not more,
        "surplus": more,
        "total": {
            "seconds": seconds,
            "megabytes": sent,
            "megabytes_per_s": sent / seconds if seconds else 0.0,
            "readouts_per_s": sum(status.readouts for status in statuses) / seconds if seconds else 0.0,
            "images": len(latencies),
            "last_readout_to_image_s": {
                "median": statistics.median(latencies or [0.0]),
                "max": max(latencies, default=0.0),
            },
        },
        "scanners": [
            {
                "name": status.name,
                "stage": status.stage,
                "reason": status.reason,
                "readouts": status.readouts,
                "readouts_per_s": status.readouts_per_s,
                "megabytes_per_s": status.bytes_per_s / 1e6,
                "images": [_figures(verdict) for verdict in verdicts if verdict.scanner == status.name],
            }
            for status in statuses
        ],
    }


def _figures(verdict: Verdict) -> dict[str, Any]:
    counters = verdict.truth.counters
    return {
        "slice": counters.slice,
        "phase": counters.phase,
        "repetition": counters.repetition,
        "nrmse": None if verdict.image is None else verdict.nrmse,
        "allowed": verdict.allowed,
        "passed": verdict.passed,
    }

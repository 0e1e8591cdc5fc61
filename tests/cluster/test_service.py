"""The whole cluster in one process: bytes in, images out, states written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cluster.events import State
from tests.cluster import scans

# Random k-space of unit variance: an image value is a mean of n products in float32, so a few ulp of the largest value.
TOLERANCE = 2e-6


def test_images_are_the_inverse_transform(tmp_path: Path) -> None:
    sent = scans.frames(3)
    with scans.serving(tmp_path) as service:
        record = scans.run(service, scans.stream(sent))
        images = sorted(service.images(record.id), key=lambda image: image.counters.repetition)
    assert (record.state, record.reason, record.images, record.frames) == (State.DONE, "", 3, 3)
    for image, readouts in zip(images, sent, strict=True):
        expected = scans.truth(readouts)
        assert np.abs(image.pixels[0, 0] - expected).max() <= TOLERANCE * expected.max() * np.log2(expected.size)

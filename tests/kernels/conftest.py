"""The device under test: every law runs on each."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import DEVICES, Device, open_device


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    """Each device in turn; CUDA is skipped with the reason where it cannot be used."""
    return open_device(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run."""
    return np.random.default_rng(7)

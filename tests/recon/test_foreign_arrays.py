"""Array code takes arrays of any device: it never takes one to the host, and never mixes the two."""

from __future__ import annotations

import numpy as np
import pytest

from recon.espirit import espirit
from recon.grappa import calibrate, centre_of, fill, lattice_of
from tests.foreign import Foreign
from tests.recon.builders import noise
from tests.recon.test_grappa import hybrid, pattern, shifted_copies, with_centre

RNG = np.random.default_rng(12)


def test_foreign_arrays_refuse_those_of_the_host() -> None:
    array = noise(RNG, (3, 3))
    for mixed in (
        lambda: Foreign(array) + array,
        lambda: Foreign(array) @ array,
        lambda: Foreign(array)[array.real > 0],
    ):
        with pytest.raises(TypeError, match="an array of the host was given to the device"):
            mixed()
    with pytest.raises(TypeError, match="an array of the device was taken to the host"):
        np.array(Foreign(array))


@pytest.mark.parametrize("sets", [1, 2])
def test_espirit(sets: int) -> None:
    region = noise(RNG, (8, 1, 24, 24))
    here = espirit(region, (1, 130, 30), sets=sets, soft=True)
    there = espirit(Foreign(region), (1, 130, 30), sets=sets, soft=True)  # type: ignore[arg-type]
    for one, other in zip(here, there, strict=True):
        assert isinstance(other, Foreign)
        assert np.array_equal(one, other.held)


def test_grappa() -> None:
    kspace = shifted_copies((20, 20, 16), (2, 2, 1))
    sampled = with_centre(pattern((20, 20), (2, 2, 1)), 18)
    centre = centre_of(sampled)
    lattice = lattice_of(sampled, centre)
    assert lattice is not None
    region, here = kspace[:, centre[0], centre[1]], hybrid(kspace * sampled[:, :, np.newaxis])
    there = here.copy()
    fill(here, sampled, lattice, calibrate(region, lattice))
    fill(Foreign(there), sampled, lattice, calibrate(Foreign(region), lattice))  # type: ignore[arg-type]
    assert np.array_equal(here, there)

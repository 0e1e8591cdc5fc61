"""Array code takes arrays of any device: it never takes one to the host, and never mixes the two."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from recon.espirit import espirit
from recon.grappa import calibrate, centre_of, fill, lattice_of
from tests.foreign import ABOUT, CUPY, METHODS, Foreign
from tests.recon.builders import noise
from tests.recon.test_grappa import hybrid, pattern, shifted_copies, with_centre

RNG = np.random.default_rng(12)


def test_foreign_arrays_refuse_those_of_the_host() -> None:
    array = noise(RNG, (3, 3))
    for mixed in (
        lambda: Foreign(array) + array,
        lambda: Foreign(array) @ array,
        lambda: Foreign(array)[array.real > 0],
        lambda: np.vdot(Foreign(array), array),
        lambda: Foreign(array) * np.array(2.0),
    ):
        with pytest.raises(TypeError, match="an array of the host was given to the device"):
            mixed()
    with pytest.raises(TypeError, match="an array of the device was taken to the host"):
        np.array(Foreign(array))


def test_foreign_arrays_refuse_what_cupy_lacks() -> None:
    array = Foreign(np.ones(3, np.float32))
    with pytest.raises(TypeError, match=r"CuPy has no divide.__call__ with \['where'\]"):
        np.divide(array, array, where=array > 0)
    with pytest.raises(TypeError, match="CuPy has no add"):
        np.add.reduce(array)
    with pytest.raises(TypeError, match=r"no numpy.vdot with|no numpy.unwrap with"):
        np.unwrap(array)
    with pytest.raises(TypeError, match=r"no numpy.clip with \['where'\]"):
        np.clip(array, 0, 1, where=True)
    with pytest.raises(AttributeError, match="an array of the device has no sort"):
        array.sort()


def test_what_the_device_is_asked_for_is_counted() -> None:
    array = Foreign(np.ones((4, 4), np.float32))
    traffic = array.device
    mask = np.asarray(np.eye(4, dtype=bool), like=array)
    assert traffic.up == [16]
    assert isinstance(array[mask].sum(), Foreign) and traffic.numbers == 0
    assert float(array[mask].sum()) == 4 and traffic.numbers == 1
    assert (traffic.fetch(array) == 1).all() and traffic.down == [64]


def test_the_tables_are_cupys() -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed: the tables of its functions are not compared")
    for name, parameters in CUPY.items():
        function = cupy
        for part in name.split(".")[1:]:
            function = getattr(function, part)
        assert tuple(inspect.signature(function).parameters) == parameters, name
    assert all(hasattr(cupy.ndarray, name) for name in METHODS | ABOUT)


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

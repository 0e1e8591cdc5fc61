"""Which slices are excited together, and where they lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.assemble import Assembler
from recon.errors import HeaderError
from recon.multiband import bands_of, calibration_space, groups_of, place, single, turns
from recon.scan import Encoding, Flag, Geometry, Limit, Multiband, Space, Trajectory
from tests.recon.builders import header, heads

OFFSETS = (-30.0, 0.0, 30.0)
TOGETHER = Encoding(
    Space((3, 4, 8), (90.0, 200.0, 400.0)),
    Space((1, 4, 4), (5.0, 200.0, 200.0)),
    {"slice": Limit(0, 1, 0), "kspace_encode_step_2": Limit(0, 2, 1)},
    Trajectory.EPI,
    calibration_mode="separate",
    multiband=Multiband(3, (OFFSETS,), 1 / 90, "separable2D", 1),
)


def test_a_groups_slices_are_as_far_apart_in_number_as_there_are_groups() -> None:
    assert groups_of(TOGETHER) == 2
    assert bands_of(TOGETHER, 1).slices == (1, 3, 5) and bands_of(TOGETHER, 1).offsets_mm == OFFSETS


def test_groups_may_have_spacings_of_their_own() -> None:
    assert TOGETHER.multiband is not None
    own = replace(TOGETHER.multiband, spacing_mm=(OFFSETS, (-31.0, 0.0, 31.0)))
    assert bands_of(replace(TOGETHER, multiband=own), 1).offsets_mm == (-31.0, 0.0, 31.0)


def test_a_third_of_a_turn_shifts_by_a_third() -> None:
    kz = np.array([-1.0, 0.0, 1.0])
    expected = np.exp(-2j * np.pi * np.outer([-1, 0, 1], kz) / 3)
    np.testing.assert_allclose(turns(TOGETHER, bands_of(TOGETHER, 0), kz), expected, atol=1e-6)


def test_slices_lie_along_the_slice_direction_of_their_group() -> None:
    where = Geometry((1.0, 2.0, 3.0), slice_dir=(0.0, 0.6, 0.8))
    assert place(where, 10.0).position_mm == pytest.approx((1.0, 8.0, 11.0))


def test_the_slices_are_planes_and_all_of_them_are_counted() -> None:
    made = single(TOGETHER)
    assert made.encoded == Space((1, 4, 8), (5.0, 200.0, 400.0)) and made.recon.matrix == (1, 4, 4)
    assert made.limits["slice"] == Limit(0, 5, 0) and made.multiband is None


def test_a_header_that_contradicts_itself_is_refused() -> None:
    assert TOGETHER.multiband is not None
    wrong = replace(TOGETHER, multiband=replace(TOGETHER.multiband, factor=2))
    with pytest.raises(HeaderError, match="multiband_factor is 2, but spacing lists 3 slices"):
        bands_of(wrong, 0)
    scan = replace(header(), encodings=(TOGETHER,))
    with pytest.raises(HeaderError, match="calibration_encoding of multiband is 1, the header has 1 encodings"):
        calibration_space(scan, TOGETHER)
    with pytest.raises(HeaderError, match="calibration_encoding of multiband is 1"):
        list(Assembler(scan).add(heads(1)))


def test_a_group_comes_with_the_calibration_of_its_slices_and_ends_with_its_flag() -> None:
    """Each line is measured once, with one phase of three."""
    alone = replace(TOGETHER, multiband=None, encoded=Space((1, 4, 8), (5.0, 200.0, 400.0)))
    alone = replace(alone, limits={"slice": Limit(0, 5, 0)})
    scan = replace(header(), encodings=(TOGETHER, alone))
    calibrating = heads(6, flags=Flag.IS_PARALLEL_CALIBRATION.mask, slice=np.arange(6), encoding_space_ref=1)
    imaging = heads(4, slice=1, kspace_encode_step_1=np.arange(4), kspace_encode_step_2=np.arange(4) % 3)
    imaging["flags"][-1] = Flag.LAST_IN_SLICE.mask
    (index,) = Assembler(scan).add(np.concatenate([calibrating, imaging]))
    assert index.rows.tolist() == [1, 3, 5, 6, 7, 8, 9]
    assert index.complete and index.calibrated and index.counters.slice == 1

"""Which headers each method can never reconstruct, and that `auto` takes none of those."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernels import on
from recon.errors import RecipeError
from recon.methods import METHODS, choose, unfit
from recon.mrd.header import parse_header, write_header
from recon.pipeline import reconstruct
from recon.recipe import Recipe
from recon.scan import Encoding, Multiband, Scan, ScanHeader, Trajectory
from tests.recon import builders

LINES = {"fft", "grappa", "sense"}
SHOTS = {"gridding", "grasp"}
SINGLE = {"grappa", "sense", "cg-sense", "l1-wavelet", "tv", "grasp", "llr"}
CARTESIAN = {Trajectory.CARTESIAN, Trajectory.EPI}
TOGETHER = Multiband(2, ((-10.0, 10.0),), 0.01, "separable2D", 1)


def encoding(kind: Trajectory, *, together: bool = False) -> Encoding:
    """An encoding that differs from others in its trajectory, and whether slices are excited together."""
    (plain,) = builders.header().encodings
    return replace(plain, trajectory=kind, multiband=TOGETHER if together else None)


def header_of(*encodings: Encoding) -> ScanHeader:
    return replace(builders.header(), encodings=encodings)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", Trajectory)
def test_which_methods_do_not_fit(kind: Trajectory, together: bool) -> None:
    space = encoding(kind, together=together)
    found = {name: unfit(Recipe(name), header_of(space)) for name in METHODS}
    expected = set(SHOTS if kind in CARTESIAN else LINES) | (SINGLE if together else {"slice-grappa"})
    assert {name for name, reason in found.items() if reason} == expected
    for name in expected:
        assert found[name].startswith(f"the method {name} ")
        assert found[name].endswith(" or auto") or name == "grasp"
    others = SINGLE if together else set()
    for name in (SHOTS if kind in CARTESIAN else LINES) - others:
        assert f"is {kind}: use " in found[name]
    for name in others:
        assert found[name].endswith(
            "takes no slices excited together, the header's multiband_factor is 2: use slice-grappa or auto"
        )


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("kind", Trajectory)
def test_auto_takes_none_of_them_and_their_reasons_name_none(kind: Trajectory, calibrated: bool) -> None:
    for together in (False, kind in CARTESIAN):
        space = encoding(kind, together=together)
        assert unfit(Recipe(), header_of(space)) == ""
        assert unfit(choose(Recipe(), space, calibrated=calibrated), header_of(space)) == ""
        for method in METHODS.values():
            advice = method.check(space).partition(": use ")[2].replace(" or ", ", ").split(", ")
            assert [name for name in advice if name and unfit(Recipe(name), header_of(space))] == []


def test_a_header_of_which_one_encoding_fits_is_left_to_its_frames() -> None:
    both = header_of(encoding(Trajectory.RADIAL), encoding(Trajectory.CARTESIAN))
    assert unfit(Recipe("fft"), both) == unfit(Recipe("gridding"), both) == ""
    assert unfit(Recipe("slice-grappa"), both) != ""


def test_the_encoding_of_a_calibration_alone_makes_no_method_fit() -> None:
    header = header_of(encoding(Trajectory.EPI, together=True), encoding(Trajectory.EPI))
    assert unfit(Recipe("slice-grappa"), header) == unfit(Recipe("fft"), header) == ""
    assert unfit(Recipe("grappa"), header).endswith("use slice-grappa or auto")


def test_nothing_is_done_before_it_is_said() -> None:
    """Without readouts there is nothing else that could be wrong first."""
    header = parse_header(write_header(header_of(encoding(Trajectory.SPIRAL))))
    with pytest.raises(RecipeError, match="sense needs Cartesian k-space, the header's trajectory is spiral"):
        next(reconstruct(Scan(header, ()), Recipe("sense"), on("cpu")))

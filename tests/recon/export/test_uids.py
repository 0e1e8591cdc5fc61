"""UIDs: legal, the same again for the same thing, different for different things."""

from __future__ import annotations

import dataclasses
import re

import pytest

from recon.export.uids import Uids, derive, name_plane
from recon.scan import Counters, Image, Provenance, Quantity, ScanHeader
from tests.recon.export.builders import header, image


def name(made: Image, about: ScanHeader, *, scan_id: str = "scan", plane: tuple[int, int] = (0, 0)) -> Uids:
    return name_plane(made, about, scan_id=scan_id, quantity=Quantity.MAGNITUDE, plane=plane)


def test_the_same_thing_has_the_same_uids_always() -> None:
    # Written down, not recomputed: a release that changes these renames everything hospitals have stored.
    assert derive("implementation") == "2.25.35900086703857161868844796614164374081"
    assert name(image(), header()) == name(image(), header())


@pytest.mark.parametrize("parts", [("a",), ("a", "b"), ("", 0), ("é", (1, 2))])
def test_derived_uids_are_legal(parts: tuple[object, ...]) -> None:
    uid = derive(*parts)
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid)
    assert len(uid) <= 64


def test_each_image_and_plane_has_a_name_of_its_own() -> None:
    base = image()
    names = [
        name(base, header()),
        name(base, header(), plane=(1, 0)),
        name(base, header(), plane=(0, 1)),
        name(dataclasses.replace(base, index=2), header()),
        *(
            name(dataclasses.replace(base, counters=Counters(**{key: 1})), header())
            for key in ("slice", "set", "phase")
        ),
    ]
    assert len({uids.instance for uids in names}) == len(names)
    assert len({uids.series for uids in names}) == 1


@pytest.mark.parametrize(
    "other",
    [{"series": 2}, {"measurement_uid": 9}, {"provenance": Provenance("grappa", "cd34", "", "worker-0", "0.1.0")}],
)
def test_other_series_scans_and_recipes_are_other_series(other: dict[str, object]) -> None:
    changed = name(dataclasses.replace(image(), **other), header())  # type: ignore[arg-type]
    original = name(image(), header())
    assert changed.series != original.series
    assert changed.instance != original.instance
    assert changed.study == original.study


def test_the_worker_that_made_an_image_does_not_rename_it() -> None:
    moved = dataclasses.replace(image(), provenance=Provenance("fft", "ab12", "", "worker-7", "0.1.0"))
    assert name(moved, header()) == name(image(), header())


def test_the_scan_id_tells_scans_with_equal_headers_apart() -> None:
    assert name(image(), header(), scan_id="a").series != name(image(), header(), scan_id="b").series


def test_the_headers_own_study_and_frame_of_reference_are_kept() -> None:
    own = header(study_uid="1.2.840.99.1", frame_of_reference_uid="1.2.840.99.2")
    assert (name(image(), own).study, name(image(), own).frame_of_reference) == ("1.2.840.99.1", "1.2.840.99.2")


@pytest.mark.parametrize("uid", ["1.02.3", "abc", "1", "1." + "2" * 63])
def test_an_illegal_study_uid_is_replaced_by_one_made_from_it(uid: str) -> None:
    first, second = (name(image(), header(xml=xml, study_uid=uid)).study for xml in (b"a", b"b"))
    assert first == second
    assert first.startswith("2.25.")


def test_scans_of_one_study_share_it_by_its_fields() -> None:
    first, second = (name(image(), header(xml=xml)) for xml in (b"first", b"second"))
    assert first.study == second.study
    assert first.series != second.series


def test_a_scan_without_study_fields_is_a_study_of_its_own() -> None:
    first, second = (name(image(), header(xml=xml, study={})) for xml in (b"first", b"second"))
    assert first.study != second.study

"""Images and their attributes: everything an Image says survives MRD, and foreign images become ours."""

from __future__ import annotations

from dataclasses import fields, replace

import ismrmrd
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.errors import WireError
from recon.mrd.images import IMAGE_HEAD, PIXELS, image_head, image_meta, read_meta, to_image, write_meta
from recon.scan import Image, Provenance, Quantity
from tests.recon.mrd.builders import complex_image, image


def round_trip(given: Image) -> Image:
    meta = image_meta(given)
    return to_image(image_head(given, attribute_bytes=len(meta)), meta, pixels=given.pixels, where="the image")


def assert_same(came: Image, sent: Image) -> None:
    for field in fields(Image):
        np.testing.assert_equal(getattr(came, field.name), getattr(sent, field.name), err_msg=field.name)


@pytest.mark.parametrize("sent", [image(), complex_image(), image((3, 1, 1, 1))])
def test_every_field_survives(sent: Image) -> None:
    assert_same(round_trip(sent), sent)


def test_defaults_survive() -> None:
    plain = image()
    sent = Image(plain.pixels, plain.spacing_mm, plain.geometry, plain.counters)
    assert_same(round_trip(sent), sent)


# XML ends every line with a line feed alone, and has no other control characters and no U+FFFE, U+FFFF.
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff") | st.just("\n"),
    max_size=9,
)
names = texts.filter(lambda name: name and not {name} & set(read_meta(image_meta(image()), where="it")))


@given(st.dictionaries(names, texts, max_size=4), st.lists(texts, max_size=3), texts, texts)
def test_any_text_survives(attributes: dict[str, str], comments: list[str], unit: str, method: str) -> None:
    sent = replace(
        image(), attributes=attributes, comments=tuple(comments), unit=unit, provenance=Provenance(method=method)
    )
    assert_same(round_trip(sent), sent)


def test_characters_that_xml_cannot_hold_are_replaced_and_not_sent() -> None:
    assert read_meta(write_meta({"a\0": ["b\x07c\ud800"]}), where="it") == {"a\ufffd": ["b\ufffdc\ufffd"]}


@given(st.dictionaries(texts.filter(bool), st.lists(texts, min_size=1, max_size=3), max_size=3))
def test_meta_means_what_the_ismrmrd_package_means(entries: dict[str, list[str]]) -> None:
    xml = write_meta(entries)
    theirs = ismrmrd.Meta.deserialize(xml.decode())
    # The package keeps a lone value plain and reads an empty one as nothing.
    assert {k: [t or "" for t in (v if isinstance(v, list) else [v])] for k, v in theirs.items()} == read_meta(
        xml, where="it"
    )
    if entries:
        again = ismrmrd.Meta({k: v if len(v) > 1 else v[0] for k, v in entries.items()}).serialize()
        assert read_meta(again.encode(), where="it") == read_meta(xml, where="it")


def test_no_attributes_and_a_trailing_nul() -> None:
    assert read_meta(b"", where="it") == read_meta(b"\0", where="it") == {}
    assert read_meta(write_meta({"a": ["b"]}) + b"\0", where="it") == {"a": ["b"]}


@pytest.mark.parametrize("number", PIXELS)
def test_every_pixel_type_becomes_one_of_ours(number: int) -> None:
    values = np.arange(24, dtype=PIXELS[number]).reshape(1, 2, 3, 4)
    head = np.zeros((), IMAGE_HEAD)
    head["data_type"], head["channels"], head["matrix_size"], head["field_of_view"] = number, 1, (4, 3, 2), (8, 6, 4)
    came = to_image(head[()], b"", pixels=values, where="the image")
    assert came.pixels.dtype == (np.complex64 if number > 6 else np.float32)
    assert came.quantity == (Quantity.COMPLEX if number > 6 else Quantity.MAGNITUDE)
    assert came.spacing_mm == (2.0, 2.0, 2.0)
    np.testing.assert_array_equal(came.pixels, values)
    assert not np.shares_memory(came.pixels, values)


def test_the_index_wraps_where_the_header_ends() -> None:
    assert round_trip(replace(image(), index=65_537)).index == 1


def test_our_header_is_the_packages_header() -> None:
    theirs = ismrmrd.ImageHeader.from_buffer_copy(image_head(image(), attribute_bytes=5).tobytes())
    assert theirs.version == 1
    assert (list(theirs.matrix_size), theirs.channels, theirs.data_type) == ([4, 3, 2], 1, ismrmrd.DATATYPE_FLOAT)
    assert list(theirs.field_of_view) == [4 * 1.25, 3 * 0.5, 2 * 4.0]
    assert (list(theirs.position), list(theirs.read_dir)) == ([1.5, -2.0, 3.0], [0.0, 1.0, 0.0])
    assert (list(theirs.phase_dir), list(theirs.slice_dir)) == ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0])
    assert list(theirs.patient_table_position) == [0.0, 0.0, -8.0]
    counters = (theirs.slice, theirs.contrast, theirs.phase, theirs.repetition, theirs.set, theirs.average)
    assert counters == (2, 3, 4, 5, 6, 0)
    assert (theirs.image_type, theirs.image_index, theirs.image_series_index) == (ismrmrd.IMTYPE_MAGNITUDE, 42, 1)
    assert (theirs.acquisition_time_stamp, list(theirs.physiology_time_stamp)) == (123, [1, 2, 3])
    assert (theirs.measurement_uid, theirs.attribute_string_len) == (77, 5)


def meta(**entries: str) -> bytes:
    return write_meta({name: [text] for name, text in entries.items()})


@pytest.mark.parametrize(
    ("changes", "attributes", "sentence"),
    [
        (
            {"image_type": 6},
            b"",
            r"image 7 has the image type 6, expected 1 \(magnitude\) to 5 \(complex\): send one of them",
        ),
        ({}, b"<a>", "the text of attributes of image 7 is not XML"),
        ({}, b"<a/>", "the text of attributes of image 7 begins with <a> in the namespace '', expected <ismrmrdMeta>"),
        ({}, b"<!DOCTYPE a><ismrmrdMeta/>", "image 7 declares a document type or entities, which are never expanded"),
        (
            {},
            b"<ismrmrdMeta><meta><value>1</value></meta></ismrmrdMeta>",
            "the attributes of image 7 hold a value without a name: name every <meta>",
        ),
        (
            {},
            meta(EncodingSpace="x"),
            r"attribute EncodingSpace of image 7 is \['x'\], expected one whole number: correct",
        ),
    ],
)
def test_a_bad_image_is_refused_in_one_sentence(changes: dict[str, int], attributes: bytes, sentence: str) -> None:
    head = np.zeros((), IMAGE_HEAD)
    head["data_type"], head["matrix_size"], head["channels"] = 5, (1, 1, 1), 1
    for name, value in changes.items():
        head[name] = value
    with pytest.raises(WireError, match=sentence):
        to_image(head[()], attributes, pixels=np.zeros((1, 1, 1, 1), np.float32), where="image 7")

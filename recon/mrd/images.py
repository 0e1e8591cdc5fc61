"""Images as MRD carries them: the 198-byte header, attributes as ISMRMRD meta XML, and pixels of eight types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import cast
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from recon.errors import WireError
from recon.mrd import markup
from recon.scan import Counters, Geometry, Image, Provenance, Quantity, vector3

IMAGE_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("data_type", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("matrix_size", "<u2", (3,)),
        ("field_of_view", "<f4", (3,)),
        ("channels", "<u2"),
        ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)),
        ("phase_dir", "<f4", (3,)),
        ("slice_dir", "<f4", (3,)),
        ("patient_table_position", "<f4", (3,)),
        ("average", "<u2"),
        ("slice", "<u2"),
        ("contrast", "<u2"),
        ("phase", "<u2"),
        ("repetition", "<u2"),
        ("set", "<u2"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("image_type", "<u2"),
        ("image_index", "<u2"),
        ("image_series_index", "<u2"),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
        ("attribute_string_len", "<u4"),
    ]
)
assert IMAGE_HEAD.itemsize == 198

# MRD image data types by number.
PIXELS: Mapping[int, np.dtype[np.generic]] = {
    1: np.dtype("<u2"),
    2: np.dtype("<i2"),
    3: np.dtype("<u4"),
    4: np.dtype("<i4"),
    5: np.dtype("<f4"),
    6: np.dtype("<f8"),
    7: np.dtype("<c8"),
    8: np.dtype("<c16"),
}
FLOAT, COMPLEX = 5, 7

# Attributes that stand for fields of Image; everything else is kept in `Image.attributes`. The first three are the
# names other MRD software reads.
_COMMENT, _ROW, _COLUMN = "ImageComment", "ImageRowDir", "ImageColumnDir"
_ROLE, _ENCODING, _POSITION, _UNIT = "DataRole", "EncodingSpace", "PatientPosition", "Unit"
_PROVENANCE = {
    "method": "ReconMethod",
    "recipe_hash": "ReconRecipeHash",
    "weights_hash": "ReconWeightsHash",
    "worker": "ReconWorker",
    "version": "ReconVersion",
}
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold


def pixel_type(head: np.void, *, where: str) -> np.dtype[np.generic]:
    """The dtype of an image's pixels by its header; `where` names the image in the error."""
    number = int(head["data_type"])
    if number not in PIXELS:
        raise WireError(f"{where} has the pixel type {number}, expected 1 to 8: send one that MRD v1 names")
    return PIXELS[number]


def pixel_shape(head: np.void) -> tuple[int, int, int, int]:
    """[channel, z, y, x] by the header."""
    x, y, z = (int(n) for n in head["matrix_size"])
    return int(head["channels"]), z, y, x


def image_head(image: Image, *, attribute_bytes: int) -> np.void:
    """The MRD header of `image`; the 16-bit image index wraps, as MRD has no wider one."""
    head = np.zeros((), IMAGE_HEAD)
    channels, z, y, x = image.pixels.shape
    head["version"], head["channels"], head["matrix_size"] = 1, channels, (x, y, z)
    head["data_type"] = COMPLEX if np.iscomplexobj(image.pixels) else FLOAT
    head["field_of_view"] = [n * d for n, d in zip((x, y, z), reversed(image.spacing_mm), strict=True)]
    _put_geometry(head, image.geometry)
    for name in ("slice", "contrast", "phase", "repetition", "set"):
        head[name] = getattr(image.counters, name)
    head["acquisition_time_stamp"], head["physiology_time_stamp"] = image.time_stamp, image.physiology_time_stamp
    head["measurement_uid"], head["image_type"] = image.measurement_uid, image.quantity.value
    head["user_int"], head["user_float"] = image.user_int, image.user_float
    head["image_index"], head["image_series_index"] = image.index % 65536, image.series
    head["attribute_string_len"] = attribute_bytes
    return cast(np.void, head[()])


def _put_geometry(head: NDArray[np.void], geometry: Geometry) -> None:
    head["position"], head["patient_table_position"] = geometry.position_mm, geometry.table_position_mm
    head["read_dir"], head["phase_dir"] = geometry.read_dir, geometry.phase_dir
    head["slice_dir"] = geometry.slice_dir


def image_meta(image: Image) -> bytes:
    """The attributes of `image` as ISMRMRD meta XML; a text of several lines becomes several values."""
    entries: dict[str, Iterable[str]] = {
        _ROLE: ["Image"],
        _COMMENT: image.comments,
        _ROW: map(str, image.geometry.read_dir),
        _COLUMN: map(str, image.geometry.phase_dir),
        _ENCODING: [str(image.counters.encoding)],
        _POSITION: [image.patient_position],
        _UNIT: [image.unit],
    }
    made = {name: getattr(image.provenance, key) for key, name in _PROVENANCE.items()}
    entries |= {name: [text] for name, text in made.items() if text}
    entries |= {name: text.split("\n") for name, text in image.attributes.items()}
    return write_meta({name: values for name, given in entries.items() if (values := list(given))})


def write_meta(entries: Mapping[str, Iterable[str]]) -> bytes:
    """ISMRMRD meta XML of names with one or more values."""
    root = ElementTree.Element("ismrmrdMeta")
    for name, values in entries.items():
        entry = ElementTree.SubElement(root, "meta")
        ElementTree.SubElement(entry, "name").text = _ILLEGAL.sub("\ufffd", name)
        for value in values:
            ElementTree.SubElement(entry, "value").text = _ILLEGAL.sub("\ufffd", value)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data


def read_meta(data: bytes, *, where: str) -> dict[str, list[str]]:
    """Names and values of ISMRMRD meta XML; no bytes mean no attributes. Raises WireError."""
    if not data.rstrip(b"\0").strip():
        return {}
    document = markup.Document(f"the text of attributes of {where}", "ismrmrdMeta", ("",), WireError)
    root = markup.parse(data, document)
    entries: dict[str, list[str]] = {}
    for entry in root.all("meta"):
        name = entry.first("name")
        if name is None:
            raise WireError(f"the attributes of {where} hold a value without a name: name every <meta>")
        entries.setdefault(name.text, []).extend(value.text for value in entry.all("value"))
    return entries


def to_image(head: np.void, attributes: bytes, *, pixels: NDArray[np.generic], where: str) -> Image:
    """An Image that owns its pixels, from what MRD carries; integer and double pixels become float32 or complex64."""
    meta = read_meta(attributes, where=where)
    counters = {name: int(head[name]) for name in ("slice", "contrast", "phase", "repetition", "set")}
    x, y, z = (float(f) / max(int(n), 1) for f, n in zip(head["field_of_view"], head["matrix_size"], strict=True))
    first, second, third = (int(t) for t in head["physiology_time_stamp"])
    return Image(
        pixels=pixels.astype(np.complex64) if np.iscomplexobj(pixels) else pixels.astype(np.float32),
        spacing_mm=(z, y, x),
        geometry=_geometry(head),
        counters=Counters(encoding=_number(meta.pop(_ENCODING, ["0"]), where), **counters),
        series=int(head["image_series_index"]),
        index=int(head["image_index"]),
        quantity=_quantity(head, where),
        time_stamp=int(head["acquisition_time_stamp"]),
        physiology_time_stamp=(first, second, third),
        measurement_uid=int(head["measurement_uid"]),
        user_int=tuple(head["user_int"].tolist()),
        user_float=tuple(head["user_float"].tolist()),
        **_described(meta),  # type: ignore[arg-type]
    )


def _described(meta: dict[str, list[str]]) -> dict[str, object]:
    """The fields of Image that travel as attributes; `meta` is used up."""
    for derived in (_ROW, _COLUMN):
        meta.pop(derived, None)
    if meta.get(_ROLE) == ["Image"]:
        del meta[_ROLE]
    return {
        "comments": tuple(meta.pop(_COMMENT, [])),
        "patient_position": "\n".join(meta.pop(_POSITION, ["HFS"])),
        "unit": "\n".join(meta.pop(_UNIT, ["arbitrary"])),
        "provenance": Provenance(**{k: "\n".join(meta.pop(name, [""])) for k, name in _PROVENANCE.items()}),
        "attributes": {name: "\n".join(values) for name, values in meta.items()},
    }


def _number(texts: list[str], where: str) -> int:
    if len(texts) != 1 or not texts[0].isdecimal():
        raise WireError(f"the attribute {_ENCODING} of {where} is {texts}, expected one whole number: correct it")
    return int(texts[0])


def _quantity(head: np.void, where: str) -> Quantity:
    number = int(head["image_type"])
    if number == 0:  # "not said": pixels of a complex type cannot be a magnitude
        return Quantity.COMPLEX if int(head["data_type"]) >= COMPLEX else Quantity.MAGNITUDE
    if number > Quantity.COMPLEX.value:
        raise WireError(f"{where} has the image type {number}, expected 1 (magnitude) to 5 (complex): send one of them")
    return Quantity(number)


def _geometry(head: np.void) -> Geometry:
    return Geometry(
        position_mm=vector3(head["position"]),
        read_dir=vector3(head["read_dir"]),
        phase_dir=vector3(head["phase_dir"]),
        slice_dir=vector3(head["slice_dir"]),
        table_position_mm=vector3(head["patient_table_position"]),
    )

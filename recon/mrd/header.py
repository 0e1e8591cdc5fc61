"""The MRD header: XML bytes ↔ ScanHeader, meaning what the ISMRMRD schema means, with x, y, z turned to (z, y, x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from xml.etree import ElementTree

from recon.errors import HeaderError, LimitError
from recon.mrd import markup
from recon.mrd.markup import Node
from recon.scan import (
    COUNTERS,
    Diffusion,
    Encoding,
    Limit,
    Multiband,
    ScanHeader,
    Shape3,
    Space,
    Trajectory,
    TrajectoryDescription,
    Vector3,
)

Value = TypeVar("Value")

NAMESPACE = "http://www.ismrm.org/ISMRMRD"

# Other readers of MRD headers do not look at the namespace, so senders without one exist.
_DOCUMENT = markup.Document("the header", "ismrmrdHeader", (NAMESPACE, ""), HeaderError)

# The schema says "encoding" where the acquisition header says "encode".
_LIMITS = {name.replace("encode_step", "encoding_step"): name for name in COUNTERS}

_PARAMETERS: Mapping[str, Callable[[str], float | str]] = {
    "userParameterLong": int,
    "userParameterDouble": float,
    "userParameterString": str,
    "userParameterBase64": str,
}


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """What a header may declare: far beyond any scanner, and small enough that one frame can be reasoned about."""

    axis: int = 4096  # voxels along one axis of a matrix
    voxels: int = 1 << 30  # of one matrix
    encodings: int = 64


def parse_header(xml: bytes, *, limits: HeaderLimits = HeaderLimits()) -> ScanHeader:
    """The scan described by `xml`; raises HeaderError if it is no MRD header, LimitError if it is beyond `limits`.

    Of user parameters with one name the last counts; a receiver with 0 channels counts as not said.
    """
    root = markup.parse(xml, _DOCUMENT)
    encodings = root.all("encoding")
    if not encodings:
        raise HeaderError("the header has no <encoding>: describe at least one encoding")
    if len(encodings) > limits.encodings:
        raise LimitError(f"the header has {len(encodings)} encodings, the limit is {limits.encodings}: send fewer")
    return ScanHeader(
        xml=xml,
        encodings=tuple(_encoding(node, f"encoding {i}", limits=limits) for i, node in enumerate(encodings)),
        patient=_texts(root.first("subjectInformation")),
        study=_texts(root.first("studyInformation")),
        user=_user(root.first("userParameters")),
        **_conditions(root),  # type: ignore[arg-type]
        **_measurement(root),  # type: ignore[arg-type]
        **_sequence(root.first("sequenceParameters")),  # type: ignore[arg-type]
        **_weighted(root.first("sequenceParameters") or Node("")),  # type: ignore[arg-type]
    )


def _conditions(root: Node) -> dict[str, object]:
    """Where and with what it was measured."""
    system = root.first("acquisitionSystemInformation") or Node("")
    return {
        "coils": _optional(system, "receiverChannels", convert=_short) or None,
        "field_t": _optional(system, "systemFieldStrength_T", convert=_real),
        "frequency_hz": _optional(root, "experimentalConditions", "H1resonanceFrequency_Hz", convert=_real),
        "relative_noise_bandwidth": _optional(system, "relativeReceiverNoiseBandwidth", convert=_real),
        "coil_names": tuple(_text(label, "coilName") for label in system.all("coilLabel")),
        "manufacturer": _text(system, "systemVendor"),
        "model": _text(system, "systemModel"),
        "station": _text(system, "stationName"),
        "institution": _text(system, "institutionName"),
    }


def _measurement(root: Node) -> dict[str, object]:
    measurement = root.first("measurementInformation") or Node("")
    needed = measurement.all("measurementDependency")
    return {
        "measurement_id": _text(measurement, "measurementID"),
        "dependencies": tuple((_text(node, "dependencyType"), _text(node, "measurementID")) for node in needed),
        "patient_position": _text(measurement, "patientPosition") or "HFS",
        "protocol": _text(measurement, "protocolName"),
        "series_description": _text(measurement, "seriesDescription"),
        "study_uid": _text(root, "studyInformation", "studyInstanceUID"),
        "frame_of_reference_uid": _text(measurement, "frameOfReferenceUID"),
    }


def _sequence(node: Node | None) -> dict[str, tuple[float, ...]]:
    names = {
        "tr_ms": "TR",
        "te_ms": "TE",
        "ti_ms": "TI",
        "flip_angle_deg": "flipAngle_deg",
        "echo_spacing_ms": "echo_spacing",
    }
    return {key: tuple(_real(n.text, name) for n in node.all(name)) if node else () for key, name in names.items()}


def _weighted(node: Node) -> dict[str, object]:
    """Diffusion: the schema's rl, ap and fh point to the left, to the back and to the head, as LPS does."""
    entries = [
        Diffusion(
            _real(_require(entry, "bvalue", where="diffusion").text, "bvalue"),
            _direction(_require(entry, "gradientDirection", where="diffusion")),
        )
        for entry in node.all("diffusion")
    ]
    return {"diffusion": tuple(entries), "diffusion_dimension": _text(node, "diffusionDimension")}


def _direction(node: Node) -> Vector3:
    x, y, z = (_real(_require(node, axis, where="gradientDirection").text, axis) for axis in ("rl", "ap", "fh"))
    return x, y, z


def _user(node: Node | None) -> dict[str, float | str]:
    if node is None:
        return {}
    return {
        (name := _text(parameter, "name")): _convert(
            convert, _text(parameter, "value"), name=f"user parameter {name!r}"
        )
        for kind, convert in _PARAMETERS.items()
        for parameter in node.all(kind)
    }


def _texts(node: Node | None) -> dict[str, str]:
    return {name: found[0].text.strip() for name, found in node.children.items()} if node else {}


# ---- one encoding ----


def _encoding(node: Node, where: str, *, limits: HeaderLimits) -> Encoding:
    kind = _text(node, "trajectory")
    if kind not in list(Trajectory):
        raise HeaderError(f"trajectory of {where} is {kind!r}, expected one of {', '.join(Trajectory)}: correct it")
    parallel = node.first("parallelImaging") or Node("")
    return Encoding(
        encoded=_space(node, "encodedSpace", where=where, limits=limits),
        recon=_space(node, "reconSpace", where=where, limits=limits),
        limits=_counter_limits(_require(node, "encodingLimits", where=where), where),
        trajectory=Trajectory(kind),
        acceleration=_acceleration(parallel),
        calibration_mode=_text(parallel, "calibrationMode"),
        echo_train_length=_optional(node, "echoTrainLength", convert=_whole) or 1,
        description=_description(node.first("trajectoryDescription")),
        multiband=_multiband(parallel.first("multiband")),
    )


def _description(node: Node | None) -> TrajectoryDescription | None:
    return None if node is None else TrajectoryDescription(_text(node, "identifier"), _user(node))


def _multiband(node: Node | None) -> Multiband | None:
    if node is None:
        return None
    where = "multiband"
    return Multiband(
        factor=_whole(_require(node, "multiband_factor", where=where).text, "multiband_factor"),
        spacing_mm=tuple(tuple(_real(dz.text, "dZ") for dz in group.all("dZ")) for group in node.all("spacing")),
        delta_kz=_real(_require(node, "deltaKz", where=where).text, "deltaKz"),
        calibration=_text(node, "calibration"),
        calibration_encoding=_whole(_require(node, "calibration_encoding", where=where).text, "calibration_encoding"),
    )


def _space(node: Node, name: str, *, where: str, limits: HeaderLimits) -> Space:
    space = _require(node, name, where=where)
    matrix, view = (_require(space, part, where=f"{name} of {where}") for part in ("matrixSize", "fieldOfView_mm"))
    z, y, x = (_default(matrix, axis, default=1) for axis in "zyx")
    _check_matrix((z, y, x), f"{name} of {where}", limits=limits)
    fz, fy, fx = (
        _real(_require(view, axis, where=f"fieldOfView_mm of {where}").text, f"fieldOfView_mm {axis}") for axis in "zyx"
    )
    _check_view((fz, fy, fx), f"{name} of {where}")
    return Space((z, y, x), (fz, fy, fx))


def _check_matrix(matrix: Shape3, where: str, *, limits: HeaderLimits) -> None:
    if min(matrix) < 1:
        raise HeaderError(f"matrix (z, y, x) of {where} is {matrix}, every size must be at least 1: correct the header")
    if max(matrix) > limits.axis or math.prod(matrix) > limits.voxels:
        raise LimitError(
            f"matrix (z, y, x) of {where} is {matrix}, at most {limits.axis} voxels along an axis and {limits.voxels} "
            "in all are accepted: correct the header"
        )


def _check_view(view: Vector3, where: str) -> None:
    if not all(math.isfinite(side) and side > 0 for side in view):
        raise HeaderError(
            f"field of view (z, y, x) of {where} is {view} mm, every side must be positive: correct the header"
        )


def _counter_limits(node: Node, where: str) -> dict[str, Limit]:
    found = {name: node.first(element) for element, name in _LIMITS.items()}
    return {name: _limit(limit, f"{name} of {where}") for name, limit in found.items() if limit}


def _limit(node: Node, where: str) -> Limit:
    low, high, center = (_default(node, name, default=0) for name in ("minimum", "maximum", "center"))
    if low > high:
        raise HeaderError(f"limits of {where} run from {low} to {high}, expected the minimum first: correct the header")
    return Limit(low, high, center)


def _acceleration(parallel: Node) -> tuple[int, int]:
    factor = parallel.first("accelerationFactor") or Node("")
    one, two = (_default(factor, f"kspace_encoding_step_{i}", default=1) for i in (1, 2))
    if min(one, two) < 1:
        raise HeaderError(f"acceleration is {one} × {two}, every factor must be at least 1: correct the header")
    return one, two


# ---- values ----


def _require(node: Node, name: str, *, where: str) -> Node:
    found = node.first(name)
    if found is None:
        raise HeaderError(f"<{name}> of {where} is missing from the header: add it")
    return found


def _text(node: Node, *path: str) -> str:
    found = node.first(*path)
    return found.text.strip() if found else ""


def _default(node: Node, name: str, *, default: int) -> int:
    """A 16-bit number that the schema gives a default."""
    text = _text(node, name)
    return _short(text, name) if text else default


def _optional(node: Node, *path: str, convert: Callable[[str, str], Value]) -> Value | None:
    text = _text(node, *path)
    return convert(text, path[-1]) if text else None


def _convert(convert: Callable[[str], Value], text: str, *, name: str) -> Value:
    try:
        return convert(text.strip())
    except ValueError as fault:
        raise HeaderError(f"{name} is {text.strip()!r} in the header, expected a number: correct it") from fault


def _real(text: str, name: str) -> float:
    return _convert(float, text, name=name)


def _whole(text: str, name: str) -> int:
    return _convert(int, text, name=name)


def _short(text: str, name: str) -> int:
    number = _whole(text, name)
    if not 0 <= number <= 65_535:
        raise HeaderError(f"{name} is {number} in the header, expected 0 to 65535: correct it")
    return number


# ---- writing ----


def write_header(header: ScanHeader) -> bytes:
    """MRD header XML that says what `header` says; its own `xml` is not looked at."""
    root = ElementTree.Element("ismrmrdHeader", xmlns=NAMESPACE)
    _put(root, "subjectInformation", content=header.patient)
    _put(root, "studyInformation", content={**header.study, "studyInstanceUID": header.study_uid})
    _put(root, "measurementInformation", content=_measured(header))
    _put(root, "acquisitionSystemInformation", content=_system(header))
    _put(root, "experimentalConditions", content={"H1resonanceFrequency_Hz": round(header.frequency_hz or 0)})
    for encoding in header.encodings:
        _put(root, "encoding", content=_described(encoding))
    _put(root, "sequenceParameters", content=_timed(header))
    _put(root, "userParameters", content=_named(header.user))
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data


Content = str | int | float | None | Mapping[str, "Content"] | Sequence["Content"]


def _put(parent: ElementTree.Element, name: str, *, content: Content) -> None:
    """`content` below `parent`: a mapping nests, a sequence repeats the element, no value and no text leave it out."""
    if isinstance(content, Mapping):
        node = ElementTree.SubElement(parent, name)
        for key, value in content.items():
            _put(node, key, content=value)
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for item in content:
            _put(parent, name, content=item)
    elif content is not None and content != "":
        ElementTree.SubElement(parent, name).text = str(content)


def _measured(header: ScanHeader) -> Content:
    return {
        "measurementID": header.measurement_id,
        "patientPosition": header.patient_position,
        "protocolName": header.protocol,
        "seriesDescription": header.series_description,
        "measurementDependency": [
            {"dependencyType": kind, "measurementID": identity} for kind, identity in header.dependencies
        ],
        "frameOfReferenceUID": header.frame_of_reference_uid,
    }


def _system(header: ScanHeader) -> Content:
    return {
        "systemVendor": header.manufacturer,
        "systemModel": header.model,
        "systemFieldStrength_T": header.field_t,
        "relativeReceiverNoiseBandwidth": header.relative_noise_bandwidth,
        "receiverChannels": header.coils,
        "coilLabel": [{"coilNumber": i, "coilName": name} for i, name in enumerate(header.coil_names)],
        "institutionName": header.institution,
        "stationName": header.station,
    }


def _timed(header: ScanHeader) -> Content:
    return {
        "TR": header.tr_ms,
        "TE": header.te_ms,
        "TI": header.ti_ms,
        "flipAngle_deg": header.flip_angle_deg,
        "echo_spacing": header.echo_spacing_ms,
        "diffusionDimension": header.diffusion_dimension,
        "diffusion": [
            {"gradientDirection": dict(zip(("rl", "ap", "fh"), entry.direction, strict=True)), "bvalue": entry.b_s_mm2}
            for entry in header.diffusion
        ],
    }


def _described(encoding: Encoding) -> Content:
    one, two = encoding.acceleration
    factor = {"kspace_encoding_step_1": one, "kspace_encoding_step_2": two}
    simultaneous = None if encoding.multiband is None else _together(encoding.multiband)
    parallel: Content = {
        "accelerationFactor": factor,
        "calibrationMode": encoding.calibration_mode,
        "multiband": simultaneous,
    }
    described = encoding.description
    return {
        "encodedSpace": _grid(encoding.encoded),
        "reconSpace": _grid(encoding.recon),
        "encodingLimits": _ranges(encoding.limits),
        "trajectory": encoding.trajectory.value,
        "trajectoryDescription": None if described is None else _text_and_values(described),
        "parallelImaging": parallel if (one, two) != (1, 1) or encoding.calibration_mode or simultaneous else None,
        "echoTrainLength": encoding.echo_train_length,
    }


def _text_and_values(described: TrajectoryDescription) -> Content:
    return {"identifier": described.identifier, **_named(described.values)}


def _together(multiband: Multiband) -> Content:
    return {
        "spacing": [{"dZ": list(group)} for group in multiband.spacing_mm],
        "deltaKz": multiband.delta_kz,
        "multiband_factor": multiband.factor,
        "calibration": multiband.calibration,
        "calibration_encoding": multiband.calibration_encoding,
    }


def _grid(space: Space) -> Content:
    matrix = dict(zip("xyz", reversed(space.matrix), strict=True))
    return {"matrixSize": matrix, "fieldOfView_mm": dict(zip("xyz", reversed(space.field_of_view_mm), strict=True))}


def _ranges(limits: Mapping[str, Limit]) -> Content:
    return {
        element: {"minimum": limit.minimum, "maximum": limit.maximum, "center": limit.center}
        for element, name in _LIMITS.items()
        if (limit := limits.get(name))
    }


def _named(user: Mapping[str, float | str]) -> Mapping[str, Content]:
    kinds: dict[str, list[Content]] = {"userParameterLong": [], "userParameterDouble": [], "userParameterString": []}
    for name, value in user.items():
        kind = {int: "userParameterLong", float: "userParameterDouble"}.get(type(value), "userParameterString")
        kinds[kind].append({"name": name, "value": value})
    return kinds

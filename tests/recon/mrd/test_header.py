"""The header reader: same meaning as the `ismrmrd` package's schema classes, and one sentence for what is no header."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import ismrmrd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.errors import HeaderError, LimitError, ReconError
from recon.mrd.header import NAMESPACE, HeaderLimits, parse_header, write_header
from recon.scan import (
    COUNTERS,
    Diffusion,
    Encoding,
    Limit,
    Multiband,
    ScanHeader,
    Space,
    Trajectory,
    TrajectoryDescription,
)
from tests.recon.mrd.builders import header

SPACE = (
    "<matrixSize><x>128</x><y>64</y><z>1</z></matrixSize><fieldOfView_mm><x>600</x><y>300</y><z>6</z></fieldOfView_mm>"
)
ENCODING = (
    f"<encodedSpace>{SPACE}</encodedSpace><reconSpace>{SPACE}</reconSpace>"
    "<encodingLimits></encodingLimits><trajectory>radial</trajectory>"
)
CONDITIONS = (
    "<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>"
)


def document(encoding: str = ENCODING, *, before: str = "", after: str = "") -> bytes:
    body = f"{before}{CONDITIONS}<encoding>{encoding}</encoding>{after}"
    return f'<ismrmrdHeader xmlns="{NAMESPACE}">{body}</ismrmrdHeader>'.encode()


# ---- the same meaning as the schema classes ----


def check_against_schema_classes(xml: bytes) -> None:
    """Every field of `parse_header(xml)` is what the `ismrmrd` package reads."""
    ours, theirs = parse_header(xml), ismrmrd.xsd.CreateFromDocument(xml)
    system, measurement = theirs.acquisitionSystemInformation, theirs.measurementInformation
    study, sequence = theirs.studyInformation, theirs.sequenceParameters
    assert ours.coils == ((system and system.receiverChannels) or None)
    assert ours.field_t == (system and system.systemFieldStrength_T)
    assert ours.relative_noise_bandwidth == (system and system.relativeReceiverNoiseBandwidth)
    assert ours.frequency_hz == theirs.experimentalConditions.H1resonanceFrequency_Hz
    assert ours.manufacturer == ((system and system.systemVendor) or "")
    assert ours.model == ((system and system.systemModel) or "")
    assert ours.station == ((system and system.stationName) or "")
    assert ours.institution == ((system and system.institutionName) or "")
    assert ours.patient_position == (measurement.patientPosition.value if measurement else "HFS")
    assert ours.protocol == ((measurement and measurement.protocolName) or "")
    assert ours.series_description == ((measurement and measurement.seriesDescription) or "")
    assert ours.frame_of_reference_uid == ((measurement and measurement.frameOfReferenceUID) or "")
    assert ours.study_uid == ((study and study.studyInstanceUID) or "")
    times = (ours.tr_ms, ours.te_ms, ours.ti_ms, ours.flip_angle_deg, ours.echo_spacing_ms)
    names = ("TR", "TE", "TI", "flipAngle_deg", "echo_spacing")
    assert times == tuple(tuple(getattr(sequence, name)) if sequence else () for name in names)
    check_diffusion(ours, sequence)
    check_user(ours, theirs)
    check_texts(ours, theirs)
    assert len(ours.encodings) == len(theirs.encoding)
    for mine, yours in zip(ours.encodings, theirs.encoding, strict=True):
        check_encoding(mine, yours)


def check_diffusion(ours: ScanHeader, sequence: ismrmrd.xsd.sequenceParametersType | None) -> None:
    entries = sequence.diffusion if sequence else []
    assert [(d.b_s_mm2, *d.direction) for d in ours.diffusion] == [
        (d.bvalue, d.gradientDirection.rl, d.gradientDirection.ap, d.gradientDirection.fh) for d in entries
    ]
    dimension = sequence and sequence.diffusionDimension
    assert ours.diffusion_dimension == (dimension.value if dimension else "")


def check_user(ours: ScanHeader, theirs: ismrmrd.xsd.ismrmrdHeader) -> None:
    user = theirs.userParameters
    lists = [user.userParameterLong, user.userParameterDouble, user.userParameterString] if user else []
    assert ours.user == {p.name: p.value for parameters in lists for p in parameters}


def check_texts(ours: ScanHeader, theirs: ismrmrd.xsd.ismrmrdHeader) -> None:
    measured, system = theirs.measurementInformation, theirs.acquisitionSystemInformation
    assert ours.measurement_id == ((measured and measured.measurementID) or "")
    needed = measured.measurementDependency if measured else []
    assert ours.dependencies == tuple((one.dependencyType, one.measurementID) for one in needed)
    assert ours.coil_names == (tuple(label.coilName for label in system.coilLabel) if system else ())
    subject = theirs.subjectInformation
    for name in ("patientName", "patientID"):
        assert ours.patient.get(name, "") == ((subject and getattr(subject, name)) or "")
    if subject and subject.patientWeight_kg is not None:
        assert float(ours.patient["patientWeight_kg"]) == subject.patientWeight_kg
    if theirs.studyInformation and theirs.studyInformation.studyDate:
        assert ours.study["studyDate"] == str(theirs.studyInformation.studyDate)


def check_encoding(ours: Encoding, theirs: ismrmrd.xsd.encodingType) -> None:
    for mine, yours in ((ours.encoded, theirs.encodedSpace), (ours.recon, theirs.reconSpace)):
        assert mine.matrix == (yours.matrixSize.z, yours.matrixSize.y, yours.matrixSize.x)
        view = yours.fieldOfView_mm
        assert mine.field_of_view_mm == (view.z, view.y, view.x)
    for name in COUNTERS:
        limit = getattr(theirs.encodingLimits, name.replace("encode_step", "encoding_step"))
        mine = ours.limits.get(name)
        assert (mine and (mine.minimum, mine.maximum, mine.center)) == (
            limit and (limit.minimum, limit.maximum, limit.center)
        )
    assert ours.trajectory.value == theirs.trajectory.value
    assert ours.echo_train_length == (theirs.echoTrainLength or 1)
    parallel = theirs.parallelImaging
    factor = parallel and parallel.accelerationFactor
    assert ours.acceleration == ((factor.kspace_encoding_step_1, factor.kspace_encoding_step_2) if factor else (1, 1))
    assert ours.calibration_mode == (parallel.calibrationMode.value if parallel and parallel.calibrationMode else "")
    check_description(ours.description, theirs.trajectoryDescription)
    check_multiband(ours.multiband, parallel and parallel.multiband)


def check_description(ours: TrajectoryDescription | None, theirs: ismrmrd.xsd.trajectoryDescriptionType | None) -> None:
    assert (ours is None) == (theirs is None)
    if ours and theirs:
        lists = (theirs.userParameterLong, theirs.userParameterDouble, theirs.userParameterString)
        values = {p.name: p.value for parameters in lists for p in parameters}
        assert (ours.identifier, ours.values) == (theirs.identifier, values)


def check_multiband(ours: Multiband | None, theirs: ismrmrd.xsd.multibandType | None) -> None:
    assert (ours is None) == (theirs is None)
    if ours and theirs:
        assert ours.spacing_mm == tuple(tuple(group.dZ) for group in theirs.spacing)
        assert (ours.factor, ours.delta_kz) == (theirs.multiband_factor, theirs.deltaKz)
        assert (ours.calibration, ours.calibration_encoding) == (theirs.calibration.value, theirs.calibration_encoding)


text = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=8)
real = st.floats(2**-10, 2**20, width=32)
small = st.integers(1, 64)
spaces = st.builds(Space, st.tuples(small, small, small), st.tuples(real, real, real))
limits = st.builds(lambda a, b, c: Limit(min(a, b), max(a, b), c), *[st.integers(0, 65_535)] * 3)
user = st.dictionaries(text.filter(bool), st.integers(-(2**62), 2**62) | real | text.filter(bool), max_size=3)
distances = st.lists(real, min_size=1, max_size=4).map(tuple)
multibands = st.builds(
    Multiband,
    factor=small,
    spacing_mm=st.lists(distances, min_size=1, max_size=2).map(tuple),
    delta_kz=real,
    calibration=st.sampled_from(["separable2D", "full3D", "other"]),
    calibration_encoding=small,
)
encodings = st.builds(
    Encoding,
    encoded=spaces,
    recon=spaces,
    limits=st.dictionaries(st.sampled_from(COUNTERS), limits),
    trajectory=st.sampled_from(Trajectory),
    acceleration=st.tuples(small, small),
    calibration_mode=st.sampled_from(["", "embedded", "interleaved", "separate", "external", "other"]),
    echo_train_length=small,
    description=st.none() | st.builds(TrajectoryDescription, identifier=text.filter(bool), values=user),
    multiband=st.none() | multibands,
)
times = st.lists(real, max_size=3).map(tuple)
headers = st.builds(
    ScanHeader,
    xml=st.just(b""),
    encodings=st.lists(encodings, min_size=1, max_size=3).map(tuple),
    coils=st.none() | small,
    tr_ms=times,
    te_ms=times,
    ti_ms=times,
    flip_angle_deg=times,
    echo_spacing_ms=times,
    diffusion=st.lists(st.builds(Diffusion, real, st.tuples(real, real, real)), max_size=2).map(tuple),
    diffusion_dimension=st.sampled_from(["", "set", "contrast", "user_3"]),
    field_t=st.none() | real,
    frequency_hz=st.integers(0, 2**31).map(float),
    relative_noise_bandwidth=st.none() | real,
    patient_position=st.sampled_from(["HFS", "HFP", "FFDR"]),
    protocol=text,
    manufacturer=text,
    model=text,
    station=text,
    institution=text,
    series_description=text,
    frame_of_reference_uid=text,
    patient=st.dictionaries(st.sampled_from(["patientName", "patientID"]), text.filter(bool)),
    user=user,
)


@given(headers)
def test_what_is_written_is_read_as_the_schema_classes_read_it(given_header: ScanHeader) -> None:
    xml = write_header(given_header)
    assert replace(parse_header(xml), xml=b"") == given_header
    check_against_schema_classes(xml)


def test_every_field_survives() -> None:
    xml = write_header(header())
    assert parse_header(xml) == replace(header(), xml=xml)
    check_against_schema_classes(xml)


def test_what_is_written_is_valid_by_the_schema(tmp_path: Path) -> None:
    schema = Path("/usr/share/ismrmrd/schema/ismrmrd.xsd")
    if not schema.exists() or shutil.which("xmllint") is None:
        pytest.skip("needs Debian's ismrmrd-schema and libxml2-utils")
    path = tmp_path / "header.xml"
    # Debian's schema is older than diffusion in the header; the schema classes of the package know it.
    path.write_bytes(write_header(replace(header(), diffusion=(), diffusion_dimension="")))
    subprocess.run(["xmllint", "--noout", "--schema", schema, path], check=True, capture_output=True)


REAL = {
    "the least a header can say": document(),
    "no declaration, no text but white space": b"\n \t" + document() + b"\n\0\0",
    "several user parameters": document(
        after="<userParameters>"
        "<userParameterLong><name>a</name><value>-3</value></userParameterLong>"
        "<userParameterDouble><name>b</name><value>1e-3</value></userParameterDouble>"
        "<userParameterDouble><name>c</name><value>5</value></userParameterDouble>"
        "<userParameterString><name>d</name><value></value></userParameterString>"
        "</userParameters>"
    ),
    "fields that are not ours": document(
        before="<version>8</version><acquisitionSystemInformation><systemFieldStrength_T>2.89</systemFieldStrength_T>"
        "<receiverChannels>2</receiverChannels><coilLabel><coilNumber>1</coilNumber><coilName>A</coilName></coilLabel>"
        "</acquisitionSystemInformation>"
    ),
    "axis sizes left to their defaults": document(ENCODING.replace("<z>1</z>", "<z/>")),
    "limits left to their defaults": document(
        ENCODING.replace(
            "<encodingLimits>",
            "<encodingLimits><kspace_encoding_step_0><minimum>0</minimum><maximum>127</maximum><center>64</center>"
            "</kspace_encoding_step_0><slice><minimum>0</minimum><maximum>0</maximum><center>0</center></slice>",
        )
    ),
    "no parallel mode": document(
        ENCODING + "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
        "<kspace_encoding_step_2>3</kspace_encoding_step_2></accelerationFactor></parallelImaging>"
    ),
    "trajectory description": document(
        ENCODING + "<trajectoryDescription><identifier>HargreavesVDS2000</identifier><userParameterLong>"
        "<name>interleaves</name><value>8</value></userParameterLong></trajectoryDescription>"
    ),
}


@pytest.mark.parametrize("xml", REAL.values(), ids=REAL)
def test_headers_as_they_come(xml: bytes) -> None:
    parse_header(xml)
    check_against_schema_classes(xml.strip(b"\0 \n\t"))


def test_schema_classes_own_serialiser_is_read() -> None:
    theirs = ismrmrd.xsd.CreateFromDocument(write_header(header()))
    again = parse_header(theirs.toXML().encode())
    assert replace(again, xml=b"") == header()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "cp1252"])
def test_other_encodings(encoding: str) -> None:
    body = write_header(replace(header(), patient={"patientName": "Dürer"})).decode().split("?>", 1)[1]
    declared = encoding.removesuffix("-sig")
    parsed = parse_header(f'<?xml version="1.0" encoding="{declared}"?>{body}'.encode(encoding))
    assert parsed.patient == {"patientName": "Dürer"}


def test_a_prefix_or_a_missing_namespace_changes_nothing() -> None:
    plain = document().decode()
    prefixed = plain.replace("</", "\0").replace("<", "<m:").replace("\0", "</m:").replace("xmlns=", "xmlns:m=")
    bare = plain.replace(f' xmlns="{NAMESPACE}"', "")
    expected = replace(parse_header(document()), xml=b"")
    assert replace(parse_header(prefixed.encode()), xml=b"") == expected
    assert replace(parse_header(bare.encode()), xml=b"") == expected


def test_the_xml_is_kept_as_it_came() -> None:
    xml = b"\n" + document() + b"\n"
    assert parse_header(xml).xml == xml


# ---- headers that are refused ----

LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>' + document(before="<version>&b;</version>")
SPACES = ENCODING[: ENCODING.index("<encodingLimits")]
REFUSED = {
    "empty": (b"", HeaderError, r"the header is not XML \(no element found"),
    "not XML": (
        b"not xml at all",
        HeaderError,
        r"the header is not XML \(syntax error: line 1, column 0\): send a well-formed",
    ),
    "cut off": (document()[:-5], HeaderError, "the header is not XML"),
    "unknown encoding": (b'<?xml version="1.0" encoding="no-such"?><a/>', HeaderError, "the header is not XML"),
    "doctype": (
        b"<!DOCTYPE x>" + document(),
        HeaderError,
        "declares a document type or entities, which are never expanded",
    ),
    "entities": (
        LAUGHS,
        HeaderError,
        "declares a document type or entities, which are never expanded: send plain elements",
    ),
    "external": (
        b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + document(before="<version>&f;</version>"),
        HeaderError,
        "declares a document type or entities",
    ),
    "other root": (
        b"<html/>",
        HeaderError,
        "header begins with <html> in the namespace '', expected <ismrmrdHeader> in the",
    ),
    "other namespace": (b'<ismrmrdHeader xmlns="urn:x"/>', HeaderError, "in the namespace 'urn:x', expected"),
    "no encoding": (b"<ismrmrdHeader/>", HeaderError, "has no <encoding>: describe at least one encoding"),
    "no space": (
        document("<trajectory>epi</trajectory>"),
        HeaderError,
        "<encodedSpace> of encoding 0 is missing from the header: add it",
    ),
    "no limits": (
        document(SPACES + "<trajectory>epi</trajectory>"),
        HeaderError,
        "<encodingLimits> of encoding 0 is missing",
    ),
    "no field of view": (
        document(ENCODING.replace("<z>6</z>", "")),
        HeaderError,
        "<z> of fieldOfView_mm of encoding 0 is missing",
    ),
    "trajectory": (
        document(ENCODING.replace("radial", "rosette")),
        HeaderError,
        "trajectory of encoding 0 is 'rosette', expected one of cartesian, epi, radial, goldenangle, spiral, other",
    ),
    "matrix of words": (
        document(ENCODING.replace("<x>128</x>", "<x>many</x>")),
        HeaderError,
        "x is 'many' in the header, expected a number: correct it",
    ),
    "matrix of nothing": (
        document(ENCODING.replace("<x>128</x>", "<x>0</x>")),
        HeaderError,
        r"matrix \(z, y, x\) of encodedSpace of encoding 0 is \(1, 64, 0\), every size must be at least 1",
    ),
    "matrix beyond 16 bits": (
        document(ENCODING.replace("<x>128</x>", "<x>65536</x>")),
        HeaderError,
        "x is 65536 in the header, expected 0 to 65535",
    ),
    "long axis": (
        document(ENCODING.replace("<x>128</x>", "<x>65535</x>")),
        LimitError,
        r"encodedSpace of encoding 0 is \(1, 64, 65535\), at most 4096 voxels along an axis and 1073741824 in all",
    ),
    "many voxels": (
        document(ENCODING.replace("128<", "4096<").replace("64<", "4096<").replace("<z>1<", "<z>65<")),
        LimitError,
        r"is \(65, 4096, 4096\), at most",
    ),
    "field of view of nothing": (
        document(ENCODING.replace("<x>600</x>", "<x>0</x>")),
        HeaderError,
        r"field of view \(z, y, x\) of encodedSpace of encoding 0 is \(6.0, 300.0, 0.0\) mm, every side must be",
    ),
    "field of view not a number": (
        document(ENCODING.replace("<x>600</x>", "<x>NaN</x>")),
        HeaderError,
        "every side must be positive",
    ),
    "limits backwards": (
        document(
            ENCODING.replace(
                "<encodingLimits>",
                "<encodingLimits><slice><minimum>4</minimum><maximum>2</maximum><center>0</center></slice>",
            )
        ),
        HeaderError,
        "limits of slice of encoding 0 run from 4 to 2, expected the minimum first",
    ),
    "acceleration": (
        document(
            ENCODING + "<parallelImaging><accelerationFactor><kspace_encoding_step_1>0</kspace_encoding_step_1>"
            "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor></parallelImaging>"
        ),
        HeaderError,
        "acceleration is 0 × 1, every factor must be at least 1",
    ),
    "user parameter": (
        document(
            after="<userParameters><userParameterLong><name>a</name><value>x</value></userParameterLong>"
            "</userParameters>"
        ),
        HeaderError,
        "user parameter 'a' is 'x' in the header, expected a number",
    ),
    "many encodings": (
        document(after=f"<encoding>{ENCODING}</encoding>" * 64),
        LimitError,
        "the header has 65 encodings, the limit is 64: send fewer",
    ),
    "many elements": (
        document(after="<a/>" * 100_000),
        LimitError,
        "the header has more than 100000 elements or 32 levels: shorten it",
    ),
    "deep": (document(after="<a>" * 40 + "</a>" * 40), LimitError, "more than 100000 elements or 32 levels"),
}


@pytest.mark.parametrize(("xml", "error", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_bad_header_is_refused_in_one_sentence(xml: bytes, error: type[ReconError], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        parse_header(xml)
    assert "\n" not in str(caught.value)


def test_limits_are_the_receivers_to_set() -> None:
    big = document(ENCODING.replace("<x>128</x>", "<x>8192</x>"))
    assert parse_header(big, limits=HeaderLimits(axis=8192)).encodings[0].encoded.matrix == (1, 64, 8192)
    with pytest.raises(LimitError):
        parse_header(big)

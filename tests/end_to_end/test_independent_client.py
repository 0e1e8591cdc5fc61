"""The PyPI `ismrmrd` package's serializer and deserializer as a client that shares no code with the server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from ismrmrd.serialization import ConfigFile, ConfigText, ProtocolDeserializer, ProtocolSerializer

from cluster.events import State
from recon.mrd.header import write_header
from recon.scan import Readouts
from tests.cluster import scans
from tests.end_to_end.running import Running, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


def talk(server: Running, *messages: Any) -> list[Any]:
    """Send `messages` and CLOSE as the package writes them; what comes back, as the package reads it."""
    with socket.create_connection(server.mrd, timeout=30.0) as connection:
        with connection.makefile("wb") as stream:
            serializer = ProtocolSerializer(stream)
            for message in messages:
                serializer.serialize(message)
            serializer.close()
        with connection.makefile("rb") as stream:
            return list(ProtocolDeserializer(stream).deserialize())


def header(count: int = 1) -> Any:
    """The test scan's header as the package's own object."""
    return ismrmrd.xsd.CreateFromDocument(write_header(scans.header(repetitions=count)))


def acquisitions(readouts: Readouts) -> list[ismrmrd.Acquisition]:
    """Readouts as the package's acquisitions."""
    made = []
    for head, samples in zip(readouts.head, readouts.samples, strict=True):
        acquisition = ismrmrd.Acquisition.from_array(samples)
        fields = acquisition.getHead()
        fields.flags = int(head["flags"])
        fields.idx.kspace_encode_step_1 = int(head["kspace_encode_step_1"])
        fields.idx.repetition = int(head["repetition"])
        fields.center_sample = int(head["center_sample"])
        fields.sample_time_us = float(head["sample_time_us"])
        fields.acquisition_time_stamp = 1234
        fields.position[:] = (1.0, 2.0, 3.0)
        fields.read_dir[:], fields.phase_dir[:], fields.slice_dir[:] = (0, 1, 0), (0, 0, 1), (1, 0, 0)
        acquisition.setHead(fields)
        made.append(acquisition)
    return made


def test_a_scan_and_its_images(server: Running) -> None:
    sent = scans.frames(2)
    answers = talk(server, ConfigFile("simplefft"), header(2), *acquisitions(sent[0]), *acquisitions(sent[1]))
    assert all(isinstance(answer, ismrmrd.Image) for answer in answers)
    images = sorted(answers, key=lambda image: image.repetition)
    for number, (image, readouts) in enumerate(zip(images, sent, strict=True)):
        scans.assert_true(image.data[0, 0], readouts)
        assert (image.repetition, image.slice, image.image_type) == (number, 0, ismrmrd.IMTYPE_MAGNITUDE)
        assert image.data.dtype == np.float32
        assert tuple(image.matrix_size) == (scans.SAMPLES, scans.LINES, 1)
        assert tuple(image.field_of_view) == (200.0, 120.0, 5.0)
        assert tuple(image.position) == (1.0, 2.0, 3.0)
        assert tuple(image.read_dir) == (0.0, 1.0, 0.0)
        assert image.acquisition_time_stamp == 1234
        assert image.meta["DataRole"] == "Image"


def test_every_other_kind_of_message(server: Running) -> None:
    (readouts,) = scans.frames(1)
    ecg = ismrmrd.Waveform.from_array(
        np.arange(12, dtype=np.uint32).reshape(2, 6), waveform_id=0, sample_time_us=2500.0
    )
    answers = talk(
        server,
        ConfigText('{"method": "fft"}'),
        header(),
        '{"parameters": {"output": "complex"}}',
        ecg,
        *acquisitions(readouts)[:6],
        "a remark from the technician\0",
        ecg,
        *acquisitions(readouts)[6:],
    )
    assert [type(answer) for answer in answers] == [ismrmrd.Image]
    assert answers[0].data.dtype == np.complex64
    assert answers[0].image_type == ismrmrd.IMTYPE_COMPLEX
    record = server.service.scans(limit=1)[0]
    assert (server.service.wait(record.id, 10.0).state, record.readouts) == (State.DONE, 12)


def test_an_image_from_a_client_is_not_mistaken_for_data(server: Running) -> None:
    """Some clients send images for further processing, which no recipe here does: they are kept and passed over."""
    (readouts,) = scans.frames(1)
    image = ismrmrd.Image.from_array(np.ones((4, 4), np.float32))
    answers = talk(server, ConfigFile("fft"), header(), image, *acquisitions(readouts))
    assert [type(answer) for answer in answers] == [ismrmrd.Image]


def test_an_array_is_refused_by_name(server: Running) -> None:
    answers = talk(server, ConfigFile("fft"), header(), np.ones((3, 4), np.float32))
    assert len(answers) == 1
    assert answers[0].startswith("ERROR message 1030 (array)")


def test_an_error_reaches_the_client_as_text(server: Running) -> None:
    answers = talk(server, ConfigFile("no-such-recipe"), header(), *acquisitions(scans.frames(1)[0]))
    assert len(answers) == 1
    assert answers[0].startswith("ERROR the configuration 'no-such-recipe' is unknown, expected one of ")


@pytest.mark.parametrize("name", ["openrecon", "default.xml", "Generic_Cartesian_Grappa.xml", "auto"])
def test_names_that_existing_clients_send(server: Running, name: str) -> None:
    answers = talk(server, ConfigFile(name), header(), *acquisitions(scans.frames(1)[0]))
    assert [type(answer) for answer in answers] == [ismrmrd.Image]


def test_the_raw_data_are_what_the_package_wrote(server: Running, tmp_path: Path) -> None:
    messages = [ConfigFile("fft"), header(), *acquisitions(scans.frames(1)[0])]
    talk(server, *messages)
    with ProtocolSerializer(str(tmp_path / "raw.mrd")) as serializer:
        for message in messages:
            serializer.serialize(message)
    record = server.service.scans(limit=1)[0]
    assert server.service.raw_path(record.id).read_bytes() == (tmp_path / "raw.mrd").read_bytes()

"""The client against a real server, through a proxy that breaks connections, in its sync and its async form."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from cluster.calls import Patience, Tries
from cluster.client import AsyncClient, AsyncRemoteScan, Client, Options, RemoteScan
from cluster.events import State
from cluster.job import FailedError, NotFoundError, RequestError
from cluster.sources import GroupOf
from recon.errors import FileError, InputError, LostError, RecipeError, RefusedError, ScanError, WireError
from recon.mrd.hdf5 import read_images, write_scan
from recon.mrd.header import parse_header, write_header
from recon.mrd.wire import Decoder, encode_close
from recon.recipe import Recipe, resolve
from recon.scan import Image, Scan
from tests.cluster import scans
from tests.cluster.proxy import proxy
from tests.cluster.test_service import NoWorkers
from tests.end_to_end.running import Running, converse, eventually, running

QUICK = Options(
    patience=Patience(first_pause_s=0.05, longest_pause_s=5.0, poll_s=0.05, arrival_s=0.0), random=lambda: 0.5
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    """A client of it."""
    with Client(server.http, options=QUICK) as client:
        yield client


def a_scan(count: int = 2) -> Scan:
    """A scan in memory."""
    return Scan(parse_header(write_header(scans.header(repetitions=count))), tuple(scans.frames(count)))


def check_images(images: list[Image], count: int = 2) -> None:
    """The images of `count` frames, each as it should be."""
    ordered = sorted(images, key=lambda image: image.counters.repetition)
    for image, readouts in zip(ordered, scans.frames(count), strict=True):
        scans.assert_true(image.pixels[0, 0], readouts)


# ---- what can be sent ----


def test_bytes(client: Client) -> None:
    scan = client.submit(scans.stream(scans.frames(2)), method="fft", priority="stat", name="bytes")
    assert scan.record.complete
    check_images(list(scan.images()))
    record = scan.wait(timeout_s=30.0)
    assert (record.state, record.images, record.priority.name, record.name) == (State.DONE, 2, "STAT", "bytes")


def test_a_scan_in_memory(client: Client) -> None:
    check_images(list(client.submit(a_scan()).images()))


def test_an_iterable_of_bytes(client: Client) -> None:
    stream = scans.stream(scans.frames(2))
    check_images(list(client.submit(stream[at : at + 777] for at in range(0, len(stream), 777)).images()))


@pytest.mark.parametrize("name", ["scan.mrd", "scan.h5", "misnamed.dat"])
def test_a_file_by_what_is_in_it(client: Client, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "scan.mrd":
        path.write_bytes(scans.stream(scans.frames(2)))
    else:
        write_scan(path, a_scan())
    sent: list[int] = []
    scan = client.submit(str(path) if name == "scan.h5" else path, progress=sent.append)
    assert sent == sorted(sent)
    assert sent[-1] == path.stat().st_size
    check_images(list(scan.images()))


def test_a_group_of_a_file(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    write_scan(path, a_scan())
    with h5py.File(path, "a") as file:
        file.move("dataset", "first")
    check_images(list(client.submit(GroupOf(path, "first")).images()))
    with pytest.raises(FileError, match=r"scan.h5 has no group 'dataset', but 'first' looks like a scan"):
        client.submit(path)
    with pytest.raises(FileError, match=r"^the file has no group 'dataset', but 'first' looks like a scan"):
        client.submit(path.read_bytes())
    (tmp_path / "scan.mrd").write_bytes(scans.stream(scans.frames(1)))
    with pytest.raises(FileError, match=r"the group 'first' is asked for, but .*scan.mrd is an MRD stream"):
        client.submit(GroupOf(tmp_path / "scan.mrd", "first"))


def test_a_recipe_as_a_mapping(client: Client) -> None:
    recipe = {"method": "fft", "parameters": {"output": "complex", "whiten": False}}
    scan = client.submit(scans.stream(scans.frames(1)), method=recipe)
    (image,) = scan.images()
    assert resolve(image.attributes["ReconRecipe"]) == Recipe("fft", {"output": "complex", "whiten": False})
    with pytest.raises(RecipeError, match="the parameter 'speed' is unknown to the method fft"):
        client.submit(scans.stream(scans.frames(1)), method={"method": "fft", "parameters": {"speed": 3}})
    with pytest.raises(RecipeError, match=r"^the recipe \{'coils': \{8\}\} is no JSON \(.*\), expected texts, numbers"):
        client.submit(scans.stream(scans.frames(1)), method={"coils": {8}})


def nobody() -> str:
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_a_file_that_is_no_whole_scan_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    write_scan(tmp_path / "whole.h5", a_scan())
    whole = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "damaged.h5").write_bytes(whole[:8] + bytes(len(whole) - 8))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["spectra"] = np.zeros(3)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["dataset/image_0/data"] = np.zeros(3)
    expected = {
        "cut.h5": r"cut\.h5 is not a readable ISMRMRD HDF5 file \(.*truncated file.*\): check that it is whole",
        "damaged.h5": r"damaged\.h5 is not a readable ISMRMRD HDF5 file \(.*\): check that it is whole",
        "other.h5": r"other\.h5 holds spectra, expected the group 'dataset' of an ISMRMRD file: check its origin",
        "images.h5": r"images\.h5 has no list /dataset/xml: check that it is an ISMRMRD file",
    }

    async def talk(url: str, name: str) -> None:
        async with AsyncClient(url, options=QUICK) as client:
            await client.submit(tmp_path / name)

    with Client(nobody(), options=QUICK) as client:  # whatever were sent would be lost
        for name, words in expected.items():
            for submit in (client.submit, lambda path: asyncio.run(talk(nobody(), path.name))):
                with pytest.raises(FileError, match=words):
                    submit(tmp_path / name)


def test_files_that_cannot_be_sent(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere.h5 cannot be read \(No such file"):
        client.submit(tmp_path / "nowhere.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(FileError, match="is empty, expected an ISMRMRD HDF5 file or an MRD stream"):
        client.submit(tmp_path / "empty.h5")


# ---- what is wrong with it, as the class it is ----


def test_problems_become_errors(client: Client, tmp_path: Path) -> None:
    good = scans.stream(scans.frames(1))
    with pytest.raises(RecipeError, match="'magic' is unknown"):
        client.submit(good, method="magic")
    with pytest.raises(RequestError, match="the priority is 'now'"):
        client.submit(good, priority="now")
    with pytest.raises(WireError, match="772 of 822"):
        client.submit(good[:-52])
    (tmp_path / "other.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 100)
    with pytest.raises(FileError, match="HDF5"):
        client.submit((tmp_path / "other.h5").read_bytes())
    with pytest.raises(ScanError, match="before the header"):
        client.submit(good[good.index(b"</ismrmrdHeader>") + 16 :].lstrip())
    with pytest.raises(NotFoundError, match="there is no scan 'nowhere'"):
        client.scan("nowhere")


def test_a_scan_that_fails_says_so_after_the_images_it_has(client: Client) -> None:
    readouts = scans.frames(2)
    readouts[1].samples[0, 0, 0] = np.nan
    scan = client.submit(scans.stream(readouts))
    images = scan.images()
    assert next(images).counters.repetition == 0
    with pytest.raises(FailedError, match=r"1 of 2 frames failed.*finite") as caught:
        next(images)
    assert caught.value.state is State.FAILED
    assert scan.wait().state is State.FAILED


# ---- lost connections and refusals ----


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    options = replace(QUICK, patience=replace(QUICK.patience, attempts=2))
    with (
        Client(f"http://127.0.0.1:{port}", options=options) as client,
        pytest.raises(LostError, match="cannot be reached"),
    ):
        client.submit(b"x" * 100)


def test_an_upload_that_breaks_is_sent_again(server: Running) -> None:
    stream = scans.stream(scans.frames(2))
    before = len(server.service.scans(limit=1000))
    with (
        proxy(server.http, up=lambda number: 9000 if number == 0 else float("inf")) as broken,
        Client(broken.url, options=QUICK) as client,
    ):
        scan = client.submit(stream)
        check_images(list(scan.images()))
        assert broken.connections >= 2
    records = server.service.scans(limit=1000)[: len(server.service.scans(limit=1000)) - before]
    complete = [record for record in records if record.complete]
    assert [record.id for record in complete] == [scan.id]


def test_an_answer_that_is_lost_does_not_make_a_second_scan(server: Running) -> None:
    stream = scans.stream(scans.frames(1))
    before = len(server.service.scans(limit=1000))
    with (
        proxy(server.http, down=lambda number: 10 if number == 0 else float("inf")) as broken,
        Client(broken.url, options=QUICK) as client,
    ):
        client.submit(stream).wait(timeout_s=30.0)
        assert broken.connections >= 2
    assert len(server.service.scans(limit=1000)) == before + 1


def test_an_iterable_cannot_be_sent_again(server: Running) -> None:
    stream = scans.stream(scans.frames(2))
    with (
        proxy(server.http, up=lambda number: 9000) as broken,
        Client(broken.url, options=QUICK) as client,
        pytest.raises(LostError),
    ):
        client.submit(iter([stream]))
    assert broken.connections == 1


def test_images_go_on_where_the_connection_broke(server: Running) -> None:
    frames = scans.frames(6, lines=64, samples=64)
    with Client(server.http, options=QUICK) as client:
        whole = client.submit(scans.stream(frames, scans.header(repetitions=6, lines=64, samples=64)))
        expected = list(whole.images())
        # A connection takes about two and a half of the 17 kB images; failures in a row are fewer than attempts.
        with (
            proxy(server.http, down=lambda number: 45_000) as broken,
            Client(broken.url, options=replace(QUICK, patience=replace(QUICK.patience, attempts=2))) as unlucky,
        ):
            images = list(RemoteScan(unlucky, whole.record).images())
            assert broken.connections >= 3
    for image, other in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image.pixels, other.pixels)


@pytest.fixture(scope="module")
def large(server: Running) -> RemoteScan:
    """A scan whose raw data and images are longer than what a connection gets through below."""
    frames = scans.frames(6, lines=64, samples=64)
    with Client(server.http, options=QUICK) as client:
        scan = client.submit(scans.stream(frames, scans.header(repetitions=6, lines=64, samples=64)))
        scan.wait(timeout_s=30.0)
        return scan


def test_raw_data_go_on_where_the_connection_broke(server: Running, large: RemoteScan) -> None:
    expected = server.service.raw_path(large.id).read_bytes()
    patience = replace(QUICK.patience, attempts=2)
    with (
        proxy(server.http, down=lambda number: 200_000) as broken,
        Client(broken.url, options=replace(QUICK, patience=patience)) as unlucky,
    ):
        assert b"".join(RemoteScan(unlucky, large.record).raw()) == expected
    assert broken.connections >= len(expected) // 200_000 + 1


@pytest.mark.parametrize("name", ["images.h5", "dicom"])
def test_files_are_fetched_anew(server: Running, large: RemoteScan, tmp_path: Path, name: str) -> None:
    with (
        proxy(server.http, down=lambda number: 45_000 if number == 0 else float("inf")) as broken,
        Client(broken.url, options=QUICK) as unlucky,
    ):
        RemoteScan(unlucky, large.record).save(tmp_path / name)
        assert broken.connections == 2
    if name == "dicom":
        assert len(list((tmp_path / name).rglob("*.dcm"))) == 6
    else:
        assert len(read_images(tmp_path / name)) == 6


def test_a_download_that_never_gets_through_ends(server: Running, large: RemoteScan, tmp_path: Path) -> None:
    with (
        proxy(server.http, down=lambda number: 45_000) as broken,
        Client(broken.url, options=QUICK) as unlucky,
        pytest.raises(LostError, match="went away"),
    ):
        RemoteScan(unlucky, large.record).save(tmp_path / "images.h5")
    assert not list(tmp_path.iterdir())


def test_an_async_download_goes_on_too(server: Running, large: RemoteScan, tmp_path: Path) -> None:
    async def talk(url: str) -> bytes:
        async with AsyncClient(url, options=QUICK) as client:
            scan = await client.scan(large.id)
            await scan.save(tmp_path / "images.h5")
            return b"".join([piece async for piece in scan.raw()])

    with proxy(server.http, down=lambda number: 250_000 if number else 45_000) as broken:
        assert asyncio.run(talk(broken.url)) == server.service.raw_path(large.id).read_bytes()
    assert len(read_images(tmp_path / "images.h5")) == 6


def test_events_go_on_where_the_connection_broke(server: Running) -> None:
    """Each connection lasts for a few events: none is missing, none comes twice."""
    count, gate = 12, threading.Event()
    stream = scans.stream(scans.frames(count), scans.header(repetitions=count))

    def slow() -> Iterator[bytes]:
        yield stream[: len(stream) // 100]
        gate.wait(30.0)
        yield stream[len(stream) // 100 :]

    with (
        Client(server.http, options=QUICK) as client,
        proxy(server.http, down=lambda number: 700) as broken,
        Client(broken.url, options=replace(QUICK, patience=replace(QUICK.patience, attempts=3))) as unlucky,
    ):
        sender = threading.Thread(target=client.submit, args=(slow(),), kwargs={"key": "events"})
        sender.start()
        assert eventually(lambda: client.find("events") is not None)
        scan = unlucky.find("events")
        assert scan is not None
        listener = server.service.events(scan.id)
        events = scan.events()
        first = next(events)
        gate.set()
        rest = list(events)
        sender.join()
    listener.close()
    expected = [(told.name, json.dumps(told.values)) for told in listener]
    assert first[0] == "state"
    assert rest == expected[-len(rest) :]
    assert [name for name, _ in rest].count("image") == count
    assert json.loads(rest[-1][1])["state"] == "done"
    assert broken.connections > 3


def test_events_that_a_restart_took_along_are_told_to_be_lost(tmp_path: Path) -> None:
    with running(tmp_path, NoWorkers()) as server:
        client = Client(server.http, options=QUICK)
        scan = client.submit(scans.stream(scans.frames(1)))
        events = scan.events()
        assert next(events)[0] == "state"
        port = int(server.http.rpartition(":")[2])
    with running(tmp_path, http_port=port), client:
        names, values = zip(*[(name, json.loads(data)) for name, data in events], strict=True)
    assert names[:2] == ("lost", "state")
    assert "lost" not in names[1:]
    assert values[-1]["state"] == "done"


def test_events_of_a_server_that_is_not_there() -> None:
    with Client("http://127.0.0.1:1", options=QUICK) as nobody, pytest.raises(LostError, match="cannot be reached"):
        next(nobody.events())


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    with running(tmp_path, max_uploads=1) as server, Client(server.http, options=QUICK) as client:
        stream = scans.stream(scans.frames(1))
        gate = threading.Event()

        def slow() -> Iterator[bytes]:
            yield stream[:3000]
            gate.wait(30.0)
            yield stream[3000:]

        with Client(server.http, options=QUICK) as other:
            sender = threading.Thread(target=other.submit, args=(slow(),))
            sender.start()
            assert eventually(lambda: bool(server.service.scans()))
            threading.Timer(0.3, gate.set).start()
            assert client.submit(stream).wait(timeout_s=30.0).state is State.DONE
            sender.join()


def test_patience_ends(tmp_path: Path) -> None:
    with running(tmp_path, spool_free_bytes=1 << 46) as server, Client(server.http, options=QUICK) as client:
        # The server says to come back in a minute, longer than this client waits.
        with pytest.raises(RefusedError, match="bytes are free") as caught:
            client.submit(scans.stream(scans.frames(1)))
        assert caught.value.retry_after_s == 60.0


def test_pauses_grow_and_honour_the_server() -> None:
    tries = Tries(Patience(attempts=5, first_pause_s=1.0, longest_pause_s=3.0), lambda: 1.0)
    assert [tries.pause(LostError("x")).seconds for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]
    with pytest.raises(LostError):
        tries.pause(LostError("x"))
    tries.progress()
    assert tries.pause(RefusedError("x", retry_after_s=2.5)).seconds == 2.5
    with pytest.raises(RefusedError):
        tries.pause(RefusedError("x", retry_after_s=4.0))
    with pytest.raises(RefusedError):
        tries.pause(RefusedError("x"))


def test_a_host_that_takes_no_connection_is_told_of(server: Running) -> None:
    """A listener whose backlog is full lets further connections wait, as a host that swallows packets does."""
    said: list[str] = []
    patience = Patience(attempts=3, first_pause_s=0.01, arrival_s=0.0)
    options = replace(QUICK, patience=patience, connect_timeout_s=0.2, notice=said.append)
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, options=options) as client, pytest.raises(LostError, match="cannot be reached"):
            client.submit(iter([b"x"]))  # nothing of it was sent: it is tried again
    # Two attempts of 0.2 s and two pauses of at most 0.01 and 0.02 s, in whole seconds.
    assert said == [f"no server at {url} yet, trying for 1 s"]


def test_one_word_for_each_time_of_silence() -> None:
    said: list[str] = []
    tries = Tries(Patience(attempts=4, first_pause_s=1.0), lambda: 1.0, server="S", notice=said.append)
    for _ in range(2):
        tries.pause(LostError("x"), attempt_s=5.0)
    tries.progress()
    tries.reached = True
    tries.pause(LostError("x"))
    tries.progress()
    tries.pause(RefusedError("full: send it again", retry_after_s=2.0))
    assert said == [
        "no server at S yet, trying for 22 s",  # 1 + 2 + 4 s of pauses, three attempts of 5 s
        "the server at S went away, trying for 7 s",
        "full: send it again; trying again in 2 s",
    ]


def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    said, appeared = threading.Event(), threading.Event()
    # One attempt would not do, nor the pauses of a lost connection.
    patience = Patience(attempts=1, first_pause_s=0.01, longest_pause_s=0.05, arrival_s=60.0)
    options = replace(QUICK, patience=patience, notice=lambda _words: said.set())

    def ask() -> None:
        with Client(f"http://127.0.0.1:{port}", options=options) as client:
            assert client.scans() == []
            appeared.set()

    asking = threading.Thread(target=ask)
    asking.start()
    assert said.wait(30.0)
    with running(tmp_path, http_port=port):
        asking.join(30.0)
    assert appeared.is_set()


def test_a_server_that_never_comes_is_given_up_after_the_time_said() -> None:
    said: list[str] = []
    tries = Tries(Patience(attempts=2, first_pause_s=1.0), lambda: 1.0, server="S", notice=said.append)
    waited = 0.0
    with pytest.raises(LostError):
        while True:
            waited += tries.pause(LostError("x"), absent=True).seconds
    assert said == ["no server at S yet, trying for 60 s"]
    assert 60.0 <= waited < 62.0  # whole pauses of at most 2 s


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("address", "write"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("recon:8080", "http://recon:8080"),
        ("ftp://recon", "http://HOST:PORT"),
        ("http://", "http://HOST:PORT"),
    ],
)
def test_what_is_no_address_is_refused_at_once(kind: type[Client | AsyncClient], address: str, write: str) -> None:
    with pytest.raises(RequestError) as caught:
        kind(address)
    assert str(caught.value) == f"the server's address is {address!r}, expected http://HOST:PORT: write {write}"


def test_the_port_of_mrd_is_no_http_server(server: Running) -> None:
    said: list[str] = []
    url = f"http://127.0.0.1:{server.mrd[1]}"
    words = f"what listens at {url} is no HTTP server: give the address of HTTP, 9002 is the MRD port by default"
    with Client(url, options=replace(QUICK, notice=said.append)) as client:
        for call in (client.cluster, lambda: client.submit(scans.stream(scans.frames(1)))):
            with pytest.raises(InputError) as caught:
                call()
            assert str(caught.value) == words
    assert said == []


# ---- handles ----


def test_a_handle_shows_all_of_a_scan(client: Client, tmp_path: Path) -> None:
    stream = scans.stream(scans.frames(2))
    scan = client.submit(stream, method="fft")
    seen: list[State] = []
    record = scan.wait(timeout_s=30.0, progress=lambda record: seen.append(record.state))
    assert seen[-1] is record.state is scan.status().state is State.DONE
    assert b"".join(scan.raw()) == stream
    assert [line.text for line in scan.log()][-1] == "done"
    assert next(iter(scan.events()))[0] == "state"
    assert scan.cancel().state is State.DONE
    assert scan.requeue().id == scan.id
    assert scan.wait(timeout_s=30.0).images == 2
    assert client.scan(scan.id).record == scan.record
    assert scan.id in {record.id for record in client.scans(state="done", limit=1000)}
    assert repr(scan) == f"RemoteScan({scan.id}, done)"


def test_waiting_has_an_end(server: Running, client: Client) -> None:
    with socket.create_connection(server.mrd) as connection:
        stream = scans.stream(scans.frames(1), close=False)
        connection.sendall(stream)
        assert eventually(lambda: server.service.scans(limit=1)[0].state is State.RECEIVING)
        scan = client.scan(server.service.scans(limit=1)[0].id)
        with pytest.raises(TimeoutError, match="is still receiving after"):
            scan.wait(timeout_s=0.1)
        assert scan.cancel().state is State.CANCELLED


def test_a_scan_sent_over_tcp_is_followed_over_http(server: Running, client: Client) -> None:
    known = {record.id for record in client.scans(limit=1000)}
    converse(server.mrd, scans.stream(scans.frames(2)))
    (record,) = [record for record in client.scans(limit=1000) if record.id not in known]
    check_images(list(client.scan(record.id).images()))


def test_images_are_saved_by_ending(client: Client, tmp_path: Path) -> None:
    scan = client.submit(scans.stream(scans.frames(2)))
    scan.wait(timeout_s=30.0)
    assert scan.save(tmp_path / "deep" / "images.h5") == [tmp_path / "deep" / "images.h5"]
    check_images(read_images(tmp_path / "deep" / "images.h5"))
    scan.save(str(tmp_path / "images.mrd"))
    decoded = list(Decoder().feed((tmp_path / "images.mrd").read_bytes()))
    assert len(decoded) == 3
    assert (tmp_path / "images.mrd").read_bytes().endswith(encode_close())
    scan.save(tmp_path / "images.png")
    assert (tmp_path / "images.png").read_bytes().startswith(b"\x89PNG")
    files = scan.save(tmp_path / "dicom")
    assert len(files) == 2
    assert all(path.read_bytes()[128:132] == b"DICM" for path in files)
    assert not list(tmp_path.rglob("*.part"))


def test_places_that_cannot_be_written(client: Client, tmp_path: Path) -> None:
    scan = client.submit(scans.stream(scans.frames(1)))
    scan.wait(timeout_s=30.0)
    with pytest.raises(
        FileError, match=r"images cannot be written as 'x.jpg', expected .h5, .hdf5, .mrd, .png or a folder"
    ):
        scan.save(tmp_path / "x.jpg")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").touch()
    with pytest.raises(FileError, match="already exists and is not an empty folder"):
        scan.save(tmp_path / "full")
    with pytest.raises(FileError, match="cannot be written"):
        scan.save(tmp_path / "full" / "other" / "x.h5")
    assert not list(tmp_path.rglob("*.part"))


def test_the_server_is_described(client: Client) -> None:
    assert {worker["worker"] for worker in client.cluster()["workers"]} == {"w0", "w1"}
    assert "fft" in {recipe["name"] for recipe in client.recipes()["recipes"]}


def test_events_of_all_scans(server: Running, client: Client) -> None:
    events = client.events()
    first: list[tuple[str, str]] = []
    reader = threading.Thread(target=lambda: first.append(next(events)))
    reader.start()

    def heard() -> bool:
        client.submit(scans.stream(scans.frames(1)))
        return bool(first)

    assert eventually(heard)
    reader.join()
    events.close()  # type: ignore[attr-defined]  # it is a generator
    assert first[0][0] in ("state", "image")


# ---- async ----


def test_the_async_client_does_the_same(server: Running, tmp_path: Path) -> None:
    async def talk() -> None:
        async with AsyncClient(server.http, options=QUICK) as client:
            stream = scans.stream(scans.frames(2))
            sent: list[int] = []
            scan = await client.submit(stream, method={"method": "fft"}, progress=sent.append)
            assert sent[-1] == len(stream)
            check_images([image async for image in scan.images()])
            assert (await scan.wait(timeout_s=30.0)).state is State.DONE
            assert (await scan.status()).images == 2
            assert b"".join([piece async for piece in scan.raw()]) == stream
            assert (await scan.log())[-1].text == "done"
            assert (await anext(scan.events()))[0] == "state"
            assert (await scan.cancel()).state is State.DONE
            assert await scan.save(tmp_path / "images.h5") == [tmp_path / "images.h5"]
            assert (await scan.requeue()).id == scan.id
            assert (await (await client.scan(scan.id)).wait(timeout_s=30.0)).images == 2
            assert scan.id in {record.id for record in await client.scans(limit=1000)}
            assert (await client.cluster())["ready"]
            assert (await client.recipes())["recipes"]
            with pytest.raises(NotFoundError):
                await client.scan("nowhere")

    asyncio.run(talk())
    check_images(read_images(tmp_path / "images.h5"))


def test_async_scans_run_side_by_side(server: Running) -> None:
    async def one(client: AsyncClient) -> list[Image]:
        scan = await client.submit(scans.stream(scans.frames(2)))
        return [image async for image in scan.images()]

    async def talk() -> list[list[Image]]:
        async with AsyncClient(server.http, options=QUICK) as client:
            return await asyncio.gather(*(one(client) for _ in range(4)))

    for images in asyncio.run(talk()):
        check_images(images)


def test_an_async_upload_that_breaks_is_sent_again(server: Running) -> None:
    async def talk(url: str) -> list[Image]:
        async with AsyncClient(url, options=QUICK) as client:
            return [image async for image in (await client.submit(scans.stream(scans.frames(2)))).images()]

    with proxy(server.http, up=lambda number: 9000 if number == 0 else float("inf")) as broken:
        check_images(asyncio.run(talk(broken.url)))


def public(kind: type) -> dict[str, list[str]]:
    """Methods and their parameters."""
    methods = {name: value for name, value in vars(kind).items() if inspect.isfunction(value) and name[0] != "_"}
    return {name: list(inspect.signature(value).parameters) for name, value in methods.items()}


def test_both_forms_have_the_same_methods() -> None:
    assert public(Client) == public(AsyncClient)
    assert public(RemoteScan) == public(AsyncRemoteScan)

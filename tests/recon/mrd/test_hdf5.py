"""ISMRMRD HDF5 files: the `ismrmrd` package and ISMRMRD's own generator write and read the same."""

from __future__ import annotations

import shutil
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest

from recon.errors import FileError, HeaderError, LimitError, ReconError
from recon.mrd import hdf5, wire
from recon.mrd.header import write_header
from recon.mrd.wire import AcquisitionRun, Decoder, WireLimits
from recon.scan import READOUT_HEAD, Image, Readouts, Scan
from tests.recon.mrd.builders import complex_image, header, image, readouts, told, waveform


def scan() -> Scan:
    xml = write_header(header())
    runs = (
        readouts(5, 4, 16),
        readouts(3, 2, 8, axes=2),
        readouts(2, 2, 8),
        readouts(1, 2, 0),
        readouts(2, 1, 9, axes=3),
    )
    return Scan(replace(header(), xml=xml), runs, (waveform(2, 5), waveform(1, 3, seed=1)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.h5"
    hdf5.write_scan(path, scan())
    return path


def assert_same(came: Scan, sent: Scan) -> None:
    assert came.header == sent.header
    assert [len(run.head) for run in came.readouts] == [len(run.head) for run in sent.readouts]
    for mine, theirs in zip(came.readouts, sent.readouts, strict=True):
        assert bytes(wire.encode_readouts(mine)) == bytes(wire.encode_readouts(theirs))
    assert [wire.encode_waveform(w) for w in came.waveforms] == [wire.encode_waveform(w) for w in sent.waveforms]


# ---- scans ----


def test_what_is_written_is_read(file: Path) -> None:
    assert_same(hdf5.read_scan(file), scan())


def test_the_ismrmrd_package_reads_what_we_write(file: Path) -> None:
    with ismrmrd.Dataset(file, mode="r") as dataset:
        assert dataset.read_xml_header() == scan().header.xml
        assert dataset.number_of_acquisitions() == 13
        assert dataset.number_of_waveforms() == 2
        number = 0
        for run in scan().readouts:
            for i in range(len(run.head)):
                acquisition = dataset.read_acquisition(number)
                assert bytes(acquisition.getHead()) == run.head[i].tobytes()
                np.testing.assert_array_equal(acquisition.data, run.samples[i])
                if run.trajectory is not None:
                    np.testing.assert_array_equal(acquisition.traj, run.trajectory[i])
                number += 1
        for i, block in enumerate(scan().waveforms):
            assert dataset.read_waveform(i).to_bytes() == wire.encode_waveform(block)[2:]


def test_we_read_what_the_ismrmrd_package_writes(tmp_path: Path) -> None:
    sent = scan()
    with ismrmrd.Dataset(tmp_path / "theirs.h5") as dataset:
        dataset.write_xml_header(sent.header.xml)
        for run in sent.readouts:
            for i, head in enumerate(run.head):
                points = None if run.trajectory is None else run.trajectory[i]
                acquisition = ismrmrd.AcquisitionHeader.from_buffer_copy(head.tobytes())
                dataset.append_acquisition(ismrmrd.Acquisition(acquisition, run.samples[i], points))
        for block in sent.waveforms:
            dataset.append_waveform(ismrmrd.Waveform.from_bytes(wire.encode_waveform(block)[2:]))
    assert_same(hdf5.read_scan(tmp_path / "theirs.h5"), sent)


@pytest.mark.parametrize("options", [(), ("-a", "2", "-w", "4"), ("-C",), ("-r", "3", "-n", "0.1")], ids=" ".join)
def test_we_read_what_ismrmrds_generator_writes(tmp_path: Path, options: tuple[str, ...]) -> None:
    tool = shutil.which("ismrmrd_generate_cartesian_shepp_logan")
    if tool is None:
        pytest.skip("needs Debian's ismrmrd-tools for ismrmrd_generate_cartesian_shepp_logan")
    path = tmp_path / "generated.h5"
    subprocess.run([tool, "-m", "32", "-c", "3", *options, "-o", path], check=True, capture_output=True)
    came = hdf5.read_scan(path)
    assert came.header.encodings[0].encoded.matrix == (1, 32, 64)
    with ismrmrd.Dataset(path, mode="r") as dataset:
        assert sum(len(run.head) for run in came.readouts) == dataset.number_of_acquisitions()
        heads = np.concatenate([run.head for run in came.readouts])
        rows = [row for run in came.readouts for row in run.samples]
        for i in range(0, len(heads), 7):
            acquisition = dataset.read_acquisition(i)
            assert bytes(acquisition.getHead()) == heads[i].tobytes()
            np.testing.assert_array_equal(acquisition.data, rows[i])


def runs_of(path: Path) -> Iterator[Readouts]:
    """The readouts of a file that need not have a header."""
    with h5py.File(path) as file:
        yield from hdf5._readouts(file["dataset"], hdf5.DEFAULT_LIMITS)


@pytest.mark.parametrize("options", [{"chunks": (4,)}, {}, {"chunks": (4,), "compression": "gzip"}], ids=str)
def test_heads_of_another_layout_and_other_storage(tmp_path: Path, options: dict) -> None:
    """Other writers leave other gaps in the record, store it in one piece, or compress it."""
    run = readouts(300, 2, 8, axes=1)
    wide = np.dtype({"names": hdf5._NESTED.names, "formats": [hdf5._NESTED[n] for n in hdf5._NESTED.names]}, align=True)
    kinds = np.dtype([("head", wide), *((n, h5py.vlen_dtype(np.float32)) for n in ("traj", "data"))])
    records = hdf5._records(run)
    rows = np.zeros(len(records), kinds)
    for name in wide.names:
        rows["head"][name] = records["head"][name]
    rows["traj"], rows["data"] = records["traj"], records["data"]
    with h5py.File(tmp_path / "other.h5", "w") as out:
        out.create_dataset("dataset/data", data=rows, dtype=kinds, **options)
    (came,) = [*runs_of(tmp_path / "other.h5")][:1]
    count = len(came.head)
    assert count == (300 if options == {"chunks": (4,)} else hdf5._BLIND_ROWS)
    assert came.head.tobytes() == run.head[:count].tobytes()
    np.testing.assert_array_equal(came.samples, run.samples[:count])
    np.testing.assert_array_equal(came.trajectory, run.trajectory[:count])


def test_other_groups_can_be_named(tmp_path: Path) -> None:
    hdf5.write_scan(tmp_path / "a.h5", scan())
    with h5py.File(tmp_path / "a.h5", "a") as out:
        out.move("dataset", "2026-01-02")
    assert_same(hdf5.read_scan(tmp_path / "a.h5", group="2026-01-02"), scan())


# ---- streams ----


def test_a_file_as_a_stream_says_what_the_file_says(file: Path) -> None:
    sent = scan()
    stream = b"".join(bytes(part) for part in hdf5.stream_scan(file))
    entries = told(Decoder().feed(stream))
    assert isinstance(entries[0], wire.HeaderXml)
    assert entries[0].xml == sent.header.xml
    assert entries[-1] == wire.Close(len(stream) - 2)
    expected = b"".join(bytes(wire.encode_readouts(run)) for run in sent.readouts)
    kinds = [m for m in Decoder().feed(stream) if isinstance(m, AcquisitionRun)]
    assert b"".join(bytes(wire.encode_readouts(m.readouts)) for m in kinds) == expected


def test_physiology_goes_before_the_readouts_that_follow_it(tmp_path: Path) -> None:
    runs = [readouts(2, 1, size) for size in (8, 9, 10)]
    for run, time in zip(runs, (100, 200, 300), strict=True):
        run.head["acquisition_time_stamp"] = time
    blocks = tuple(waveform(time_stamp=time) for time in (50, 150, 160, 400))
    hdf5.write_scan(tmp_path / "a.h5", replace(scan(), readouts=tuple(runs), waveforms=blocks))
    messages = Decoder().feed(b"".join(bytes(part) for part in hdf5.stream_scan(tmp_path / "a.h5")))
    order = [m.waveform.time_stamp if isinstance(m, wire.WaveformMessage) else type(m).__name__ for m in messages]
    run = "AcquisitionRun"
    assert order == ["HeaderXml", 50, run, 150, 160, run, run, 400, "Close"]


def test_a_large_file_is_read_in_slices_of_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "SLICE_BYTES", 1 << 20)
    run = readouts(1000, 8, 256)
    hdf5.write_scan(tmp_path / "a.h5", replace(scan(), readouts=(run,)))
    tracemalloc.start()
    try:
        total = sum(len(part) for part in hdf5.stream_scan(tmp_path / "a.h5"))
        # Rows as h5py gives them, joined, and encoded; the last two of the slice before may still be held.
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()
    assert total > run.samples.nbytes > 15 << 20


# ---- images ----


def assert_same_images(came: list[Image], sent: list[Image]) -> None:
    assert [wire.encode_image(i) for i in came] == [wire.encode_image(i) for i in sent]


def test_images_are_appended_and_read_back(tmp_path: Path) -> None:
    sent = [image(), image(seed=1), complex_image(), image(seed=2), image((2, 1, 5, 5), series=10)]
    hdf5.write_images(tmp_path / "a.h5", sent[:2])
    hdf5.write_images(tmp_path / "a.h5", iter(sent[2:]))
    assert_same_images(hdf5.read_images(tmp_path / "a.h5"), [sent[i] for i in (0, 1, 3, 2, 4)])


def test_images_and_a_scan_share_a_file(file: Path) -> None:
    hdf5.write_images(file, [image()])
    assert_same(hdf5.read_scan(file), scan())
    assert_same_images(hdf5.read_images(file), [image()])


def test_the_ismrmrd_package_reads_our_images(tmp_path: Path) -> None:
    hdf5.write_images(tmp_path / "a.h5", [image(), image(seed=1), complex_image()])
    with ismrmrd.Dataset(tmp_path / "a.h5", mode="r") as dataset:
        assert sorted(dataset.list()) == ["image_1", "image_2"]
        assert dataset.number_of_images("image_1") == 2
        for group, number, sent in (("image_1", 1, image(seed=1)), ("image_2", 0, complex_image())):
            came = dataset.read_image(group, number)
            np.testing.assert_array_equal(came.data, sent.pixels)
            assert came.meta["ImageComment"] == list(sent.comments)
            assert came.meta["SeriesDescription"] == "localiser é"
            assert (came.image_index, came.image_series_index, came.slice) == (42, sent.series, 2)


def test_we_read_the_ismrmrd_packages_images(tmp_path: Path) -> None:
    sent = [image(), complex_image()]
    with ismrmrd.Dataset(tmp_path / "a.h5") as dataset:
        for picture in sent:
            theirs = ismrmrd.Image.from_bytes(wire.encode_image(picture)[2:])
            dataset.append_image(f"image_{picture.series}", theirs)
    assert_same_images(hdf5.read_images(tmp_path / "a.h5"), sent)


def test_we_read_the_images_of_ismrmrds_own_reconstruction(tmp_path: Path) -> None:
    generate, reconstruct = map(shutil.which, ("ismrmrd_generate_cartesian_shepp_logan", "ismrmrd_recon_cartesian_2d"))
    if generate is None or reconstruct is None:
        pytest.skip("needs Debian's ismrmrd-tools for ismrmrd_recon_cartesian_2d")
    path = tmp_path / "a.h5"
    subprocess.run([generate, "-m", "32", "-c", "3", "-o", path], check=True, capture_output=True)
    subprocess.run([reconstruct, path], check=True, capture_output=True)
    (came,) = hdf5.read_images(path)
    assert came.pixels.shape == (1, 1, 32, 32)
    with ismrmrd.Dataset(path, mode="r") as dataset:
        np.testing.assert_array_equal(came.pixels, dataset.read_image("cpp", 0).data)


# ---- bad files ----


def text_file(path: Path) -> None:
    path.write_text("this is not HDF5")


def empty_hdf5(path: Path) -> None:
    h5py.File(path, "w").close()


def other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as out:
        out["entry/data"] = np.arange(3)


def renamed(*names: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        hdf5.write_scan(path, scan())
        with h5py.File(path, "a") as out:
            for name in names:
                out.copy("dataset", name)
            out["elsewhere"] = h5py.ExternalLink("other.h5", "dataset")
            del out["dataset"]

    return build


def without(name: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        hdf5.write_scan(path, scan())
        with h5py.File(path, "a") as out:
            del out[f"dataset/{name}"]

    return build


def table_of_numbers(path: Path) -> None:
    hdf5.write_scan(path, scan())
    with h5py.File(path, "a") as out:
        del out["dataset/data"]
        out["dataset/data"] = np.arange(5)


def cut_off(path: Path) -> None:
    hdf5.write_scan(path, replace(scan(), readouts=(readouts(200, 8, 64),)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def overwritten(path: Path) -> None:
    hdf5.write_scan(path, replace(scan(), readouts=(readouts(200, 8, 64),)))
    with h5py.File(path, "r") as out:
        begin = out["dataset/data"].id.get_chunk_info(1).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[begin : begin + 64 * 372] = b"\xa5" * (64 * 372)
    path.write_bytes(damaged)


def short_row(path: Path) -> None:
    hdf5.write_scan(path, replace(scan(), readouts=(readouts(5, 2, 8),)))
    with h5py.File(path, "a") as out:
        row = out["dataset/data"][3]
        row["data"] = row["data"][:-1]
        out["dataset/data"][3] = row


def bad_header(path: Path) -> None:
    hdf5.write_scan(path, replace(scan(), header=replace(header(), xml=b"not xml")))


BAD = {
    "missing": (lambda path: None, FileError, "scan.h5 does not exist or is no file: name an ISMRMRD HDF5 file"),
    "text": (
        text_file,
        FileError,
        r"scan.h5 is not a readable ISMRMRD HDF5 file \(.*signature.*\): check that it is whole",
    ),
    "empty": (
        empty_hdf5,
        FileError,
        "scan.h5 holds nothing, expected the group 'dataset' of an ISMRMRD file: check its",
    ),
    "other": (other_hdf5, FileError, "scan.h5 holds entry, expected the group 'dataset' of an ISMRMRD file"),
    "another group": (
        renamed("first scan"),
        FileError,
        r"scan.h5 has no group 'dataset', but 'first scan' looks like a scan: ask for it by name"
        r" \(--group 'first scan'\)$",
    ),
    "other groups": (
        renamed("a", "b"),
        FileError,
        r"scan.h5 has no group 'dataset', but 'a' and 'b' look like scans: ask for one by name \(--group 'a'\)$",
    ),
    "no header": (without("xml"), FileError, "scan.h5 has no list /dataset/xml: check that it is an ISMRMRD file"),
    "no readouts": (without("data"), FileError, "scan.h5 has no list /dataset/data: check that it is an ISMRMRD file"),
    "numbers": (table_of_numbers, FileError, "scan.h5 has in /dataset/data no records of head, traj, data: check"),
    "cut off": (
        cut_off,
        FileError,
        r"scan.h5 is not a readable ISMRMRD HDF5 file \(.*truncated.*\): check that it is whole",
    ),
    "overwritten": (
        overwritten,
        ReconError,
        "64 of /dataset/data holds .* and the limit acquisition_bytes is 67108864",
    ),
    "short row": (short_row, FileError, "readout 3 holds 31 sample values, its head says 32: write the file again"),
    "header": (bad_header, HeaderError, "the header is not XML"),
}


@pytest.mark.parametrize(("build", "error", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_in_one_sentence(
    tmp_path: Path, build: Callable[[Path], None], error: type[ReconError], sentence: str
) -> None:
    path = tmp_path / "scan.h5"
    build(path)
    for read in (hdf5.read_scan, lambda p: list(hdf5.stream_scan(p))):
        with pytest.raises(error, match=sentence) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def linked_group(path: Path, victim: Path) -> None:
    with h5py.File(path, "w") as out:
        out["dataset"] = h5py.ExternalLink(victim, "dataset")


def linked_list(path: Path, victim: Path) -> None:
    hdf5.write_scan(path, scan())
    with h5py.File(path, "a") as out:
        del out["dataset/data"]
        out["dataset/data"] = h5py.ExternalLink(victim, "dataset/data")


def soft_link(path: Path, victim: Path) -> None:
    with h5py.File(path, "w") as out:
        out["away"] = h5py.ExternalLink(victim, "/")
        out["dataset"] = h5py.SoftLink("/away/dataset")


def external_values(path: Path, victim: Path) -> None:
    hdf5.write_scan(path, scan())
    with h5py.File(path, "a") as out:
        del out["dataset/xml"]
        out.create_dataset("dataset/xml", (1,), "S64", external=[(str(victim), 0, 64)])


def virtual_values(path: Path, victim: Path) -> None:
    hdf5.write_scan(path, scan())
    with h5py.File(path, "a") as out:
        del out["dataset/xml"]
        layout = h5py.VirtualLayout((1,), h5py.special_dtype(vlen=bytes))
        layout[:] = h5py.VirtualSource(victim, "dataset/xml", (1,))
        out.create_virtual_dataset("dataset/xml", layout)


ELSEWHERE = {
    "external link to the group": (linked_group, "/dataset behind a link"),
    "external link to a list": (linked_list, "/dataset/data behind a link"),
    "soft link": (soft_link, "/dataset behind a link"),
    "external values": (external_values, "/dataset/xml in other files"),
    "virtual values": (virtual_values, "/dataset/xml in other files"),
}


@pytest.mark.parametrize(("build", "place"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_scan_that_leads_into_other_files_is_refused(
    tmp_path: Path, build: Callable[[Path, Path], None], place: str
) -> None:
    """Who sends a file must not get to read, through its links, what only the reading process may."""
    path, victim = tmp_path / "scan.h5", tmp_path / "victim.h5"
    hdf5.write_scan(victim, scan())
    build(path, victim)
    with h5py.File(path, "r") as out:
        assert isinstance(out.get("dataset/xml"), h5py.Dataset)  # the library itself follows
    for read in (hdf5.read_scan, lambda p: list(hdf5.stream_scan(p))):
        with pytest.raises(FileError) as caught:
            read(path)
        assert str(caught.value) == (f"{path} keeps {place}, expected all of a scan inside its own file: copy it in")


@pytest.mark.parametrize("name", ["image_1", "image_1/data"])
def test_images_behind_links_are_refused(tmp_path: Path, name: str) -> None:
    path, victim = tmp_path / "mine.h5", tmp_path / "victim.h5"
    for each in (path, victim):
        hdf5.write_images(each, [image()])
    with h5py.File(path, "a") as out:
        del out[f"dataset/{name}"]
        out[f"dataset/{name}"] = h5py.ExternalLink(victim, f"dataset/{name}")
    with pytest.raises(FileError, match=f"keeps /dataset/{name} behind a link, expected all of a scan inside its own"):
        hdf5.read_images(path)


def test_limits_hold_for_files_too(file: Path) -> None:
    with pytest.raises(
        LimitError, match=r"record 0 of /dataset/data holds 512 bytes, and the limit acquisition_bytes is 511"
    ):
        hdf5.read_scan(file, limits=WireLimits(acquisition_bytes=511))
    with pytest.raises(
        LimitError, match=r"record 0 of /dataset/waveforms holds 40 bytes, and the limit waveform_bytes is 39"
    ):
        hdf5.read_scan(file, limits=WireLimits(waveform_bytes=39))
    with pytest.raises(LimitError, match=r"the header is \d+ bytes long, and the limit header_bytes is 10: shorten it"):
        hdf5.read_scan(file, limits=WireLimits(header_bytes=10))
    hdf5.write_images(file, [image()])
    with pytest.raises(LimitError, match=r"image 0 of /dataset/image_1 is 96 bytes, and the limit image_bytes is 95"):
        hdf5.read_images(file, limits=WireLimits(image_bytes=95))


def test_many_records_of_one_long_block_are_not_expanded(tmp_path: Path) -> None:
    """A file of 5 MB whose records all refer to the same 4 MB would fill 4 GB if its records were read as they are."""
    path = tmp_path / "a.h5"
    run = readouts(1000, 1, 1)
    hdf5.write_scan(path, replace(scan(), readouts=(run,)))
    with h5py.File(path, "a") as out:
        data = out["dataset/data"]
        row = data[0]
        row["data"] = np.zeros(1 << 20, np.float32)
        data[0] = row
        kind = data.id.get_type()
        size, at = kind.get_size(), kind.get_member_offset(2)
        reference = np.frombuffer(data.id.read_direct_chunk((0,))[1], np.uint8)[at : at + 16]
        for first in range(0, 1000, 64):
            _, raw = data.id.read_direct_chunk((first,))
            records = np.frombuffer(raw, np.uint8).reshape(-1, size).copy()
            records[:, at : at + 16] = reference
            data.id.write_direct_chunk((first,), records.tobytes())
    tracemalloc.start()
    try:
        with pytest.raises(
            FileError, match="readout 0 holds 1048576 sample values, its head says 2: write the file again"
        ):
            list(runs_of(path))
        assert tracemalloc.get_traced_memory()[1] < 4 * hdf5.SLICE_BYTES
    finally:
        tracemalloc.stop()


def test_bad_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    hdf5.write_images(path, [image()])
    with pytest.raises(
        FileError, match=r"holds images of \(1, 2, 3, 4\) float32, got one of \(1, 2, 3, 5\) float32: give"
    ):
        hdf5.write_images(path, [image((1, 2, 3, 5))])
    with h5py.File(path, "a") as out:
        head = out["dataset/image_1/header"][0]
        head["matrix_size"] = 9
        out["dataset/image_1/header"][0] = head
    with pytest.raises(
        FileError, match=r"image 0 of /dataset/image_1 is \(1, 2, 3, 4\), its header declares \(1, 9, 9, 9\)"
    ):
        hdf5.read_images(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no/such/a.h5 cannot be written \(.*\): choose another place"):
        hdf5.write_scan(tmp_path / "no/such/a.h5", scan())


def test_an_empty_scan_is_a_scan(tmp_path: Path) -> None:
    empty = Readouts(np.zeros(0, READOUT_HEAD), np.zeros((0, 2, 8), np.complex64))
    hdf5.write_scan(tmp_path / "a.h5", replace(scan(), readouts=(empty,), waveforms=()))
    assert hdf5.read_scan(tmp_path / "a.h5").readouts == ()

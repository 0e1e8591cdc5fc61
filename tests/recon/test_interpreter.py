"""One stream means the same in a file and over a connection: the same recipe, the same refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.config import ClusterConfig
from cluster.stream import ScanStream
from recon.errors import HeaderError, RecipeError, ReconError, ScanError
from recon.files import read_file
from recon.mrd import wire
from recon.mrd.header import write_header
from recon.recipe import Recipe, resolve
from tests.recon.builders import header, noise, readouts_of

HEADER = wire.encode_header(write_header(header()))
READOUTS = bytes(wire.encode_readouts(readouts_of(noise(np.random.default_rng(1), (2, 1, 8, 8)))))
CLOSE = wire.encode_close()
KEEP = wire.encode_text('{"parameters": {"oversampling": "keep"}}')
FIRE = wire.encode_text('{"version": "1.0", "config": "savedataonly", "parameters": {}}')
FIRE_KEEP = wire.encode_text('{"config": "Generic_Cartesian_Grappa.xml", "parameters": {"oversampling": "keep"}}')
ADAPTIVE = '{"method": "auto", "parameters": {"combine": "adaptive"}}'
MAGNITUDE = '{"parameters": {"output": "magnitude"}}'
COMPLEX = wire.encode_config_file("Generic_Cartesian_Grappa_Complex.xml")
FFT, NULL = wire.encode_config_file("simplefft"), wire.encode_config_text('{"method": "null"}')


def by_file(path: Path, data: bytes, method: str) -> Recipe:
    """The recipe of the reconstruction in one process."""
    path.write_bytes(data)
    return read_file(path, method=method)[1]


def by_connection(path: Path, data: bytes, method: str) -> Recipe:
    """The recipe of the server."""
    stream = ScanStream("s", path, config=ClusterConfig(), method=method)
    for step in (stream.feed(memoryview(data)), stream.finish()):
        if step.error:
            raise step.error
    return stream.recipe


Door = Callable[[Path, bytes, str], Recipe]
DOORS = pytest.mark.parametrize("door", [by_file, by_connection])


def test_a_text_that_is_no_json_is_told_of(tmp_path: Path) -> None:
    stream = ScanStream("s", tmp_path / "s", config=ClusterConfig(), method="auto")
    texts = [wire.encode_text(text) for text in ("combine=adaptive", "x" * 200)]
    parts = [wire.encode_text("before"), HEADER, *texts, KEEP, READOUTS, wire.encode_text("after")]
    step = stream.feed(memoryview(b"".join(parts)))
    assert step.error is None
    assert step.remarks[:-1] == [  # the last one says which method auto takes
        "the text 'combine=adaptive' after the header is no JSON object: it sets nothing",
        f"the text '{'x' * 80}' after the header is no JSON object: it sets nothing",
    ]
    assert stream.recipe == Recipe("auto", {"oversampling": "keep"})


@DOORS
@pytest.mark.parametrize(
    ("method", "parts", "recipe"),
    [
        ("auto", [HEADER], Recipe()),
        ("auto", [FFT, HEADER], Recipe("fft")),
        ("auto", [HEADER, NULL], Recipe("null")),
        ("null", [FFT, HEADER], Recipe("null")),
        ("auto", [FFT, HEADER, KEEP], Recipe("fft", {"oversampling": "keep"})),
        ("fft", [HEADER, KEEP], Recipe("fft", {"oversampling": "keep"})),
        ("auto", [KEEP, FFT, HEADER], Recipe("fft")),  # before the header a text is a remark
        ("auto", [FFT, HEADER, wire.encode_text("hello")], Recipe("fft")),
        ("auto", [FFT, HEADER, FIRE], Recipe("null")),
        ("fft", [HEADER, FIRE], Recipe("fft")),
        ("auto", [HEADER, FIRE_KEEP], Recipe("grappa", {"oversampling": "keep"})),
        ("fft", [HEADER, FIRE_KEEP], Recipe("fft", {"oversampling": "keep"})),
        ('{"parameters": {"oversampling": "keep"}}', [HEADER], Recipe("auto", {"oversampling": "keep"})),
        (ADAPTIVE, [HEADER], Recipe("auto", {"combine": "adaptive"})),
        (ADAPTIVE, [FFT, HEADER], Recipe("fft", {"combine": "adaptive"})),
        (ADAPTIVE, [FFT, HEADER, KEEP], resolve("fft", {"combine": "adaptive", "oversampling": "keep"})),
        (ADAPTIVE, [HEADER, FIRE_KEEP], resolve("grappa", {"combine": "adaptive", "oversampling": "keep"})),
        # What equals a default is set all the same; the combination with a phase stays.
        (MAGNITUDE, [COMPLEX, HEADER], Recipe("grappa", {"combine": "adaptive"})),
        (
            '{"method": "fft", "whiten": false}',
            [NULL, HEADER, KEEP],
            resolve("fft", {"whiten": False, "oversampling": "keep"}),
        ),
    ],
)
def test_a_stream_asks_for_the_same_recipe_at_both_doors(
    tmp_path: Path, door: Door, method: str, parts: list[bytes], recipe: Recipe
) -> None:
    # What comes after the first readout sets nothing.
    later = wire.encode_text('{"parameters": {"output": "complex"}}')
    assert door(tmp_path / "a.mrd", b"".join([*parts, READOUTS, later, CLOSE]), method) == recipe


@DOORS
@pytest.mark.parametrize(
    ("method", "parts", "error", "sentence"),
    [
        ("auto", [HEADER, HEADER, READOUTS], ScanError, f"a second header came at byte {len(HEADER)}: send one scan"),
        ("auto", [READOUTS, HEADER], ScanError, "a readout came at byte 0 before the header: send the header first"),
        (
            "auto",
            [HEADER, READOUTS, FFT],
            ScanError,
            "a configuration came at byte .* after the first readout",
        ),
        ("auto", [wire.encode_header(b"<x/>"), READOUTS], HeaderError, "the header begins with <x>"),
        ("auto", [wire.encode_config_file("nonsense"), HEADER], RecipeError, "configuration 'nonsense' is unknown"),
        ("fft", [HEADER, wire.encode_text('{"eps": 1e-3}')], RecipeError, "'eps' is unknown to the method fft"),
        (
            ADAPTIVE,
            [wire.encode_config_file("sense"), HEADER],
            RecipeError,
            "'combine' is unknown to the method sense, ",
        ),
        ('{"parameters": {"eps": 1}}', [HEADER], RecipeError, "'eps' is .* or name a method that has it"),
        ("nonsense", [HEADER], RecipeError, "configuration 'nonsense' is unknown"),
    ],
)
def test_a_stream_is_refused_with_the_same_words_at_both_doors(
    tmp_path: Path, door: Door, method: str, parts: list[bytes], error: type[ReconError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        door(tmp_path / "a.mrd", b"".join([*parts, CLOSE]), method)

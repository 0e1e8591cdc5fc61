"""`--set`, with and without a server: what it does, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.__main__ import main
from recon.mrd.hdf5 import read_images
from recon.mrd.wire import encode_config_file
from recon.recipe import METHOD_PARAMETERS
from tests.cluster import scans
from tests.end_to_end.running import Running, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server."""
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


def doors(server: Running, file: Path) -> list[list[str]]:
    """The command lines that reconstruct `file`, by the server and here."""
    return [["submit", str(file), "--server", server.http], ["reconstruct", str(file), "--device", "cpu"]]


@pytest.mark.parametrize("method", [[], ["--method", "fft"], ["--method", '{"method": "simplefft"}']])
@pytest.mark.parametrize("config", [b"", encode_config_file("simplefft")])
def test_parameters_are_set_on_top(server: Running, tmp_path: Path, method: list[str], config: bytes) -> None:
    file = tmp_path / "scan.mrd"
    file.write_bytes(config + scans.stream(scans.frames(1)))
    for number, words in enumerate(doors(server, file)):
        out = tmp_path / f"{number}.h5"
        assert main([*words, *method, "--set", "output=complex", "--set", "whiten = false", "--out", str(out)]) == 0
        (image,) = read_images(out)
        assert np.iscomplexobj(image.pixels)
        assert '"whiten":false' in image.attributes["ReconRecipe"]


def known(method: str) -> str:
    return ", ".join(sorted(METHOD_PARAMETERS[method]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "combine=max"], "the parameter combine is 'max', expected one of rss, adaptive: correct it"),
        (
            ["--set", "iterations=5"],
            f"the parameter 'iterations' is unknown to the method auto, which has {known('auto')}: leave it out,"
            " or name a method that has it",
        ),
        (
            ["--method", "fft", "--set", "iteration=5"],
            f"the parameter 'iteration' is unknown to the method fft, which has {known('fft')}: leave it out",
        ),
        (["--method", "{", "--set", "combine=rss"], "the text is not JSON"),
    ],
)
def test_what_is_not_a_parameter_is_refused_with_those_there_are(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (tmp_path / "scan.mrd").write_bytes(scans.stream(scans.frames(1)))
    for door in doors(server, tmp_path / "scan.mrd"):
        assert main([*door, *words]) == 2
        complaint = capsys.readouterr().err
        assert message in complaint
        assert complaint.count("\n") == 1


@pytest.mark.parametrize("setting", ["combine", "=rss", " = "])
def test_a_setting_is_a_key_and_a_value(capsys: pytest.CaptureFixture[str], setting: str) -> None:
    for command in ("submit", "reconstruct"):
        with pytest.raises(SystemExit, match="2"):
            main([command, "scan.h5", "--set", setting])
        assert f"{setting!r} sets nothing, expected KEY=VALUE: give both" in capsys.readouterr().err


def test_a_recipe_stands_in_a_file(server: Running, tmp_path: Path) -> None:
    recipe, file = tmp_path / "quiet.json", tmp_path / "scan.mrd"
    recipe.write_text('\n{"method": "fft",\n "parameters": {"output": "complex"}}\n')
    file.write_bytes(scans.stream(scans.frames(1)))
    for number, words in enumerate(doors(server, file)):
        out = tmp_path / f"{number}.h5"
        assert main([*words, "--method", str(recipe), "--set", "whiten=false", "--out", str(out)]) == 0
        (image,) = read_images(out)
        assert np.iscomplexobj(image.pixels)
        assert '"whiten":false' in image.attributes["ReconRecipe"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "recipe.json cannot be read (No such file or directory): name a file that is there"),
        (b"{", "recipe.json is no recipe: the text is not JSON"),
        (b"fft", "recipe.json is no recipe, expected a JSON object of a method and its parameters: correct it"),
        (b"\xff", "recipe.json is no recipe, expected JSON in UTF-8: correct it"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    recipe, file = tmp_path / "recipe.json", tmp_path / "scan.mrd"
    file.write_bytes(scans.stream(scans.frames(1)))
    if content is not None:
        recipe.write_bytes(content)
    for words in (*doors(server, file), ["scan", "brain-se", "--mrd", "127.0.0.1:1"]):
        assert main([*words, "--method", str(recipe)]) == 2
        complaint = capsys.readouterr().err
        assert message in complaint
        assert complaint.count("\n") == 1

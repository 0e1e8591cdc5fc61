"""What docs/recipes.md shows, done: a recipe from a file, and a method that another package names by entry point."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import DistributionFinder, MetadataPathFinder
from pathlib import Path

import numpy as np

from recon.mrd.hdf5 import read_images
from recon.recipe import Recipe, resolve
from recon.simulate import save, simulate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def install(folder: Path, entry: str = "") -> Path:
    """The page's package as an installer leaves it, or with the entry point `entry` instead of its own."""
    (text,) = blocks("toml")
    about = tomllib.loads(text)
    project, target = about["project"], folder / "installed"
    info = target / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    ((group, entries),) = project["entry-points"].items()
    named = entry or "\n".join(f"{name} = {place}" for name, place in entries.items())
    info.joinpath("entry_points.txt").write_text(f"[{group}]\n{named}\n")
    for name, source in zip(("smooth", "subtracted"), blocks("python"), strict=True):
        target.joinpath(f"{name}.py").write_text(source)
    return target


def command(target: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{target}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "cluster", *words], capture_output=True, text=True, check=False, env=environment
    )


def test_a_recipe_from_the_page() -> None:
    (recipe,) = blocks("json")
    assert resolve(recipe) == Recipe("fft", {"combine": "adaptive", "output": "complex"})


def test_the_package_of_the_page_is_whole(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    about = tomllib.loads(text)
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert about["project"]["requires-python"] == ours["requires-python"]
    assert ours["name"] in about["project"]["dependencies"]
    assert about["build-system"]["build-backend"].startswith("setuptools.")
    places = MetadataPathFinder.find_distributions(DistributionFinder.Context(path=[str(install(tmp_path))]))
    ((entry,),) = (found.entry_points for found in places)
    assert (entry.group, entry.name, entry.value) == ("recon_cluster.methods", "smooth", "smooth:SMOOTH")
    assert about["tool"]["setuptools"]["py-modules"] == [entry.module]


def test_a_package_of_others_adds_a_method(tmp_path: Path) -> None:
    target = install(tmp_path)
    save(tmp_path / "scan.h5", simulate("brain-ir", matrix=32, coils=2))
    for method in ("smooth", "fft"):
        out = tmp_path / f"{method}.h5"
        done = command(target, "reconstruct", tmp_path / "scan.h5", "--method", method, "--out", out)
        assert done.returncode == 0, done.stderr
    smooth, sharp = (list(read_images(tmp_path / f"{method}.h5")) for method in ("smooth", "fft"))
    assert len(smooth) == len(sharp) == 6
    assert {image.provenance.method for image in smooth} == {"smooth"}
    assert json.loads(smooth[0].attributes["ReconRecipe"])["method"] == "smooth"
    # A Hamming window halves the power of k-space's middle ring and nearly all of its edge: the image is less steep.
    steep = [np.abs(np.diff(image.pixels[0, 0], axis=0)).max() for image in (smooth[-1], sharp[-1])]
    assert steep[0] < 0.9 * steep[1]


def test_a_joint_method_of_others_sees_all_repetitions(tmp_path: Path) -> None:
    target = install(tmp_path, "subtracted = subtracted:SUBTRACTED")
    save(tmp_path / "scan.h5", simulate("breast-dce", matrix=16, coils=2, repetitions=3))
    for method in ("subtracted", "fft"):
        done = command(
            target, "reconstruct", tmp_path / "scan.h5", "--method", method, "--out", tmp_path / f"{method}.h5"
        )
        assert done.returncode == 0, done.stderr
    changes, plain = (list(read_images(tmp_path / f"{method}.h5")) for method in ("subtracted", "fft"))
    assert [image.counters.repetition for image in changes] == [0, 1, 2]
    for change, image in zip(changes, plain, strict=True):
        np.testing.assert_array_equal(change.pixels, image.pixels - plain[0].pixels)


def test_a_name_of_ours_is_refused(tmp_path: Path) -> None:
    target = install(tmp_path, "fft = smooth:SMOOTH")
    done = command(target, "scan", "--list")
    words = subprocess.run(
        [sys.executable, "-c", "import recon.methods"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{target}"},
    ).stderr
    assert "the package smooth adds smooth:SMOOTH as the method 'fft', expected a Method of this name" in words
    assert done.returncode == 0  # what needs no method still runs

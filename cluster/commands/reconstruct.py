"""`recon-cluster reconstruct FILE`: the same reconstruction without any server, in this process."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from recon.device import open_device
from recon.errors import DeviceError, FileError, InputError, LimitError, RecipeError, ReconError
from recon.export.dicom import write_folder
from recon.export.png import write_png
from recon.files import read_file
from recon.mrd.hdf5 import write_images
from recon.mrd.wire import encode_close, encode_image
from recon.pipeline import frames_of, reconstruct
from recon.recipe import AUTO
from recon.scan import Image, Scan

UNUSABLE, FAILED = 2, 4  # exit statuses: the input or the request, and the reconstruction


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("reconstruct", help="reconstruct a file in this process, without a server")
    parser.add_argument("file", type=Path, metavar="FILE", help="ISMRMRD HDF5 file or MRD stream")
    parser.add_argument("--method", default=AUTO, metavar="NAME", help="recipe by name or as JSON (default: auto)")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cpu:scipy", "cuda"), help="where to compute"
    )
    parser.add_argument("--out", type=Path, metavar="PATH", help="images as .h5, .png, or DICOM in a folder")


def run(args: argparse.Namespace) -> int:
    """Reconstruct and write; 0 when done, 2 when the input is unusable, 4 when the reconstruction failed."""
    try:
        start = time.perf_counter()
        scan, images = _images(args)
        if args.out is not None:
            WRITERS[args.out.suffix.lower()](images, args.out, scan, f"{args.file.name}-{args.file.stat().st_size}")
        _report(images, args.out, seconds=time.perf_counter() - start)
    except ReconError as error:
        print(error, file=sys.stderr)
        return UNUSABLE if isinstance(error, InputError | LimitError | RecipeError | DeviceError) else FAILED
    return 0


def _images(args: argparse.Namespace) -> tuple[Scan, list[Image]]:
    _check_ending(args.out)
    device = open_device(args.device)
    scan, recipe = read_file(args.file, method=args.method)
    total = len(frames_of(scan)[0])
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("reconstructing", total=total)
        images = []
        for image in reconstruct(scan, recipe, device):
            images.append(image)
            progress.advance(task)
    return scan, images


def _check_ending(path: Path | None) -> None:
    if path is not None and path.suffix.lower() not in WRITERS:
        known = ", ".join(ending for ending in WRITERS if ending)
        raise FileError(f"images cannot be written as {path.name!r}, expected {known} or a folder: rename it")


def _write_hdf5(images: list[Image], path: Path, _scan: Scan, _name: str) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    write_images(part, images)
    part.replace(path)


def _write_stream(images: list[Image], path: Path, _scan: Scan, _name: str) -> None:
    path.write_bytes(b"".join([*(encode_image(image) for image in images), encode_close()]))


def _write_png(images: list[Image], path: Path, _scan: Scan, _name: str) -> None:
    write_png(images, path)


def _write_dicom(images: list[Image], path: Path, scan: Scan, name: str) -> None:
    write_folder(images, scan.header, path, scan_id=name)


WRITERS = {
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".mrd": _write_stream,
    ".png": _write_png,
    "": _write_dicom,
}


def _report(images: list[Image], out: Path | None, *, seconds: float) -> None:
    """What was made on stdout, what a reader of the images must know on stderr."""
    shapes = Counter((image.pixels.shape[1:], image.spacing_mm, image.provenance.method) for image in images)
    for ((z, y, x), (dz, dy, dx), method), count in shapes.items():
        print(f"{_count(count)} of {x} × {y} × {z} voxels, {dx:.3g} × {dy:.3g} × {dz:.3g} mm, by {method}")
    print(f"{_count(len(images))} in {seconds:.2f} s" + (f" → {out}" if out else ""))
    for comment, count in Counter(comment for image in images for comment in image.comments).items():
        print(f"{_count(count)}: {comment}", file=sys.stderr)


def _count(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"

"""`recon-cluster reconstruct FILE`: the same reconstruction without any server, in this process."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cluster.commands.recipes import add_recipe, recipe_of
from cluster.saving import check, expect_images, keep_apart, save
from recon.device import open_device
from recon.files import read_file
from recon.pipeline import frames_of, reconstruct
from recon.scan import Image, Scan


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("reconstruct", help="reconstruct a file in this process, without a server")
    parser.add_argument("file", type=Path, metavar="FILE", help="ISMRMRD HDF5 file or MRD stream")
    parser.add_argument("--group", default="", metavar="NAME", help="group of an HDF5 file (default: dataset)")
    add_recipe(parser)
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cpu:scipy", "cuda"), help="where to compute"
    )
    parser.add_argument(
        "--threads", type=_count_of, default=os.cpu_count() or 1, metavar="N", help="of the CPU (default: all cores)"
    )
    parser.add_argument("--out", type=Path, metavar="PATH", help="images as .h5, .mrd, .png, or DICOM in a folder")


def run(args: argparse.Namespace) -> int:
    """Reconstruct and write; raises ReconError."""
    if args.out is not None:
        expect_images(recipe_of(args))
        keep_apart(args.out, [args.file])
        check(args.out)
    start = time.perf_counter()
    scan, images = _images(args)
    if args.out is not None:
        save(images, args.out, header=scan.header, scan_id=f"{args.file.name}-{args.file.stat().st_size}")
    _report(images, args.out, seconds=time.perf_counter() - start)
    return 0


def _images(args: argparse.Namespace) -> tuple[Scan, list[Image]]:
    device = open_device(args.device, threads=args.threads)
    scan, recipe = read_file(args.file, method=recipe_of(args), group=args.group)
    total = len(frames_of(scan, recipe)[0])
    with _progress(total) as advance:
        images = []
        for image in reconstruct(scan, recipe, device):
            images.append(image)
            advance()
    return scan, images


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Where someone is watching, a bar that goes one step on with each call."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # 20 ms, for a bar that nobody would see
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        yield partial(progress.advance, progress.add_task("reconstructing", total=total))


def _report(images: list[Image], out: Path | None, *, seconds: float) -> None:
    """What was made on stdout, what a reader of the images must know on stderr."""
    shapes = Counter((image.pixels.shape[1:], image.spacing_mm, image.provenance.method) for image in images)
    for ((z, y, x), (dz, dy, dx), method), count in shapes.items():
        print(f"{_count(count)} of {x} × {y} × {z} voxels, {dx:.3g} × {dy:.3g} × {dz:.3g} mm, by {method}")
    print(f"{_count(len(images))} in {seconds:.2f} s" + (f" → {out}" if out else ""))
    for comment, count in Counter(comment for image in images for comment in image.comments).items():
        print(f"{_count(count)}: {comment}", file=sys.stderr)


def _count_of(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} threads, expected 1 or more")
    return int(text)


def _count(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"

"""`recon-cluster submit FILE...`: send scans, wait, write their images."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cluster.client import Client, RemoteScan
from cluster.commands.remote import Subparsers, add_server, connect
from cluster.events import Priority, State
from cluster.exits import status_of
from cluster.job import FailedError, ScanRecord, outcome
from cluster.saving import keep_apart, media_type
from cluster.sources import GroupOf
from recon.errors import LostError, ReconError


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("submit", help="send scans to a server and write their images")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="ISMRMRD HDF5 file or MRD stream")
    add_server(parser)
    parser.add_argument("--group", default="", metavar="NAME", help="group of an HDF5 file (default: dataset)")
    parser.add_argument("--method", default="auto", metavar="NAME", help="recipe by name or as JSON (default: auto)")
    choices = [priority.name.lower() for priority in Priority]
    parser.add_argument("--priority", default="routine", choices=choices, help="class of urgency (default: routine)")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="images as .h5, .mrd, .png, or DICOM in a folder; one per FILE"
    )
    parser.add_argument("--no-wait", action="store_true", help="print the scan's id once it is safe, and leave")
    parser.set_defaults(usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """Send all files, then wait for each; what fails leaves the others their images. The first error counts."""
    _check(args)
    errors = Errors()
    with connect(args) as client, _progress() as progress:
        scans: list[tuple[Path, RemoteScan]] = []
        for path in args.files:
            with errors.kept(path):
                scans.append((path, _send(client, path, args=args, progress=progress)))
        for path, scan in scans if not args.no_wait else ():
            with errors.kept(path):
                _finish(scan, path, args=args, progress=progress)
    return errors.status


def _check(args: argparse.Namespace) -> None:
    """What cannot work is found before anything is sent; ends the command, or raises FileError."""
    if args.out is None:
        return
    media_type(args.out)
    keep_apart(args.out, args.files)
    if args.no_wait:
        args.usage("--no-wait leaves before there are images, --out wants them: give one of the two")
    places = Counter(_place(args.out, path, several=len(args.files) > 1) for path in args.files)
    place, count = places.most_common(1)[0]
    if count > 1:
        args.usage(f"the images of {count} files would all go to {place}: send files of one name one by one")


class Errors:
    """Says each error at once; `status` is the exit status of the first."""

    def __init__(self) -> None:
        self.status = 0

    @contextmanager
    def kept(self, path: Path) -> Iterator[None]:
        """An error inside the block is said to be one of `path`, and the command goes on unless the server is lost."""
        try:
            yield
        except ReconError as error:
            self.status = self.status or status_of(error)
            if isinstance(error, LostError):
                raise
            words = str(error)
            print(words if str(path) in words else f"{path}: {words}", file=sys.stderr)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _send(client: Client, path: Path, *, args: argparse.Namespace, progress: Progress) -> RemoteScan:
    total = path.stat().st_size if path.exists() else None
    task = progress.add_task(f"sending {path.name}", total=total)
    scan = client.submit(
        GroupOf(path, args.group),
        method=args.method,
        priority=args.priority,
        progress=lambda sent: progress.update(task, completed=sent),
    )
    progress.update(task, description=f"{path.name}: accepted")
    if args.no_wait:
        print(scan.id, flush=True)
    return scan


def _finish(scan: RemoteScan, path: Path, *, args: argparse.Namespace, progress: Progress) -> None:
    task = progress.add_task(path.name, total=None)
    record = scan.wait(progress=lambda record: progress.update(task, description=_words(path, record)))
    progress.remove_task(task)
    if record.state is not State.DONE:
        raise FailedError(f"{path}: scan {scan.id} is {outcome(record)}", state=record.state)
    out = _place(args.out, path, several=len(args.files) > 1)
    if out is not None:
        scan.save(out)
    print(_summary(record, path) + (f" → {out}" if out else ""), flush=True)
    for warning in record.warnings:
        print(f"{path}: {warning}", file=sys.stderr)


def _words(path: Path, record: ScanRecord) -> str:
    return f"{path.name}: {record.state.value}, {record.images} images"


def _place(out: Path | None, path: Path, *, several: bool) -> Path | None:
    """Where the images of `path` go: with several files, each has its own name in it."""
    if out is None or not several:
        return out
    return out.with_name(f"{out.stem}-{path.stem}{out.suffix}") if out.suffix else out / path.stem


def _summary(record: ScanRecord, path: Path) -> str:
    images = "1 image" if record.images == 1 else f"{record.images} images"
    return f"{path}: {images} by {record.chosen} in {record.finished_s - record.created_s:.2f} s, scan {record.id}"

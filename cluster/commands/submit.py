"""`recon-cluster submit FILE...`: send scans, wait, write their images."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.progress import Progress

from cluster.client import Client, RemoteScan
from cluster.commands.collect import Errors, Leaving, add_out, bars, finish, places
from cluster.commands.recipes import add_recipe, recipe_of
from cluster.commands.remote import Subparsers, add_server, connect, hasty
from cluster.events import Priority
from cluster.saving import expect_images, keep_apart
from cluster.sources import GroupOf
from recon.errors import LostError, ReconError

QUIET_S = 1.0  # an upload that ends sooner needs no word of its own


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("submit", help="send scans to a server and write their images")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="ISMRMRD HDF5 file or MRD stream")
    add_server(parser)
    parser.add_argument("--group", default="", metavar="NAME", help="group of an HDF5 file (default: dataset)")
    add_recipe(parser)
    choices = [priority.name.lower() for priority in Priority]
    parser.add_argument("--priority", default="routine", choices=choices, help="class of urgency (default: routine)")
    add_out(parser, each="FILE")
    parser.add_argument("--no-wait", action="store_true", help="print the scan's id once it is safe, and leave")
    parser.set_defaults(usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """Send all files, then wait for each; what fails leaves the others their images. The first error counts."""
    outs = _outs(args)
    errors = Errors()
    with suppress(LostError), Leaving(args.server) as leaving, connect(args) as client, bars() as progress:
        scans: list[tuple[Path, Path | None, RemoteScan]] = []
        for path, out in zip(args.files, outs, strict=True):
            with errors.kept(str(path)), hasty(args) as beside:
                herald = Herald(beside, path, key=secrets.token_hex(16), leaving=leaving)
                scans.append((path, out, _send(client, herald, args=args, progress=progress)))
        for path, out, scan in scans if not args.no_wait else ():
            with errors.kept(str(path)):
                finish(scan, str(path), out=out, progress=progress)
            leaving.over(str(path))
    return errors.status


def _outs(args: argparse.Namespace) -> list[Path | None]:
    """Where the images of each file go. What cannot work is found before anything is sent.

    Ends the command, or raises FileError or RecipeError.
    """
    if args.out is None:
        return [None] * len(args.files)
    if args.no_wait:
        args.usage("--no-wait leaves before there are images, --out wants them: give one of the two")
    expect_images(recipe_of(args))
    keep_apart(args.out, args.files)
    return [*places(args.out, [str(path) for path in args.files])]


def _send(client: Client, herald: Herald, *, args: argparse.Namespace, progress: Progress) -> RemoteScan:
    path = herald.path
    total = path.stat().st_size if path.exists() else None
    task = progress.add_task(f"sending {path.name}", total=total)

    def sent(count: int) -> None:
        progress.update(task, completed=count)
        herald.look(count, last=count == total)

    file = GroupOf(path, args.group)
    try:
        scan = client.submit(file, method=recipe_of(args), priority=args.priority, progress=sent, key=herald.key)
    except KeyboardInterrupt:
        herald.interrupted()
        raise
    herald.accepted(scan.id)
    progress.update(task, description=f"{path.name}: accepted as {scan.id}")
    if args.no_wait:
        print(scan.id, flush=True)
    return scan


class Herald:
    """Says a scan's id while it is still being sent: it can then be watched, cancelled and fetched from elsewhere."""

    def __init__(self, client: Client, path: Path, *, key: str, leaving: Leaving) -> None:
        self.key = key
        self.path = path
        self._client = client
        self._leaving = leaving
        self._done = False
        self._sent = 0
        self._start_s = time.monotonic()

    def look(self, sent: int, *, last: bool) -> None:
        """Called with the bytes sent so far; fewer than before mean that the file is sent again, as another scan."""
        self._done = self._done and sent > self._sent
        self._sent = sent
        if last or self._done or time.monotonic() - self._start_s < QUIET_S:
            return
        with suppress(ReconError):  # sending says better what is wrong
            scan = self._client.find(self.key)
            self._done = scan is not None
            if scan is not None:
                self._leaving.comes_in(str(self.path), scan.id)
                print(f"{self.path}: scan {scan.id} is coming in", file=sys.stderr, flush=True)

    def accepted(self, scan: str) -> None:
        """All of it is on the server's disk."""
        self._leaving.goes_on(str(self.path), scan)

    def interrupted(self) -> None:
        """Whoever sends was stopped before the server had answered: ask it what it has."""
        with suppress(ReconError):
            scan = self._client.find(self.key)
            if scan is None:
                return
            whole = self._sent == self.path.stat().st_size
            (self._leaving.goes_on if whole else self._leaving.comes_in)(str(self.path), scan.id)

"""`recon-cluster images SCAN...`: fetch the images of scans that the server has, waiting for those still under way."""

from __future__ import annotations

import argparse
from contextlib import suppress

from cluster.commands.collect import Errors, Leaving, add_out, bars, finish, places
from cluster.commands.remote import Subparsers, add_server, connect
from recon.errors import LostError


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("images", help="fetch the images of scans on the server")
    parser.add_argument("scans", nargs="+", metavar="SCAN")
    add_server(parser)
    add_out(parser, each="SCAN", required=True)


def run(args: argparse.Namespace) -> int:
    """Fetch each once it has ended; what fails leaves the others their images. The first error counts."""
    outs = places(args.out, args.scans)
    errors = Errors()
    with suppress(LostError), Leaving(args.server) as leaving, connect(args) as client, bars() as progress:
        for scan, out in zip(args.scans, outs, strict=True):
            with errors.kept(scan):
                found = client.scan(scan)
                leaving.goes_on(scan, scan)
                finish(found, scan, out=out, progress=progress)
            leaving.over(scan)
    return errors.status

"""`recon-cluster cancel SCAN...`: stop scans."""

from __future__ import annotations

import argparse

from cluster.commands.remote import Subparsers, add_server, connect


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("cancel", help="stop scans; those that have ended stay as they are")
    parser.add_argument("scans", nargs="+", metavar="SCAN")
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Cancel each and print what it is now."""
    with connect(args) as client:
        for scan in args.scans:
            print(f"{scan} {client.scan(scan).cancel().state.value}")
    return 0

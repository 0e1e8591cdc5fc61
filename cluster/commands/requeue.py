"""`recon-cluster requeue SCAN...`: reconstruct scans that have ended once more from their raw data."""

from __future__ import annotations

import argparse

from cluster.commands.remote import Subparsers, add_server, connect


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("requeue", help="reconstruct scans again from the raw data on the server")
    parser.add_argument("scans", nargs="+", metavar="SCAN")
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Requeue each and print what it is now."""
    with connect(args) as client:
        for scan in args.scans:
            print(f"{scan} {client.scan(scan).requeue().state.value}")
    return 0

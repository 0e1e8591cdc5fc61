"""`recon-cluster requeue SCAN...`: reconstruct scans that have ended once more from their raw data."""

from __future__ import annotations

import argparse

from cluster.commands.remote import Subparsers, add_server, connect
from cluster.job import ScanRecord


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("requeue", help="reconstruct scans again from the raw data on the server")
    parser.add_argument("scans", nargs="+", metavar="SCAN")
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Requeue each and print what it is now."""
    with connect(args) as client:
        for scan in args.scans:
            print(f"{scan} {_words(client.scan(scan).requeue())}")
    return 0


def _words(record: ScanRecord) -> str:
    """What becomes of a scan that runs again."""
    if record.complete:
        return record.state.value
    if record.group:
        return f"{record.state.value}, its file is read once more"
    return f"{record.state.value}, incomplete: {record.readouts} readouts came; reconstructing what there is"

"""`recon-cluster log SCAN`: what happened to a scan, line by line."""

from __future__ import annotations

import argparse

from cluster.commands.remote import Subparsers, add_server, clock, connect


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("log", help="what happened to a scan, line by line")
    parser.add_argument("scan", metavar="SCAN")
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Print the log."""
    with connect(args) as client:
        for line in client.scan(args.scan).log():
            print(f"{clock(line.time_s)} {line.text}")
    return 0

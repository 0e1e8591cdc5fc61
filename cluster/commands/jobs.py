"""`recon-cluster jobs`: the newest scans."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

from cluster.commands.remote import Subparsers, add_server, clock, connect, size
from cluster.documents import record_document
from cluster.events import State
from cluster.job import ScanRecord


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("jobs", help="list scans, newest first")
    add_server(parser)
    parser.add_argument(
        "--state", choices=[state.value for state in State], default="", help="only those in this state"
    )
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    with connect(args) as client:
        records = client.scans(state=args.state, limit=args.limit)
    if args.json:
        print(json.dumps([record_document(record) for record in records], indent=2))
    else:
        Console().print(table(records))
    return 0


def table(records: list[ScanRecord]) -> Table:
    """Scans as a table."""
    shown = Table(box=None)
    for name in ("scan", "state", "method", "priority", "created", "raw", "images", "name or reason"):
        shown.add_column(name, no_wrap=name in ("scan", "created"))  # ids are there to be copied
    for record in records:
        shown.add_row(
            record.id,
            record.state.value,
            record.chosen or record.method,
            record.priority.name.lower(),
            clock(record.created_s),
            size(record.bytes),
            str(record.images),
            record.reason or record.name,
        )
    return shown

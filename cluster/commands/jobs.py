"""`recon-cluster jobs`: the newest scans."""

from __future__ import annotations

import argparse
import json

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.commands.remote import Subparsers, add_server, clock, connect, console
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
        console().print(table(records))
    return 0


def table(records: list[ScanRecord]) -> Group:
    """Scans as a table of at most 80 columns, names and reasons below: wrapped where the terminal ends."""
    shown = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("scan", "state", "method", "priority", "created", "images"):
        shown.add_column(name, no_wrap=True)
    parts: list[Table] = [shown]
    for record in records:
        shown.add_row(
            record.id,
            record.state.value,
            record.chosen or record.method,
            record.priority.name.lower(),
            clock(record.created_s)[5:16],
            str(record.images),
        )
    parts += [_line(record) for record in records if record.reason or record.name]
    return Group(*parts)


def _line(record: ScanRecord) -> Table:
    words = " ".join((record.reason or record.name).split())  # a name may hold anything, a line is one line
    line = Table.grid(padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(record.id, Text(words))
    return line

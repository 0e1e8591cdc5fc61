"""`recon-cluster status`: workers, queue, and scans that are not done."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table

from cluster.client import Client
from cluster.commands import jobs
from cluster.commands.remote import Subparsers, add_server, connect, console
from cluster.job import ScanRecord

_RECENT = 20


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("status", help="what is running and waiting")
    add_server(parser)
    parser.add_argument("--watch", action="store_true", help="look again every second until interrupted")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Print the state once, or again and again."""
    with connect(args) as client:
        if args.json:
            print(json.dumps(client.cluster(), indent=2))
        elif args.watch:
            _watch(client)
        else:
            console().print(view(client.cluster(), client.scans(limit=_RECENT)))
    return 0


def _watch(client: Client) -> None:
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(view(client.cluster(), client.scans(limit=_RECENT)), refresh=True)
            time.sleep(1.0)


def view(cluster: dict[str, Any], records: list[ScanRecord]) -> Group:
    """The server's state as tables."""
    waiting = ", ".join(f"{count} {name}" for name, count in cluster["queue"].items())
    lacks = ": ".join(["not ready", *cluster.get("troubles", ())])
    word = "draining" if cluster["draining"] else "ready" if cluster["ready"] else lacks
    line = f"{word}; {cluster['scans_in_flight']} scans in flight; frames waiting: {waiting}"
    return Group(line, "", _workers(cluster["workers"]), "", jobs.table(records))


def _workers(workers: list[dict[str, Any]]) -> Table:
    shown = Table("worker", "device", "memory, GB", "batches held", "frames held", "running for, s", box=None)
    for worker in workers:
        shown.add_row(
            worker["worker"],
            worker["device"],
            f"{worker['memory_bytes'] / 1e9:.1f}",
            str(worker["batches"]),
            str(worker["frames"]),
            f"{worker['running_s']:.2f}",
        )
    return shown

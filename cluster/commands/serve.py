"""`recon-cluster serve`: the server."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.config import ClusterConfig, ConfigError, configure, read_config

Subparsers = Any  # argparse's own class for them is private


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments; each one given overrides the configuration file."""
    parser = subparsers.add_parser("serve", help="run the server")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with any of the limits by name")
    parser.add_argument("--data", metavar="DIR", help="raw scans, images, ledger (default: ./recon-data)")
    parser.add_argument("--ledger", metavar="postgresql://...", help="ledger in PostgreSQL (default: SQLite in --data)")
    parser.add_argument("--mrd", metavar="HOST:PORT", help="MRD over TCP (default: 127.0.0.1:9002); port 0: a free one")
    parser.add_argument("--http", metavar="HOST:PORT", help="HTTP (default: 127.0.0.1:8080); port 0: a free one")
    parser.add_argument("--workers", metavar="N|auto", help="how many; auto: one per GPU, or per share of the CPUs")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cpu:scipy", "cuda"), help="where to compute (default: auto)"
    )
    parser.add_argument("--ray", metavar="local|auto|ADDRESS|off", help="which Ray; off: plain processes instead")
    parser.add_argument(
        "--allow-insecure", action="store_true", help="serve addresses that other machines reach without TLS and tokens"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; then finish the scans in flight, or at a second signal do not wait for them."""
    from cluster.server import Server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    signals = Signals()
    server = Server(configuration(args))
    signals.watch()
    try:
        server.start(stopped=lambda: signals.count > 0)
        signals.watch()  # once more: Ray has put its own in place
        if not signals.count:
            print(json.dumps(server.about()), flush=True)
            signals.wait()
        logging.info("stopping: scans in flight may finish; a second signal does not wait for them")
        if not server.drain(hurried=lambda: signals.count > 1):
            logging.warning("not all scans are done: the next server with the same data takes them up")
    finally:
        server.close(timeout_s=0.5 if signals.count > 1 else 5.0)
    return 0


def configuration(args: argparse.Namespace) -> ClusterConfig:
    """The file's values with the command line's on top; raises ConfigError."""
    base = read_config(args.config) if args.config else ClusterConfig()
    given = {name: getattr(args, name) for name in ("data", "ledger", "mrd", "http", "device", "ray")}
    values: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if args.workers is not None:
        values["workers"] = _workers(args.workers)
    if args.allow_insecure:
        values["exposure"] = "open"
    return configure(base, values)


def _workers(text: str) -> int:
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ConfigError(f"--workers is {text!r}, expected auto or a number from 1 on: correct it")
    return int(text)


class Signals:
    """Counts the requests to stop."""

    def __init__(self) -> None:
        self.count = 0
        self._came = threading.Event()

    def watch(self) -> None:
        """Take SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def wait(self) -> None:
        """Return at the first."""
        self._came.wait()

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._came.set()

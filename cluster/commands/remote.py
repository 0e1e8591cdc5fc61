"""What subcommands that talk to a server share."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.calls import Patience
from cluster.client import DEFAULT_SERVER, Client, Options
from recon.errors import FileError

_ENDLESS = 1 << 16  # columns
Subparsers = Any  # argparse's own class for them is private
Parser = argparse.ArgumentParser


def add_server(parser: Parser) -> None:
    """Declare how to find the server."""
    parser.add_argument("--server", default=DEFAULT_SERVER, metavar="URL", help="HTTP address (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token to present")
    add_wait(parser)


def add_wait(parser: Parser) -> None:
    """Declare how long a server that is not there yet is waited for."""
    words = "seconds to wait for a server that is not there yet (default: %(default)g)"
    parser.add_argument("--wait", type=_seconds, default=Patience().arrival_s, metavar="S", help=words)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"the time is {text!r}, expected seconds from 0 on: correct it")
    return seconds


def connect(args: argparse.Namespace) -> Client:
    """The client for `args`; raises FileError when the token cannot be read, RequestError for a wrong address."""
    patience = Patience(arrival_s=args.wait)
    return Client(args.server, options=Options(token=_token(args.token_file), notice=say, patience=patience))


def hasty(args: argparse.Namespace) -> Client:
    """One that tries once and says nothing: for what is only good to know."""
    return Client(args.server, options=Options(token=_token(args.token_file), patience=Patience(1, arrival_s=0.0)))


def again(command: str, server: str) -> str:
    """`command` as it is to be typed for the same server."""
    return f"`recon-cluster {command}{'' if server == DEFAULT_SERVER else f' --server {server}'}`"


def say(words: str) -> None:
    """Tell whoever runs the command, beside its output."""
    print(words, file=sys.stderr, flush=True)


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"the token file {path} cannot be read ({error}): give a readable text file") from error


def console() -> Console:
    """Where tables go: as wide as the terminal, or as wide as any line of theirs where they go elsewhere."""
    return Console() if sys.stdout.isatty() else Console(width=_ENDLESS)


def clock(time_s: float) -> str:
    """A moment for people, in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

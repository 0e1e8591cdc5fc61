"""`recon-cluster scan PROTOCOL`: simulated scanners stream to a server, or write what they measure to files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster import scanner
from cluster.calls import Patience
from cluster.client import Options
from cluster.commands.recipes import METHOD_HELP, method_of
from cluster.commands.remote import Subparsers, add_wait, connect, say, size
from cluster.gateway.limits import parse_address
from cluster.scanner import Link, SimulatedScanner, Status
from recon.errors import ReconError
from recon.simulate import PROTOCOLS, REALISTIC, Snr, save, simulate

if find_spec("scipy") is None:  # simulation imports it where it is used; without it, say so before anything begins
    raise ImportError("No module named 'scipy'", name="scipy")

DEFAULT_MRD = "127.0.0.1:9002"
MOST_SCANNERS = 64


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand and its arguments."""
    parser = subparsers.add_parser("scan", help="simulated scanners stream to a server")
    parser.add_argument("protocol", nargs="?", choices=[*PROTOCOLS, *REALISTIC], metavar="PROTOCOL", help="see --list")
    parser.add_argument("--list", action="store_true", help="name the protocols and leave")
    parser.add_argument("--scanners", type=_count, default=1, metavar="N", help="how many at once (default: 1)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--server", metavar="URL", help="send over HTTP to this address")
    place.add_argument(
        "--mrd", default=DEFAULT_MRD, metavar="HOST:PORT", help="send over MRD/TCP (default: %(default)s)"
    )
    place.add_argument("--save", type=Path, metavar="FILE.h5", help="write ISMRMRD files instead, one per scanner")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token to present over HTTP")
    add_wait(parser)
    pace = "times the sequence's pace; 0: as fast as the wire takes it (default: 1)"
    parser.add_argument("--speed", type=speed, default=1.0, metavar="X", help=pace)
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of the first scanner (default: 0)")
    parser.add_argument("--coils", type=int, metavar="N", help="receiver channels, 1 to 64 (default: the protocol's)")
    parser.add_argument("--snr", type=float, metavar="X", help="of the first image (default: the protocol's noise)")
    parser.add_argument("--method", default="auto", metavar="NAME", help=METHOD_HELP)
    parser.set_defaults(usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """List, save or stream; raises the first error of any scanner, after printing those of the others."""
    if args.list:
        Console().print(protocols())
        return 0
    if args.protocol is None:
        args.usage("name a PROTOCOL, or ask for --list")
    if args.save is not None:
        return _save(args)
    return _stream(args)


def protocols() -> Table:
    """The protocols as a table."""
    shown = Table("protocol", "measures", "TR", "matrix", "coils", box=None)
    for protocol in (*PROTOCOLS.values(), *REALISTIC.values()):
        usual = protocol.usual
        shown.add_row(
            protocol.name, protocol.description, f"{protocol.timing.tr_ms:g} ms", str(usual.matrix), str(usual.coils)
        )
    return shown


def table(statuses: Sequence[Status]) -> Table:
    """Scanners as a live table."""
    shown = Table("scanner", "stage", "readouts", "readouts/s", "MB/s", "images", "last readout → image", box=None)
    for status in statuses:
        shown.add_row(
            status.name,
            status.stage.value,
            f"{status.readouts}/{status.readouts_of}",
            f"{status.readouts_per_s:.0f}",
            f"{status.bytes_per_s / 1e6:.1f}",
            f"{status.images}/{status.images_of}",
            "" if status.latency_s is None else f"{status.latency_s:.3f} s",
        )
    return shown


def _save(args: argparse.Namespace) -> int:
    for number in range(args.scanners):
        path = args.save
        if args.scanners > 1:
            path = path.with_name(f"{path.stem}-{number + 1}{path.suffix}")
        simulated = simulate(args.protocol, seed=args.seed + number, coils=args.coils, noise=_noise(args))
        save(path, simulated)
        readouts = sum(len(run.head) for run in simulated.scan.readouts)
        print(f"{path}: {readouts} readouts of {args.protocol}, {size(path.stat().st_size)}", flush=True)
    return 0


def _stream(args: argparse.Namespace) -> int:
    console = Console()
    if args.server is None:
        host, port = parse_address(args.mrd)
        options = Options(notice=say, patience=Patience(arrival_s=args.wait))
        return _report(play(_scanners(args), lambda one: one.over_tcp(host, port, options=options), console=console))
    with connect(args) as client:
        return _report(play(_scanners(args), lambda one: one.over_http(client), console=console))


def _scanners(args: argparse.Namespace) -> list[SimulatedScanner]:
    return [
        SimulatedScanner(
            simulate(args.protocol, seed=number, coils=args.coils, noise=_noise(args)),
            name=f"{args.protocol} {number}",
            speed=args.speed,
            method=method_of(args.method),
        )
        for number in range(args.seed, args.seed + args.scanners)
    ]


def _noise(args: argparse.Namespace) -> float | Snr:
    return 1.0 if args.snr is None else Snr(args.snr)


def play(scanners: Sequence[SimulatedScanner], link: Link, *, console: Console) -> list[ReconError]:
    """Let the scanners play at once, under a live table on a terminal, a last one anywhere; returns what went wrong."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        show = (lambda statuses: live.update(table(statuses), refresh=True)) if console.is_terminal else _unseen
        errors = scanner.play(scanners, link, watch=show)
    console.print(table([one.status() for one in scanners]))
    return errors


def _report(errors: list[ReconError]) -> int:
    for error in errors[1:]:
        print(error, file=sys.stderr)
    if errors:
        raise errors[0]
    return 0


def _unseen(_statuses: list[Status]) -> None:
    """Nobody looks."""


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_SCANNERS:
        raise argparse.ArgumentTypeError(f"{number} scanners, expected 1 to {MOST_SCANNERS}")
    return number


def speed(text: str) -> float:
    """A factor of pace from the command line."""
    factor = float(text)
    if not 0 <= factor < float("inf"):
        raise argparse.ArgumentTypeError(f"the speed is {text}, expected 0 or a positive number")
    return factor


def seed(text: str) -> int:
    """A seed from the command line."""
    number = int(text)
    if not 0 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"the seed is {text}, expected 0 to {2**31 - 1}")
    return number

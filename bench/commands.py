"""The `bench` subcommand, found by the command line through its entry-point group."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import report

RIVALS = ("sigpy", "torchkbnufft", "mri-nufft", "mrpro")
ENVIRONMENTS = f"the Python of an environment that has PACKAGE: {', '.join(RIVALS)} (default: this one)"
PROFILES = ("steady", "overhead", "overload", "workers", "plan")
MEMORY = "folder on memory-backed storage, best mounted with huge=within_size (default: %(default)s)"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Declare `bench ingest|load|schedule|kernels|methods|batches|report`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench", help="measure this machine, beside peers in the same run"
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    ingest = kinds.add_parser("ingest", help="MRD decoding, and bytes from a socket to the spool")
    load = kinds.add_parser("load", help="many scanners on one cluster")
    load.add_argument("--profile", choices=PROFILES, default="steady", help="default: %(default)s")
    load.add_argument(
        "--scanners",
        type=int,
        nargs="+",
        default=[1, 4],
        metavar="N",
        help="how many at once (profile steady, protocols)",
    )
    load.add_argument("--protocol", nargs="+", default=[], metavar="NAME", help="simulated scans instead, in turn")
    load.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of sending in one run")
    load.add_argument("--ray", default="local", metavar="local|off", help="workers as Ray actors or plain processes")
    numeric = kinds.add_parser("kernels", help="NUFFT, CG-SENSE, ESPIRiT and GRAPPA on the CPU beside other packages")
    numeric.add_argument("--quick", action="store_true", help="one trajectory and three rounds: about a minute")
    other: dict[str, Any] = {"action": "append", "default": [], "type": _environment, "metavar": "PACKAGE=PYTHON"}
    numeric.add_argument("--env", help=ENVIRONMENTS, **other)
    numeric.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side (default: all cores)")
    accuracy = kinds.add_parser("methods", help="every method's error on simulated scans with exact truth")
    accuracy.add_argument("--speed", action="store_true", help="instead: k-space to image beside BART, SigPy and MRpro")
    accuracy.add_argument("--rounds", type=int, default=3, help="of --speed: runs of each side; the median counts")
    accuracy.add_argument("--env", help=ENVIRONMENTS, **other)
    accuracy.add_argument("--json", type=Path, default=None, metavar="FILE", help="where the result goes")
    for kind in (ingest, load, numeric):
        kind.add_argument("--rounds", type=int, default=10, help="alternated runs of each side; the median counts")
        kind.add_argument("--json", type=Path, default=None, metavar="FILE", help="where the result goes")
    for kind in (ingest, load):
        kind.add_argument("--disk", type=Path, default=Path(), help="folder on the disk to measure (default: here)")
        kind.add_argument("--memory", type=Path, default=Path("/dev/shm"), help=MEMORY)
    schedule = kinds.add_parser("schedule", help="the scheduler under simulated load, and how long it takes to decide")
    schedule.add_argument("--json", type=Path, default=None, metavar="FILE", help="where the result goes")
    batches = kinds.add_parser("batches", help="frames a second against the size of a batch, on the CPU")
    batches.add_argument("--rounds", type=int, default=10, help="alternated runs of each size; the median counts")
    batches.add_argument("--json", type=Path, default=None, metavar="FILE", help="where the result goes")
    stored = kinds.add_parser("report", help="stored results as Markdown tables")
    stored.add_argument("files", type=Path, nargs="+", metavar="FILE")
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure, print the table and write the JSON; or print what was stored."""
    if args.kind == "report":
        print("\n".join(report.markdown(path) for path in args.files), end="")
        return 0
    about = report.environment()
    profile = "protocols" if args.kind == "load" and args.protocol else getattr(args, "profile", "")
    name = f"{args.kind}-{profile}-ray-{args.ray}" if args.kind == "load" else args.kind
    name += "-speed" if getattr(args, "speed", False) else ""
    path = args.json or _default_path(name, about)
    rows = _measure(args, path.with_suffix(".png"))
    report.show(rows, title=f"bench {name}")
    report.write(rows, path, about=about)
    return 0


def _measure(args: argparse.Namespace, picture: Path) -> list[report.Row]:
    others = {
        "kernels": _measure_kernels,
        "methods": _measure_methods,
        "batches": _measure_batches,
        "schedule": _measure_schedule,
    }
    if args.kind in others:
        return others[args.kind](args)
    from bench import ingest, load

    storage = ingest.Storage(args.disk.resolve(), args.memory)
    if args.kind == "ingest":
        return ingest.measure(storage, rounds=args.rounds)
    plan = load.Plan(storage, ray=args.ray, seconds=args.seconds, rounds=args.rounds)
    if args.protocol:
        from bench import protocols

        return [entry for count in args.scanners for entry in protocols.measure(plan, args.protocol, scanners=count)]
    if args.profile == "steady":
        return load.steady(plan, scanners=args.scanners)
    return _measure_profile(args.profile, plan, picture)


def _measure_profile(name: str, plan: Any, picture: Path) -> list[report.Row]:
    from bench import foresight, load, overload, scaling

    if name == "plan":
        return foresight.measure(plan, picture)
    profiles = {"overhead": load.overhead, "overload": overload.measure, "workers": scaling.measure}
    return profiles[name](plan)


def _measure_schedule(_args: argparse.Namespace) -> list[report.Row]:
    from bench import schedule

    return schedule.measure(schedule.Scale())


def _measure_kernels(args: argparse.Namespace) -> list[report.Row]:
    from rich.console import Console
    from rich.progress import Progress

    from bench import kernels  # needs the CPU libraries, which a client's host lacks

    rounds = min(args.rounds, 3) if args.quick else args.rounds
    plan = kernels.Plan(rounds, args.threads, quick=args.quick, pythons=dict(args.env))
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=sum(1 for _ in kernels.steps(plan, {})))

        def begin(name: str) -> None:
            progress.update(task, description=name, advance=1 if progress.tasks[0].description else 0)

        rows, missing = kernels.measure(plan, begin=begin)
    for what in missing:
        print(f"not measured, {what}")
    return rows


def _environment(pair: str) -> tuple[str, str]:
    package, _, python = pair.partition("=")
    if package not in RIVALS or shutil.which(python) is None:
        raise argparse.ArgumentTypeError(f"{pair!r}, expected one of {', '.join(RIVALS)}, '=' and a Python: correct it")
    return package, python


def _measure_methods(args: argparse.Namespace) -> list[report.Row]:
    if args.speed:
        return _measure_speed(args)
    import kernels
    from bench import methods, planar, realtime

    cpu = kernels.on("cpu")
    return [*methods.measure(cpu), *planar.measure(cpu), realtime.measure(cpu)]


def _measure_batches(args: argparse.Namespace) -> list[report.Row]:
    import kernels
    from bench import batches

    return batches.measure(kernels.on("cpu"), rounds=args.rounds)


def _measure_speed(args: argparse.Namespace) -> list[report.Row]:
    from bench import speed

    return speed.measure(dict(args.env), rounds=args.rounds)


def _default_path(name: str, about: dict[str, object]) -> Path:
    day = datetime.now(UTC).date().isoformat()
    return Path("bench/results") / f"{day}-{about['device']}-{about['commit']}-{name}.json"

"""The `recon-cluster` command: finds its subcommands by entry points and turns errors into exit statuses.

0 done; 2 wrong usage or unreadable input; 3 refused; 4 the reconstruction failed; 5 the server could not be reached or
was lost (`cluster.exits`). Errors go to standard error, one sentence each.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cluster.exits import INTERRUPTED, status_of
from cluster.needs import sentence
from recon import __version__
from recon.errors import ReconError

GROUP = "recon_cluster.commands"
Subparsers = Any  # argparse's own class for them is private


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    # NumPy's BLAS reads it when it is loaded. ESPIRiT's small matrices take three times as long with two of its threads
    # on busy cores as with one (measured); coils are dealt out to threads of our own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        args = make_parser(entry_points(group=GROUP), words).parse_args(words)
        status: int = _run(args, words[0])
    except ReconError as error:
        print(error, file=sys.stderr)
        return status_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _run(args: argparse.Namespace, command: str) -> int:
    """The subcommand's status; raises ReconError where a package that it imports on the way is not installed."""
    try:
        status: int = args.run(args)
    except ImportError as error:
        if words := sentence(command, error):
            raise ReconError(words) from error
        raise
    return status


def make_parser(commands: Iterable[EntryPoint], words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; of `commands` it loads the one that `words` begin with, or all where they name none.

    Raises ReconError when the one named needs a package that is not installed.
    """
    parser = _Parser(prog="recon-cluster", description="MR reconstruction on many devices.")
    parser.add_argument("--version", action="version", version=f"recon-cluster {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    known = sorted(commands, key=lambda command: command.name)
    named = [command for command in known if words[:1] == [command.name]]
    for command in named or known:
        _add(command, subparsers, named=bool(named))
    return parser


class _Parser(argparse.ArgumentParser):
    """One whose subcommands, and theirs, refuse what they do not know themselves: with their usage, not with ours."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def _add(command: EntryPoint, subparsers: Subparsers, *, named: bool) -> None:
    try:
        module = command.load()
    except ImportError as error:
        # A smaller installation lacks what some subcommands need; the others work all the same.
        words = sentence(command.name, error)
        if not words:
            raise
        if named:
            raise ReconError(words) from error
        subparsers.add_parser(command.name, help=f"needs the package {error.name}, which is not installed")
        return
    module.add_parser(subparsers)
    subparsers.choices[command.name].set_defaults(run=module.run)


if __name__ == "__main__":
    sys.exit(main())

"""Other packages in environments of their own, each behind one process: `--env NAME=python` says where one lives.

A process imports this project's files beside its own packages and is asked one thing at a time, in pickles over its
pipes; it times what it computes, so that no transfer is counted. `python -m bench.rivals` is that process.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from bench import cg_sense, nufft_sides
from bench.cg_sense import Frame, Solve
from bench.nufft_sides import Clock, MissingError, Problem, Side
from kernels.contract import Complex

ROOT = Path(__file__).parents[1]
SEVERAL = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")  # what says how many threads the packages' libraries take


@dataclass(frozen=True)
class Rival:
    """A process that knows one package, in the Python of an environment that has it, or in this one."""

    name: str
    process: subprocess.Popen[bytes]

    def ask(self, *request: Any) -> Any:
        """What the process answers; raises MissingError where its package is not there, RuntimeError where it fails."""
        pipes = self.process.stdin, self.process.stdout
        assert pipes[0] is not None and pipes[1] is not None
        try:
            pickle.dump(request, pipes[0])
            pipes[0].flush()
            answer = pickle.load(pipes[1])
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"the process of {self.name} ended when asked for {request[0]}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def open_rivals(pythons: Mapping[str, str], names: Iterable[str], threads: int) -> Iterator[dict[str, Rival]]:
    """A process for each of `names`, in the Python that `pythons` gives for it or in this one; ended afterwards."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(_opened(name, pythons.get(name, sys.executable), threads)) for name in names}


@contextmanager
def _opened(name: str, python: str, threads: int) -> Iterator[Rival]:
    environment = os.environ | dict.fromkeys(SEVERAL, str(threads)) | {"PYTHONPATH": str(ROOT)}
    command = [python, "-W", "ignore", "-m", "bench.rivals"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
    try:
        yield Rival(name, process)
    finally:
        process.kill()
        with suppress(BrokenPipeError):  # a request that it did not live to read
            process.communicate()


def matched(rival: Rival, problem: Problem, *, x: Complex, truth: Complex, error: float) -> Side:
    """The rival's NUFFT at its cheapest setting with one coil's error of at most `error`, else at its most accurate."""
    found: list[tuple[float, float]] = []
    for setting in nufft_sides.SETTINGS[rival.name]:
        rival.ask("nufft", problem, rival.name, setting)
        found.append((nufft_sides.distance(rival.ask("run", "forward", x[:1]), truth[:1]), setting))
        if found[-1][0] <= error:
            break
    else:
        found.append(min(found))
        rival.ask("nufft", problem, rival.name, found[-1][1])
    return replace(remote(rival), error=found[-1][0])


def remote(rival: Rival) -> Side:
    """The side that the process holds now."""
    name, plans = rival.ask("name")

    def run(what: str, values: Complex) -> Any:
        return rival.ask("run", what, values)

    def clock(what: str, values: Complex) -> Clock:
        rival.ask("hold", values)
        return partial(rival.ask, "time", what)

    forward, adjoint, normal = (partial(run, what) for what in ("forward", "adjoint", "normal"))
    return Side(name, forward, adjoint, normal, partial(rival.ask, "time", "make") if plans else None, clock)


def remote_solver(rival: Rival, frame: Frame) -> tuple[Solve, Clock]:
    """The rival's CG-SENSE of `frame`: its image, and the time that it takes."""
    rival.ask("cg-sense", frame, rival.name)
    return partial(rival.ask, "solve"), partial(rival.ask, "time", "solve")


class Desk:
    """What a process answers: it holds one side or solver, and one array to time it with."""

    def __init__(self) -> None:
        self._side: Side | None = None
        self._works: dict[str, Callable[[], object]] = {}

    def answer(self, what: str, *details: Any) -> Any:
        """The answer to one request, by its name."""
        return getattr(self, "on_" + what.replace("-", "_"))(*details)

    def on_nufft(self, problem: Problem, name: str, setting: float) -> None:
        """Make a side."""
        self._side = nufft_sides.MAKERS[name](problem, setting)
        self._works = {"make": self._side.make} if self._side.make else {}

    def on_name(self) -> tuple[str, bool]:
        """The side's name, which tells its setting, and whether it has a plan."""
        return self._held.name, self._held.make is not None

    def on_run(self, what: str, values: Complex) -> Complex:
        """One transform."""
        result: Complex = getattr(self._held, what)(values)
        return result

    def on_hold(self, values: Complex) -> None:
        """Keep the values that are transformed for timing."""
        for what in ("forward", "adjoint", "normal"):
            self._works[what] = partial(getattr(self._held, what), values)

    def on_cg_sense(self, frame: Frame, name: str) -> None:
        """Make a solver."""
        self._works = {"solve": cg_sense.SOLVERS[name](frame)}

    def on_solve(self) -> object:
        """The solver's image."""
        return self._works["solve"]()

    def on_time(self, what: str) -> float:
        """Seconds of one piece of work."""
        return nufft_sides.seconds(self._works[what])

    @property
    def _held(self) -> Side:
        assert self._side is not None
        return self._side


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the requests end; a failure is an answer too."""
    desk = Desk()
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = desk.answer(*request)
        except MissingError as error:
            answer = error
        except Exception as error:  # whatever another package raises: told in a class that both sides know
            answer = RuntimeError(f"{request[0]} failed: {error}")
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as own:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what packages print must not get between the answers
        serve(sys.stdin.buffer, own)

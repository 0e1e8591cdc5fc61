"""`python -m recon.networks.train layer1|layer2`: trains a network and writes its weights, card, log and plot."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TextColumn

from recon.device import open_device
from recon.errors import ReconError
from recon.networks import sources, training
from recon.networks.training import LOG, Pictures, Plan, State, read_log
from recon.networks.weights import NETWORKS, build, save

LIMITS = (
    "trained on one digital head, photographs and ellipses with simulated coils, phase and noise: no patient's data",
    "Cartesian k-space of two dimensions, undersampled along one axis, noise of 1 in each part of a sample",
    "research software and no medical device",
)


def parser() -> argparse.ArgumentParser:
    """The command line; every size of a network is an option of its own."""
    made = argparse.ArgumentParser(prog="python -m recon.networks.train", description=__doc__)
    layers = made.add_subparsers(dest="network", required=True)
    for name, (_, design) in NETWORKS.items():
        layer = layers.add_parser(name)
        for size in fields(design):
            layer.add_argument(f"--{size.name}", type=int, default=size.default)
        defaults = Plan(name, {}, steps=1)
        layer.add_argument("--steps", type=int, required=True, help="steps of the optimiser, at most")
        layer.add_argument("--batch", type=int, default=defaults.batch, help="examples in a step")
        layer.add_argument("--sizes", type=int, nargs="+", default=defaults.sizes, help="pixels along an axis")
        layer.add_argument("--rate", type=float, default=defaults.rate, help="largest rate of learning")
        layer.add_argument("--seed", type=int, default=defaults.seed)
        layer.add_argument("--validate-every", type=int, default=defaults.validate_every, help="steps")
        layer.add_argument("--validated", type=int, default=defaults.validated, help="examples")
        layer.add_argument("--patience", type=int, default=defaults.patience, help="validations without a gain")
        layer.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
        layer.add_argument("--threads", type=int, default=1)
        layer.add_argument("--out", type=Path, required=True, help="folder; a training found there is gone on with")
    return made


def plan_of(given: argparse.Namespace) -> Plan:
    """The plan that the options describe."""
    options = {field.name: getattr(given, field.name) for field in fields(Plan) if field.name != "design"}
    design = {size.name: getattr(given, size.name) for size in fields(NETWORKS[given.network][1])}
    return Plan(**{**options, "design": design, "sizes": tuple(given.sizes)})


def run(arguments: Sequence[str]) -> int:
    """Train; 2 with the reason on stderr where something is missing."""
    given = parser().parse_args(arguments)
    try:
        kernels = open_device(given.device, threads=given.threads)
        torch.set_num_threads(given.threads)
        pictures = Pictures(sources.library("train"), sources.library("choose"))
        plan = plan_of(given)
        with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[db]}")) as bar:
            state = training.train(plan, pictures, kernels, given.out, progress=_shown(bar, plan))
    except ReconError as error:
        print(error, file=sys.stderr)
        return 2
    finish(plan, state, given.out, command="python -m recon.networks.train " + shlex.join(arguments))
    return 0


def finish(plan: Plan, state: State, folder: Path, *, command: str) -> None:
    """Write the best weights with their card, and the plot of the log."""
    network = build(plan.network, plan.design)
    network.load_state_dict(state.best)
    told = {
        "training": {"command": command, "plan": asdict(plan), "done": state.step, "validation_db": state.best_db},
        "metrics": {},
        "limits": LIMITS,
    }
    save(folder, plan.network, network, told=told)
    plot(read_log(folder / LOG), folder / "log.png")


def plot(log: Sequence[Mapping[str, Any]], path: Path, *, smooth: int = 100) -> None:
    """The log as a picture: the loss, its mean over `smooth` steps, and the best validation so far."""
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(8, 4))).add_subplot(xlabel="step", ylabel="error / truth, dB")
    steps, losses = _columns(log, "loss_db")
    axes.plot(steps, losses, ",", color="0.7")
    ends = range(smooth, len(losses) + 1, smooth)
    axes.plot(
        [steps[end - 1] for end in ends], [sum(losses[end - smooth : end]) / smooth for end in ends], label="loss"
    )
    axes.plot(*_columns(log, "validation_db"), "o-", markersize=3, label="validation, best")
    axes.legend()
    figure.savefig(path, dpi=120)


def _columns(log: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    lines = [line for line in log if name in line]
    return [line["step"] for line in lines], [line[name] for line in lines]


def _shown(bar: Progress, plan: Plan) -> training.Progress:
    task = bar.add_task(plan.network, total=plan.steps, db="")

    def progress(line: Mapping[str, Any]) -> None:
        bar.update(task, completed=line["step"])
        if "validation_db" in line:
            bar.update(task, db=f"best {line['validation_db']:.2f} dB")

    return progress


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

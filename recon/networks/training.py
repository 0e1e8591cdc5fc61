"""Training on examples drawn from a seed and the step's number, so that a run that was stopped goes on alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from math import cos, inf, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.contract import Kernels
from recon.errors import WeightsError
from recon.networks.sources import Library
from recon.networks.tasks import TASKS, Task, errors_db
from recon.networks.weights import build

WARMING = 200  # steps in which the rate rises
LARGEST_GRADIENT = 1.0  # norm: decibels of an image that is nearly right are steep
AVERAGING = 0.999  # of the weights, which are those that are validated and stored
LEAST_GAIN_DB = 0.01  # a smaller one is none
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides the course of a training, besides the library.

    Every batch has one of `sizes` pixels along each axis. After each `validate_every` steps, `validated` examples, the
    same ones each time and of the first size, are reconstructed; `patience` of these without a gain end the training.
    """

    network: str
    design: Mapping[str, int]
    steps: int
    batch: int = 2
    sizes: tuple[int, ...] = (128, 96, 160)
    rate: float = 1e-3
    seed: int = 0
    validate_every: int = 250
    validated: int = 24
    patience: int = 20


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A training between two steps: `step` have been done."""

    step: int
    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    best: Mapping[str, Any]
    best_db: float = inf
    stale: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """The libraries to `train` on and to `choose` by."""

    train: Library
    choose: Library


Progress = Callable[[Mapping[str, Any]], None]


def train(plan: Plan, pictures: Pictures, kernels: Kernels, folder: Path, *, progress: Progress) -> State:
    """Train to the plan's end or until nothing is gained, going on from the checkpoint in `folder` if there is one.

    `progress` is told each line of the log, {"step", "loss_db"} or {"step", "validation_db"}. Raises WeightsError where
    the checkpoint is that of another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = TASKS[plan.network](kernels)
    state = resume(plan, folder, kernels) or begin(plan, kernels)
    _cut(folder / LOG, state.step)
    rngs = [np.random.default_rng([plan.seed, 1, i]) for i in range(plan.validated)]
    chosen = [task.example(rng, pictures.choose, plan.sizes[0]) for rng in rngs]
    with (folder / LOG).open("a", encoding="utf-8") as log:
        for number, batch in _batches(plan, task, pictures.train, state.step):
            loss = _step(plan, state, task, kernels, batch=batch)
            state = replace(state, step=number + 1)
            _tell({"step": state.step, "loss_db": loss}, log, progress)
            if state.step % plan.validate_every == 0 or state.step == plan.steps:
                state = validated(plan, state, task, kernels, chosen=chosen)
                _tell({"step": state.step, "validation_db": state.best_db, "stale": state.stale}, log, progress)
                log.flush()
                store(plan, state, folder)
            if state.stale >= plan.patience:
                break
    return state


def begin(plan: Plan, kernels: Kernels) -> State:
    """Weights drawn from the plan's seed, on the device of `kernels`."""
    torch.manual_seed(plan.seed)
    network = build(plan.network, plan.design).to(device_of(kernels))
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=1e-4)
    average = deepcopy(network).requires_grad_(False)
    return State(0, network, average, optimiser, deepcopy(average.state_dict()))


def device_of(kernels: Kernels) -> torch.device:
    """Torch's name of the device."""
    return torch.device("cpu" if kernels.device.startswith("cpu") else kernels.device)


def rate_at(plan: Plan, step: int) -> float:
    """Linear up to the plan's rate, then a half cosine down to a hundredth of it at the end."""
    rising = min(1.0, (step + 1) / min(WARMING, plan.steps))
    return plan.rate * rising * (0.01 + 0.99 * (1 + cos(pi * step / plan.steps)) / 2)


def validated(plan: Plan, state: State, task: Task, kernels: Kernels, *, chosen: Sequence[Any]) -> State:
    """The state with its average as the best, if it is that by the `chosen` examples."""
    state.average.eval()
    with torch.no_grad():
        each = [errors_db(task.images(state.average, [one]), [one], kernels).item() for one in chosen]
    found = float(np.mean(each))
    if found > state.best_db - LEAST_GAIN_DB:
        return replace(state, stale=state.stale + 1)
    return replace(state, best=deepcopy(state.average.state_dict()), best_db=found, stale=0)


def store(plan: Plan, state: State, folder: Path) -> None:
    """Write the checkpoint; one that was cut short never takes the place of a whole one."""
    content = {
        "plan": _text(plan),
        "step": state.step,
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "best": state.best,
        "best_db": state.best_db,
        "stale": state.stale,
    }
    torch.save(content, folder / f"{CHECKPOINT}.new")
    (folder / f"{CHECKPOINT}.new").replace(folder / CHECKPOINT)


def resume(plan: Plan, folder: Path, kernels: Kernels) -> State | None:
    """The state in the checkpoint, None where there is none; raises WeightsError where its plan is another."""
    if not (folder / CHECKPOINT).exists():
        return None
    found = torch.load(folder / CHECKPOINT, map_location=device_of(kernels), weights_only=True)
    if found["plan"] != _text(plan):
        raise WeightsError(
            f"the checkpoint in {folder.name} is of the plan {found['plan']}, wanted {_text(plan)}: give the same"
            " options, or another folder to begin anew"
        )
    state = begin(plan, kernels)
    state.network.load_state_dict(found["network"])
    state.average.load_state_dict(found["average"])
    state.optimiser.load_state_dict(found["optimiser"])
    return replace(state, **{key: found[key] for key in ("step", "best", "best_db", "stale")})


def _batches(plan: Plan, task: Task, library: Library, first: int) -> Iterator[tuple[int, list[Any]]]:
    """The batches from step `first` on; the next one is drawn while one is learned from."""

    def drawn(step: int) -> list[Any]:
        size = int(np.random.default_rng([plan.seed, 0, step]).choice(plan.sizes))
        return [task.example(np.random.default_rng([plan.seed, 0, step, i]), library, size) for i in range(plan.batch)]

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(drawn, first) if first < plan.steps else None
        for step in range(first, plan.steps):
            assert following is not None
            batch = following.result()
            following = pool.submit(drawn, step + 1)
            yield step, batch


def _step(plan: Plan, state: State, task: Task, kernels: Kernels, *, batch: list[Any]) -> float:
    """One step of the optimiser, in place; the loss before it."""
    for group in state.optimiser.param_groups:
        group["lr"] = rate_at(plan, state.step)
    state.network.train()
    loss = errors_db(task.images(state.network, batch), batch, kernels).mean()
    state.optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), LARGEST_GRADIENT)
    state.optimiser.step()
    keep = min(AVERAGING, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for mean, new in zip(state.average.parameters(), state.network.parameters(), strict=True):
            mean.lerp_(new, 1 - keep)
    return float(loss.detach())


def _tell(line: Mapping[str, Any], log: Any, progress: Progress) -> None:
    log.write(json.dumps(line) + "\n")
    progress(line)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _cut(path: Path, step: int) -> None:
    """Leave of a log what was told up to the checkpoint; a killed run's last line may be half a line."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= step]
    path.write_text("".join(whole), encoding="utf-8")


def _text(plan: Plan) -> str:
    return json.dumps(asdict(plan), sort_keys=True)

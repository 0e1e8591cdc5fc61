"""Training: it learns, a stopped run goes on as if it had not been stopped, and its end is weights that load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kernels
from recon.errors import WeightsError
from tests.recon.networks.drawn import small_library

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[learned]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[learned]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install -e '.[learned]'")

from recon.networks import train as command  # noqa: E402
from recon.networks import training, weights  # noqa: E402
from recon.networks.training import Pictures, Plan, read_log  # noqa: E402

CPU = kernels.on("cpu")
PICTURES = Pictures(small_library(), small_library())
LAYER1 = Plan(
    "layer1",
    {"cascades": 1, "width": 4, "levels": 1, "iterations": 2},
    steps=6, batch=1, sizes=(24, 32), validate_every=2, validated=1,
)  # fmt: skip
LAYER2 = Plan("layer2", {"width": 8, "levels": 1}, steps=60, batch=4, sizes=(24,), rate=1e-2, validate_every=30)


def ignore(_: Mapping[str, Any]) -> None:
    """No progress is shown."""


def run(plan: Plan, folder: Path, progress: Any = ignore) -> training.State:
    return training.train(plan, PICTURES, CPU, folder, progress=progress)


def killed_at(step: int) -> Any:
    def progress(line: Mapping[str, Any]) -> None:
        if line["step"] == step:
            raise KeyboardInterrupt

    return progress


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    straight = run(LAYER1, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(LAYER1, tmp_path / "killed", killed_at(5))
    with (tmp_path / "killed" / training.LOG).open("a") as log:
        log.write('{"step": 5, "lo')  # as a machine that dies leaves it
    resumed = run(LAYER1, tmp_path / "killed")
    assert read_log(tmp_path / "killed" / training.LOG) == read_log(tmp_path / "straight" / training.LOG)
    assert [line["step"] for line in read_log(tmp_path / "killed" / training.LOG) if "loss_db" in line] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert all(torch.equal(resumed.best[key], value) for key, value in straight.best.items())


def test_another_seed_takes_another_course(tmp_path: Path) -> None:
    short = replace(LAYER1, steps=1)
    run(short, tmp_path / "a")
    run(replace(short, seed=1), tmp_path / "b")
    assert read_log(tmp_path / "a" / training.LOG) != read_log(tmp_path / "b" / training.LOG)


def test_the_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    run(replace(LAYER1, steps=1), tmp_path)
    with pytest.raises(
        WeightsError, match=r"checkpoint in .* is of the plan \{.*\}, wanted \{.*\}: give the same options"
    ):
        run(LAYER1, tmp_path)


def test_layer_2_learns_and_its_end_is_weights_that_load(tmp_path: Path) -> None:
    lines: list[Mapping[str, Any]] = []
    state = run(LAYER2, tmp_path, lines.append)
    task = training.TASKS["layer2"](CPU)
    untrained = training.validated(LAYER2, training.begin(LAYER2, CPU), task, CPU, chosen=chosen(LAYER2, task))
    assert state.best_db < untrained.best_db - 0.5  # decibels: an untrained one returns the image that it is given
    command.finish(LAYER2, state, tmp_path, command="a test")
    network, card = weights.load("layer2", network="layer2", folder=tmp_path)
    assert all(torch.equal(value, state.best[key]) for key, value in network.state_dict().items())
    assert card.training["plan"]["seed"] == 0 and card.training["validation_db"] == state.best_db
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")


def chosen(plan: Plan, task: Any) -> list[Any]:
    import numpy as np

    rngs = [np.random.default_rng([plan.seed, 1, i]) for i in range(plan.validated)]
    return [task.example(rng, PICTURES.choose, plan.sizes[0]) for rng in rngs]


def test_training_stops_where_nothing_is_gained(tmp_path: Path) -> None:
    still = replace(LAYER1, rate=0.0, validate_every=1, patience=2)
    assert run(still, tmp_path).step == 3


def test_the_rate_rises_and_falls() -> None:
    plan = replace(LAYER2, steps=2000)
    rates = [training.rate_at(plan, step) for step in range(plan.steps)]
    assert rates[0] < rates[training.WARMING - 1] == max(rates) <= plan.rate
    assert rates[-1] == pytest.approx(plan.rate / 100, rel=0.01)


def test_the_command_names_its_layers_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    given = command.parser().parse_args(["layer1", "--steps", "7", "--sizes", "32", "--width", "4", "--out", "x"])
    plan = command.plan_of(given)
    assert (plan.steps, plan.sizes, plan.design["width"], plan.batch) == (7, (32,), 4, 2)
    assert command.run(["layer2", "--steps", "1", "--device", "tpu", "--out", "x"]) == 2
    assert "device is 'tpu', expected" in capsys.readouterr().err

"""The figures of a card: rivals get settings of their own, and a network that does nothing changes nothing."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[learned]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[learned]'")

from recon.networks import evaluate, examples, metrics, rivals, weights  # noqa: E402
from recon.networks.tasks import Enhancing, Unrolling  # noqa: E402
from tests.recon.networks.drawn import small_library  # noqa: E402

CPU = kernels.on("cpu")
TOLD: dict[str, Any] = {"training": {}, "metrics": {}, "limits": ()}
PACKAGES = ("asldro", "nilearn", "skimage", "nibabel", "data_store")
MISSING = [name for name in PACKAGES if find_spec(name) is None]


def example(acceleration: int, *, signal: float = 300) -> examples.Undersampled:
    rng = np.random.default_rng(1)
    coils, drawn = examples.random_coils(rng, 8), small_library().labels[0].astype(np.float32)
    lines = examples.lines_of(rng, 40, centre=8, more=40 // acceleration, even=True)
    return examples.of_picture(rng, drawn, coils, lines=lines, signal=signal)


def test_rivals_are_ranked_as_they_should_be() -> None:
    found = example(3)
    data = examples.measured(found, CPU)
    nmse = {}
    for name in rivals.RIVALS:
        setting = rivals.tuned(name, CPU, [found])
        nmse[name] = metrics.errors(rivals.RIVALS[name][0](CPU, data, setting), found.truth).nmse
    assert nmse["l1-wavelet"] <= nmse["cg-sense"] < nmse["zero-filled"]


def test_a_setting_is_the_best_of_its_kind() -> None:
    noisy, clear = (rivals.tuned("l1-wavelet", CPU, [example(2, signal=signal)]) for signal in (4, 200))
    assert noisy[0] > 0 and noisy != ()
    run, settings = rivals.RIVALS["l1-wavelet"]
    found = example(2, signal=4)
    each = [metrics.errors(run(CPU, examples.measured(found, CPU), s), found.truth).psnr_db for s in settings]
    assert noisy == settings[int(np.argmax(each))]
    assert clear in settings


def test_a_network_of_zeros_leaves_discs_as_they_were() -> None:
    judged = evaluate.Judged(weights.build("layer2", {"width": 4, "levels": 1}), Enhancing(CPU))
    found = evaluate.layer2_metrics(judged, size=128)
    for strength in ("low", "medium", "high"):
        row = found[strength]
        assert row["snr_gain"] == row["edge_width_ratio"] == row["ringing_ratio"] == pytest.approx(1)
        assert abs(row["bias"]) < 0.01


def test_truth_in_the_place_of_an_image_has_the_best_of_figures() -> None:
    shapes = evaluate.discs()
    exact, truth = examples.truncated_shapes(shapes, 128, 128)
    before = np.stack([examples.centred(examples.fft.ifft2, exact)] * 2)
    noise = examples.white(np.random.default_rng(2), before.shape) * np.float32(0.01)
    figures = evaluate.disc_figures(shapes, before + noise, truth + 0.25 * noise, truth)
    assert figures["snr_gain"] == pytest.approx(4, rel=1e-3)
    assert figures["edge_width_ratio"] < 1.05
    assert figures["ringing_ratio"] < 0.2
    assert abs(figures["bias"]) < 0.01


def test_one_network_s_row_stands_beside_its_rivals() -> None:
    design = {"cascades": 1, "width": 4, "levels": 1, "iterations": 12}
    judged = evaluate.Judged(weights.build("layer1", design), Unrolling(CPU))
    settings = {"zero-filled": (), "cg-sense": (16, 0.01)}
    row = evaluate.compared(judged, CPU, example(2), settings)
    assert list(row) == ["zero-filled", "cg-sense", "layer1"]
    assert row["layer1"].nmse < row["zero-filled"].nmse  # its data layers alone solve for the image
    assert evaluate.averaged([row, row])["layer1"] == pytest.approx(metrics.mean_of([row["layer1"]]))


@pytest.mark.long
@pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not installed, their pictures are needed")
def test_the_command_writes_the_card_of_layer_1(tmp_path: Path) -> None:
    network = weights.build("layer1", {"cascades": 1, "width": 4, "levels": 1, "iterations": 2})
    weights.save(tmp_path, "layer1", network, told=TOLD)
    assert evaluate.run(["layer1", "--weights", str(tmp_path)]) == 0
    card = weights.read_card(tmp_path / "layer1.json")
    assert set(card.metrics["real"]["R = 4"]) == {"zero-filled", "cg-sense", "l1-wavelet", "layer1"}
    assert len(card.metrics["each real"]["R = 8"]) == 5


def test_the_command_writes_the_card_of_layer_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights.save(tmp_path, "mine", weights.build("layer2", {"width": 4, "levels": 1}), told=TOLD)
    assert evaluate.run(["layer2", "--weights", str(tmp_path), "--name", "mine"]) == 0
    card = weights.read_card(tmp_path / "mine.json")
    assert card.metrics == json.loads(capsys.readouterr().out)
    weights.load("mine", network="layer2", folder=tmp_path)
    assert evaluate.run(["layer2", "--weights", str(tmp_path)]) == 2
    assert "there are no weights 'layer2', the stored ones are mine: name one of these" in capsys.readouterr().err
